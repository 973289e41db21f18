"""``POST /alerts/webhook`` and ``GET /alerts``."""

from __future__ import annotations

import logging
from typing import Literal

from flask import Response
from prometheus_client import Counter
from pydantic import Field

from celerymeter.control.access import Who
from celerymeter.control.notifications.kept import KeptAlert, KeptAlerts, Wanted
from celerymeter.control.notifications.models import AlertsReply, Notification, Taken
from celerymeter.control.notifications.show import message, notice
from celerymeter.control.notifications.tail import AlertTail
from celerymeter.control.routing import Area, Query, answer

log = logging.getLogger(__name__)
_LEVELS = {"critical": logging.ERROR, "warning": logging.WARNING}


class AlertsQuery(Query):
    """Which alerts to list."""

    status: Literal["firing", "resolved"] | None = None
    name: str | None = Field(default=None, max_length=256)
    severity: str | None = Field(default=None, max_length=64)
    limit: int = Field(default=100, ge=1, le=500)


def area(*, kept: KeptAlerts, tail: AlertTail, counted: Counter, language: str) -> Area:
    """Both operations."""
    area = Area("alerts")

    @area.post("/alerts/webhook", who=Who.WEBHOOK, gives={200: Taken}, problems=(503,))
    def take_alerts(body: Notification) -> Response:
        """Take alerts from Alertmanager.

        A receiver for `webhook_configs`. Each alert is logged as one structured line, kept, and sent to the feed. One
        that is posted again with the same fingerprint, times and status changes nothing.
        """
        new = kept.take(body.alerts)
        for alert in new:
            _log(alert)
            counted.labels(alert.status).inc()
        tail.look()
        received = len(body.alerts)
        return answer(Taken(received=received, new=len(new), repeated=received - len(new)))

    @area.get("/alerts", who=Who.VIEWER, gives={200: AlertsReply}, problems=(503,))
    def list_alerts(query: AlertsQuery) -> Response:
        """Firing and recent alerts, the newest first.

        As Alertmanager told them; at most 10,000 and 30 days are kept.
        """
        wanted = Wanted(status=query.status, name=query.name, severity=query.severity, limit=query.limit)
        alerts = [notice(alert, language=language) for alert in kept.states(wanted)]
        return answer(AlertsReply(alerts=alerts, firing=kept.firing()))

    return area


def _log(alert: KeptAlert) -> None:
    level = _LEVELS.get(alert.severity, logging.INFO) if alert.status == "firing" else logging.INFO
    log.log(
        level,
        "alert %s: %s - %s",
        alert.status,
        alert.name,
        message(alert, language="en"),
        extra={
            "alert": alert.name,
            "status": alert.status,
            "severity": alert.severity,
            "fingerprint": alert.fingerprint,
            "labels": dict(alert.labels),
            "starts_at": alert.starts_at,
            "ends_at": alert.ends_at,
        },
    )
