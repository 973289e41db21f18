"""Snapshots of the cluster, read from Prometheus once for all callers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Lock
from typing import Final, Generic, Protocol, TypeVar

import requests

from celerymeter.bounded_http import fetch
from celerymeter.control.cluster import promql
from celerymeter.control.cluster.models import ClusterSnapshot, Component, Dashboard, overall_health
from celerymeter.errors import AmbiguousCluster, CelerymeterError, PrometheusError, RequestRefused
from celerymeter.prometheus import Scope, Vector
from celerymeter.prometheus.counters import recent_increase, recent_scrapes_query

T = TypeVar("T")
MAX_AGE: Final = 1.0
"""Seconds for which one answer serves every caller; Prometheus scrapes less often than that."""
_AGES: Final = (20, 60, 300)
"""Seconds back where a scrape is searched when the wanted one is missing: Prometheus has just started, or scrapes are
rare. Each age costs Prometheus a look at all series of tasks.
"""
MORE_SCRAPES: Final = {
    "scrapes": recent_scrapes_query(*_AGES),
    "task_scrapes": recent_scrapes_query(*_AGES, by="name"),
}
ALERTMANAGER_TIMEOUT: Final = 2.0


class Queries(Protocol):
    """The part of `celerymeter.prometheus.PrometheusClient` that is used here."""

    def instants(self, queries: Mapping[str, str], *, time: float | None = None) -> dict[str, Vector]:
        """Return the answers to several instant queries, by key."""


class SharedCall(Generic[T]):
    """A call whose outcome, made by the first caller, is shared with those that ask meanwhile or soon after.

    Errors are shared too, so a Prometheus that does not answer is waited for once and not once for each caller.
    """

    def __init__(
        self, call: Callable[[], T], *, max_age: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._call = call
        self._max_age = max_age
        self._monotonic = monotonic
        self._lock = Lock()
        self._made_at = float("-inf")
        self._outcome: T | CelerymeterError | None = None

    def get(self) -> T:
        """Return the outcome, not older than ``max_age``; raises the error that the call raised."""
        with self._lock:
            if self._outcome is None or self._monotonic() - self._made_at > self._max_age:
                try:
                    self._outcome = self._call()
                except CelerymeterError as error:
                    self._outcome = error
                self._made_at = self._monotonic()
            if isinstance(self._outcome, CelerymeterError):
                # Each raise adds frames to the traceback: those of a shared error would pile up.
                raise self._outcome.with_traceback(None)
            return self._outcome


class ClusterReader:
    """Reads the cluster from Prometheus; thread-safe. ``links`` are shown on the dashboard."""

    def __init__(
        self,
        client: Queries,
        scope: Scope,
        *,
        links: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._scope = scope
        self._links = links or {}
        self._clock = clock
        self._snapshots = SharedCall(self._read_snapshot, max_age=MAX_AGE)
        self._dashboards = SharedCall(self._read_dashboard, max_age=MAX_AGE)

    def snapshot(self) -> ClusterSnapshot:
        """Return a snapshot of the last second. When Prometheus does not answer, the snapshot says so."""
        return self._snapshots.get()

    def dashboard(self) -> Dashboard:
        """Return a dashboard of the last second; raises the reason when it cannot be known."""
        return self._dashboards.get()

    def _read_snapshot(self) -> ClusterSnapshot:
        try:
            found = ask(self._client, promql.snapshot_queries(self._scope), self._scope)
        except PrometheusError as error:
            unknown = tuple(Component(name, "unknown") for name in ("broker", "exporter", "workers"))
            components = (Component("prometheus", "failed", str(error)), *unknown)
            return ClusterSnapshot(at=self._clock(), components=components, problem=error)
        return snapshot_of(found, self._scope, now=self._clock())

    def _read_dashboard(self) -> Dashboard:
        scope = self._scope
        found = ask(self._client, promql.dashboard_queries(scope), scope)
        return promql.dashboard(found, scope, health=overall_health(components_of(found)), links=self._links)


def ask(client: Queries, queries: Mapping[str, str], scope: Scope, *, time: float | None = None) -> dict[str, Vector]:
    """Return all answers, by key. When the older scrape for a rate is missing, a second round asks for others."""
    found = client.instants(queries, time=time)
    lacking = [
        key
        for key in MORE_SCRAPES
        if key in found and len(found[key]) and recent_increase(found[key], wanted=0) is None
    ]
    if lacking:
        found |= client.instants({key: scope.render(MORE_SCRAPES[key]) for key in lacking}, time=time)
    return found


def snapshot_of(found: Mapping[str, Vector], scope: Scope, *, now: float) -> ClusterSnapshot:
    """Return a snapshot from the answers to the queries; clusters of which none was chosen are not mixed."""
    try:
        promql.require_one_cluster(found, scope)
    except AmbiguousCluster as error:
        exporter = Component("exporter", "failed", str(error))
        unknown = tuple(Component(name, "unknown", "no cluster is chosen") for name in ("broker", "workers"))
        components = (Component("prometheus", "ok"), exporter, *unknown, _alerts(found))
        return ClusterSnapshot(at=now, components=components, firing=promql.firing_alerts(found), problem=error)
    components = components_of(found)
    snapshot = ClusterSnapshot(
        at=now,
        components=components,
        queues=promql.queue_statuses(found),
        firing=promql.firing_alerts(found),
    )
    try:
        return replace(snapshot, metrics=promql.realtime_metrics(found, scope, health=overall_health(components)))
    except (PrometheusError, RequestRefused) as error:
        return replace(snapshot, problem=error)


def components_of(found: Mapping[str, Vector]) -> tuple[Component, ...]:
    """Return the condition of each component, as far as Prometheus knows it."""
    exporters, broker_up = found["exporters"].value(), found["broker_up"].value()
    exporter = Component("exporter", "failed", "Prometheus has no current samples of an exporter")
    if exporters is not None:
        age = promql.data_age(found) or 0.0
        exporter = Component("exporter", "ok", f"{exporters:.0f} scraped, the last time {age:.0f} s ago")

    broker = Component("broker", "ok")
    if broker_up is None:
        broker = Component("broker", "unknown", "no exporter reports it")
    elif broker_up != 1:
        broker = Component("broker", "failed", "the exporter cannot reach it")

    workers = Component("workers", "unknown", "the broker cannot be reached")
    if broker_up == 1:
        up, down = found["workers"].value() or 0, found["workers_down"].value() or 0
        workers = Component("workers", "ok" if up and not down else "failed", f"{up:.0f} up, {down:.0f} down")

    return (Component("prometheus", "ok"), exporter, broker, workers, _alerts(found))


def _alerts(found: Mapping[str, Vector]) -> Component:
    critical = sum(alert.severity == "critical" for alert in promql.firing_alerts(found))
    return Component("alerts", "failed" if critical else "ok", f"{critical} critical")


def alertmanager_component(url: str, *, timeout: float = ALERTMANAGER_TIMEOUT) -> Component:
    """Ask Alertmanager whether it is healthy; never raises."""
    try:
        answer = fetch("GET", f"{url.rstrip('/')}/-/healthy", timeout=timeout, max_bytes=64 * 1024)
    except requests.RequestException:
        return Component("alertmanager", "failed", "it cannot be reached")
    status = answer.status
    return Component("alertmanager", "ok" if status == 200 else "failed", f"it answered {status}")
