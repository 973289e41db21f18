"""``/monitoring/reports/*``: reports made beside the requests, stored in the state directory, and read again.

A client gets a quick report at once, and the address of a slow one.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime
from threading import BoundedSemaphore
from typing import Annotated, Final, Literal, Protocol

from flask import Response, request, url_for
from pydantic import AfterValidator, BaseModel, Field, RootModel, TypeAdapter

from celerymeter.control.auth import current_identity
from celerymeter.control.routing import PAGE_POLICY, Body, ControlBlueprint, Permission, Query, answer, utc
from celerymeter.control.store import Store
from celerymeter.errors import CelerymeterError, PrometheusError, RequestRefused, StateError
from celerymeter.reports.formatting import LANGUAGES, in_language
from celerymeter.reports.render import CONTENT_TYPES, from_json, render, to_json
from celerymeter.reports.report import Report
from celerymeter.reports.request import Filters, ReportRequest, read_window

log = logging.getLogger(__name__)

ANSWER_WITHIN: Final = 4.0
"""Seconds: clients of the API give up after 5."""
AT_ONCE: Final = 2
WAITING: Final = 8
"""Reports that are made at once, and that may be under way in all."""
BUSY_RETRY_AFTER: Final = 10.0
RETRY_AFTER: Final = 2.0
KEPT: Final = 200
KEPT_OF_ONE: Final = 50
"""Reports of one subject that are kept: nobody makes those of others go."""
KEPT_FOR: Final = 90 * 86400.0
TIME: Final = r"^(now|-[0-9]{1,6}[smhdw]|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{5,15}([Zz]|[+-][0-9]{2}:[0-9]{2})?)$"
REPORT: Final = "/monitoring/reports/<string(length=32):report_id>"
SCHEMA: Final = """CREATE TABLE IF NOT EXISTS reports (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, asked_at REAL NOT NULL,
    begins REAL NOT NULL, ends REAL NOT NULL, task TEXT, queue TEXT, problem TEXT, body BLOB)"""
_DELETE_SURPLUS: Final = """
    WITH ranked AS (SELECT number, ROW_NUMBER() OVER (PARTITION BY sub ORDER BY number DESC) AS nth FROM reports)
    DELETE FROM reports WHERE number IN (SELECT number FROM ranked WHERE nth > :of_one)
    OR number IN (SELECT number FROM ranked ORDER BY nth, number DESC LIMIT -1 OFFSET :kept)"""
_SUBJECT: Final = {"reports": "sub TEXT NOT NULL DEFAULT ''"}
"""A column that came later."""
_COLUMNS: Final = "id, asked_at, begins, ends, task, queue, problem, body IS NOT NULL AS ready"


def _form_of_time(value: str) -> str:
    if not re.fullmatch(TIME, value):
        raise ValueError("must be now, -24h, or an ISO 8601 time such as 2026-01-31T12:00:00+08:00")
    return value


Time = Annotated[str, AfterValidator(_form_of_time), Field(json_schema_extra={"pattern": TIME})]
"""A time of a request; `ReportRequest` reads it. pydantic's own message would be the regular expression."""


class ReportBody(Body):
    """The window, and the tasks to report on."""

    start: Time = Field(description="ISO 8601, or -24h; a time without a zone is read in the server's time zone")
    end: Time = Field(description="ISO 8601, or -1h, or now")
    task: str | None = Field(default=None, min_length=1, max_length=255, description="Only tasks of this name")
    queue: str | None = Field(default=None, min_length=1, max_length=255, description="Only tasks of this queue")


class PerformanceReport(RootModel[Report]):
    """A performance report. What cannot be known is null, and `unknown` says why."""


class ReportPending(BaseModel):
    """A report that is not ready: ask at `url` again."""

    report_id: str
    status: Literal["running"] = "running"
    url: str


class ReportsQuery(Query):
    """The reports to list."""

    task: str | None = Field(default=None, max_length=255)
    limit: int = Field(default=50, ge=1, le=200)


class ReportPath(BaseModel):
    """One report."""

    report_id: str = Field(pattern=r"^[0-9a-f]{32}$")


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
    problem: Annotated[str | None, Field(description="The code of the problem, if the report failed")]
    url: str
    """Empty until a view sets it."""


class ReportsReply(BaseModel):
    """The stored reports, the newest first."""

    reports: list[StoredReport]


