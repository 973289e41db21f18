"""The control API's own metrics (declared in `celerymeter.metrics`), and what counts every request and every query."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from threading import Lock

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

from celerymeter import metrics as families
from celerymeter.control.routing import Operation, Permission
from celerymeter.metrics import Family

log = logging.getLogger(__name__)

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MAX_PATH = 200
"""Characters of a path that are logged."""
UNMATCHED = "unmatched"
"""The route of every path that no operation answers: paths that strangers invent must not become label values."""


class ControlMetrics:
    """All metrics of the area ``control``, on a registry of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = self._counter(families.CONTROL_REQUESTS)
        self.latency = self._histogram(families.CONTROL_LATENCY)
        self.auth_failures = self._counter(families.CONTROL_AUTH_FAILURES)
        self.feed_clients = self._gauge(families.CONTROL_FEED_CLIENTS)
        self.feed_dropped = self._counter(families.CONTROL_FEED_DROPPED)
        self.promql_latency = self._histogram(families.CONTROL_PROMQL_LATENCY)
        self.promql_failures = self._counter(families.CONTROL_PROMQL_FAILURES)
        self.alerts = self._counter(families.CONTROL_ALERTS)
        self.revocations = self._counter(families.CONTROL_REVOCATIONS)
        self.held = self._gauge(families.CONTROL_HELD)
        self.held_dropped = self._counter(families.CONTROL_HELD_DROPPED)
        self.evicted = self._counter(families.CONTROL_EVICTED)
        self.unreadable = self._counter(families.CONTROL_UNREADABLE)

    def _counter(self, family: Family) -> Counter:
        return Counter(family.name, family.help, family.labels, registry=self.registry)

    def _gauge(self, family: Family) -> Gauge:
        return Gauge(family.name, family.help, family.labels, registry=self.registry)

    def _histogram(self, family: Family) -> Histogram:
        return Histogram(family.name, family.help, family.labels, registry=self.registry, buckets=LATENCY_BUCKETS)


class QueryMetrics:
    """Counts and times every query in the API's own metrics."""

    def __init__(self, metrics: ControlMetrics) -> None:
        self._metrics = metrics

    def answered(self, seconds: float) -> None:
        """Note a query that was answered."""
        self._metrics.promql_latency.observe(seconds)

    def failed(self, reason: str) -> None:
        """Note a query that failed."""
        self._metrics.promql_failures.labels(reason).inc()


def observe(app: Flask, operations: Mapping[str, Operation], metrics: ControlMetrics) -> None:
    """Count, time and log every request. A WebSocket is open for as long as it likes, so it has no latency."""

    strangers = StrangersLog()

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
        _log(response.status_code, seconds, strangers)
        return response


class StrangersLog:
    """Lets through so many lines a minute about requests without a valid token, and counts the others."""

    PER_MINUTE = 60

    def __init__(self) -> None:
        self._lock = Lock()
        self._minute = 0.0
        self._lines = self._left_out = 0

    def admit(self, now: float) -> int | None:
        """Return the number of lines that were left out before this one; None to leave out this one."""
        with self._lock:
            if now - self._minute >= 60.0:
                self._minute, self._lines = now, 0
            self._lines += 1
            if self._lines > self.PER_MINUTE:
                self._left_out += 1
                return None
            left_out, self._left_out = self._left_out, 0
            return left_out


def _log(status: int, seconds: float, strangers: StrangersLog) -> None:
    """Log at level info what changes something or fails. The path is without its query, which may hold a token."""
    routine = request.method in ("GET", "HEAD") and status < 500
    left_out = 0
    if not routine and "identity" not in g and "webhook" not in g and status < 500:
        admitted = strangers.admit(time.monotonic())
        if admitted is None:
            return
        left_out = admitted
    log.log(
        logging.DEBUG if routine else logging.INFO,
        "%s %s",
        request.method[:20],
        request.path[:MAX_PATH],
        extra={
            **({"left_out": left_out} if left_out else {}),
            "status": status,
            "milliseconds": round(seconds * 1000),
            "address": g.get("address", ""),
            "sub": g.identity.sub if "identity" in g else "",
        },
    )
