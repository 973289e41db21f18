"""``POST /monitoring/reports/performance``, and the reports that are stored."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

from flask import Response, request, url_for
from pydantic import BaseModel, Field, RootModel

from celerymeter.control.report_jobs import ReportRunner, StoredReport
from celerymeter.control.routing import Body, ControlBlueprint, Permission, Query, answer
from celerymeter.errors import RequestRefused
from celerymeter.reports.formatting import LANGUAGES, in_language
from celerymeter.reports.render import CONTENT_TYPES, render
from celerymeter.reports.report import Report
from celerymeter.reports.request import Filters, ReportRequest, read_window

TIME = r"^(now|-[0-9]{1,6}[smhdw]|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{5,15}([Zz]|[+-][0-9]{2}:[0-9]{2})?)$"
REPORT = "/monitoring/reports/<string(length=32):report_id>"
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
"""The page loads nothing."""
RETRY_AFTER = 2.0


class ReportBody(Body):
    """The window, and the tasks to report on."""

    start: str = Field(pattern=TIME, description="ISO 8601, or -24h; without a zone it is the server's")
    end: str = Field(pattern=TIME, description="ISO 8601, or -1h, or now")
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


class ReportsReply(BaseModel):
    """The newest first."""

    reports: list[StoredReport]


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
        """Make a performance report of a window: whole tasks, counted by what was scraped in (start, end].

        202 with its address when it is not ready within 4 s. It is kept: the newest 200, for 90 days.
        """
        window = read_window(body.start, body.end, now=time.time())
        made = runner.ask(ReportRequest(window, Filters(body.task, body.queue), _language(language)))
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
        """Read a stored report in the language of `Accept-Language`; 202 while it is being made."""
        found = runner.store.find(path.report_id)
        if found is not None and found.status == "running":
            return _pending(found.report_id)
        return _file(_read(runner, path.report_id, language), "json")

    @bp.get(f"{REPORT}.html", permission=Permission.VIEWER, responses={200: None}, errors=(404, 409, 503))
    def read_report_page(path: ReportPath) -> Response:
        """Read the report as one HTML page with charts, which loads nothing and can be printed."""
        return _file(_read(runner, path.report_id, language), "html")

    @bp.get(f"{REPORT}.csv", permission=Permission.VIEWER, responses={200: None}, errors=(404, 409, 503))
    def read_report_table(path: ReportPath) -> Response:
        """Read the report's rows as CSV, for a spreadsheet."""
        return _file(_read(runner, path.report_id, language), "csv")

    @bp.get(f"{REPORT}.md", permission=Permission.VIEWER, responses={200: None}, errors=(404, 409, 503))
    def read_report_text(path: ReportPath) -> Response:
        """Read the report as Markdown, for a ticket."""
        return _file(_read(runner, path.report_id, language), "md")

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
            "prometheus_unavailable", "Prometheus was away; ask for the report again", retry_after=RETRY_AFTER
        )
    raise RequestRefused("not_found", "the report could not be made; ask for it again")


def _pending(report_id: str) -> Response:
    url = _url(report_id)
    return answer(
        ReportPending(report_id=report_id, url=url), 202, {"Location": url, "Retry-After": f"{RETRY_AFTER:.0f}"}
    )


def _file(report: Report, form: str) -> Response:
    response = Response(render(report, form), content_type=CONTENT_TYPES[form])
    if form == "html":
        response.headers["Content-Security-Policy"] = PAGE_POLICY
    if form == "csv":
        response.headers["Content-Disposition"] = f'attachment; filename="celery-{report.report_id}.csv"'
    return response


def _url(report_id: str) -> str:
    return url_for("reports.read_report", report_id=report_id)
