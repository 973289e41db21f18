"""``/system/*``: health, info and status."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

from flask import Response
from pydantic import BaseModel, Field

from celerymeter import __version__
from celerymeter.control.audit.maintenance import AuditMaintenance
from celerymeter.control.cluster.models import (
    ClusterSnapshot,
    Component,
    Condition,
    FiringAlert,
    Health,
    QueueStatus,
    overall_health,
)
from celerymeter.control.routing import ControlBlueprint, Permission, answer, utc
from celerymeter.control.settings import ControlSettings
from celerymeter.options import describe

API_VERSION = "1"


class HealthReply(BaseModel):
    """Health, readable without a token: it contains no host, version or secret."""

    status: Health
    checks: dict[str, Condition]
    timestamp: datetime = Field(description="When the components were last checked")


class InfoReply(BaseModel):
    """Name, version and features."""

    name: Literal["celerymeter"] = "celerymeter"
    version: str
    api_version: str
    features: dict[str, bool]
    documentation: dict[str, str]


class ComponentReply(BaseModel):
    """One component when it was last checked."""

    status: Condition
    detail: str


class StatusReply(BaseModel):
    """Every component, the queues, firing alerts, and the configuration without secrets."""

    status: Health
    timestamp: datetime
    components: dict[str, ComponentReply]
    queues: tuple[QueueStatus, ...]
    alerts: tuple[FiringAlert, ...] | None = Field(description="null when Prometheus could not be asked")
    configuration: dict[str, str | bool | float | None]


class SnapshotSource(Protocol):
    """Answers from memory, so that a request costs the broker and Prometheus nothing."""

    def last_snapshot(self) -> ClusterSnapshot:
        """Return the last snapshot; before the first one every component is ``unknown``."""


def blueprint(*, system: SnapshotSource, maintenance: AuditMaintenance, settings: ControlSettings) -> ControlBlueprint:
    """Return the three system operations."""
    bp = ControlBlueprint("system")

    def components() -> tuple[Component, ...]:
        """Return the sampler's components, and whether the state directory can be written."""
        state = Component("state", "failed" if maintenance.failing else "ok", critical=True)
        return (*system.last_snapshot().components, state)

    @bp.get("/system/health", permission=Permission.ANYONE, responses={200: HealthReply, 503: HealthReply})
    def read_health() -> Response:
        """Show whether the system works.

        The reply comes from memory, so frequent requests cost nothing. 503 when unhealthy.
        """
        parts = components()
        status = overall_health(parts)
        checks = {part.name: part.condition for part in parts}
        reply = HealthReply(status=status, checks=checks, timestamp=utc(system.last_snapshot().at))
        return answer(reply, 503 if status == "unhealthy" else 200)

    @bp.get("/system/info", permission=Permission.ANYONE, responses={200: InfoReply})
    def read_info() -> Response:
        """Show the version and the enabled features."""
        return answer(
            InfoReply(
                version=__version__,
                api_version=API_VERSION,
                features=_features(settings),
                documentation={"openapi": "/openapi.json", "human": "/docs"},
            )
        )

    @bp.get("/system/status", permission=Permission.ADMIN, responses={200: StatusReply})
    def read_status() -> Response:
        """Show all components, queues, firing alerts, and the configuration without secrets."""
        snapshot, parts = system.last_snapshot(), components()
        return answer(
            StatusReply(
                status=overall_health(parts),
                timestamp=utc(snapshot.at),
                components={part.name: ComponentReply(status=part.condition, detail=part.detail) for part in parts},
                queues=snapshot.queues,
                alerts=snapshot.firing,
                configuration=describe(settings),
            )
        )

    return bp


def _features(settings: ControlSettings) -> dict[str, bool]:
    return {
        "alert_webhook": settings.webhook_token is not None,
        "anonymous_feed": settings.anonymous_feed,
        "durable_state": settings.state_dir is not None,
        "result_backend": settings.result_backend_url is not None,
    }
