"""A report as one table for spreadsheets: a row for all, and one for each task, queue and worker."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from celerymeter.reports.report import Ends, Quantiles, Report

COLUMNS = (
    *("start", "end", "kind", "name", "total", "successful", "failed", "retried", "revoked", "rejected"),
    *("error_rate_percent", "avg_execution_ms", "execution_p50_ms", "execution_p95_ms", "execution_p99_ms"),
    *("wait_p50_ms", "wait_p95_ms", "wait_p99_ms", "avg_length", "max_length", "runs_begun", "avg_busy_percent"),
)
Row = dict[str, object]


def to_csv(report: Report) -> str:
    """The table; what is unknown is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for row in _rows(report):
        cells = {name: _cell(value) for name, value in row.items() if value is not None}
        writer.writerow(
            {**cells, "start": report.time_range.start.isoformat(), "end": report.time_range.end.isoformat()}
        )
    return out.getvalue()


def _rows(report: Report) -> Iterator[Row]:
    yield {
        "kind": "all",
        "total": report.total_tasks,
        "successful": report.successful_tasks,
        "failed": report.failed_tasks,
        "retried": report.retried_tasks,
        "revoked": report.revoked_tasks,
        "rejected": report.rejected_tasks,
        "error_rate_percent": report.error_rate_percent,
        "avg_execution_ms": report.avg_execution_time_ms,
        "avg_busy_percent": report.avg_busy_percent,
        **_quantiles("execution", report.execution_time_ms),
        **_quantiles("wait", report.wait_time_ms),
    }
    for task in report.tasks:
        yield {
            "kind": "task",
            "name": task.name,
            **_ends(task.ends),
            "avg_execution_ms": task.avg_execution_time_ms,
            **_quantiles("execution", task.execution_time_ms),
            **_quantiles("wait", task.wait_time_ms),
        }
    for queue in report.queues:
        yield {
            "kind": "queue",
            "name": queue.queue_name,
            **_ends(queue.ends),
            "avg_length": queue.avg_length,
            "max_length": queue.max_length,
            **_quantiles("wait", queue.wait_time_ms),
        }
    for worker in report.workers:
        yield {
            "kind": "worker",
            "name": worker.hostname,
            "runs_begun": worker.runs_begun,
            "avg_busy_percent": worker.avg_busy_percent,
        }


def _ends(ends: Ends) -> Row:
    return {
        "total": ends.total,
        "successful": ends.successful,
        "failed": ends.failed,
        "retried": ends.retried,
        "revoked": ends.revoked,
        "rejected": ends.rejected,
        "error_rate_percent": ends.error_rate_percent,
    }


def _quantiles(what: str, found: Quantiles) -> Row:
    return {f"{what}_p50_ms": found.p50, f"{what}_p95_ms": found.p95, f"{what}_p99_ms": found.p99}


def _cell(value: object) -> object:
    """A name that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
