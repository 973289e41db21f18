"""The application factory: which blueprints there are, and what each is made of."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask_openapi3 import Info, OpenAPI, SecurityScheme

from celerymeter import __version__
from celerymeter.control import alerts, auth, errors, monitoring, observing, openapi, system, tasks
from celerymeter.control.audit import views as audit
from celerymeter.control.feed import views as feed
from celerymeter.control.parts import Parts
from celerymeter.control.reports import views as reports
from celerymeter.control.routing import ControlBlueprint, Operation
from celerymeter.control.settings import ControlSettings

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
    """The Flask application. It starts no thread and opens no connection."""
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
    observing.install(app, operations, metrics=parts.metrics)
    errors.install(app)
    auth.install(app, operations, auth=parts.auth, maintenance=parts.maintenance, settings=settings)
    app.after_request(_secured)
    return app


def _secured(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