class ReportStore:
    """The reports of a state directory. Every method raises `StateError` when the disk fails."""

    def __init__(
        self,
        store: Store,
        *,
        keep: int = KEPT,
        evicted: Callable[[int], object] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Call ``evicted`` with the number of reports that are deleted before their time."""
        store.declare(SCHEMA, columns=_SUBJECT)
        self._store = store
        self._keep = keep
        self._evicted = evicted
        self._clock = clock
        self._making: set[str] = set()
        """The ids that this process makes: any other that is not ready was lost with an earlier process."""

    def begin(self, report_id: str, request: ReportRequest, *, subject: str = "") -> None:
        """Note that a report is being made, and delete those that are too old or too many.

        Of too many of one subject its oldest go, and of too many in all the oldest of the subject that has the most.
        """
        window, filters = request.window, request.filters
        self._making.add(report_id)
        with self._store.write() as connection:
            connection.execute(
                "INSERT INTO reports (id, asked_at, begins, ends, task, queue, sub) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (report_id, self._clock(), window.start, window.end, filters.task, filters.queue, subject),
            )
            connection.execute("DELETE FROM reports WHERE asked_at < ?", (self._clock() - KEPT_FOR,))
            before = connection.total_changes
            connection.execute(_DELETE_SURPLUS, {"kept": self._keep, "of_one": KEPT_OF_ONE})
            self._evicted(connection.total_changes - before)

    def finish(self, report: Report) -> None:
        """Store a report that is ready."""
        self._end("UPDATE reports SET body = ? WHERE id = ?", report.report_id, to_json(report))

    def fail(self, report_id: str, problem: str) -> None:
        """Note the problem that ended a report."""
        self._end("UPDATE reports SET problem = ? WHERE id = ?", report_id, problem)

    def newest(self, *, task: str | None, limit: int) -> list[StoredReport]:
        """Return the newest reports; with ``task`` only those about this task."""
        return self._select("? IS NULL OR task = ? ORDER BY number DESC LIMIT ?", (task, task, limit))

    def find(self, report_id: str) -> StoredReport | None:
        """Return what is known of a report without reading it."""
        found = self._select("id = ?", (report_id,))
        return found[0] if found else None

    def read(self, report_id: str) -> Report | None:
        """Return a report that is ready."""
        query = "SELECT body FROM reports WHERE id = ? AND body IS NOT NULL"
        found = self._store.load_whole("reports", lambda row: from_json(row["body"]), query, (report_id,))
        return found[0] if found else None

    def _end(self, statement: str, report_id: str, value: str | bytes) -> None:
        try:
            with self._store.write() as connection:
                connection.execute(statement, (value, report_id))
        finally:
            self._making.discard(report_id)

    def _select(self, where: str, parameters: Sequence[object]) -> list[StoredReport]:
        making = set(self._making)  # before the rows: one that is ready a moment later must not look lost
        query = f"SELECT {_COLUMNS} FROM reports WHERE {where}"  # noqa: S608 - our own words
        return self._store.load("reports", lambda row: _stored(row, lost=row["id"] not in making), query, parameters)


_STORED: Final = TypeAdapter(StoredReport)


def _stored(row: sqlite3.Row, *, lost: bool) -> StoredReport:
    problem = row["problem"] or ("internal" if lost and not row["ready"] else None)
    fields = {
        "report_id": row["id"],
        "status": "ready" if row["ready"] else "failed" if problem else "running",
        "created_at": utc(row["asked_at"]),
        "start": utc(row["begins"]),
        "end": utc(row["ends"]),
        "task": row["task"],
        "queue": row["queue"],
        "problem": problem,
        "url": "",
    }
    return _STORED.validate_python(fields)


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
        """Take no more; a report that is still being made is lost, and counts as failed from the next start on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, request: ReportRequest, *, subject: str = "") -> Report | str:
        """Return the report, or its id when it takes longer; raises what making it raised, and `RequestRefused`."""
        if not self._places.acquire(blocking=False):
            raise RequestRefused(
                "too_many_requests", "too many reports are being created; try again later", retry_after=BUSY_RETRY_AFTER
            )
        report_id = uuid.uuid4().hex
        try:
            self.store.begin(report_id, request, subject=subject)
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


