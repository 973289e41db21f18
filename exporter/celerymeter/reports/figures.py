"""The figures of a report, from counts. Pure: everything gets what was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from celerymeter.reports import rows as table
from celerymeter.reports.counting import WindowCounts
from celerymeter.reports.pages import Counts
from celerymeter.reports.report import (
    Change,
    Curve,
    ErrorBudget,
    Note,
    Peak,
    Quantiles,
    QueueRow,
    TaskRow,
    WorkerRow,
)
from celerymeter.reports.window import Window

LISTED = 5
"""Tasks in the lists of the slowest and the most failing."""
COUNTED = ("total_tasks", "successful_tasks", "failed_tasks", "retried_tasks", "revoked_tasks", "rejected_tasks")


class Totals(TypedDict):
    """Fields of a `Report`."""

    total_tasks: int | None
    successful_tasks: int | None
    failed_tasks: int | None
    retried_tasks: int | None
    revoked_tasks: int | None
    rejected_tasks: int | None
    error_rate_percent: float | None


class Times(TypedDict):
    """Fields of a `Report`."""

    avg_execution_time_ms: float | None
    execution_time_ms: Quantiles
    avg_wait_time_ms: float | None
    wait_time_ms: Quantiles
    average_throughput: float | None


class Rows(TypedDict):
    """Fields of a `Report`."""

    tasks: tuple[TaskRow, ...]
    queues: tuple[QueueRow, ...]
    workers: tuple[WorkerRow, ...]
    slowest_tasks: tuple[str, ...]
    most_failing_tasks: tuple[str, ...]


def totals(counts: Counts | None) -> Totals:
    """How tasks ended; all unknown, or none but the rate of nothing."""
    if counts is None:
        return Totals(
            total_tasks=None,
            successful_tasks=None,
            failed_tasks=None,
            retried_tasks=None,
            revoked_tasks=None,
            rejected_tasks=None,
            error_rate_percent=None,
        )
    ends = table.ends(counts)
    return Totals(
        total_tasks=ends.total,
        successful_tasks=ends.successful,
        failed_tasks=ends.failed,
        retried_tasks=ends.retried,
        revoked_tasks=ends.revoked,
        rejected_tasks=ends.rejected,
        error_rate_percent=ends.error_rate_percent,
    )


def times(counts: Counts | None, window: Window) -> Times:
    """How long tasks ran and waited, and how many ended per second."""
    known = counts or Counts()
    return Times(
        avg_execution_time_ms=table.mean_ms(known, "runtime"),
        execution_time_ms=table.quantiles_ms(known, "runtime"),
        avg_wait_time_ms=table.mean_ms(known, "wait"),
        wait_time_ms=table.quantiles_ms(known, "wait"),
        average_throughput=None if counts is None else counts.ended / window.seconds,
    )


def rows(counts: Counts | None, gauges: Mapping[str, Mapping[str, Curve]]) -> Rows:
    """The tables; without counts there is nothing to say of tasks and queues."""
    tasks = () if counts is None else table.task_rows(counts)
    slow = sorted(
        (row for row in tasks if row.execution_time_ms.p95), key=lambda row: -(row.execution_time_ms.p95 or 0)
    )
    failing = sorted((row for row in tasks if row.ends.failed), key=lambda row: -row.ends.failed)
    return Rows(
        tasks=tasks,
        queues=() if counts is None else table.queue_rows(counts, gauges["queue_lengths"]),
        workers=table.worker_rows(counts, gauges),
        slowest_tasks=tuple(row.name for row in slow[:LISTED]),
        most_failing_tasks=tuple(row.name for row in failing[:LISTED]),
    )


def busy(gauges: Mapping[str, Mapping[str, Curve]]) -> float | None:
    """Percent of all slots that ran a task, weighted by the workers' pools."""
    pairs = [
        (table.average(curve), table.average(gauges["pool_size"].get(name, ())))
        for name, curve in gauges["busy"].items()
    ]
    weighed = [(share, slots) for share, slots in pairs if share is not None and slots]
    slots = sum(slots for _, slots in weighed)
    return sum(share * size for share, size in weighed) / slots if slots else None


def error_budget(counts: Counts | None, objective: float | None, *, default: float) -> ErrorBudget | None:
    """Failures against the objective; only what succeeded or failed is judged."""
    if counts is None:
        return None
    share = default if objective is None else objective
    failed = counts.total("failed")
    allowed = (1 - share) * (failed + counts.total("succeeded"))
    spent = 100 * failed / allowed if allowed > 0 else None
    return ErrorBudget(100 * share, allowed, spent, assumed=objective is None)


def change(counts: Counts | None, before: Counts | None) -> Change | None:
    """Against the window before, where both are known."""
    if counts is None or before is None:
        return None
    now, then = table.ends(counts), table.ends(before)
    rates = now.error_rate_percent, then.error_rate_percent
    return Change(
        total_tasks=then.total,
        failed_tasks=then.failed,
        total_change_percent=_percent(now.total, then.total),
        error_rate_change_points=None if rates[0] is None or rates[1] is None else rates[0] - rates[1],
        avg_execution_time_change_percent=_percent(table.mean_ms(counts, "runtime"), table.mean_ms(before, "runtime")),
    )


def unknown(counted: WindowCounts, peak: Peak | None, change: Change | None) -> dict[str, Note]:
    """Why figures are missing."""
    counts = counted.counts
    if counts is None:
        why = Note("base_missing" if counted.gaps else "no_scrapes")
        names = (*COUNTED, "error_rate_percent", "avg_execution_time_ms", "avg_wait_time_ms", "average_throughput")
        return dict.fromkeys((*names, *(() if peak else ("peak_throughput",))), why)
    reasons = {
        "error_rate_percent": None if counts.ended else "nothing_ended",
        "avg_execution_time_ms": None if counts.total("runtime_count") else _no_execution(counts),
        "avg_wait_time_ms": None if counts.total("wait_count") else "no_waits" if counts.ended else "nothing_ended",
        "peak_throughput": None if peak else "no_history",
        "previous_window": None if change else "not_watched_before",
    }
    return {name: Note(code) for name, code in reasons.items() if code}


def _percent(now: float | None, then: float | None) -> float | None:
    return None if now is None or not then else 100 * (now - then) / then


def _no_execution(counts: Counts) -> str:
    return "not_measured" if counts.total("succeeded") else "nothing_succeeded"
