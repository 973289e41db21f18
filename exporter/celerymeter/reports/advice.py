"""Advice: rules over the metrics of a report, each with its evidence and its threshold. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean

from celerymeter.reports.metrics import OWN_SHARE, rounded
from celerymeter.reports.report import Curve, Evidence, QueueRow, Recommendation, Report

SATURATED = 85.0
"""Percent of slots busy, on average over the window."""
GROWN = 1.5
GROWN_TO = 50.0
"""A queue does not drain when its last quarter is this many times its first, and at least so long (messages)."""
TAIL = 10.0
TAIL_MS = 1000.0
TAIL_TASKS = 100
"""A long tail: p99 is this many times p50 and at least so long, of at least so many successes."""
RETRIES = 20.0
RETRIED = 20
"""Retries in percent of ended tasks, and at least so many."""
POOL_SHARE = 70.0
"""Percent of all execution time that one task takes, in a pool that is at least half busy."""
HALF_BUSY = 50.0
IDLE = 10.0
IDLE_PEAK = 50.0
"""Percent of slots busy, on average and at most, below which there are too many workers."""
HOARDED = 2.0
"""Messages that a worker reserves for each of its slots while another worker is idle."""
HOARDED_IDLE = 20.0
AT_RISK = 80.0
"""Percent of the visibility timeout that the oldest unacknowledged message reached."""
OVERSPENT = 100.0
JUDGED = 100
"""Runs that succeeded or failed, from which on an error budget is judged: the same as in the bundled alerts."""

EXPIRED = 5.0
EXPIRED_TASKS = 20
"""Expired tasks in percent of those that started or expired, and at least so many."""

Rule = Callable[[Report], Iterable[Recommendation]]


def recommend(report: Report) -> tuple[Recommendation, ...]:
    """Return the advice of all rules, warnings first; `celerymeter.reports.formatting` adds the sentences."""
    found = [advice for rule in RULES for advice in rule(report)]
    return tuple(sorted(found, key=lambda advice: advice.severity != "warning"))


def _no_run_is_missing(report: Report) -> bool:
    """Return True when busy time is exact: a run whose events were lost makes its worker look idle."""
    return not report.data_quality.events_missed and report.data_quality.verdict != "unusable"


def events_missing(report: Report) -> Iterable[Recommendation]:
    """Events were lost, so their runs are in no metric."""
    missed = report.data_quality.events_missed or 0
    if missed > 0:
        yield _advice("events_missing", Evidence("events_missed", "", missed, 0.0, "tasks", "counts"))


def error_budget_spent(report: Report) -> Iterable[Recommendation]:
    """More tasks failed than the objective allows, of enough runs to judge."""
    spent = (report.error_budget.spent_percent if report.error_budget else None) or 0.0
    judged = (report.successful_tasks or 0) + (report.failed_tasks or 0)
    if spent >= OVERSPENT and judged >= JUDGED:
        worst = report.most_failing_tasks[0] if report.most_failing_tasks else ""
        yield _advice(
            "error_budget_spent",
            Evidence("error_budget.spent_percent", worst, spent, OVERSPENT, "%", "counts"),
            Evidence("judged_tasks", "", judged, JUDGED, "tasks", "counts"),
        )


def pool_saturated(report: Report) -> Iterable[Recommendation]:
    """Nearly all slots were busy while messages waited."""
    waiting = rounded(sum(row.avg_length or 0.0 for row in report.queues))
    if (report.avg_busy_percent or 0.0) >= SATURATED and waiting >= 1:
        yield _advice(
            "pool_saturated",
            Evidence("avg_busy_percent", "", report.avg_busy_percent or 0.0, SATURATED, "%", "busy"),
            Evidence("queue_lengths", "", waiting, 1.0, "messages", "queue_lengths"),
        )


def queue_not_draining(report: Report) -> Iterable[Recommendation]:
    """A queue was much longer at the end of the window than at its beginning."""
    for name, curve in report.history.queue_lengths.items():
        first, final = _quarters(curve)
        threshold = max(GROWN_TO, rounded(GROWN * first))
        if final >= threshold:
            yield _advice(
                "queue_not_draining", Evidence("queue_length", name, final, threshold, "messages", "queue_lengths")
            )


def _quarters(curve: Curve) -> tuple[float, float]:
    """Return the means of the first and the last quarter of the points; zeros when there are too few."""
    values = [value for _, value in curve if value is not None]
    size = len(values) // 4
    return (rounded(fmean(values[:size])), rounded(fmean(values[-size:]))) if size else (0.0, 0.0)


def waits_too_long(report: Report) -> Iterable[Recommendation]:
    """One of twenty tasks of a queue waited longer than the target that somebody chose for it."""
    for row in report.queues:
        if _waits_beyond(row):
            yield _advice("waits_too_long", _wait(row))


def _wait(row: QueueRow) -> Evidence:
    waited, target = row.wait_time_ms.p95 or 0.0, row.wait_target_ms or 0.0
    return Evidence("wait_time_ms.p95", row.queue_name, waited, target, "ms", "counts")


def _waits_beyond(row: QueueRow) -> bool:
    waited, target = row.wait_time_ms.p95, row.wait_target_ms
    return waited is not None and target is not None and waited > target


def slots_taken(report: Report) -> Iterable[Recommendation]:
    """One task used most of the slots while tasks of a queue waited too long, or the queue did not drain."""
    late = {row.queue_name for row in report.queues if _waits_beyond(row)}
    late |= {advice.evidence[0].subject for advice in queue_not_draining(report)}
    for row in report.queues:
        user = row.slot_user
        if user is not None and row.queue_name in late and user.share_percent >= OWN_SHARE:
            yield _advice(
                "slots_taken",
                Evidence(f"slot_user.{user.share_of}", user.name, user.share_percent, OWN_SHARE, "%", "counts"),
                _wait(row),
            )


def tasks_redelivered(report: Report) -> Iterable[Recommendation]:
    """Runs began again without a retry, so their tasks may have run twice."""
    for row in report.tasks:
        if row.ends.redelivered:
            yield _advice(
                "tasks_redelivered", Evidence("redelivered", row.name, row.ends.redelivered, 0.0, "runs", "counts")
            )


def tasks_expired(report: Report) -> Iterable[Recommendation]:
    """Many tasks expired before a worker started them."""
    for row in report.tasks:
        expired = row.ends.expired or 0
        share = rounded(100 * expired / max(1, row.ends.total))
        if expired >= EXPIRED_TASKS and share >= EXPIRED:
            yield _advice("tasks_expired", Evidence("expired_percent", row.name, share, EXPIRED, "%", "counts"))


def retry_storm(report: Report) -> Iterable[Recommendation]:
    """Many runs of a task ended in a retry."""
    for row in report.tasks:
        share = rounded(100 * row.ends.retried / max(1, row.ends.total))
        if row.ends.retried >= RETRIED and share >= RETRIES:
            yield _advice("retry_storm", Evidence("retried_percent", row.name, share, RETRIES, "%", "counts"))


def redelivery_risk(report: Report) -> Iterable[Recommendation]:
    """A message was unacknowledged for nearly the visibility timeout, after which Redis delivers it again."""
    found = report.redelivery
    if found is None:
        return
    threshold = rounded(AT_RISK / 100 * found.visibility_timeout_seconds)
    if found.oldest_unacked_seconds >= threshold:
        yield _advice(
            "redelivery_risk",
            Evidence("oldest_unacked_seconds", "", found.oldest_unacked_seconds, threshold, "s", "unacked_age"),
        )


def prefetch_hoarding(report: Report) -> Iterable[Recommendation]:
    """A worker reserved messages that an idle worker could have run."""
    idle = [row for row in report.workers if row.avg_busy_percent is not None and row.avg_busy_percent <= HOARDED_IDLE]
    for row in report.workers if _no_run_is_missing(report) else ():
        threshold = HOARDED * (row.pool_size or 1.0)
        others = [other for other in idle if other is not row]
        if others and (row.avg_reserved or 0.0) >= threshold:
            spare = others[0]
            yield _advice(
                "prefetch_hoarding",
                Evidence("avg_reserved", row.hostname, row.avg_reserved or 0.0, threshold, "messages", "reserved"),
                Evidence("avg_busy_percent", spare.hostname, spare.avg_busy_percent or 0.0, HOARDED_IDLE, "%", "busy"),
            )


def task_eats_pool(report: Report) -> Iterable[Recommendation]:
    """One of several tasks took most of the time of a pool that is at least half busy."""
    total = sum(row.execution_seconds for row in report.tasks)
    if (
        not _no_run_is_missing(report)
        or len(report.tasks) < 2
        or total <= 0
        or (report.avg_busy_percent or 0.0) < HALF_BUSY
    ):
        return
    row = max(report.tasks, key=lambda row: row.execution_seconds)
    share = rounded(100 * row.execution_seconds / total)
    if share >= POOL_SHARE:
        yield _advice(
            "task_eats_pool",
            Evidence("execution_share_percent", row.name, share, POOL_SHARE, "%", "counts"),
            Evidence("avg_busy_percent", "", report.avg_busy_percent or 0.0, HALF_BUSY, "%", "busy"),
            severity="info",
        )


def long_tail(report: Report) -> Iterable[Recommendation]:
    """The slowest runs of a task took many times as long as its usual run."""
    for row in report.tasks:
        usual, slow = row.execution_time_ms.p50 or 0.0, row.execution_time_ms.p99 or 0.0
        threshold = max(TAIL_MS, rounded(TAIL * usual))
        if row.ends.successful >= TAIL_TASKS and slow >= threshold:
            yield _advice(
                "long_tail",
                Evidence("execution_time_ms.p99", row.name, slow, threshold, "ms", "counts"),
                severity="info",
            )


def idle_workers(report: Report) -> Iterable[Recommendation]:
    """There were several workers, and half of the slots were free even at the busiest time."""
    highest = [row.max_busy_percent for row in report.workers if row.pool_size]
    known = [percent for percent in highest if percent is not None]
    busy = report.avg_busy_percent
    if not _no_run_is_missing(report) or busy is None or len(known) < 2 or len(known) < len(highest):
        return
    if busy <= IDLE and max(known) <= IDLE_PEAK:
        yield _advice(
            "idle_workers",
            Evidence("avg_busy_percent", "", busy, IDLE, "%", "busy"),
            Evidence("max_busy_percent", "", max(known), IDLE_PEAK, "%", "busy"),
            severity="info",
        )


RULES: tuple[Rule, ...] = (
    events_missing,
    error_budget_spent,
    pool_saturated,
    queue_not_draining,
    waits_too_long,
    slots_taken,
    tasks_redelivered,
    tasks_expired,
    retry_storm,
    redelivery_risk,
    prefetch_hoarding,
    task_eats_pool,
    long_tail,
    idle_workers,
)


def _advice(code: str, *evidence: Evidence, severity: str = "warning") -> Recommendation:
    return Recommendation(code, severity, evidence)
