"""The rows of the audit trail, and the chain of HMACs through them."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sqlite3
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainSerializer

from celerymeter.control.routing import utc

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
SELECT = f"SELECT {', '.join(COLUMNS)} FROM audit"  # noqa: S608 - our own column names
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
    """Convert a stored row. A tampered HMAC may have any type; it becomes bytes."""
    row = AuditRow(**{name: found[name] for name in COLUMNS})
    return row if isinstance(row.mac, bytes) else replace(row, mac=b"")
