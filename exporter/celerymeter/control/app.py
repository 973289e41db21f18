"""The application factory: every blueprint with its parts, and the OpenAPI document that is made of them.

``exporter/openapi.json`` is the document of the default settings: ``make generate`` writes it, and a test compares it.
"""

from __future__ import annotations

import json
from typing import Any

from flask import Response, render_template
from flask_openapi3 import Info, OpenAPI, SecurityScheme

from celerymeter import __version__
from celerymeter.control import alerts, auth, errors, metrics, monitoring, reports, system, tasks
from celerymeter.control.audit import views as audit
from celerymeter.control.feed import views as feed
from celerymeter.control.lookup import views as lookup
from celerymeter.control.parts import Parts
from celerymeter.control.routing import PAGE_POLICY, ControlBlueprint, Operation, Permission
from celerymeter.control.settings import ControlSettings
from celerymeter.escaping import json_text

Document = dict[str, Any]
"""JSON as flask-openapi3 makes it."""

DESCRIPTION = (
    "Monitor a Celery cluster, revoke its tasks and report on them. Errors are RFC 9457 problems with a stable `code`."
)
SECURITY_SCHEMES: dict[str, SecurityScheme | dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "webhook": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token of `--webhook-token-file`, which only Alertmanager has",
    },
}


def blueprints(settings: ControlSettings, parts: Parts) -> tuple[ControlBlueprint, ...]:
    """Return every blueprint of the API; a new one is a line here."""
    return (
        system.blueprint(system=parts.system, maintenance=parts.maintenance, settings=settings),
        monitoring.blueprint(monitoring=parts.monitoring, audit=parts.audit),
        tasks.blueprint(service=parts.revocations, keys=parts.idempotency, base_path=settings.base_path),
        lookup.blueprint(lookups=parts.lookups, per_minute=settings.limits.lookups_per_minute),
        feed.blueprint(feed=parts.feed),
        alerts.blueprint(
            store=parts.alerts,
            hub=parts.monitoring.hub,
            counter=parts.metrics.alerts,
            left_out=parts.metrics.evicted.labels("alerts").inc,
        ),
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
    app.url_map.converters["task"] = lookup.TaskConverter
    # A redirect to the path without doubled slashes would lead to whatever host the client names.
    app.url_map.merge_slashes = False
    operations: dict[str, Operation] = {}
    for bp in blueprints(settings, parts):
        app.register_api(bp, url_prefix=settings.base_path)
        operations.update(bp.operations)
    operations.update(_serve_document(app, settings.base_path))
    metrics.observe(app, operations, parts.metrics)
    errors.install(app)
    auth.install(app, operations, auth=parts.auth, maintenance=parts.maintenance, settings=settings)
    return app


def document(app: OpenAPI) -> Document:
    """Return the document, without the 422 that flask-openapi3 adds to operations that validate nothing."""
    made: Document = json.loads(json.dumps(app.api_doc))
    for operation in (operation for path in made["paths"].values() for operation in path.values()):
        if "application/json" in operation["responses"].get("422", {}).get("content", {}):
            del operation["responses"]["422"]
    return made


def text(made: Document) -> str:
    """Format the document as it is served and committed."""
    return json_text(made, indent=2) + "\n"


def _serve_document(app: OpenAPI, base_path: str) -> dict[str, Operation]:
    """Serve the document and its page for people, once all blueprints are registered.

    At the root and below the base path, as a proxy may forward only the latter.
    """
    made = document(app)

    def show_openapi() -> Response:
        return Response(text(made), content_type="application/json")

    def show_docs() -> Response:
        page = Response(render_template("docs.html", api=made), content_type="text/html; charset=utf-8")
        page.headers["Content-Security-Policy"] = PAGE_POLICY
        return page

    for prefix in dict.fromkeys(("", base_path)):
        for rule, view in (("/openapi.json", show_openapi), ("/docs", show_docs)):
            app.add_url_rule(prefix + rule, view.__name__, view, provide_automatic_options=False)
    return {view.__name__: Operation(Permission.ANYONE) for view in (show_openapi, show_docs)}
