"""The performance report: one model that is sent, stored and rendered.

A field that cannot be known is ``None``, and ``unknown`` has the reason by the name of the field. Times are UTC, names
include their unit, counts are whole tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from celerymeter.reports.request import Filters

Curve = tuple[tuple[float, float | None], ...]
"""``(UTC seconds, value)``; a gap is ``None``."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The window ``(start, end]``; ``assumed_zone`` is set when a time was given without one."""

    start: datetime
    end: datetime
    seconds: float
    assumed_zone: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Milliseconds, interpolated within a histogram's bucket."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Ends:
    """Numbers of tasks that ended, by result; a retry is not an end."""

    total: int
    successful: int
    failed: int
    revoked: int
    rejected: int
    retried: int
    error_rate_percent: float | None
    expired: int | None = None
    """Part of ``revoked``: tasks that expired before they started."""
    redelivered: int | None = None
    """Runs that began again without a retry, which may have run twice; not an end."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task; ``execution_seconds`` is the time for which its runs used slots, unfinished ones included."""

    name: str
    ends: Ends
    avg_execution_time_ms: float | None
    execution_time_ms: Quantiles
    wait_time_ms: Quantiles
    execution_seconds: float


@dataclass(frozen=True, slots=True)
class SlotUser:
    """The task that used most slot time of a queue's workers.

    ``share_of`` says what the share is of: ``queue_slots``, the time of the slots of the queue's workers, or
    ``busy_time``, the time of all tasks, when none of the queue's own tasks used 30% of its slots.
    """

    name: str
    share_percent: float
    share_of: str


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue; its length was read every ``history.step_seconds``. ``wait_target_ms`` is null if nobody chose one."""

    queue_name: str
    ends: Ends
    wait_time_ms: Quantiles
    avg_length: float | None
    max_length: float | None
    length_at_end: float | None
    wait_target_ms: float | None = None
    slot_user: SlotUser | None = None


@dataclass(frozen=True, slots=True)
class CapacityRow:
    """The slots that would have kept a queue's wait target, by replaying its tasks (`celerymeter capacity`).

    ``slots`` is null where it cannot be known, and ``reason`` says why; ``saved_slot_hours`` is negative if the target
    would have cost more than the slots that were there, and null if these are shared or unknown.
    """

    queue_name: str
    wait_target_ms: float
    slots: int | None
    slots_at_least: int | None
    slots_at_most: int | None
    present_slots: float | None
    saved_slot_hours: float | None
    reason: Note | None = None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker; ``runs_begun`` is its own counter, unknown when it was gone at the end of the window."""

    hostname: str
    runs_begun: int | None
    avg_busy_percent: float | None
    max_busy_percent: float | None
    pool_size: float | None
    avg_reserved: float | None


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """One entry of beat's schedule that was due in the window, if beat has the hook.

    ``missed`` are the times at which it was due and nothing was sent; ``unsent`` the part of them in which beat tried
    and raised an error. ``succeeded`` and ``failed`` are runs that ended in the window.
    """

    schedule: str
    name: str
    due: int
    sent: int
    missed: int
    unsent: int
    succeeded: int
    failed: int
    lateness_p95_ms: float | None


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest mean over one step, which begins ``at``."""

    at: datetime
    tasks_per_second: float
    step_seconds: float
    source: str


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """Failures against what the objective allows; ``assumed`` is always false: nobody's objective is guessed."""

    objective_percent: float
    allowed_failures: float
    spent_percent: float | None
    assumed: bool


@dataclass(frozen=True, slots=True)
class Change:
    """The comparison with the window of the same length before; percentages are of its values."""

    total_tasks: int
    failed_tasks: int
    total_change_percent: float | None
    error_rate_change_points: float | None
    avg_execution_time_change_percent: float | None


@dataclass(frozen=True, slots=True)
class Redelivery:
    """The oldest message that was delivered and not acknowledged, and the visibility timeout of Redis."""

    oldest_unacked_seconds: float
    visibility_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """A metric that crossed the threshold of a rule; ``query`` is a key of the report's ``queries``."""

    figure: str
    subject: str
    value: float
    threshold: float
    unit: str
    query: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One piece of advice in the report's language: ``text`` is the observation, ``action`` what to do."""

    code: str
    severity: str
    evidence: tuple[Evidence, ...]
    text: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class AlertSpan:
    """A time during which an alert fired; ``end`` is null if it still fired at the end of the window."""

    start: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An alert that fired in the window, with its newest 20 ``spans``; their times are right to the charts' step."""

    alert: str
    severity: str
    subject: str
    """The queue, task or worker that it is about; empty for the whole cluster."""
    firing_seconds: float
    times: int
    spans: tuple[AlertSpan, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """The reason why a value is unknown, or a limit of the data; ``names`` are those that the sentence proposes."""

    code: str
    text: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quality:
    """The data quality. ``verdict`` is complete, limited or unusable, and ``words`` is a sentence for it."""

    verdict: str
    words: str
    scrapes_present_percent: float | None
    scrape_interval_seconds: float | None
    longest_gap_seconds: float | None
    exporters: int
    exporter_restarts: int
    events_missed: int | None
    series_folded: int | None
    disagreement_tasks: int | None
    query_warnings: tuple[str, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class History:
    """The curves of the charts: rates in tasks per second, execution in ms, lengths in messages."""

    step_seconds: float
    throughput: Curve = ()
    failures: Curve = ()
    execution_p50: Curve = ()
    execution_p95: Curve = ()
    execution_p99: Curve = ()
    queue_lengths: Mapping[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A performance report."""

    report_id: str
    generated_at: datetime
    language: str
    cluster: str
    filters: Filters
    time_range: TimeRange
    settled: bool
    total_tasks: int | None
    successful_tasks: int | None
    failed_tasks: int | None
    retried_tasks: int | None
    revoked_tasks: int | None
    rejected_tasks: int | None
    expired_tasks: int | None = None
    redelivered_runs: int | None = None
    error_rate_percent: float | None
    avg_execution_time_ms: float | None
    execution_time_ms: Quantiles
    avg_wait_time_ms: float | None
    wait_time_ms: Quantiles
    average_throughput: float | None
    peak_throughput: float | None
    peak: Peak | None
    avg_busy_percent: float | None
    error_budget: ErrorBudget | None
    redelivery: Redelivery | None
    previous_window: Change | None
    tasks: tuple[TaskRow, ...]
    queues: tuple[QueueRow, ...]
    workers: tuple[WorkerRow, ...]
    slowest_tasks: tuple[str, ...]
    most_failing_tasks: tuple[str, ...]
    schedules: tuple[ScheduleRow, ...] = ()
    capacity: tuple[CapacityRow, ...] = ()
    """Queues with a wait target, where the window is at most a day and there are not too many tasks to replay."""
    alerts: tuple[AlertRow, ...] = ()
    optimization_recommendations: tuple[str, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    unknown: Mapping[str, Note]
    data_quality: Quality
    history: History
    queries: Mapping[str, str]
