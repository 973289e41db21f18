"""Rows of the trail and the chain of HMACs over them. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Literal

Kind = Literal["intent", "outcome", "event", "refusal", "token", "checkpoint"]
KINDS: tuple[Kind, ...] = ("intent", "outcome", "event", "refusal", "token", "checkpoint")
GENESIS = bytes(32)
"""What stands for the row before the first."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``at`` is UTC seconds; ``target`` and ``detail`` are JSON; ``intent`` is the row that it belongs to."""

    kind: Kind
    at: float
    action: str
    row: int = 0
    intent: int | None = None
    sub: str = ""
    jti: str = ""
    address: str = ""
    target: str = "[]"
    reason: str = ""
    outcome: str = ""
    detail: str = "{}"
    instance: str = ""
    mac: bytes = b""


_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
COLUMNS = tuple(field.name for field in fields(Row))
_SIGNED = tuple(name for name in COLUMNS if name != "mac")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: kept elsewhere (the log has it by the minute), it proves later that nothing was cut off."""

    row: int
    mac: str

    @classmethod
    def parse(cls, text: str) -> Head:
        """From ``ROW:MAC`` as it is logged; raises `ValueError`."""
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


def sign(row: Row, *, key: bytes, previous: bytes) -> Row:
    """The row with its HMAC over itself and the HMAC of the one before."""
    values = json.dumps([getattr(row, name) for name in _SIGNED], separators=(",", ":"), default=repr)
    return replace(row, mac=hmac.digest(key, previous + values.encode(), hashlib.sha256))


def checkpoint(*, at: float, through: Row) -> Row:
    """The row that stands for all up to ``through``, which may be deleted once this one is written."""
    detail = {"through": through.row, "mac": through.mac.hex()}
    return Row(kind="checkpoint", at=at, action="audit.prune", detail=json.dumps(detail))


def verify(rows: Iterable[Row], *, key: bytes, head: Head | None = None) -> Iterator[Finding]:
    """Everything wrong with the rows, given in order. A chain that was pruned must hold the checkpoint that says so."""
    walk = _Walk(key)
    for row in rows:
        yield from walk.step(row)
        if head is not None and row.row == head.row and row.mac.hex() != head.mac:
            yield Finding(row.row, "is not the row that was the head")
    yield from walk.end(head)


class _Walk:
    """Goes along the chain and remembers what the next row must fit to."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._first: Row | None = None
        self._last = Row(kind="checkpoint", at=0.0, action="", mac=GENESIS)
        self._pruned_through = 0

    def step(self, row: Row) -> Iterator[Finding]:
        begins_later = self._first is None and row.row > 1
        self._first = self._first or row
        if begins_later:
            self._note_checkpoint(row)
        elif row.row != self._last.row + 1:
            yield Finding(row.row, f"row(s) {self._last.row + 1} to {row.row - 1} before it are missing")
        elif not self._fits(row, self._last.mac):
            yield Finding(row.row, "was changed, or does not belong here")
        else:
            self._note_checkpoint(row)
        self._last = row

    def end(self, head: Head | None) -> Iterator[Finding]:
        first = self._first.row if self._first else 1
        if first > 1 and self._pruned_through != first - 1:
            yield Finding(first, f"row(s) 1 to {first - 1} are missing and no checkpoint accounts for them")
        if head is not None and head.row > self._last.row:
            yield Finding(head.row, "the row that was the head is gone: the end was cut off")

    def _note_checkpoint(self, row: Row) -> None:
        """Believe a checkpoint when the first row that is left fits to what it says of the last one that is not."""
        if row.kind != "checkpoint" or self._first is None:
            return
        with suppress(ValueError, KeyError, TypeError):
            detail = json.loads(row.detail)
            if detail["through"] == self._first.row - 1 and self._fits(self._first, bytes.fromhex(detail["mac"])):
                self._pruned_through = self._first.row - 1

    def _fits(self, row: Row, previous: bytes) -> bool:
        return hmac.compare_digest(sign(row, key=self._key, previous=previous).mac, row.mac)
