"""``/system/*``: is it well, what is it, and how is every part of it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from flask import Response
from pydantic import BaseModel, Field

from celerymeter import __version__
from celerymeter.control.access import Who
from celerymeter.control.audit.keeper import AuditKeeper
from celerymeter.control.health import Component, Condition, FiringAlert, QueueFigure, Status, SystemSource, judge
from celerymeter.control.routing import Area, answer, utc
from celerymeter.control.settings import ControlSettings
from celerymeter.settings import without_password

API_VERSION = "1"
HOME = "https://github.com/celerymeter/celerymeter"


class HealthReply(BaseModel):
    """Names no host, no version, no secret: anybody may read it."""

    status: Status
    checks: dict[str, Condition]
    timestamp: datetime = Field(description="When the components were last looked at")


class InfoReply(BaseModel):
    """What this is."""

    name: Literal["celerymeter"] = "celerymeter"
    version: str
    api_version: str
    features: dict[str, bool]
    documentation: dict[str, str]


class ComponentReply(BaseModel):
    """One component as last seen."""

    status: Condition
    detail: str


class QueueReply(BaseModel):
    """One queue as last seen; what is not known is null."""

    name: str
    length: float | None
    unacked: float | None
    consumers: float | None
    oldest_task_age_seconds: float | None


class AlertReply(BaseModel):
    """An alert that fires."""

    name: str
    severity: str
    message: str
    timestamp: datetime


class StatusReply(BaseModel):
    """Every component, the queues, what fires, and the configuration without secrets."""

    status: Status
    timestamp: datetime
    components: dict[str, ComponentReply]
    queues: list[QueueReply]
    alerts: list[AlertReply] | None = Field(description="null when nobody could be asked")
    configuration: dict[str, str | bool | float | None]


def area(*, system: SystemSource, keeper: AuditKeeper, settings: ControlSettings) -> Area:
    """The three system operations."""
    area = Area("system")

    def components() -> tuple[Component, ...]:
        """What the sampler saw, and whether our own disk takes what must be kept."""
        return (*system.state().components, Component("state", "failed" if keeper.failing else "ok", critical=True))

    @area.get("/system/health", who=Who.ANYONE, gives={200: HealthReply, 503: HealthReply})
    def read_health() -> Response:
        """Whether the system works.

        From the sampler's last look, so that asking costs nothing; 503 when unhealthy.
        """
        parts = components()
        status = judge(parts)
        checks = {part.name: part.condition for part in parts}
        reply = HealthReply(status=status, checks=checks, timestamp=utc(system.state().at))
        return answer(reply, 503 if status == "unhealthy" else 200)

    @area.get("/system/info", who=Who.ANYONE, gives={200: InfoReply})
    def read_info() -> Response:
        """What this is, and what it can do here."""
        return answer(
            InfoReply(
                version=__version__,
                api_version=API_VERSION,
                features=_features(settings),
                documentation={"openapi": "/openapi.json", "human": "/docs", "home": HOME},
            )
        )

    @area.get("/system/status", who=Who.ADMIN, gives={200: StatusReply})
    def read_status() -> Response:
        """Every component, the queues, firing alerts, and the configuration without its secrets."""
        state, parts = system.state(), components()
        return answer(
            StatusReply(
                status=judge(parts),
                timestamp=utc(state.at),
                components={part.name: _component(part) for part in parts},
                queues=[show_queue(queue) for queue in state.queues],
                alerts=None if state.firing is None else [show_alert(alert) for alert in state.firing],
                configuration=_configuration(settings),
            )
        )

    return area


def _component(part: Component) -> ComponentReply:
    return ComponentReply(status=part.condition, detail=part.detail)


def show_queue(queue: QueueFigure) -> QueueReply:
    """A queue as JSON."""
    return QueueReply(
        name=queue.name,
        length=queue.length,
        unacked=queue.unacked,
        consumers=queue.consumers,
        oldest_task_age_seconds=queue.oldest_task_age,
    )


def show_alert(alert: FiringAlert) -> AlertReply:
    """An alert as JSON."""
    return AlertReply(name=alert.name, severity=alert.severity, message=alert.message, timestamp=utc(alert.since))


def _features(settings: ControlSettings) -> dict[str, bool]:
    return {
        "alert_webhook": settings.webhook_token is not None,
        "anonymous_feed": settings.anonymous_feed,
        "durable_state": settings.state_dir is not None,
        "result_backend": settings.result_backend_url is not None,
    }


def _configuration(settings: ControlSettings) -> dict[str, str | bool | float | None]:
    """The settings that an administrator may see; secrets, tokens and header values are left out by not being named."""
    return {
        "broker_url": settings.broker.safe_url,
        "result_backend_url": _safe(settings.result_backend_url),
        "prometheus_url": _safe(settings.prometheus_url),
        "alertmanager_url": _safe(settings.alertmanager_url),
        "listen": settings.listen,
        "metrics_listen": settings.metrics_listen,
        "base_path": settings.base_path,
        "cluster": settings.cluster,
        "selector": settings.selector,
        "state_dir": None if settings.state_dir is None else str(settings.state_dir),
        "audit_retention_seconds": settings.audit_retention,
        "trusted_proxies": ", ".join(map(str, settings.trusted_proxies)),
        "allowed_origins": ", ".join(settings.allowed_origins),
        "anonymous_feed": settings.anonymous_feed,
        "feed_interval_seconds": settings.feed_interval,
        "feed_max_clients": settings.feed_max_clients,
        "revoke_hold_seconds": settings.revoke_hold,
        "jwt_issuer": settings.jwt.issuer,
        "jwt_audience": settings.jwt.audience,
        "lang": settings.lang,
    }


def _safe(url: str | None) -> str | None:
    return None if url is None else without_password(url)
