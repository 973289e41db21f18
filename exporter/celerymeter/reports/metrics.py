"""The metrics of a report, computed from counts and curves. Pure.

What cannot be known is ``None``; `unknown_reasons` says why. Durations are milliseconds, shares are percent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Literal

from celerymeter.prometheus.counters import Counts
from celerymeter.reports.counting import WindowCounts
from celerymeter.reports.report import (
    Change,
    Curve,
    Ends,
    ErrorBudget,
    Note,
    Peak,
    Quantiles,
    QueueRow,
    ScheduleRow,
    SlotUser,
    TaskRow,
    WorkerRow,
)

RUNTIME = "celery_task_runtime_seconds"
WAIT = "celery_task_wait_seconds"
BUSY = "celery_worker_busy_seconds_total"
TASK_BUSY = "celery_task_busy_seconds_total"
OWN_SHARE = 30.0
"""Percent of a queue's slots that one of its own tasks must use, or else the task that uses most of all is named."""
LISTED = 5
"""Tasks in the lists of the slowest and the most failing."""
COUNTED = (
    "expired_tasks",
    "redelivered_runs",
    "total_tasks",
    "successful_tasks",
    "failed_tasks",
    "retried_tasks",
    "revoked_tasks",
    "rejected_tasks",
)
Gauges = Mapping[str, Mapping[str, Curve]]
"""Curves by the key of their query, then by queue or worker."""


def rounded(value: float) -> float:
    """Return a value with six significant digits, and never less than whole units.

    >>> rounded(7.190000000000007), rounded(0.0012345678), rounded(12345678.4)
    (7.19, 0.00123457, 12345678.0)
    """
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, max(0, 5 - math.floor(math.log10(abs(value)))))


def ends(counts: Counts) -> Ends:
    """Return how tasks ended."""
    succeeded, failed, revoked, rejected, retried = (
        round(counts.total(f"celery_task_{state}_total"))
        for state in ("succeeded", "failed", "revoked", "rejected", "retried")
    )
    total = succeeded + failed + revoked + rejected
    return Ends(
        total=total,
        successful=succeeded,
        failed=failed,
        revoked=revoked,
        rejected=rejected,
        retried=retried,
        error_rate_percent=rounded(100 * failed / total) if total else None,
        expired=round(counts.total("celery_task_revoked_total", reason="expired")),
        redelivered=round(counts.total("celery_task_redelivered_total")),
    )


def mean_ms(counts: Counts, histogram: str) -> float | None:
    """Return the mean of a histogram in ms; ``None`` when it is empty."""
    measured = counts.total(f"{histogram}_count")
    return rounded(1000 * counts.total(f"{histogram}_sum") / measured) if measured > 0 else None


def quantiles_ms(counts: Counts, histogram: str, *, by: Literal["name", "queue_name"] = "name") -> Quantiles:
    """Return quantiles of a histogram in ms; its buckets were read once by task and, for waits, once by queue."""
    buckets: dict[float, float] = {}
    for key, value in counts.values.items():
        if key.family == f"{histogram}_bucket" and getattr(key, by):
            buckets[float(key.le)] = buckets.get(float(key.le), 0.0) + value
    found = (quantile(q, buckets) for q in (0.5, 0.95, 0.99))
    return Quantiles(*(None if seconds is None else rounded(1000 * seconds) for seconds in found))


def quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """Return the ``q``-quantile of cumulative counts by upper bound, as Prometheus' `histogram_quantile` does.

    Linear within a bucket, of which the first begins at 0; beyond the last finite bound it is that bound. ``None`` when
    nothing was counted.

    >>> quantile(0.5, {1.0: 10.0, 2.0: 20.0, math.inf: 20.0})
    1.0
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank = q * total
    before, lower = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return lower
            share = (rank - before) / (buckets[bound] - before) if buckets[bound] > before else 1.0
            return lower + (bound - lower) * share
        before, lower = buckets[bound], bound
    return lower


def task_rows(counts: Counts) -> tuple[TaskRow, ...]:
    """Return the tasks that ended or were retried, the most frequent first."""
    rows = [
        TaskRow(
            name=name,
            ends=ends(task),
            avg_execution_time_ms=mean_ms(task, RUNTIME),
            execution_time_ms=quantiles_ms(task, RUNTIME),
            wait_time_ms=quantiles_ms(task, WAIT),
            execution_seconds=rounded(task.total(TASK_BUSY)),
        )
        for name, task in counts.split("name").items()
    ]
    rows = [row for row in rows if row.ends.total or row.ends.retried or row.ends.redelivered or row.execution_seconds]
    return tuple(sorted(rows, key=lambda row: (-row.ends.total, row.name)))


def schedule_rows(counts: Counts) -> tuple[ScheduleRow, ...]:
    """Return the entries of schedules that were due, those that missed most first."""
    rows = []
    for schedule, entry in counts.split("schedule").items():
        for name, own in entry.split("name").items():
            due, sent, unsent, succeeded, failed = (
                round(own.total(f"celery_schedule_{what}_total"))
                for what in ("due", "sent", "failed", "runs_succeeded", "runs_failed")
            )
            buckets = {float(key.le): value for key, value in own.values.items() if key.le}
            late = quantile(0.95, buckets)
            p95 = None if late is None else rounded(1000 * late)
            row = ScheduleRow(schedule, name, due, sent, max(0, due - sent), unsent, succeeded, failed, p95)
            rows.append(row)
    return tuple(sorted(rows, key=lambda row: (-row.missed, -row.failed, row.schedule)))


def queue_rows(
    counts: Counts,
    lengths: Mapping[str, Curve],
    *,
    wait_targets: Mapping[str, float],
    users: Mapping[str, SlotUser],
) -> tuple[QueueRow, ...]:
    """Return the queues in which tasks ended or whose length is known, the busiest first."""
    by_queue = counts.split("queue_name")
    rows = []
    for name in by_queue.keys() | lengths.keys():
        queue, curve = by_queue.get(name, Counts()), lengths.get(name, ())
        target = wait_targets.get(name)
        rows.append(
            QueueRow(
                queue_name=name,
                ends=ends(queue),
                wait_time_ms=quantiles_ms(queue, WAIT, by="queue_name"),
                avg_length=average(curve),
                max_length=largest(curve),
                length_at_end=last(curve),
                wait_target_ms=None if target is None else rounded(1000 * target),
                slot_user=users.get(name),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.ends.total, row.queue_name)))


def without_gaps(
    slots: Mapping[str, Curve], *, present: Mapping[str, Curve], times: Iterable[float]
) -> dict[str, Curve]:
    """Return the slots of workers or queues, with the last known number where one is present but its slots are unknown.

    They are unknown while a worker does not answer, such as one with the solo pool that runs a task: its slot is there
    all the same. ``present`` is 1 at the times when a worker was up, or a queue existed. Where nothing at all has a
    value of it, the exporter was away, and everything is taken to be as it was before.
    """
    heard = {at for curve in present.values() for at, _ in curve}
    times, filled = tuple(times), {}
    for name, curve in slots.items():
        known, there = {at: size for at, size in curve if size is not None}, dict(present.get(name, ()))
        size, alive, points = next(iter(known.values()), None), False, []
        for at in times:
            size = known.get(at, size)
            if at in known or at in heard:
                alive = at in known or there.get(at) == 1
            if alive:
                points.append((at, size))
        filled[name] = tuple(points)
    return filled


def slot_seconds(slots: Mapping[str, Curve], *, seconds: float, points: int) -> dict[str, float]:
    """Return the time that slots had in the window, which is shorter where they were not always there.

    ``slots`` are the slots over time of workers or queues, and ``points`` is how many points a curve has that covers
    all ``seconds``.
    """
    sums = {name: sum(value or 0.0 for _, value in curve) for name, curve in slots.items()}
    return {name: seconds * total / points for name, total in sums.items() if total and points > 0}


def slot_users(counts: Counts, capacity: Mapping[str, float], *, all_tasks: bool) -> dict[str, SlotUser]:
    """Return the task that used most slot time of the workers of each queue; ``capacity`` is by queue.

    When ``all_tasks`` is false the counts are of some tasks only, and a queue may be full of others.
    """
    by_task: dict[str, float] = defaultdict(float)
    by_queue: dict[str, dict[str, float]] = defaultdict(dict)
    for key, seconds in counts.values.items():
        if key.family == TASK_BUSY:
            by_task[key.name] += seconds
            by_queue[key.queue_name][key.name] = seconds
    found: dict[str, SlotUser] = {}
    for queue, slots in capacity.items():
        tasks = by_queue.get(queue, {})
        largest = max(tasks, key=lambda name: tasks[name], default="")
        share = 100 * tasks[largest] / slots if largest else 0.0
        if share >= OWN_SHARE:
            found[queue] = SlotUser(largest, rounded(min(100.0, share)), "queue_slots")
        elif all_tasks and (total := sum(by_task.values())) > 0:
            largest = max(by_task, key=lambda name: by_task[name])
            found[queue] = SlotUser(largest, rounded(100 * by_task[largest] / total), "busy_time")
    return found


def worker_rows(counts: Counts | None, gauges: Gauges, capacity: Mapping[str, float]) -> tuple[WorkerRow, ...]:
    """Return the workers that were seen, by name; ``capacity`` is their `slot_seconds`."""
    by_worker = {} if counts is None else counts.split("hostname")
    busy, pool, reserved = gauges["busy"], gauges["pool_size"], gauges["reserved"]
    return tuple(
        WorkerRow(
            hostname=name,
            runs_begun=_runs_begun(by_worker.get(name)),
            avg_busy_percent=_busy_percent(by_worker.get(name), capacity.get(name)),
            max_busy_percent=largest(busy.get(name, ())),
            pool_size=last(pool.get(name, ())),
            avg_reserved=average(reserved.get(name, ())),
        )
        for name in sorted(by_worker.keys() | busy.keys() | pool.keys() | reserved.keys())
    )


def _runs_begun(counts: Counts | None) -> int | None:
    """Return the tasks that a worker received; unknown when its own counter fell, because it restarted."""
    value = _counted(counts, "celery_worker_tasks_processed_total")
    return None if value is None or value < 0 else round(value)


def top_tasks(rows: tuple[TaskRow, ...], measure: Callable[[TaskRow], float | None]) -> tuple[str, ...]:
    """Return the names of the tasks that measure most, without those that measure nothing."""
    measured = [(value, row.name) for row in rows if (value := measure(row))]
    return tuple(name for _, name in sorted(measured, key=lambda pair: -pair[0])[:LISTED])


def busy_percent(counts: Counts | None, capacity: Mapping[str, float], *, all_tasks: bool) -> float | None:
    """Return the share of the time of all slots in which they ran a task.

    The counters of tasks outlive the workers that ran them. When the counts are of some tasks only, those of workers
    are taken, without the workers that were gone at the end of the window.
    """
    by_worker = {} if counts is None else counts.split("hostname")
    if counts is not None and all_tasks and capacity and any(key.family in (BUSY, TASK_BUSY) for key in counts.values):
        return rounded(min(100.0, 100 * counts.total(TASK_BUSY) / sum(capacity.values())))
    known = {name: seconds for name, part in by_worker.items() if (seconds := _counted(part, BUSY)) is not None}
    slots = sum(capacity.get(name, 0.0) for name in known)
    return rounded(min(100.0, 100 * sum(known.values()) / slots)) if slots else None


def _busy_percent(counts: Counts | None, capacity: float | None) -> float | None:
    seconds = _counted(counts, BUSY)
    return rounded(min(100.0, 100 * seconds / capacity)) if seconds is not None and capacity else None


def _counted(counts: Counts | None, family: str) -> float | None:
    """Return the total of a family; ``None`` when Prometheus does not have it, which is not 0."""
    known = counts is not None and any(key.family == family for key in counts.values)
    return counts.total(family) if counts is not None and known else None


def error_budget(counts: Counts | None, objective: float | None) -> ErrorBudget | None:
    """Return the failures against the objective (a share of 1), ``None`` if nobody chose one.

    Only tasks that succeeded or failed count.
    """
    if counts is None or not objective:
        return None
    found = ends(counts)
    allowed = (1 - objective) * (found.failed + found.successful)
    spent = rounded(100 * found.failed / allowed) if allowed > 0 else None
    return ErrorBudget(rounded(100 * objective), rounded(allowed), spent, assumed=False)


def change(counts: Counts | None, before: Counts | None) -> Change | None:
    """Return the change against the window before, where both are known."""
    if counts is None or before is None:
        return None
    now, then = ends(counts), ends(before)
    rates = now.error_rate_percent, then.error_rate_percent
    return Change(
        total_tasks=then.total,
        failed_tasks=then.failed,
        total_change_percent=_change_percent(now.total, then.total),
        error_rate_change_points=None if rates[0] is None or rates[1] is None else rounded(rates[0] - rates[1]),
        avg_execution_time_change_percent=_change_percent(mean_ms(counts, RUNTIME), mean_ms(before, RUNTIME)),
    )


def _change_percent(now: float | None, then: float | None) -> float | None:
    return None if now is None or not then else rounded(100 * (now - then) / then)


def unknown_reasons(counted: WindowCounts, peak: Peak | None, change: Change | None) -> dict[str, Note]:
    """Return why metrics are missing, by the name of their field."""
    counts = counted.counts
    if counts is None:
        why = Note("base_missing" if counted.without_base else "no_scrapes")
        names = (*COUNTED, "error_rate_percent", "avg_execution_time_ms", "avg_wait_time_ms", "average_throughput")
        return dict.fromkeys((*names, *(() if peak else ("peak_throughput",))), why)
    not_executed = "not_measured" if counts.total("celery_task_succeeded_total") else "nothing_succeeded"
    reasons = {
        "error_rate_percent": None if counts.ended else "nothing_ended",
        "avg_execution_time_ms": None if counts.total(f"{RUNTIME}_count") else not_executed,
        "avg_wait_time_ms": None if counts.total(f"{WAIT}_count") else "no_waits" if counts.ended else "nothing_ended",
        "peak_throughput": None if peak else "no_history" if counts.ended else "nothing_ended",
        "previous_window": None if change else "not_watched_before",
    }
    return {name: Note(code) for name, code in reasons.items() if code}


def average(curve: Curve) -> float | None:
    """Return the mean of a curve's known points."""
    values = [value for _, value in curve if value is not None]
    return rounded(fmean(values)) if values else None


def largest(curve: Curve) -> float | None:
    """Return the highest point of a curve."""
    return max((value for _, value in curve if value is not None), default=None)


def last(curve: Curve) -> float | None:
    """Return the newest known point of a curve."""
    return next((value for _, value in reversed(curve) if value is not None), None)
