"""A worker's events show the state of its task events."""

from __future__ import annotations

import pytest

from celerymeter.control.task_event_evidence import Acknowledgement, TaskEventEvidence, task_event_state

BY_US = Acknowledgement(enabled=True, at=100.0, by_us=True)
NOT_BY_US = Acknowledgement(enabled=True, at=100.0, by_us=False)
WITHDRAWN = Acknowledgement(enabled=False, at=100.0, by_us=False)


class Worker:
    """A worker whose events come at given times."""

    def __init__(self) -> None:
        self.evidence = TaskEventEvidence()
        self.last_seen: float | None = None

    def task_event(self, at: float) -> None:
        """One task event."""
        self.last_seen = at
        self.evidence.note_task_event(at)

    def heartbeats(self, *runs: int, since: float = 101.0) -> None:
        """Heartbeats every two seconds that carry these counts of runs."""
        for n, count in enumerate(runs):
            self.last_seen = since + 2 * n
            self.evidence.note_heartbeat(count)

    def state(self, acknowledged: Acknowledgement | None, now: float = 200.0) -> tuple[str, bool]:
        """State, and whether it is proven."""
        return task_event_state(self.evidence, acknowledged, last_seen=self.last_seen, now=now)


def test_a_worker_that_got_no_command_is_judged_by_what_it_sends() -> None:
    """A task event proves it enabled, silence proves nothing."""
    worker = Worker()
    assert worker.state(None) == ("unknown", False)
    worker.heartbeats(5, 5, 5)
    assert worker.state(None) == ("unknown", False)
    worker.task_event(110.0)
    assert worker.state(None) == ("enabled", True)


def test_runs_without_events_prove_that_they_are_off() -> None:
    """Two heartbeats in a row that count a run of which no event came."""
    worker = Worker()
    worker.heartbeats(5, 6)
    assert worker.state(BY_US)[0] == "enabled"
    worker.heartbeats(6, since=105.0)
    assert worker.state(BY_US) == ("disabled", True)
    assert worker.state(None) == ("disabled", True)


def test_an_event_that_comes_after_its_heartbeat_is_no_silence() -> None:
    """Events of a run may be overtaken by the heartbeat that counts it."""
    worker = Worker()
    worker.heartbeats(5, 6)
    worker.task_event(104.0)
    worker.heartbeats(6, 6, 6, since=105.0)

    assert worker.state(BY_US) == ("enabled", True)


@pytest.mark.parametrize(("acknowledged", "state"), [(BY_US, "enabled"), (NOT_BY_US, "always_on")])
def test_what_is_on_is_ours_or_the_workers_own(acknowledged: Acknowledgement, state: str) -> None:
    """Confirmed by the first task event after the acknowledgement."""
    worker = Worker()
    worker.heartbeats(5)
    assert worker.state(acknowledged) == (state, False)
    worker.task_event(120.0)
    assert worker.state(acknowledged) == (state, True)


def test_a_worker_that_acknowledges_and_sends_nothing_cannot() -> None:
    """Its dispatcher is off; for a moment after the acknowledgement that is not yet known."""
    worker = Worker()
    assert worker.state(BY_US, now=100.5) == ("unknown", False)
    assert worker.state(BY_US, now=102.0) == ("impossible", True)


def test_task_events_after_they_were_turned_off_cannot_be_turned_off() -> None:
    """An event of the first 1.5 s may have been in its buffer, so only a later one proves it."""
    worker = Worker()
    worker.task_event(101.0)
    assert worker.state(WITHDRAWN) == ("disabled", False)
    worker.task_event(102.0)
    assert worker.state(WITHDRAWN) == ("always_on", True)


def test_runs_after_they_were_turned_off_prove_it() -> None:
    """Heartbeats that count runs without events."""
    worker = Worker()
    worker.heartbeats(5, 6, 7)

    assert worker.state(WITHDRAWN) == ("disabled", True)
