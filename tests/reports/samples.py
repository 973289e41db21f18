"""Reports made up for tests of what is made of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from celerymeter.reports.formatting import in_language
from celerymeter.reports.report import (
    Ends,
    History,
    Note,
    Quality,
    Quantiles,
    QueueRow,
    Report,
    SlotUser,
    TaskRow,
    TimeRange,
    WorkerRow,
)
from celerymeter.reports.request import Filters


def ends(*, successful: int = 0, failed: int = 0, retried: int = 0, expired: int = 0, redelivered: int = 0) -> Ends:
    """Return the ends of tasks."""
    total = successful + failed + expired
    share = 100 * failed / total if total else None
    return Ends(total, successful, failed, expired, 0, retried, share, expired, redelivered)


def task(name: str = "add", *, p50: float = 100.0, p99: float = 200.0, seconds: float = 1.0, **counts: int) -> TaskRow:
    """One task's row; quantiles in ms."""
    return TaskRow(name, ends(**counts), p50, Quantiles(p50, p99, p99), Quantiles(), seconds)


def queue(
    name: str = "celery",
    *,
    length: float = 0.0,
    p95: float | None = None,
    target: float | None = None,
    user: SlotUser | None = None,
) -> QueueRow:
    """One queue's row; waits in ms."""
    return QueueRow(name, ends(), Quantiles(p95=p95), length, length, length, target, user)


def worker(name: str, *, busy: float, highest: float = 0.0, reserved: float = 0.0) -> WorkerRow:
    """One worker's row, of four slots."""
    return WorkerRow(name, 1, busy, max(busy, highest), 4.0, reserved)


def unknowable(**changes: Any) -> Report:
    """Nothing was scraped in its hour."""
    why = Note("no_scrapes")
    return report(total_tasks=None, peak=None, unknown={"total_tasks": why, "peak_throughput": why}, **changes)


def report(**changes: Any) -> Report:
    """A quiet hour, but for the changes."""
    begins, over = (datetime(2026, 1, 31, hour, tzinfo=timezone.utc) for hour in (12, 13))
    quality = Quality("complete", "", 100.0, 15.0, 15.0, 1, 0, 0, 0, 0, (), ())
    made = Report(
        report_id="a" * 32,
        generated_at=over,
        language="en",
        cluster="",
        filters=Filters(),
        time_range=TimeRange(begins, over, 3600.0, None, ""),
        settled=True,
        total_tasks=0,
        successful_tasks=0,
        failed_tasks=0,
        retried_tasks=0,
        revoked_tasks=0,
        rejected_tasks=0,
        error_rate_percent=None,
        avg_execution_time_ms=None,
        execution_time_ms=Quantiles(),
        avg_wait_time_ms=None,
        wait_time_ms=Quantiles(),
        average_throughput=0.0,
        peak_throughput=None,
        peak=None,
        avg_busy_percent=40.0,
        error_budget=None,
        redelivery=None,
        previous_window=None,
        tasks=(),
        queues=(),
        workers=(),
        slowest_tasks=(),
        most_failing_tasks=(),
        unknown={"avg_execution_time_ms": Note("nothing_succeeded")},
        data_quality=quality,
        history=History(60.0),
        queries={"counts": "up"},
    )
    return in_language(replace(made, **changes), "en")
