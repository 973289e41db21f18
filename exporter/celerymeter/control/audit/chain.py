"""Rows of the trail and the chain of HMACs over them. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainSerializer

Kind = Literal["intent", "outcome", "event", "refusal", "token", "checkpoint"]
GENESIS = bytes(32)
"""The HMAC in place of the row before the first."""


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the trail."""

    # The HMAC is over the values as they are stored, so they are kept as text; the annotations say how JSON shows them.
    __pydantic_config__ = ConfigDict(json_schema_serialization_defaults_required=True)

    row: int
    at: Annotated[float, Field(serialization_alias="timestamp"), PlainSerializer(_utc, return_type=datetime)]
    kind: Kind
    action: str
    intent: Annotated[int | None, Field(description="The row of the intent that this one belongs to")] = None
    sub: str = ""
    jti: str = ""
    address: str = ""
    target: Annotated[str, PlainSerializer(json.loads, return_type=list[Any])] = "[]"
    reason: str = ""
    outcome: str = ""
    detail: Annotated[str, PlainSerializer(json.loads, return_type=dict[str, Any])] = "{}"
    instance: Annotated[str, Field(exclude=True)] = ""
    mac: Annotated[bytes, Field(serialization_alias="hmac"), PlainSerializer(bytes.hex, return_type=str)] = b""


COLUMNS = tuple(field.name for field in fields(AuditRow))
_SIGNED = tuple(
    "kind at action row intent sub jti address target reason outcome detail instance".split()  # noqa: SIM905 - words
)
"""The signed columns, in the order of the first version: another order would break every existing chain."""
MAX_FINDINGS = 100
"""Findings that are listed: with a wrong key every row is one."""
_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain. Kept elsewhere (the log has it every minute), it proves later that nothing was cut off."""

    row: int
    mac: str

    @classmethod
    def parse(cls, text: str) -> Head:
        """Parse ``ROW:MAC`` as it is logged; raises `ValueError`."""
        if not (found := _HEAD.fullmatch(text.strip().lower())):
            raise ValueError("not ROW:HMAC")
        return cls(row=int(found[1]), mac=found[2])

    def __str__(self) -> str:
        return f"{self.row}:{self.mac}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with the chain, near ``row``."""

    row: int
    message: str


def sign(row: AuditRow, *, key: bytes, previous: bytes) -> AuditRow:
    """Return the row with its HMAC over itself and the HMAC of the one before."""
    values = json.dumps([getattr(row, name) for name in _SIGNED], separators=(",", ":"), default=repr)
    return replace(row, mac=hmac.digest(key, previous + values.encode(), hashlib.sha256))


def checkpoint(*, at: float, through: AuditRow) -> AuditRow:
    """Return the row that stands for all up to ``through``, which may be deleted once this one is written."""
    detail = {"through": through.row, "mac": through.mac.hex()}
    return AuditRow(row=0, at=at, kind="checkpoint", action="audit.prune", detail=json.dumps(detail))


@dataclass(frozen=True, slots=True)
class Verification:
    """The number of rows, what is wrong with them, and the end of the chain as it is now."""

    rows: int
    findings: tuple[Finding, ...]
    head: Head


def verify(rows: Iterable[AuditRow], *, key: bytes, head: Head | None = None) -> Verification:
    """Verify the rows, given in order, and that an earlier ``head`` is among them.

    A chain that was pruned must hold the checkpoint that says so.
    """
    walk, count, last = _Walk(key), 0, Head(0, GENESIS.hex())
    findings: list[Finding] = []
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last number is wanted
        last = Head(row.row, row.mac.hex())
        findings += walk.step(row)
        if head is not None and head.row == last.row and head.mac != last.mac:
            findings.append(Finding(row.row, "is not the row that was the head"))
        del findings[MAX_FINDINGS:]
    findings += walk.end(head)
    return Verification(count, tuple(findings[:MAX_FINDINGS]), last)


class _Walk:
    """Walks along the chain and remembers what the next row must fit."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._first: AuditRow | None = None
        self._last_row, self._last_mac = 0, GENESIS
        self._pruned_through = 0

    def step(self, row: AuditRow) -> Iterator[Finding]:
        begins_later = self._first is None and row.row > 1
        self._first = self._first or row
        if begins_later:
            self._note_checkpoint(row)
        elif row.row != self._last_row + 1:
            yield Finding(row.row, f"row(s) {self._last_row + 1} to {row.row - 1} before it are missing")
        elif not self._fits(row, self._last_mac):
            yield Finding(row.row, "was changed, or does not belong here")
        else:
            self._note_checkpoint(row)
        self._last_row, self._last_mac = row.row, row.mac

    def end(self, head: Head | None) -> Iterator[Finding]:
        first = self._first.row if self._first else 1
        if first > 1 and self._pruned_through != first - 1:
            yield Finding(first, f"row(s) 1 to {first - 1} are missing and no checkpoint accounts for them")
        if head is not None and head.row > self._last_row:
            yield Finding(head.row, "the row that was the head is gone: the end was cut off")

    def _note_checkpoint(self, row: AuditRow) -> None:
        """Accept a checkpoint when the first row that is left fits the HMAC that it names."""
        if row.kind != "checkpoint" or self._first is None:
            return
        with suppress(ValueError, KeyError, TypeError):
            detail = json.loads(row.detail)
            if detail["through"] == self._first.row - 1 and self._fits(self._first, bytes.fromhex(detail["mac"])):
                self._pruned_through = self._first.row - 1

    def _fits(self, row: AuditRow, previous: bytes) -> bool:
        return hmac.compare_digest(sign(row, key=self._key, previous=previous).mac, row.mac)
