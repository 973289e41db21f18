"""Reports on disk: the newest ones, those under way included."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from celerymeter.control.store import Store
from celerymeter.reports.render import from_json, to_json
from celerymeter.reports.report import Report
from celerymeter.reports.request import ReportRequest

KEPT: Final = 200
KEPT_FOR: Final = 90 * 86400.0
GIVEN_UP: Final = 900.0
"""Seconds after which one that is still under way was lost with the process that made it."""
Status = Literal["ready", "running", "failed"]
SCHEMA: Final = """CREATE TABLE IF NOT EXISTS reports (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, asked_at REAL NOT NULL,
    begins REAL NOT NULL, ends REAL NOT NULL, task TEXT, queue TEXT, problem TEXT, body BLOB)"""
_COLUMNS: Final = "id, asked_at, begins, ends, task, queue, problem, body IS NOT NULL AS ready"


@dataclass(frozen=True, slots=True)
class KeptReport:
    """What is known of a report without reading it; times in UTC seconds."""

    id: str
    asked_at: float
    begins: float
    ends: float
    task: str | None
    queue: str | None
    status: Status
    """ready, running or failed"""
    problem: str | None
    """The code of the problem that ended it."""


class KeptReports:
    """The reports of a state directory. Every method raises `StateError` when the disk does not do its part."""

    def __init__(self, store: Store, *, keep: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        store.declare(SCHEMA)
        self._store = store
        self._keep = keep
        self._clock = clock

    def begin(self, report_id: str, request: ReportRequest) -> None:
        """Note that it is being made, and forget what is too old or too many."""
        window, filters = request.window, request.filters
        with self._store.write() as connection:
            connection.execute(
                "INSERT INTO reports (id, asked_at, begins, ends, task, queue) VALUES (?, ?, ?, ?, ?, ?)",
                (report_id, self._clock(), window.start, window.end, filters.task, filters.queue),
            )
            connection.execute(
                "DELETE FROM reports WHERE asked_at < ? OR number <= (SELECT MAX(number) FROM reports) - ?",
                (self._clock() - KEPT_FOR, self._keep),
            )

    def finish(self, report: Report) -> None:
        """Keep it."""
        with self._store.write() as connection:
            connection.execute("UPDATE reports SET body = ? WHERE id = ?", (to_json(report), report.report_id))

    def fail(self, report_id: str, problem: str) -> None:
        """It will not come."""
        with self._store.write() as connection:
            connection.execute("UPDATE reports SET problem = ? WHERE id = ?", (problem, report_id))

    def newest(self, *, task: str | None, limit: int) -> list[KeptReport]:
        """The newest first; with ``task`` those about this task alone."""
        rows = self._store.read(
            f"SELECT {_COLUMNS} FROM reports WHERE ? IS NULL OR task = ? ORDER BY number DESC LIMIT ?",  # noqa: S608 - our own names
            (task, task, limit),
        )
        return [self._kept(row) for row in rows]

    def find(self, report_id: str) -> KeptReport | None:
        """What is known of one."""
        rows = self._store.read(f"SELECT {_COLUMNS} FROM reports WHERE id = ?", (report_id,))  # noqa: S608 - our own names
        return self._kept(rows[0]) if rows else None

    def read(self, report_id: str) -> Report | None:
        """A report that is ready."""
        rows = self._store.read("SELECT body FROM reports WHERE id = ? AND body IS NOT NULL", (report_id,))
        return from_json(rows[0]["body"]) if rows else None

    def _kept(self, row: sqlite3.Row) -> KeptReport:
        lost = not row["ready"] and self._clock() - row["asked_at"] > GIVEN_UP
        problem = row["problem"] or ("internal" if lost else None)
        status: Status = "ready" if row["ready"] else "failed" if problem else "running"
        return KeptReport(
            id=row["id"],
            asked_at=row["asked_at"],
            begins=row["begins"],
            ends=row["ends"],
            task=row["task"],
            queue=row["queue"],
            status=status,
            problem=problem,
        )
