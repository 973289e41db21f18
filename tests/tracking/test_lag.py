"""The lag of late events is measured by our clock, whatever the senders' clocks say."""

from __future__ import annotations

import pytest
from tests.tracking.cluster import WORKER, Cluster

HOUR = 3600.0


@pytest.mark.parametrize("skew", [{}, {"one": HOUR}, {"one": -HOUR, "web": 90.0}])
def test_a_batch_that_was_held_back_is_late(skew: dict[str, float]) -> None:
    """By as much as it was held; what came at once is not late, though clocks are an hour off."""
    cluster = Cluster(skew=skew)
    cluster.pass_time(10, beating=(WORKER,))
    cluster.publish("a")
    prompt = sum(cluster.tracker.lag.counts)
    batch = [cluster.event(kind, WORKER, uuid="a", name="add") for kind in ("task-received", "task-started")]
    cluster.now += 1.5
    cluster.tracker.apply(batch, cluster.now)
    lag = cluster.tracker.lag
    assert lag.sum == pytest.approx(2 * 1.5, abs=0.01)
    assert sum(lag.counts) == prompt + 2
    assert lag.counts[lag.bounds.index(2.5)] == 2


def test_nothing_is_early() -> None:
    """A clock that is stepped makes events look as if they came before they were sent: that is no lag below 0."""
    cluster = Cluster()
    cluster.pass_time(10, beating=(WORKER,))
    cluster.skew["one"] = HOUR
    cluster.heartbeat()
    cluster.run("a")
    assert cluster.tracker.lag.sum >= 0
    assert cluster.tracker.lag.sum == pytest.approx(0.0, abs=0.01)


def test_without_a_known_clock_no_lag_is_made_up() -> None:
    """A worker that never sent a heartbeat."""
    cluster = Cluster(skew={"one": HOUR})
    cluster.start("a")
    assert sum(cluster.tracker.lag.counts) == 0
