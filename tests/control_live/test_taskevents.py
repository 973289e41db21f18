"""What a worker's events say about its task events."""

from __future__ import annotations

import pytest

from celerymeter.control.switching.taskevents import Joined, Told, Watch, judge
from celerymeter.model import Event

W = "w@host"
OURS = Told(wanted=True, at=100.0, ours=True)
NOT_OURS = Told(wanted=True, at=100.0, ours=False)
WITHDRAWN = Told(wanted=False, at=100.0, ours=False)


def heard(watch: Watch, kind: str, at: float, **fields: object) -> list[Joined]:
    """The watch takes one event of the worker."""
    return watch.take([Event(type=kind, hostname=W, timestamp=at, pid=7, **fields)], at)  # type: ignore[arg-type]  # fields of Event


def beats(watch: Watch, *processed: int, since: float = 101.0) -> None:
    """Heartbeats every two seconds that carry these counts."""
    for n, count in enumerate(processed):
        heard(watch, "worker-heartbeat", since + 2 * n, processed=count)


def judged(watch: Watch, told: Told | None, now: float = 200.0) -> tuple[str, bool]:
    """State, and whether it is proven."""
    found = judge(W, watch.get(W), told, now=now)
    return found.task_events, found.confirmed


def test_a_worker_that_was_told_nothing_is_judged_by_what_it_sends() -> None:
    """A task event proves it enabled, silence proves nothing."""
    watch = Watch()
    assert judged(watch, None) == ("unknown", False)
    beats(watch, 5, 5, 5)
    assert judged(watch, None) == ("unknown", False)
    heard(watch, "task-started", 110.0)
    assert judged(watch, None) == ("enabled", True)


def test_runs_without_events_prove_that_they_are_off() -> None:
    """Two heartbeats in a row that count a run of which no event came."""
    watch = Watch()
    beats(watch, 5, 6)
    assert judged(watch, OURS)[0] == "enabled"
    beats(watch, 6, since=105.0)
    assert judged(watch, OURS) == ("disabled", True)
    assert judged(watch, None) == ("disabled", True)


def test_an_event_that_comes_after_its_heartbeat_is_no_silence() -> None:
    """Events of a run may be overtaken by the heartbeat that counts it."""
    watch = Watch()
    beats(watch, 5, 6)
    heard(watch, "task-started", 104.0)
    beats(watch, 6, 6, 6, since=105.0)

    assert judged(watch, OURS) == ("enabled", True)


@pytest.mark.parametrize(("told", "state"), [(OURS, "enabled"), (NOT_OURS, "always_on")])
def test_what_is_on_is_ours_or_the_workers_own(told: Told, state: str) -> None:
    """Confirmed by the first task event after the acknowledgement."""
    watch = Watch()
    beats(watch, 5)
    assert judged(watch, told) == (state, False)
    heard(watch, "task-received", 120.0)
    assert judged(watch, told) == (state, True)


def test_a_worker_that_acknowledges_and_sends_nothing_cannot() -> None:
    """Its dispatcher is off; for a moment after the acknowledgement that is not yet known."""
    watch = Watch()
    assert judged(watch, OURS, now=100.5) == ("unknown", False)
    assert judged(watch, OURS, now=102.0) == ("impossible", True)


def test_task_events_after_they_were_turned_off_cannot_be_turned_off() -> None:
    """What a worker had buffered is forgiven."""
    watch = Watch()
    heard(watch, "task-started", 101.0)
    assert judged(watch, WITHDRAWN) == ("disabled", False)
    heard(watch, "task-started", 102.0)
    assert judged(watch, WITHDRAWN) == ("always_on", True)


def test_runs_after_they_were_turned_off_prove_it() -> None:
    """Heartbeats that count runs without events."""
    watch = Watch()
    beats(watch, 5, 6, 7)

    assert judged(watch, WITHDRAWN) == ("disabled", True)


def test_a_worker_joins_once_and_again_when_it_has_started_anew() -> None:
    """First sight, worker-online and another pid; a producer's task-sent is no worker."""
    watch = Watch()
    assert heard(watch, "task-sent", 1.0) == []
    assert [joined.fresh for joined in heard(watch, "worker-heartbeat", 2.0)] == [False]
    assert heard(watch, "worker-heartbeat", 3.0) == []
    assert [joined.fresh for joined in heard(watch, "worker-online", 4.0)] == [True]
    assert [
        joined.fresh for joined in watch.take([Event(type="task-started", hostname=W, timestamp=5, pid=8)], 5.0)
    ] == [True]


def test_a_worker_that_said_goodbye_is_forgotten() -> None:
    """Only who was heard of late counts as alive."""
    watch = Watch()
    heard(watch, "worker-heartbeat", 10.0)
    assert watch.alive(20.0) == {W}
    assert watch.alive(1000.0) == set()
    heard(watch, "worker-offline", 21.0)
    assert watch.alive(22.0) == set()


def test_the_memory_is_bounded() -> None:
    """Beyond the bound the longest silent goes."""
    watch = Watch(max_workers=3)
    watch.take([Event(type="worker-heartbeat", hostname=f"w{n}", timestamp=1.0) for n in range(10)], 1.0)

    assert watch.alive(1.0) == {"w7", "w8", "w9"}
