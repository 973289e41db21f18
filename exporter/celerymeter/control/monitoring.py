"""``/monitoring/*``: metrics, the dashboard, and starting and stopping task events and the feed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Response
from pydantic import BaseModel, ConfigDict, Field, RootModel

from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.auth import current_actor, require_role
from celerymeter.control.cluster.models import Dashboard, RealtimeMetrics
from celerymeter.control.cluster.snapshot import ClusterReader
from celerymeter.control.feed.hub import Hub
from celerymeter.control.feed.messages import MONITORING_STOPPED
from celerymeter.control.routing import Body, ControlBlueprint, Permission, answer, utc
from celerymeter.control.switching.switch import Switch
from celerymeter.control.switching.taskevents import Judgement, State
from celerymeter.control.switching.wishes import Wishes
from celerymeter.control.tokens import Role


class MetricsReply(RootModel[RealtimeMetrics]):
    """What is going on now."""


class DashboardReply(RootModel[Dashboard]):
    """Everything on one page."""


class WorkerEvents(BaseModel):
    """A worker's task events. `always_on`: it sends them by itself (started with `-E`) and cannot be told not to.
    `impossible`: it acknowledges and sends no event at all. `unknown`: no answer yet, or no event stream to judge by.
    """

    hostname: str
    task_events: State
    confirmed: bool = Field(description="Proven by events, or by runs without; an idle worker proves nothing")
    last_task_event: datetime | None


class StartReply(BaseModel):
    """What became of it, by worker; workers that join later are told as they come."""

    status: str = "running"
    since: datetime
    workers: list[WorkerEvents]


class StopBody(Body):
    """``disable_task_events`` needs the role admin."""

    model_config = ConfigDict(openapi_extra={"required": False})  # type: ignore[typeddict-unknown-key]  # flask-openapi3's

    disable_task_events: bool = Field(default=False, description="Withdraw what start turned on, and only that")
    reason: str = Field(default="", max_length=1000, description="For the audit trail")


class StartBody(Body):
    """Nothing is needed."""

    model_config = ConfigDict(openapi_extra={"required": False})  # type: ignore[typeddict-unknown-key]  # flask-openapi3's

    reason: str = Field(default="", max_length=1000, description="For the audit trail")


class StopReply(BaseModel):
    """What became of it, by worker."""

    status: str = "stopped"
    since: datetime
    workers: list[WorkerEvents]


class MonitoringReply(BaseModel):
    """Whether monitoring runs, and what it sees. Times that are not known are null."""

    running: bool = Field(description="Whether the feed sends updates")
    since: datetime = Field(description="When it was started or stopped last, or when the program started")
    task_events_wanted: bool
    events_subscribed: bool
    last_event: datetime | None
    last_scrape: datetime | None
    feed_clients: int
    feed_interval_seconds: float
    workers: list[WorkerEvents]


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What the operations act on."""

    reader: ClusterReader
    switch: Switch
    wishes: Wishes
    hub: Hub
    interval: float


def blueprint(*, monitoring: Monitoring, audit: AuditTrail) -> ControlBlueprint:
    """The operations but the feed's and the reports'."""
    bp = ControlBlueprint("monitoring")

    @bp.get(
        "/monitoring/metrics/realtime", permission=Permission.VIEWER, responses={200: MetricsReply}, errors=(422, 503)
    )
    def read_metrics() -> Response:
        """What is going on now.

        Not older than a second. 503 when one of the first six fields cannot be known: no value is ever made up.
        """
        return answer(MetricsReply(monitoring.reader.snapshot().known_metrics()))

    @bp.get("/monitoring/dashboard", permission=Permission.VIEWER, responses={200: DashboardReply}, errors=(422, 503))
    def read_dashboard() -> Response:
        """What is going on now, by worker, queue, task and alert."""
        return answer(DashboardReply(monitoring.reader.dashboard()))

    @bp.post("/monitoring/start", permission=Permission.OPERATOR, responses={200: StartReply}, errors=(503,))
    def start_monitoring(body: StartBody) -> Response:
        """Turn task events on at every worker, now and as they join, and start the feed.

        Harmless to repeat, and kept over restarts.
        """
        with audit.act(current_actor(), "monitoring.start", reason=body.reason) as act:
            found = monitoring.switch.turn_on()
            act.detail = {"workers": len(found)}
        return answer(StartReply(since=utc(monitoring.wishes.get().since), workers=_shown(found)))

    @bp.post("/monitoring/stop", permission=Permission.OPERATOR, responses={200: StopReply}, errors=(503,))
    def stop_monitoring(body: StopBody) -> Response:
        """Stop the feed's updates; with `disable_task_events` also turn task events off where start turned them on.

        Alerts and revocations are still sent to the feed. Without task events the exporter sees no tasks.
        """
        if body.disable_task_events:
            require_role(Role.ADMIN, "disabling task events")
        with audit.act(current_actor(), "monitoring.stop", reason=body.reason) as act:
            found = _stop(monitoring, disable=body.disable_task_events)
            act.detail = {"disable_task_events": body.disable_task_events, "workers": len(found)}
        return answer(StopReply(since=utc(monitoring.wishes.get().since), workers=_shown(found)))

    @bp.get("/monitoring/status", permission=Permission.VIEWER, responses={200: MonitoringReply}, errors=(503,))
    def read_monitoring() -> Response:
        """Whether monitoring runs, since when, and which workers send task events."""
        return answer(_status(monitoring))

    return bp


def _stop(monitoring: Monitoring, *, disable: bool) -> tuple[Judgement, ...]:
    wishes, was_on = monitoring.wishes, monitoring.wishes.get().feed_on
    if disable:
        found = monitoring.switch.withdraw()
    else:
        wishes.say(events=wishes.get().events, feed_on=False)
        found = monitoring.switch.judgements()
    if was_on:
        monitoring.hub.publish("error", MONITORING_STOPPED)
    return found


def _status(monitoring: Monitoring) -> MonitoringReply:
    wish, switch = monitoring.wishes.get(), monitoring.switch
    return MonitoringReply(
        running=wish.feed_on,
        since=utc(wish.since),
        task_events_wanted=wish.events == "on",
        events_subscribed=switch.subscribed_since is not None,
        last_event=_when(switch.last_event_at),
        last_scrape=_last_scrape(monitoring.reader),
        feed_clients=monitoring.hub.client_count,
        feed_interval_seconds=monitoring.interval,
        workers=_shown(switch.judgements()),
    )


def _last_scrape(reader: ClusterReader) -> datetime | None:
    metrics = reader.snapshot().metrics
    if metrics is None or metrics.data_age_seconds is None:
        return None
    return metrics.timestamp - timedelta(seconds=metrics.data_age_seconds)


def _shown(judgements: Iterable[Judgement]) -> list[WorkerEvents]:
    return [
        WorkerEvents(
            hostname=judgement.hostname,
            task_events=judgement.task_events,
            confirmed=judgement.confirmed,
            last_task_event=_when(judgement.last_task_event),
        )
        for judgement in judgements
    ]


def _when(at: float | None) -> datetime | None:
    return None if at is None else utc(at)
