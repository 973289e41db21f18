"""The metrics and dashboard objects as JSON: in replies and in messages of the feed alike."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from celerymeter.control.health import Status
from celerymeter.control.live.dashboard import Dashboard
from celerymeter.control.live.figures import Metrics
from celerymeter.control.system import AlertReply, QueueReply, show_alert, show_queue
from celerymeter.errors import AmbiguousCluster, CelerymeterError, RequestRefused


class _FromValue(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class MetricsReply(_FromValue):
    """What is going on now. The first six figures are always numbers; of the others those not known are null."""

    active_workers: int
    pending_tasks: int = Field(description="Ready messages in all queues; prefetched ones are `reserved_tasks`")
    processing_tasks: int
    queue_lengths: dict[str, int] = Field(description="Ready messages by queue")
    current_throughput: float = Field(description="Ended task runs per second over the window")
    error_rate_percent: float = Field(description="Failed share of the runs that ended in the window; 0 when none did")
    finished_in_window: int = Field(description="Runs that ended: succeeded, failed, revoked, rejected")
    failed_in_window: int
    retried_in_window: int = Field(description="A retry is no end")
    window_seconds: float = Field(description="About a minute: between the two scrapes nearest to it")
    avg_execution_time_ms: float | None = Field(description="Of the tasks that succeeded in the window")
    p95_wait_ms: float | None = Field(description="95th percentile of the last 5 minutes, within a bucket")
    reserved_tasks: int | None = Field(description="Prefetched by workers")
    scheduled_tasks: int | None = Field(description="In workers, waiting for their ETA")
    system_health: Status
    timestamp: datetime = Field(validation_alias="at", description="When Prometheus was asked, by its clock")
    data_age_seconds: float | None = Field(description="Age of the newest scrape by then")


class WorkerReply(_FromValue):
    """A worker; what is not known is null."""

    hostname: str
    status: Literal["up", "down", "shut_down"]
    version: str | None
    pool: str | None
    pool_size: float | None
    active_tasks: float | None
    reserved_tasks: float | None
    scheduled_tasks: float | None
    load1: float | None
    clock_offset_seconds: float | None
    task_events_enabled: bool | None
    heartbeat_age_seconds: float | None


class TaskReply(_FromValue):
    """A task over the summary's window."""

    name: str
    finished: int
    failed: int
    retried: int
    throughput: float
    error_rate_percent: float
    avg_execution_time_ms: float | None


class SummaryReply(BaseModel):
    """The whole in a few figures."""

    system_health: Status
    total_workers: int
    active_workers: int
    down_workers: int
    total_queues: int
    pending_tasks: int
    processing_tasks: int
    firing_alerts: int
    window_seconds: float | None = Field(description="What the tasks' figures cover: about five minutes")


class DashboardReply(BaseModel):
    """Everything on one page. Lists of workers and queues end at 500, worst first; the summary counts all."""

    real_time_metrics: MetricsReply
    system_summary: SummaryReply
    workers: list[WorkerReply]
    queues: list[QueueReply]
    busiest_tasks: list[TaskReply]
    most_failing_tasks: list[TaskReply]
    firing_alerts: list[AlertReply]
    links: dict[str, str] = Field(description="Grafana dashboards by name; empty when no Grafana is configured")


class Greeting(BaseModel):
    """The first message of a WebSocket. ``running``: whether updates will come. ``complete``: with ``?since=``, whether
    all that was missed is still known.
    """

    message: str = "connected to celerymeter"
    client_count: int
    interval_seconds: float
    running: bool = True
    complete: bool = True


class MetricsUpdate(BaseModel):
    """The message of every interval."""

    metrics: MetricsReply


class Trouble(BaseModel):
    """Sent in place of figures when they cannot be known; ``code`` as in problems, or ``monitoring_stopped``."""

    code: str
    detail: str


def show_metrics(metrics: Metrics) -> MetricsReply:
    """The metrics object."""
    return MetricsReply.model_validate(metrics)


def show_dashboard(board: Dashboard, *, links: dict[str, str]) -> DashboardReply:
    """The dashboard object."""
    return DashboardReply(
        real_time_metrics=show_metrics(board.metrics),
        system_summary=_summary(board),
        workers=[WorkerReply.model_validate(worker) for worker in board.workers],
        queues=[show_queue(queue) for queue in board.queues],
        busiest_tasks=[TaskReply.model_validate(task) for task in board.busiest_tasks],
        most_failing_tasks=[TaskReply.model_validate(task) for task in board.most_failing_tasks],
        firing_alerts=[show_alert(alert) for alert in board.firing_alerts],
        links=links,
    )


def _summary(board: Dashboard) -> SummaryReply:
    return SummaryReply(
        system_health=board.metrics.system_health,
        total_workers=board.workers_total,
        active_workers=board.metrics.active_workers,
        down_workers=board.workers_down,
        total_queues=board.queues_total,
        pending_tasks=board.metrics.pending_tasks,
        processing_tasks=board.metrics.processing_tasks,
        firing_alerts=len(board.firing_alerts),
        window_seconds=board.window_seconds,
    )


def trouble(error: CelerymeterError | None) -> Trouble:
    """A problem as a message of the feed, in the words that a request would be answered with."""
    if isinstance(error, RequestRefused):
        return Trouble(code=error.code, detail=str(error))
    if isinstance(error, AmbiguousCluster):
        return Trouble(code="invalid", detail=str(error))
    return Trouble(code="prometheus_unavailable", detail="Prometheus is unavailable now")