def blueprint(*, runner: ReportRunner, language: str) -> ControlBlueprint:
    """Return all operations on reports; ``language`` is for clients that prefer none."""
    bp = ControlBlueprint("reports")

    @bp.post(
        "/monitoring/reports/performance",
        permission=Permission.VIEWER,
        responses={200: PerformanceReport, 202: ReportPending},
        errors=(422, 503),
        unaudited="a report changes nothing",
    )
    def make_report(body: ReportBody) -> Response:
        """Create a performance report from the scrapes in the window (start, end].

        If it is not ready within 4 s, the reply is 202 with its URL. The newest 200 reports are stored for 90 days,
        of one subject at most 50.
        """
        window = read_window(body.start, body.end, now=time.time())
        request = ReportRequest(window, Filters(body.task, body.queue), _language(language))
        made = runner.ask(request, subject=current_identity().sub)
        return _pending(made) if isinstance(made, str) else _file(made, "json")

    @bp.get("/monitoring/reports", permission=Permission.VIEWER, responses={200: ReportsReply}, errors=(503,))
    def list_reports(query: ReportsQuery) -> Response:
        """List the stored reports, the newest first."""
        found = runner.store.newest(task=query.task, limit=query.limit)
        return answer(ReportsReply(reports=[replace(report, url=_url(report.report_id)) for report in found]))

    @bp.get(
        REPORT,
        permission=Permission.VIEWER,
        responses={200: PerformanceReport, 202: ReportPending},
        errors=(404, 409, 503),
    )
    def read_report(path: ReportPath) -> Response:
        """Read a stored report in the language of `Accept-Language`; 202 while it is being created."""
        found = runner.store.find(path.report_id)
        if found is not None and found.status == "running":
            return _pending(found.report_id)
        return _stored_file(runner, path.report_id, language, "json")

    @bp.get(f"{REPORT}.html", permission=Permission.VIEWER, responses={200: None}, errors=(404, 409, 503))
    def read_report_page(path: ReportPath) -> Response:
        """Read the report as one self-contained HTML page with charts."""
        return _stored_file(runner, path.report_id, language, "html")

    @bp.get(f"{REPORT}.csv", permission=Permission.VIEWER, responses={200: None}, errors=(404, 409, 503))
    def read_report_table(path: ReportPath) -> Response:
        """Read the report's rows as CSV, for a spreadsheet."""
        return _stored_file(runner, path.report_id, language, "csv")

    @bp.get(f"{REPORT}.md", permission=Permission.VIEWER, responses={200: None}, errors=(404, 409, 503))
    def read_report_text(path: ReportPath) -> Response:
        """Read the report as Markdown, for a ticket."""
        return _stored_file(runner, path.report_id, language, "md")

    return bp


def _language(default: str) -> str:
    return request.accept_languages.best_match(LANGUAGES, default=default) or default


def _read(runner: ReportRunner, report_id: str, language: str) -> Report:
    report = runner.store.read(report_id)
    if report is not None:
        return in_language(report, _language(language))
    found = runner.store.find(report_id)
    if found is None:
        raise RequestRefused("not_found", "no such report; the newest 200 are kept")
    if found.status == "running":
        raise RequestRefused("conflict", "the report is not ready yet", retry_after=RETRY_AFTER)
    if found.problem == "prometheus_unavailable":
        raise RequestRefused(
            "prometheus_unavailable", "Prometheus was unavailable; request the report again", retry_after=RETRY_AFTER
        )
    raise RequestRefused("not_found", "the report failed; request it again")


def _pending(report_id: str) -> Response:
    url = _url(report_id)
    return answer(
        ReportPending(report_id=report_id, url=url), 202, {"Location": url, "Retry-After": f"{RETRY_AFTER:.0f}"}
    )


def _stored_file(runner: ReportRunner, report_id: str, language: str, form: str) -> Response:
    try:
        return _file(_read(runner, report_id, language), form)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise StateError(f"report {report_id} cannot be shown; somebody may have changed its row") from error


def _file(report: Report, form: str) -> Response:
    response = Response(render(report, form), content_type=CONTENT_TYPES[form])
    if form == "html":
        response.headers["Content-Security-Policy"] = PAGE_POLICY
    if form == "csv":
        response.headers["Content-Disposition"] = f'attachment; filename="celery-{report.report_id}.csv"'
    return response


def _url(report_id: str) -> str:
    return url_for("reports.read_report", report_id=report_id)
