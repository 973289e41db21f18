"""Snapshots of the cluster, and one answer for all callers at about the same time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Barrier, Thread

import pytest
from tests.control_live.live_api import Page, served

from celerymeter.control.cluster.snapshot import ClusterReader, SharedCall, alertmanager_component
from celerymeter.control.feed.hub import feed_error
from celerymeter.errors import AmbiguousCluster, CelerymeterError, PrometheusUnavailable, RequestRefused
from celerymeter.prometheus import Sample, Scope, Vector


class FakeQueries:
    """Answers known queries with one number each, and everything else with nothing."""

    def __init__(self, **values: float) -> None:
        self.values = values
        self.rounds = 0
        self.error: Exception | None = None
        self.clusters: tuple[str, ...] = ()

    def instants(self, queries: Mapping[str, str], *, time: float | None = None) -> dict[str, Vector]:
        self.rounds += 1
        if self.error:
            raise self.error
        found = {
            key: Vector((Sample({}, self.values[key], 100.0),)) if key in self.values else Vector() for key in queries
        }
        return found | {"clusters": Vector(tuple(Sample({"cluster": name}, 1.0, 100.0) for name in self.clusters))}


def conditions(reader: ClusterReader) -> dict[str, str]:
    """Condition by component."""
    return {part.name: part.condition for part in reader.snapshot().components}


def test_many_callers_at_once_cost_one_call() -> None:
    """They wait for the first and share what it got."""
    calls: list[int] = []

    def call() -> int:
        time.sleep(0.2)
        calls.append(1)
        return len(calls)

    shared = SharedCall(call, max_age=1.0)
    start, got = Barrier(10), list[int]()

    def ask() -> None:
        start.wait()
        got.append(shared.get())

    threads = [Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert got == [1] * 10


def test_a_failure_is_shared_too() -> None:
    """A Prometheus that hangs is waited for once, not once for each caller; later it is asked again."""
    now, calls = [0.0], list[int]()

    def call() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise PrometheusUnavailable("away")
        return 7

    shared = SharedCall(call, max_age=1.0, monotonic=lambda: now[0])
    for _ in range(3):
        with pytest.raises(PrometheusUnavailable):
            shared.get()
    assert len(calls) == 1
    now[0] = 2.0
    assert shared.get() == 7


def test_a_prometheus_that_is_away_leaves_the_rest_unknown() -> None:
    """It is the only thing that is known to have failed."""
    queries = FakeQueries()
    queries.error = PrometheusUnavailable("no answer")
    reader = ClusterReader(queries, Scope())

    assert conditions(reader) == {
        "prometheus": "failed",
        "broker": "unknown",
        "exporter": "unknown",
        "workers": "unknown",
    }
    with pytest.raises(PrometheusUnavailable):
        reader.snapshot().known_metrics()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"exporter": "failed", "broker": "unknown", "workers": "unknown"}),
        ({"exporters": 1, "broker_up": 0}, {"exporter": "ok", "broker": "failed", "workers": "unknown"}),
        ({"exporters": 1, "broker_up": 1}, {"exporter": "ok", "broker": "ok", "workers": "failed"}),
        ({"exporters": 1, "broker_up": 1, "workers": 2, "workers_down": 1}, {"workers": "failed"}),
        ({"exporters": 1, "broker_up": 1, "workers": 2}, {"workers": "ok", "alerts": "ok"}),
    ],
)
def test_components_are_judged_by_what_prometheus_holds(values: dict[str, float], expected: dict[str, str]) -> None:
    """A component without a series is unknown; a worker that went without a goodbye is a failure."""
    found = conditions(ClusterReader(FakeQueries(**values), Scope()))

    assert {name: found[name] for name in expected} == expected


def test_clusters_are_not_mixed_in_components() -> None:
    """Health and status say that one must be chosen, instead of values of either."""
    queries = FakeQueries(exporters=2, broker_up=1, workers=2)
    queries.clusters = ("", "eu")
    snapshot = ClusterReader(queries, Scope()).snapshot()

    found = {part.name: (part.condition, part.detail) for part in snapshot.components}
    assert found["exporter"] == ("failed", str(AmbiguousCluster(("", "eu"))))
    assert {name: found[name][0] for name in ("prometheus", "broker", "workers")} == {
        "prometheus": "ok",
        "broker": "unknown",
        "workers": "unknown",
    }
    assert snapshot.queues == ()
    with pytest.raises(AmbiguousCluster):
        snapshot.known_metrics()
    assert conditions(ClusterReader(queries, Scope(cluster="eu")))["exporter"] == "ok"


def test_alertmanager_is_asked_whether_it_lives() -> None:
    """Any 200 will do; nobody there is a failure, and no error."""
    with served(Page()) as port:
        assert alertmanager_component(f"http://127.0.0.1:{port}/").condition == "ok"
    assert alertmanager_component(f"http://127.0.0.1:{port}").condition == "failed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestRefused("broker_unavailable", "x"), "broker_unavailable"),
        (AmbiguousCluster(("a", "b")), "invalid"),
        (PrometheusUnavailable("http://user:secret@host"), "prometheus_unavailable"),
        (None, "prometheus_unavailable"),
    ],
)
def test_the_feed_speaks_in_the_codes_of_problems(error: CelerymeterError | None, code: str) -> None:
    """And repeats no text of an exception."""
    found = feed_error(error)

    assert found.code == code
    assert "secret" not in found.detail
