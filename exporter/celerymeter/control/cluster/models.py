"""The values that describe the cluster at one time; replies and the feed's messages show them as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from celerymeter.errors import CelerymeterError, RequestRefused

Condition = Literal["ok", "failed", "unknown"]
Health = Literal["healthy", "degraded", "unhealthy"]


@dataclass(frozen=True, slots=True)
class Component:
    """One component when it was last checked. ``detail`` is one line for administrators, without secrets."""

    name: str
    condition: Condition
    detail: str = ""
    critical: bool = False
    """A failed critical component makes the whole system unhealthy, not just degraded."""


def overall_health(components: Iterable[Component]) -> Health:
    """Return unhealthy when a critical component failed, degraded when any component is not ``ok``."""
    components = tuple(components)
    if any(part.critical and part.condition == "failed" for part in components):
        return "unhealthy"
    return "healthy" if all(part.condition == "ok" for part in components) else "degraded"


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue when it was last polled; unknown values are null."""

    name: str
    length: float | None
    unacked: float | None
    consumers: float | None
    oldest_task_age_seconds: float | None


@dataclass(frozen=True, slots=True)
class FiringAlert:
    """A firing alert."""

    name: str
    severity: str
    message: str
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class RealtimeMetrics:
    """The current metrics. The first six fields are always numbers; other unknown values are null."""

    active_workers: int
    pending_tasks: Annotated[
        int, Field(description="Ready messages in all queues; prefetched ones are `reserved_tasks`")
    ]
    processing_tasks: int
    queue_lengths: Annotated[Mapping[str, int], Field(description="Ready messages by queue")]
    current_throughput: Annotated[float, Field(description="Task runs that ended per second in the window")]
    error_rate_percent: Annotated[
        float, Field(description="Share of failed runs among those that ended in the window; 0 if none ended")
    ]
    finished_in_window: Annotated[int, Field(description="Runs that succeeded, failed, or were revoked or rejected")]
    failed_in_window: int
    retried_in_window: Annotated[int, Field(description="Retries, which do not end a task")]
    window_seconds: Annotated[
        float, Field(description="Time between the two scrapes that are compared, about a minute")
    ]
    avg_execution_time_ms: Annotated[
        float | None, Field(description="Mean run time of the tasks that succeeded in the window")
    ]
    busy_percent: Annotated[
        float | None, Field(description="Share of the slots' time in which they ran a task, over 5 minutes")
    ]
    p95_wait_ms: Annotated[
        float | None,
        Field(description="95th percentile over the last 5 minutes, interpolated within a histogram bucket"),
    ]
    reserved_tasks: Annotated[int | None, Field(description="Tasks that workers have prefetched")]
    scheduled_tasks: Annotated[int | None, Field(description="Tasks in workers that wait for their ETA")]
    system_health: Health
    timestamp: Annotated[datetime, Field(description="Time of the query, by Prometheus' clock")]
    data_age_seconds: Annotated[float | None, Field(description="Age of the newest scrape at that time")]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker; what is not known is null."""

    hostname: str
    status: Literal["up", "down", "shut_down"]
    version: str | None
    pool: str | None
    pool_size: float | None
    busy_percent: Annotated[
        float | None, Field(description="Share of its slots' time in which they ran a task, over 5 minutes")
    ]
    active_tasks: Annotated[float | None, Field(description="Tasks that ran at its last heartbeat")]
    reserved_tasks: float | None
    scheduled_tasks: float | None
    load1: float | None
    clock_offset_seconds: float | None
    task_events_enabled: bool | None
    heartbeat_age_seconds: float | None


@dataclass(frozen=True, slots=True)
class TaskActivity:
    """A task over the summary's window."""

    name: str
    finished: int
    failed: int
    retried: int
    throughput: float
    error_rate_percent: float
    avg_execution_time_ms: float | None


@dataclass(frozen=True, slots=True)
class SystemSummary:
    """The whole cluster in a few numbers."""

    system_health: Health
    total_workers: int
    active_workers: int
    down_workers: int
    total_queues: int
    pending_tasks: int
    processing_tasks: int
    firing_alerts: int
    window_seconds: Annotated[
        float | None, Field(description="The time that the tasks' numbers cover: about five minutes")
    ]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Metrics, workers, queues, tasks and alerts. Lists have at most 500 workers and queues, worst first; the summary
    counts all."""

    real_time_metrics: RealtimeMetrics
    system_summary: SystemSummary
    workers: tuple[WorkerStatus, ...]
    queues: tuple[QueueStatus, ...]
    busiest_tasks: tuple[TaskActivity, ...]
    most_failing_tasks: tuple[TaskActivity, ...]
    firing_alerts: tuple[FiringAlert, ...]
    links: Annotated[
        Mapping[str, str], Field(description="Grafana dashboards by name; empty when no Grafana is configured")
    ]


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """The cluster at one time, ``at`` in UTC seconds. ``firing`` is ``None`` when Prometheus could not be asked.

    Without ``metrics`` there is a ``problem``: a `PrometheusError`, or a `RequestRefused` with its code.
    """

    at: float
    components: tuple[Component, ...]
    metrics: RealtimeMetrics | None = None
    problem: CelerymeterError | None = None
    queues: tuple[QueueStatus, ...] = ()
    firing: tuple[FiringAlert, ...] | None = None

    def known_metrics(self) -> RealtimeMetrics:
        """Return the metrics, or raise the problem."""
        if self.metrics is None:
            raise self.problem or RequestRefused("exporter_unavailable", "no metrics are known yet")
        return self.metrics
