"""``/monitoring/*``: metrics, the dashboard, and starting and stopping task events and the feed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Response
from pydantic import BaseModel, ConfigDict, Field, RootModel

from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.auth import current_actor, require_role
from celerymeter.control.cluster.models import Dashboard, RealtimeMetrics
from celerymeter.control.cluster.snapshot import ClusterReader
from celerymeter.control.feed.hub import MONITORING_STOPPED, Hub
from celerymeter.control.routing import Body, ControlBlueprint, Permission, answer, utc
from celerymeter.control.task_event_evidence import WorkerTaskEvents
from celerymeter.control.task_events import TaskEventSwitch
from celerymeter.control.tokens import Role

_OPTIONAL_BODY = ConfigDict(openapi_extra={"required": False})  # type: ignore[typeddict-unknown-key]  # flask-openapi3's


class MetricsReply(RootModel[RealtimeMetrics]):
    """The current metrics."""


class DashboardReply(RootModel[Dashboard]):
    """Metrics, workers, queues, tasks and alerts."""


class StartBody(Body):
    """The body may be empty."""

    model_config = _OPTIONAL_BODY

    reason: str = Field(default="", max_length=1000, description="Reason for the audit trail")


class StopBody(Body):
    """``disable_task_events`` needs the role admin."""

    model_config = _OPTIONAL_BODY

    disable_task_events: bool = Field(default=False, description="Turn off the task events that start has turned on")
    reason: str = Field(default="", max_length=1000, description="Reason for the audit trail")


class StartReply(BaseModel):
    """The state of each worker. Task events are also turned on at workers that join later."""

    status: str = "running"
    since: datetime
    workers: tuple[WorkerTaskEvents, ...]


class StopReply(BaseModel):
    """The state of each worker."""

    status: str = "stopped"
    since: datetime
    workers: tuple[WorkerTaskEvents, ...]


class MonitoringReply(BaseModel):
    """The state of monitoring; unknown times are null."""

    running: bool = Field(description="Whether the feed sends updates")
    since: datetime = Field(description="Time of the last start or stop, or of the start of the program")
    task_events_wanted: bool
    events_subscribed: bool
    last_event: datetime | None
    last_scrape: datetime | None
    feed_clients: int
    feed_interval_seconds: float
    workers: tuple[WorkerTaskEvents, ...]


@dataclass(frozen=True, slots=True)
class Monitoring:
    """The parts that the operations act on; ``interval`` is the feed's, in seconds."""

    reader: ClusterReader
    switch: TaskEventSwitch
    hub: Hub
    interval: float

    def start(self) -> StartReply:
        """Start the feed's updates, and turn task events on at every worker."""
        workers = self.switch.turn_on()
        return StartReply(since=utc(self.switch.desired.get().since), workers=workers)

    def stop(self, *, disable_task_events: bool) -> StopReply:
        """Stop the feed's updates, and on demand the task events that `start` turned on."""
        desired = self.switch.desired
        was_on = desired.get().feed_on
        if disable_task_events:
            workers = self.switch.withdraw()
        else:
            desired.change(events=desired.get().events, feed_on=False)
            workers = self.switch.states()
        if was_on:
            self.hub.publish("error", MONITORING_STOPPED)
        return StopReply(since=utc(desired.get().since), workers=workers)

    def status(self) -> MonitoringReply:
        """Return whether monitoring runs, since when, and which workers send task events."""
        desired, registry = self.switch.desired.get(), self.switch.workers
        last_event = registry.last_event_at
        return MonitoringReply(
            running=desired.feed_on,
            since=utc(desired.since),
            task_events_wanted=desired.events == "on",
            events_subscribed=registry.connected_at is not None,
            last_event=None if last_event is None else utc(last_event),
            last_scrape=_last_scrape(self.reader),
            feed_clients=self.hub.client_count,
            feed_interval_seconds=self.interval,
            workers=self.switch.states(),
        )


def _last_scrape(reader: ClusterReader) -> datetime | None:
    metrics = reader.snapshot().metrics
    if metrics is None or metrics.data_age_seconds is None:
        return None
    return metrics.timestamp - timedelta(seconds=metrics.data_age_seconds)


def blueprint(*, monitoring: Monitoring, audit: AuditTrail) -> ControlBlueprint:
    """Return the operations of monitoring, without the feed and the reports."""
    bp = ControlBlueprint("monitoring")

    @bp.get(
        "/monitoring/metrics/realtime", permission=Permission.VIEWER, responses={200: MetricsReply}, errors=(422, 503)
    )
    def read_metrics() -> Response:
        """Show the current metrics.

        They are at most one second old. The reply is 503 if one of the first six fields is unknown, never a guess.
        """
        return answer(MetricsReply(monitoring.reader.snapshot().known_metrics()))

    @bp.get("/monitoring/dashboard", permission=Permission.VIEWER, responses={200: DashboardReply}, errors=(422, 503))
    def read_dashboard() -> Response:
        """Show the current metrics, workers, queues, tasks and alerts."""
        return answer(DashboardReply(monitoring.reader.dashboard()))

    _add_start_and_stop(bp, monitoring, audit)

    @bp.get("/monitoring/status", permission=Permission.VIEWER, responses={200: MonitoringReply}, errors=(503,))
    def read_monitoring() -> Response:
        """Show if monitoring is running, since when, and which workers send task events."""
        return answer(monitoring.status())

    return bp


def _add_start_and_stop(bp: ControlBlueprint, monitoring: Monitoring, audit: AuditTrail) -> None:
    @bp.post(
        "/monitoring/start",
        permission=Permission.OPERATOR,
        responses={200: StartReply},
        errors=(503,),
        audited="monitoring.start",
    )
    def start_monitoring(body: StartBody) -> Response:
        """Turn on task events at every worker, also at those that join later, and start the feed.

        You may repeat it. It stays in effect after a restart of the API.
        """
        with audit.act(current_actor(), "monitoring.start", reason=body.reason) as act:
            reply = monitoring.start()
            act.detail = {"workers": len(reply.workers)}
        return answer(reply)

    @bp.post(
        "/monitoring/stop",
        permission=Permission.OPERATOR,
        responses={200: StopReply},
        errors=(503,),
        audited="monitoring.stop",
    )
    def stop_monitoring(body: StopBody) -> Response:
        """Stop the feed's updates, and with `disable_task_events` turn off the task events that start has turned on.

        The feed still sends alerts and revocations. Without task events the exporter counts no tasks.
        """
        if body.disable_task_events:
            require_role(Role.ADMIN, "disabling task events")
        with audit.act(current_actor(), "monitoring.stop", reason=body.reason) as act:
            reply = monitoring.stop(disable_task_events=body.disable_task_events)
            act.detail = {"disable_task_events": body.disable_task_events, "workers": len(reply.workers)}
        return answer(reply)
