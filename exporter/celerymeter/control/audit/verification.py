"""Verifying a whole trail on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from celerymeter.control.audit import chain
from celerymeter.control.audit.chain import GENESIS, Finding, Head, Row
from celerymeter.control.audit.key import kept_key
from celerymeter.control.audit.reading import everything
from celerymeter.errors import SettingsError

MAX_FINDINGS = 100
"""More are not listed: with a wrong key every row is one."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found, in how many rows, and the end of the chain as it is now."""

    rows: int
    findings: tuple[Finding, ...]
    head: Head


def verify(state_dir: Path, *, key: bytes | None, head: str | None) -> Verification:
    """Go through the trail of a state directory; raises `SettingsError` where there is none, or for a bad head."""
    seen = _Seen(everything(state_dir))
    found: list[Finding] = []
    for finding in chain.verify(seen, key=key or kept_key(state_dir), head=_parsed(head)):
        if len(found) < MAX_FINDINGS:
            found.append(finding)
    return Verification(rows=seen.count, findings=tuple(found), head=seen.head)


class _Seen:
    """Rows passed on, counted, the last one remembered."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.count = 0
        self.head = Head(0, GENESIS.hex())

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            self.head = Head(row.row, row.mac.hex())
            yield row


def _parsed(head: str | None) -> Head | None:
    try:
        return None if head is None else Head.parse(head)
    except ValueError as error:
        raise SettingsError("--head: not ROW:HMAC as the log has it") from error
