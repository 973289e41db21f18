"""The control API's own metrics, one registry for each application, declared by `celerymeter.metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

from celerymeter import metrics
from celerymeter.metrics import Family

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ControlMetrics:
    """All metrics of the area ``control``, on one registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = self._counter(metrics.CONTROL_REQUESTS)
        self.latency = self._histogram(metrics.CONTROL_LATENCY)
        self.auth_failures = self._counter(metrics.CONTROL_AUTH_FAILURES)
        self.feed_clients = self._gauge(metrics.CONTROL_FEED_CLIENTS)
        self.feed_dropped = self._counter(metrics.CONTROL_FEED_DROPPED)
        self.promql_latency = self._histogram(metrics.CONTROL_PROMQL_LATENCY)
        self.promql_failures = self._counter(metrics.CONTROL_PROMQL_FAILURES)
        self.alerts = self._counter(metrics.CONTROL_ALERTS)
        self.revocations = self._counter(metrics.CONTROL_REVOCATIONS)
        self.held = self._gauge(metrics.CONTROL_HELD)
        self.held_dropped = self._counter(metrics.CONTROL_HELD_DROPPED)

    def _counter(self, family: Family) -> Counter:
        return Counter(family.name, family.help, family.labels, registry=self.registry)

    def _gauge(self, family: Family) -> Gauge:
        return Gauge(family.name, family.help, family.labels, registry=self.registry)

    def _histogram(self, family: Family) -> Histogram:
        return Histogram(family.name, family.help, family.labels, registry=self.registry, buckets=LATENCY_BUCKETS)
