"""The application factory: every blueprint with its parts, and what runs before and after every view."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, g, request
from flask_openapi3 import Info, OpenAPI, SecurityScheme

from celerymeter import __version__
from celerymeter.control import alerts, auth, errors, monitoring, openapi, reports, system, tasks
from celerymeter.control.audit import views as audit
from celerymeter.control.feed import views as feed
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.parts import Parts
from celerymeter.control.routing import ControlBlueprint, Operation, Permission
from celerymeter.control.settings import ControlSettings

log = logging.getLogger(__name__)

UNMATCHED = "unmatched"
"""The route of every path that no operation answers: paths that strangers invent must not become label values."""
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
DESCRIPTION = (
    "Monitor a Celery cluster, revoke its tasks, report on it. Errors are RFC 9457 problems with a stable `code`."
)
SECURITY_SCHEMES: dict[str, SecurityScheme | dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "webhook": {"type": "http", "scheme": "bearer", "description": "Alertmanager's own token"},
}


def blueprints(settings: ControlSettings, parts: Parts) -> tuple[ControlBlueprint, ...]:
    """Return every blueprint of the API; a new one is a line here."""
    return (
        system.blueprint(system=parts.system, maintenance=parts.maintenance, settings=settings),
        monitoring.blueprint(monitoring=parts.monitoring, audit=parts.audit),
        tasks.blueprint(service=parts.revocations, keys=parts.idempotency, base_path=settings.base_path),
        feed.blueprint(feed=parts.feed),
        alerts.blueprint(store=parts.alerts, hub=parts.monitoring.hub, counter=parts.metrics.alerts),
        reports.blueprint(runner=parts.reports, language=settings.lang),
        audit.blueprint(trail=parts.audit),
    )


def create_app(settings: ControlSettings, parts: Parts) -> OpenAPI:
    """Return the Flask application. It starts no thread and opens no connection."""
    app = OpenAPI(
        "celerymeter.control",
        info=Info(title="celerymeter control API", version=__version__, description=DESCRIPTION),
        security_schemes=SECURITY_SCHEMES,
        validation_error_model=errors.Problem,
        validation_error_callback=errors.validation_response,
        doc_ui=False,
        static_folder=None,
    )
    operations: dict[str, Operation] = {}
    for bp in blueprints(settings, parts):
        app.register_api(bp, url_prefix=settings.base_path)
        operations.update(bp.operations)
    operations.update(openapi.install(app, settings.base_path))
    _observe(app, operations, parts.metrics)
    errors.install(app)
    auth.install(app, operations, auth=parts.auth, maintenance=parts.maintenance, settings=settings)
    app.after_request(_secured)
    return app


def _secured(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _observe(app: Flask, operations: Mapping[str, Operation], metrics: ControlMetrics) -> None:
    """Count, time and log every request. A WebSocket is open for as long as it likes, so it has no latency."""

    @app.before_request
    def begin() -> None:
        g.begun = time.monotonic()

    @app.after_request
    def end(response: Response) -> Response:
        operation = operations.get(request.endpoint or "")
        route = request.url_rule.rule if request.url_rule is not None else UNMATCHED
        method = request.method if operation is not None else UNMATCHED
        seconds = time.monotonic() - g.begun
        metrics.requests.labels(route, method, str(response.status_code)).inc()
        if operation is None or operation.permission is not Permission.FEED:
            metrics.latency.labels(route, method).observe(seconds)
        _log(response.status_code, seconds)
        return response


def _log(status: int, seconds: float) -> None:
    """Log at level info what changes something or fails. The path is without its query, which may hold a token."""
    routine = request.method in ("GET", "HEAD") and status < 500
    log.log(
        logging.DEBUG if routine else logging.INFO,
        "%s %s",
        request.method,
        request.path,
        extra={
            "status": status,
            "milliseconds": round(seconds * 1000),
            "address": g.get("address", ""),
            "sub": g.identity.sub if "identity" in g else "",
        },
    )
