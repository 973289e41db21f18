"""A poll that fails is a metric, never the end of polling."""

from __future__ import annotations

import threading
from collections.abc import Collection

import pytest
from tests.tracking.cluster import WORKER, Cluster

from celerymeter.demo.processes import wait_until
from celerymeter.errors import PollError
from celerymeter.exporter.polls import Poll, SharedTracker, queue_collector
from celerymeter.model import QueuesSnapshot, QueueState


@pytest.fixture
def state() -> SharedTracker:
    """A tracker that nobody feeds."""
    return SharedTracker(Cluster().tracker)


def test_no_time_passes_while_events_are_unread() -> None:
    """A burst, or a process without a processor: heartbeats that nobody has read yet are not missing."""
    cluster = Cluster()
    state, begun = SharedTracker(cluster.tracker), cluster.now

    def up() -> bool:
        with state.locked() as tracker:
            worker = tracker.workers.get(WORKER)
            assert worker is not None
            return worker.up

    state.connected(begun)
    state.events([cluster.event("worker-heartbeat", WORKER, freq=2.0)], begun)
    state.tick(begun + 300)
    assert up()
    state.events([], begun + 300)
    state.tick(begun + 300)
    assert not up()


class Collector:
    """Fails so many times, then succeeds."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self, at: float) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


def outcome(state: SharedTracker) -> bool:
    """Return whether the last poll of the queues succeeded."""
    with state.locked() as tracker:
        return tracker.polls["queues"].success


@pytest.mark.parametrize("error", [PollError("refused"), KeyError("tripped")])
def test_a_failure_is_shown_and_overcome(state: SharedTracker, error: Exception) -> None:
    """Expected or not, the next poll goes on."""
    collector = Collector(error)
    poll = Poll("queues", collector, state=state, interval=60)
    poll.once()
    assert not outcome(state)
    poll.once()
    assert outcome(state)


def test_a_failure_is_logged_when_it_begins_and_when_it_ends(
    state: SharedTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at every poll of a night-long outage."""
    poll = Poll("queues", Collector(*[PollError("refused")] * 3), state=state, interval=60)
    for _ in range(5):
        poll.once()
    assert [record.getMessage() for record in caplog.records] == [
        "polling queues fails: refused",
        "polling queues works again",
    ]


def test_a_poll_comes_sooner_when_it_is_requested(state: SharedTracker) -> None:
    """Whatever its interval."""
    collector, requested = Collector(), threading.Event()
    poll = Poll("queues", collector, state=state, interval=3600, requested=requested.is_set)
    poll.thread.start()
    wait_until(lambda: collector.calls == 1)
    requested.set()
    wait_until(lambda: collector.calls >= 2)
    poll.thread.stop()
    assert not poll.thread.alive


class HalfPoller:
    """Knows the length of a queue and not what else it was asked for."""

    def poll(self, names: Collection[str], *, now: float) -> QueuesSnapshot:
        """One queue."""
        return QueuesSnapshot(at=now, queues=(QueueState("celery", 4),), incomplete="the API is away")

    def close(self) -> None:
        """Nothing is open."""


def test_an_incomplete_poll_is_no_success_but_its_values_count(
    state: SharedTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """Lengths are known while something else is not."""
    Poll("queues", queue_collector(HalfPoller(), state), state=state, interval=60).once()
    assert not outcome(state)
    assert caplog.messages == ["polling queues fails: the API is away"]
    with state.locked() as tracker:
        assert tracker.queues is not None
        assert tracker.is_fresh("queues", tracker.queues.at + 1) == (tracker.connected_at is not None)


def test_readiness_tells_why_not(state: SharedTracker) -> None:
    """The reason of the last loss, until the stream is subscribed."""
    assert state.why_not_ready() is not None
    state.connected(1.0)
    assert state.why_not_ready() is None
    state.disconnected(2.0, "Connection refused")
    assert state.why_not_ready() == "Connection refused"
