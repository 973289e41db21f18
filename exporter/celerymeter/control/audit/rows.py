"""The rows of the audit trail, and the chain of HMACs through them."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from pydantic import ConfigDict, Field, PlainSerializer

from celerymeter.control.routing import utc
from celerymeter.control.store import LAST_TIME

GENESIS = bytes(32)
"""The HMAC in place of the row before the first."""
Kind = Literal["intent", "outcome", "event", "refusal", "token", "checkpoint"]
_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the trail."""

    # The HMAC is over the values as they are stored, so they are kept as text; the annotations say how JSON shows them.
    __pydantic_config__ = ConfigDict(json_schema_serialization_defaults_required=True)

    row: int
    at: Annotated[float, Field(serialization_alias="timestamp"), PlainSerializer(utc, return_type=datetime)]
    kind: Kind
    action: str
    intent: Annotated[int | None, Field(description="The row of the intent to which this outcome belongs")] = None
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
TEXTS = tuple(name for name in COLUMNS if name not in ("row", "at", "intent", "mac"))
MAX_TEXT, MAX_JSON = 64 * 1024, 8 * 2**20
"""Characters of a stored text that are read; ours are shorter (a thousand ids take 3 MB)."""
MAX_DEPTH = 50
"""Levels of stored JSON; ours has three."""


def bounded(name: str) -> str:
    """Return how a column is read: others who may write the file may have put anything there, of any length."""
    if name in TEXTS:
        return f"substr({name}, 1, {MAX_JSON if name in ('target', 'detail') else MAX_TEXT}) AS {name}"
    if name == "row":  # the primary key is always a number
        return name
    return f"CASE WHEN LENGTH({name}) <= 64 THEN {name} END AS {name}"


SELECT = f"SELECT {', '.join(map(bounded, COLUMNS))} FROM audit"  # noqa: S608 - our own column names
INSERT = f"INSERT INTO audit ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - as above


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


def sign(row: AuditRow, *, key: bytes, previous: bytes) -> AuditRow:
    """Return the row with its HMAC over itself and the HMAC of the one before."""
    values = json.dumps([getattr(row, name) for name in _SIGNED], separators=(",", ":"), default=repr)
    return replace(row, mac=hmac.digest(key, previous + values.encode(), hashlib.sha256))


def checkpoint(*, at: float, through: AuditRow) -> AuditRow:
    """Return the row that stands for all up to ``through``, which may be deleted once this one is written."""
    detail = {"through": through.row, "mac": through.mac.hex()}
    return AuditRow(row=0, at=at, kind="checkpoint", action="audit.prune", detail=json.dumps(detail))


def from_db(found: sqlite3.Row) -> AuditRow:
    """Convert a stored row. Of one that somebody has tampered with, what can be shown is kept; it fits no HMAC."""
    texts = {name: _text(found[name]) for name in TEXTS}
    target, intent = _json(texts["target"]), found["intent"]
    if not isinstance(target, list) or not all(isinstance(one, str) for one in target):
        texts["target"] = json.dumps([texts["target"]])
    if not isinstance(_json(texts["detail"]), dict):
        texts["detail"] = json.dumps({"text": texts["detail"]})
    return AuditRow(
        row=found["row"],
        at=time_from_db(found["at"]),
        intent=intent if isinstance(intent, int | None) else -1,
        mac=mac_from_db(found["mac"]),
        **texts,  # type: ignore[arg-type]  # a kind that we do not know is shown as it is
    )


def time_from_db(value: object) -> float:
    """Return a stored time (UTC seconds); 0 for what is none."""
    return value if isinstance(value, float) and 0 <= value <= LAST_TIME else 0.0


def mac_from_db(value: object) -> bytes:
    """Return a stored HMAC; empty for what is none."""
    return value if isinstance(value, bytes) else b""


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def _json(text: str) -> object:
    """Return the value of a stored JSON text, or ``None`` if it could not be written again."""
    try:
        value = msgspec.json.decode(text)  # takes no NaN and no lone surrogate, which no reply can hold
    except (ValueError, RecursionError):
        return None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [one for each in level for one in _members(each)]
    return None if level else value


def _members(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
