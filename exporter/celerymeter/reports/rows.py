"""Counts to figures and rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from celerymeter.reports.pages import ENDS, Counts
from celerymeter.reports.quantiles import quantile
from celerymeter.reports.report import Curve, Ends, Quantiles, QueueRow, TaskRow, WorkerRow


def ends(counts: Counts) -> Ends:
    """How tasks ended."""
    by_end = {what: round(counts.total(what)) for what in ENDS}
    total = sum(by_end.values())
    return Ends(
        total=total,
        successful=by_end["succeeded"],
        failed=by_end["failed"],
        revoked=by_end["revoked"],
        rejected=by_end["rejected"],
        retried=round(counts.total("retried")),
        error_rate_percent=100 * by_end["failed"] / total if total else None,
    )


def mean_ms(counts: Counts, what: str) -> float | None:
    """The mean of ``runtime`` or ``wait`` in ms; ``None`` when nothing was measured."""
    measured = counts.total(f"{what}_count")
    return 1000 * counts.total(f"{what}_sum") / measured if measured > 0 else None


def quantiles_ms(counts: Counts, what: str) -> Quantiles:
    """Quantiles of ``runtime``, ``wait`` or, by queue, ``queue_wait``, in ms."""
    buckets = counts.buckets(f"{what}_bucket")
    found = (quantile(q, buckets) for q in (0.5, 0.95, 0.99))
    return Quantiles(*(None if seconds is None else 1000 * seconds for seconds in found))


def task_rows(counts: Counts) -> tuple[TaskRow, ...]:
    """Tasks that ended or were retried, the most frequent first."""
    rows = [
        TaskRow(
            name=name,
            ends=ends(of),
            avg_execution_time_ms=mean_ms(of, "runtime"),
            execution_time_ms=quantiles_ms(of, "runtime"),
            wait_time_ms=quantiles_ms(of, "wait"),
            execution_seconds=of.total("runtime_sum") + of.total("failed_runtime_sum"),
        )
        for name, of in counts.split("name").items()
    ]
    return tuple(sorted((row for row in rows if _happened(row.ends)), key=lambda row: (-row.ends.total, row.name)))


def queue_rows(counts: Counts, lengths: Mapping[str, Curve]) -> tuple[QueueRow, ...]:
    """Queues in which tasks ended, or that were looked at; the busiest first."""
    parts = counts.split("queue_name")
    rows = [
        QueueRow(
            queue_name=name,
            ends=ends(parts.get(name, Counts())),
            wait_time_ms=quantiles_ms(parts.get(name, Counts()), "queue_wait"),
            avg_length=average(lengths.get(name, ())),
            max_length=largest(lengths.get(name, ())),
            length_at_end=last(lengths.get(name, ())),
        )
        for name in parts.keys() | lengths.keys()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.ends.total, row.queue_name)))


def worker_rows(counts: Counts | None, gauges: Mapping[str, Mapping[str, Curve]]) -> tuple[WorkerRow, ...]:
    """Workers that were seen, by name."""
    parts = {} if counts is None else counts.split("hostname")
    busy, pool, reserved = gauges["busy"], gauges["pool_size"], gauges["reserved"]
    return tuple(
        WorkerRow(
            hostname=name,
            runs_begun=_begun(parts.get(name)),
            avg_busy_percent=average(busy.get(name, ())),
            max_busy_percent=largest(busy.get(name, ())),
            pool_size=last(pool.get(name, ())),
            avg_reserved=average(reserved.get(name, ())),
        )
        for name in sorted(parts.keys() | busy.keys() | pool.keys() | reserved.keys())
    )


def average(curve: Curve) -> float | None:
    """The mean of the points that there are."""
    values = [value for _, value in curve if value is not None]
    return fmean(values) if values else None


def largest(curve: Curve) -> float | None:
    """The highest point."""
    return max((value for _, value in curve if value is not None), default=None)


def last(curve: Curve) -> float | None:
    """The newest point."""
    return next((value for _, value in reversed(curve) if value is not None), None)


def _happened(row: Ends) -> bool:
    return row.total > 0 or row.retried > 0


def _begun(counts: Counts | None) -> int | None:
    """Workers' counts may begin anew; what went down is not known."""
    value = 0.0 if counts is None else counts.total("processed")
    return round(value) if counts is not None and value >= 0 else None
