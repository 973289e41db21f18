"""Each request counted, timed and logged: path without its query, which may carry a token."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from flask import Flask, Response, g, request

from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.routing import Operation, Permission

log = logging.getLogger(__name__)

UNMATCHED = "unmatched"
"""The route of whatever no operation answers: paths that strangers invent must not become label values."""


def install(
    app: Flask,
    operations: Mapping[str, Operation],
    *,
    metrics: ControlMetrics,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Count every request. A WebSocket's time is how long it was open, so that is not measured as latency."""

    @app.before_request
    def begin() -> None:
        g.begun = monotonic()

    @app.after_request
    def end(response: Response) -> Response:
        operation = operations.get(request.endpoint or "")
        route = request.url_rule.rule if request.url_rule is not None else UNMATCHED
        method = request.method if operation is not None else UNMATCHED
        took = monotonic() - g.begun
        metrics.requests.labels(route, method, str(response.status_code)).inc()
        if operation is None or operation.permission is not Permission.FEED:
            metrics.latency.labels(route, method).observe(took)
        _log(response.status_code, took)
        return response


def _log(status: int, took: float) -> None:
    """Reading is routine; what changes something, and what failed, is not."""
    routine = request.method in ("GET", "HEAD") and status < 500
    log.log(
        logging.DEBUG if routine else logging.INFO,
        "%s %s",
        request.method,
        request.path,
        extra={
            "status": status,
            "milliseconds": round(took * 1000),
            "address": g.get("address", ""),
            "sub": g.identity.sub if "identity" in g else "",
        },
    )
