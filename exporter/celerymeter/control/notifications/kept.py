"""Alerts on disk: each change of state once, however often it is posted."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from celerymeter.control.notifications.models import PostedAlert, Status
from celerymeter.control.store import Store

KEPT: Final = 10_000
KEPT_FOR: Final = 30 * 86400.0
SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS alerts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint TEXT NOT NULL, status TEXT NOT NULL,
        starts_at REAL NOT NULL, ends_at REAL NOT NULL, received_at REAL NOT NULL,
        name TEXT NOT NULL, severity TEXT NOT NULL, labels TEXT NOT NULL, annotations TEXT NOT NULL,
        UNIQUE (fingerprint, starts_at, ends_at, status))""",
    "CREATE INDEX IF NOT EXISTS alerts_received ON alerts (received_at)",
)
_COLUMNS: Final = "fingerprint, status, starts_at, ends_at, received_at, name, severity, labels, annotations"
_INSERT: Final = f"INSERT OR IGNORE INTO alerts ({_COLUMNS}) VALUES ({', '.join('?' * 9)})"  # noqa: S608 - our own names
_OPEN: Final = 0.0
"""Stands for "not ended": SQL's NULL is never equal to itself."""
_STATES: Final = """
    SELECT * FROM alerts AS a WHERE NOT EXISTS (
        SELECT 1 FROM alerts AS b WHERE b.fingerprint = a.fingerprint AND b.starts_at = a.starts_at
        AND (b.status, b.id) > (a.status, a.id))"""
"""The last state of each alert; ``resolved`` sorts after ``firing``, so a late ``firing`` does not reopen it."""


@dataclass(frozen=True, slots=True)
class KeptAlert:
    """One state of an alert; times in UTC seconds."""

    id: int
    fingerprint: str
    status: Status
    starts_at: float
    ends_at: float | None
    received_at: float
    name: str
    severity: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which alerts are asked for; ``None`` asks for any."""

    status: Status | None = None
    name: str | None = None
    severity: str | None = None
    limit: int = 100


class KeptAlerts:
    """The alerts of a state directory. Every method raises `StateError` when the disk does not do its part."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        store.declare(*SCHEMA)
        self._store = store
        self._clock = clock

    def take(self, posted: Sequence[PostedAlert]) -> list[KeptAlert]:
        """Keep them all, on disk when this returns; gives those that say something new."""
        with self._store.write() as connection:
            ids = [taken for alert in posted if (taken := self._insert(connection, alert))]
            self._prune(connection)
        return self._rows(f"SELECT * FROM alerts WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY id", ids)  # noqa: S608 - marks only

    def last_id(self) -> int:
        """The number of the newest one."""
        return int(self._store.read("SELECT COALESCE(MAX(id), 0) AS id FROM alerts")[0]["id"])

    def since(self, last_id: int, *, limit: int = 500) -> list[KeptAlert]:
        """What was taken after that one, by whichever replica, in order."""
        return self._rows("SELECT * FROM alerts WHERE id > ? ORDER BY id LIMIT ?", (last_id, limit))

    def states(self, wanted: Wanted) -> list[KeptAlert]:
        """The last state of each alert, the newest first."""
        filters = {"status": wanted.status, "name": wanted.name, "severity": wanted.severity}
        given = {column: value for column, value in filters.items() if value is not None}
        where = "".join(f" AND {column} = ?" for column in given)
        return self._rows(f"{_STATES}{where} ORDER BY id DESC LIMIT ?", (*given.values(), wanted.limit))

    def firing(self) -> int:
        """How many fire."""
        return int(self._store.read(f"SELECT COUNT(*) AS n FROM ({_STATES} AND status = 'firing')")[0]["n"])  # noqa: S608 - constant

    def _insert(self, connection: sqlite3.Connection, alert: PostedAlert) -> int:
        """The new row's number, or 0 when that state is known."""
        row = (
            alert.identity,
            alert.status,
            alert.startsAt.timestamp(),
            alert.ended_at or _OPEN,
            self._clock(),
            alert.labels.get("alertname", ""),
            alert.labels.get("severity", "none"),
            json.dumps(alert.labels, ensure_ascii=False),
            json.dumps(alert.annotations, ensure_ascii=False),
        )
        cursor = connection.execute(_INSERT, row)
        return int(cursor.lastrowid or 0) if cursor.rowcount else 0

    def _prune(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "DELETE FROM alerts WHERE received_at < ? OR id <= (SELECT MAX(id) FROM alerts) - ?",
            (self._clock() - KEPT_FOR, KEPT),
        )

    def _rows(self, query: str, parameters: Sequence[object]) -> list[KeptAlert]:
        return [_kept(row) for row in self._store.read(query, parameters)]


def _kept(row: sqlite3.Row) -> KeptAlert:
    return KeptAlert(
        id=row["id"],
        fingerprint=row["fingerprint"],
        status=row["status"],
        starts_at=row["starts_at"],
        ends_at=row["ends_at"] or None,
        received_at=row["received_at"],
        name=row["name"],
        severity=row["severity"],
        labels=json.loads(row["labels"]),
        annotations=json.loads(row["annotations"]),
    )
