"""Reports made beside the requests, and stored in the state directory.

A client gets a quick report at once, and the address of a slow one.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from threading import BoundedSemaphore
from typing import Annotated, Final, Literal, Protocol

from pydantic import Field

from celerymeter.control.routing import utc
from celerymeter.control.store import Store
from celerymeter.errors import CelerymeterError, PrometheusError, RequestRefused, StateError
from celerymeter.reports.render import from_json, to_json
from celerymeter.reports.report import Report
from celerymeter.reports.request import ReportRequest

log = logging.getLogger(__name__)

ANSWER_WITHIN: Final = 4.0
"""Seconds: clients of the API give up after 5."""
AT_ONCE: Final = 2
WAITING: Final = 8
"""Reports that are made at once, and that may be under way in all."""
RETRY_AFTER: Final = 10.0
KEPT: Final = 200
KEPT_FOR: Final = 90 * 86400.0
GIVEN_UP: Final = 900.0
"""Seconds after which a report that is still being made was lost with its process."""
SCHEMA: Final = """CREATE TABLE IF NOT EXISTS reports (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, asked_at REAL NOT NULL,
    begins REAL NOT NULL, ends REAL NOT NULL, task TEXT, queue TEXT, problem TEXT, body BLOB)"""
_COLUMNS: Final = "id, asked_at, begins, ends, task, queue, problem, body IS NOT NULL AS ready"


@dataclass(frozen=True, slots=True)
class StoredReport:
    """One report of the list."""

    report_id: str
    status: Literal["ready", "running", "failed"]
    created_at: datetime
    start: datetime
    end: datetime
    task: str | None
    queue: str | None
    problem: Annotated[str | None, Field(description="For a failed one: the code of its problem")]
    url: str
    """Empty until a view sets it."""


class ReportStore:
    """The reports of a state directory. Every method raises `StateError` when the disk fails."""

    def __init__(self, store: Store, *, keep: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        store.declare(SCHEMA)
        self._store = store
        self._keep = keep
        self._clock = clock

    def begin(self, report_id: str, request: ReportRequest) -> None:
        """Note that a report is being made, and delete those that are too old or too many."""
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
        """Store a report that is ready."""
        with self._store.write() as connection:
            connection.execute("UPDATE reports SET body = ? WHERE id = ?", (to_json(report), report.report_id))

    def fail(self, report_id: str, problem: str) -> None:
        """Note the problem that ended a report."""
        with self._store.write() as connection:
            connection.execute("UPDATE reports SET problem = ? WHERE id = ?", (problem, report_id))

    def newest(self, *, task: str | None, limit: int) -> list[StoredReport]:
        """Return the newest reports; with ``task`` only those about this task."""
        rows = self._store.read(
            f"SELECT {_COLUMNS} FROM reports WHERE ? IS NULL OR task = ? ORDER BY number DESC LIMIT ?",  # noqa: S608 - our own names
            (task, task, limit),
        )
        return [self._stored(row) for row in rows]

    def find(self, report_id: str) -> StoredReport | None:
        """Return what is known of a report without reading it."""
        rows = self._store.read(f"SELECT {_COLUMNS} FROM reports WHERE id = ?", (report_id,))  # noqa: S608 - our own names
        return self._stored(rows[0]) if rows else None

    def read(self, report_id: str) -> Report | None:
        """Return a report that is ready."""
        rows = self._store.read("SELECT body FROM reports WHERE id = ? AND body IS NOT NULL", (report_id,))
        return from_json(rows[0]["body"]) if rows else None

    def _stored(self, row: sqlite3.Row) -> StoredReport:
        lost = not row["ready"] and self._clock() - row["asked_at"] > GIVEN_UP
        problem = row["problem"] or ("internal" if lost else None)
        return StoredReport(
            report_id=row["id"],
            status="ready" if row["ready"] else "failed" if problem else "running",
            created_at=utc(row["asked_at"]),
            start=utc(row["begins"]),
            end=utc(row["ends"]),
            task=row["task"],
            queue=row["queue"],
            problem=problem,
            url="",
        )


class MakeReport(Protocol):
    """Makes a report; may take minutes, and raises `PrometheusError`."""

    def __call__(self, request: ReportRequest, *, report_id: str) -> Report: ...


class ReportRunner:
    """Makes reports on threads of its own."""

    def __init__(self, make: MakeReport, store: ReportStore, *, timeout: float = ANSWER_WITHIN) -> None:
        self.store = store
        self._make = make
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="reports")
        self._places = BoundedSemaphore(WAITING)

    def start(self) -> None:
        """Do nothing: the pool starts its threads with the first request."""

    def stop(self) -> None:
        """Take no more; a report that is being made and does not end is later marked by its age."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, request: ReportRequest) -> Report | str:
        """Return the report, or its id when it takes longer; raises what making it raised, and `RequestRefused`."""
        if not self._places.acquire(blocking=False):
            raise RequestRefused("too_many_requests", "too many reports are being made", retry_after=RETRY_AFTER)
        report_id = uuid.uuid4().hex
        try:
            self.store.begin(report_id, request)
            future = self._pool.submit(self._work, request, report_id)
        except BaseException:
            self._places.release()
            raise
        wait([future], self._timeout)
        return future.result() if future.done() else report_id

    def _work(self, request: ReportRequest, report_id: str) -> Report:
        try:
            report = self._make(request, report_id=report_id)
            self.store.finish(report)
        except Exception as error:
            self._fail(report_id, error)
            raise
        finally:
            self._places.release()
        return report

    def _fail(self, report_id: str, error: Exception) -> None:
        known = isinstance(error, CelerymeterError)
        log.warning("report %s failed: %s", report_id, error if known else "unexpected error", exc_info=not known)
        try:
            self.store.fail(report_id, "prometheus_unavailable" if isinstance(error, PrometheusError) else "internal")
        except StateError as unwritten:
            log.warning("report %s: %s", report_id, unwritten)
