"""The OpenAPI document and its page for people, made of the application at its start.

``exporter/openapi.json`` is the document of the default settings: ``make generate`` writes it, and a test compares it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flask import Response, render_template
from flask_openapi3 import OpenAPI

from celerymeter.control.routing import Operation, Permission

Document = dict[str, Any]
"""JSON as flask-openapi3 makes it."""

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
"""The page has an inline style sheet and loads nothing: no script, no font."""


def document(app: OpenAPI) -> Document:
    """Return the document, without the 422 that flask-openapi3 adds to operations that validate nothing."""
    made: Document = json.loads(json.dumps(app.api_doc))
    for operation in _operations(made):
        if "application/json" in operation["responses"].get("422", {}).get("content", {}):
            del operation["responses"]["422"]
    return made


def text(made: Document) -> str:
    """Format the document as it is served and committed."""
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _operations(made: Document) -> Iterator[Document]:
    return (operation for path in made["paths"].values() for operation in path.values())


def install(app: OpenAPI, base_path: str) -> dict[str, Operation]:
    """Serve both at the root and below the base path, as a proxy may forward only the latter.

    Call it after all blueprints are registered.
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
