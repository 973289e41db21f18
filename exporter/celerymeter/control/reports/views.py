"""``POST /monitoring/reports/performance`` and the reports that are kept."""

from __future__ import annotations

import time

from flask import Response, request, url_for

from celerymeter.control.reports.kept import KeptReport
from celerymeter.control.reports.models import (
    PerformanceReport,
    ReportBody,
    ReportPath,
    ReportPending,
    ReportsQuery,
    ReportsReply,
    ReportSummary,
)
from celerymeter.control.reports.runner import ReportRunner
from celerymeter.control.routing import ControlBlueprint, Permission, answer, utc
from celerymeter.errors import RequestRefused
from celerymeter.reports.formatting import LANGUAGES, in_language
from celerymeter.reports.render import CONTENT_TYPES, render
from celerymeter.reports.report import Report
from celerymeter.reports.request import Filters, ReportRequest, read_window

ONE = "/monitoring/reports/<string(length=32):report_id>"
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
"""The page brings all that it shows."""
SOON = 2.0


def blueprint(*, runner: ReportRunner, language: str) -> ControlBlueprint:
    """All operations on reports; ``language`` is for clients that prefer none."""
    bp = ControlBlueprint("reports")

    @bp.post(
        "/monitoring/reports/performance",
        permission=Permission.VIEWER,
        responses={200: PerformanceReport, 202: ReportPending},
        errors=(422, 503),
        unaudited="a report changes nothing",
    )
    def make_report(body: ReportBody) -> Response:
        """A performance report of a window: whole tasks, counted by what was scraped in (start, end].

        202 with its address when it is not ready within 4 s. It is kept: the newest 200, for 90 days.
        """
        window = read_window(body.start, body.end, now=time.time())
        made = runner.ask(ReportRequest(window, Filters(body.task, body.queue), _language(language)))
        return _pending(made) if isinstance(made, str) else _file(made, "json")

    @bp.get("/monitoring/reports", permission=Permission.VIEWER, responses={200: ReportsReply}, errors=(503,))
    def list_reports(query: ReportsQuery) -> Response:
        """The reports that are kept, the newest first."""
        found = runner.kept.newest(task=query.task, limit=query.limit)
        return answer(ReportsReply(reports=[_summary(kept) for kept in found]))

    @bp.get(
        ONE,
        permission=Permission.VIEWER,
        responses={200: PerformanceReport, 202: ReportPending},
        errors=(404, 409, 503),
    )
    def read_report(path: ReportPath) -> Response:
        """A report that is kept, in the language of `Accept-Language`; 202 while it is being made."""
        kept = runner.kept.find(path.report_id)
        if kept is not None and kept.status == "running":
            return _pending(kept.id)
        return _file(_read(runner, path.report_id, language), "json")

    @bp.get(f"{ONE}.html", permission=Permission.VIEWER, responses={200: None}, errors=(404, 409, 503))
    def read_report_page(path: ReportPath) -> Response:
        """The report as one page, with charts, that fetches nothing and prints well."""
        return _file(_read(runner, path.report_id, language), "html")

    @bp.get(f"{ONE}.csv", permission=Permission.VIEWER, responses={200: None}, errors=(404, 409, 503))
    def read_report_table(path: ReportPath) -> Response:
        """The report's rows for a spreadsheet."""
        return _file(_read(runner, path.report_id, language), "csv")

    @bp.get(f"{ONE}.md", permission=Permission.VIEWER, responses={200: None}, errors=(404, 409, 503))
    def read_report_text(path: ReportPath) -> Response:
        """The report as Markdown, for a ticket."""
        return _file(_read(runner, path.report_id, language), "md")

    return bp


def _language(default: str) -> str:
    return request.accept_languages.best_match(LANGUAGES, default=default) or default


def _read(runner: ReportRunner, report_id: str, language: str) -> Report:
    report = runner.kept.read(report_id)
    if report is not None:
        return in_language(report, _language(language))
    kept = runner.kept.find(report_id)
    if kept is None:
        raise RequestRefused("not_found", "no such report; the newest 200 are kept")
    if kept.status == "running":
        raise RequestRefused("conflict", "the report is not ready yet", retry_after=SOON)
    if kept.problem == "prometheus_unavailable":
        raise RequestRefused(
            "prometheus_unavailable", "Prometheus was away; ask for the report again", retry_after=SOON
        )
    raise RequestRefused("not_found", "the report could not be made; ask for it again")


def _pending(report_id: str) -> Response:
    url = _url(report_id)
    return answer(ReportPending(report_id=report_id, url=url), 202, {"Location": url, "Retry-After": f"{SOON:.0f}"})


def _file(report: Report, form: str) -> Response:
    response = Response(render(report, form), content_type=CONTENT_TYPES[form])
    if form == "html":
        response.headers["Content-Security-Policy"] = PAGE_POLICY
    if form == "csv":
        response.headers["Content-Disposition"] = f'attachment; filename="celery-{report.report_id}.csv"'
    return response


def _summary(kept: KeptReport) -> ReportSummary:
    return ReportSummary(
        report_id=kept.id,
        status=kept.status,
        created_at=utc(kept.asked_at),
        start=utc(kept.begins),
        end=utc(kept.ends),
        task=kept.task,
        queue=kept.queue,
        problem=kept.problem,
        url=_url(kept.id),
    )


def _url(report_id: str) -> str:
    return url_for("reports.read_report", report_id=report_id)
