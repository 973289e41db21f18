"""Looks at the cluster through Prometheus, once for all who ask at about the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Generic, Protocol, TypeVar

from celerymeter.control.health import Component, FiringAlert, QueueFigure, judge
from celerymeter.control.live import dashboard, figures
from celerymeter.control.live.dashboard import Dashboard
from celerymeter.control.live.figures import Metrics
from celerymeter.control.live.increments import OTHER_BASES, increment, pages_query
from celerymeter.errors import CelerymeterError, PrometheusError, RequestRefused
from celerymeter.prometheus import Scope, Vector

T = TypeVar("T")
SHARED_FOR = 1.0
"""Seconds for which a look serves everybody; Prometheus scrapes less often than that."""


class Queries(Protocol):
    """What we need of `celerymeter.prometheus.PrometheusClient`."""

    def instants(self, queries: Mapping[str, str], *, time: float | None = None) -> dict[str, Vector]:
        """Several instant queries at once."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look. Without ``metrics`` there is a ``problem``: `PrometheusError`, or `RequestRefused` with its code."""

    at: float
    components: tuple[Component, ...]
    metrics: Metrics | None = None
    problem: CelerymeterError | None = None
    queues: tuple[QueueFigure, ...] = ()
    firing: tuple[FiringAlert, ...] | None = None

    def known(self) -> Metrics:
        """The metrics object; raises the problem."""
        if self.metrics is None:
            raise self.problem or RequestRefused("exporter_unavailable", "nothing is known yet")
        return self.metrics


class Shared(Generic[T]):
    """The outcome of a call, made by the first who asks and shared with those who ask meanwhile or soon after."""

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
        """The outcome, not older than ``max_age``; raises the error that the call raised."""
        with self._lock:
            if self._outcome is None or self._monotonic() - self._made_at > self._max_age:
                self._outcome = self._made()
                self._made_at = self._monotonic()
            if isinstance(self._outcome, CelerymeterError):
                raise self._outcome.with_traceback(None)
            return self._outcome

    def _made(self) -> T | CelerymeterError:
        try:
            return self._call()
        except CelerymeterError as error:
            return error


class Lookout:
    """Asks Prometheus for the whole picture; thread-safe."""

    def __init__(self, client: Queries, scope: Scope, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._scope = scope
        self._clock = clock
        self._looks = Shared(self._look, max_age=SHARED_FOR)
        self._dashboards = Shared(self._dashboard, max_age=SHARED_FOR)

    def look(self) -> Look:
        """A look of the last second. A Prometheus that is away is part of what is seen, not an error."""
        return self._looks.get()

    def dashboard(self) -> Dashboard:
        """The dashboard object; raises what keeps it from being known."""
        return self._dashboards.get()

    def _look(self) -> Look:
        rounds = figures.queries(self._scope) | dashboard.state_queries(self._scope)
        try:
            return look_at(ask(self._client, rounds, self._scope), self._scope, now=self._clock())
        except PrometheusError as error:
            return blind(error, now=self._clock())

    def _dashboard(self) -> Dashboard:
        rounds = figures.queries(self._scope) | dashboard.state_queries(self._scope) | dashboard.queries(self._scope)
        found = ask(self._client, rounds, self._scope)
        return dashboard.dashboard(found, self._scope).judged(judge(components(found)))


OTHER_PAGES = {"pages": pages_query(*OTHER_BASES), "task_pages": pages_query(*OTHER_BASES, by="name")}


def ask(client: Queries, rounds: Mapping[str, str], scope: Scope, *, time: float | None = None) -> dict[str, Vector]:
    """All answers in one round; where the wanted page is missing, a second one looks for others."""
    found = client.instants(rounds, time=time)
    lacking = [
        key for key in OTHER_PAGES if key in found and len(found[key]) and increment(found[key], wanted=0) is None
    ]
    if lacking:
        found |= client.instants({key: scope.render(OTHER_PAGES[key]) for key in lacking}, time=time)
    return found


def look_at(found: Mapping[str, Vector], scope: Scope, *, now: float) -> Look:
    """A look from the answers to the queries."""
    parts = components(found)
    look = Look(
        at=now,
        components=parts,
        queues=dashboard.queue_figures(found),
        firing=dashboard.firing_alerts(found),
    )
    try:
        return replace(look, metrics=figures.metrics(found, scope).judged(judge(parts)))
    except (PrometheusError, RequestRefused) as error:
        return replace(look, problem=error)


def blind(error: PrometheusError, *, now: float) -> Look:
    """What is seen when Prometheus does not answer."""
    unseen = tuple(Component(name, "unknown") for name in ("broker", "exporter", "workers"))
    return Look(at=now, components=(Component("prometheus", "failed", str(error)), *unseen), problem=error)


def components(found: Mapping[str, Vector]) -> tuple[Component, ...]:
    """How each part is, by what Prometheus holds."""
    return (Component("prometheus", "ok"), _exporter(found), _broker(found), _workers(found), _alerts(found))


def _exporter(found: Mapping[str, Vector]) -> Component:
    exporters = found["exporters"].value()
    if exporters is None:
        return Component("exporter", "failed", "Prometheus has no current samples of an exporter")
    age = figures.data_age(found) or 0.0
    return Component("exporter", "ok", f"{exporters:.0f} scraped, the last time {age:.0f} s ago")


def _broker(found: Mapping[str, Vector]) -> Component:
    up = found["broker_up"].value()
    if up is None:
        return Component("broker", "unknown", "no exporter says")
    return Component("broker", "ok") if up == 1 else Component("broker", "failed", "the exporter cannot reach it")


def _workers(found: Mapping[str, Vector]) -> Component:
    if found["broker_up"].value() != 1:
        return Component("workers", "unknown", "the broker cannot be reached")
    alive, lost = found["workers"].value() or 0, found["workers_down"].value() or 0
    detail = f"{alive:.0f} up, {lost:.0f} down"
    return Component("workers", "ok" if alive and not lost else "failed", detail)


def _alerts(found: Mapping[str, Vector]) -> Component:
    critical = [alert for alert in dashboard.firing_alerts(found) if alert.severity == "critical"]
    return Component("alerts", "failed" if critical else "ok", f"{len(critical)} critical")
