"""The application factory: which areas there are, and what each is made of."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask_openapi3 import Info, OpenAPI, SecurityScheme

from celerymeter import __version__
from celerymeter.control import guard, monitoring, observing, openapi, problems, system, tasks
from celerymeter.control.audit import views as audit
from celerymeter.control.feed import views as feed
from celerymeter.control.notifications import views as notifications
from celerymeter.control.reports import views as reports
from celerymeter.control.routing import Area, Operation
from celerymeter.control.services import Services
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


def areas(settings: ControlSettings, services: Services) -> tuple[Area, ...]:
    """Every area of the API; a new one is a line here."""
    watching = services.watching
    return (
        system.area(system=services.system, keeper=services.keeper, settings=settings),
        monitoring.area(monitoring=watching.monitoring, audit=services.audit),
        tasks.area(revocation=services.revocation, base_path=settings.base_path),
        feed.area(feed=watching.feed),
        notifications.area(
            kept=watching.alerts, tail=watching.tail, counted=services.metrics.alerts, language=settings.lang
        ),
        reports.area(desk=services.reports, language=settings.lang),
        audit.area(trail=services.audit, store=services.store),
    )


def create_app(settings: ControlSettings, services: Services) -> OpenAPI:
    """The Flask application. It starts no thread and opens no connection."""
    app = OpenAPI(
        "celerymeter.control",
        info=Info(title="celerymeter control API", version=__version__, description=DESCRIPTION),
        security_schemes=SECURITY_SCHEMES,
        validation_error_model=problems.Problem,
        validation_error_callback=problems.validation_response,
        doc_ui=False,
        static_folder=None,
    )
    operations: dict[str, Operation] = {}
    for area in areas(settings, services):
        app.register_api(area.blueprint, url_prefix=settings.base_path)
        operations.update(area.operations)
    operations.update(openapi.install(app, settings.base_path))
    observing.install(app, operations, metrics=services.metrics)
    problems.install(app)
    guard.install(app, operations, auth=services.auth, keeper=services.keeper, settings=settings)
    app.after_request(_secured)
    return app


def _secured(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
