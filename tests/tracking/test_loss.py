"""Missed events are known from the workers' own counts, without false alarms."""

from __future__ import annotations

from itertools import count

from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.settings import Limits
from celerymeter.tracking.loss import MAX_MARKS, LossMeter


class Office:
    """A worker whose runs can be heard, lost or silent; a heartbeat follows each round."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.cluster = Cluster(make_settings(limits))
        self.numbers = count()
        self.lost = 0
        self.totals = {"add": 0, "quiet": 0}
        self.cluster.heartbeat(kind="worker-online")
        self.round(heard=1)
        self.poll()

    def round(self, *, heard: int = 0, lost: int = 0, silent: int = 0) -> None:
        """Let tasks run, then two seconds pass and a heartbeat comes."""
        for _ in range(heard):
            self.cluster.run(str(next(self.numbers)))
        self.cluster.processed[WORKER] = self.cluster.processed.get(WORKER, 0) + lost + silent
        self.lost += lost
        self.totals["add"] += heard + lost
        self.totals["quiet"] += silent
        self.cluster.now += 2.0
        self.cluster.heartbeat()

    def poll(self) -> None:
        """The worker answers `inspect stats`."""
        self.cluster.answer(totals=dict(self.totals), queues=("celery",))

    @property
    def account(self) -> LossMeter:
        """The worker's account."""
        worker = self.cluster.tracker.workers.get(WORKER)
        assert worker is not None
        return worker.loss

    @property
    def missed(self) -> int:
        """The counter."""
        return self.account.missed

    @property
    def unexplained(self) -> int:
        """The gauge."""
        return self.account.unexplained

    @property
    def off(self) -> bool:
        """True while the worker's task events count as turned off."""
        return self.account.off


def test_nothing_lost_is_nothing_missed() -> None:
    """An hour of ordinary work."""
    office = Office()
    for number in range(1800):
        office.round(heard=number % 4)
        if number % 8 == 0:
            office.poll()
    assert (office.missed, office.unexplained) == (0, 0)


def test_lost_runs_are_missed_within_two_heartbeats_and_a_reply() -> None:
    """Exactly as many as were lost."""
    office = Office()
    office.round(heard=3, lost=17)
    office.round(heard=1)
    office.round(heard=1)
    assert (office.missed, office.unexplained) == (0, 17)
    office.poll()
    assert (office.missed, office.unexplained) == (17, 0)


def test_silent_tasks_are_not_missed() -> None:
    """A task with send_events=False is in the worker's totals and never in an event."""
    office = Office()
    for _ in range(5):
        office.round(heard=2, silent=100)
        office.poll()
    assert office.missed == 0


def test_silent_and_lost_are_told_apart() -> None:
    """Only what silent names cannot explain is missed."""
    office = Office()
    office.poll()
    office.round(heard=1, silent=40, lost=5)
    for _ in range(3):
        office.round(heard=1)
    office.poll()
    assert office.missed == 5


def test_a_silent_run_explains_one_missing_run_only() -> None:
    """Replies in the middle of silent runs and after them do not count those in between twice."""
    office = Office()
    office.round(heard=1, silent=8)
    office.poll()  # 8 of them are in this reply
    office.round(heard=1, silent=27)
    for _ in range(3):
        office.round(heard=1)
        office.poll()
    office.round(lost=40)
    for _ in range(4):
        office.round(heard=1)
        office.poll()
    assert (office.missed, office.unexplained) == (40, 0)


def test_without_a_reply_the_shortfall_is_unexplained() -> None:
    """It is not called missed before the worker has spoken."""
    office = Office()
    office.round(heard=1, lost=9)
    for _ in range(5):
        office.round(heard=1)
    assert (office.missed, office.unexplained) == (0, 9)


def test_started_events_may_arrive_after_the_heartbeat_that_counts_them() -> None:
    """Judged by the worker's clock, not by receipt."""
    office = Office()
    cluster = office.cluster
    late = [cluster.event("task-started", WORKER, uuid=f"late-{number}") for number in range(5)]
    cluster.processed[WORKER] += 5
    office.totals["add"] += 5
    office.round(heard=1)
    cluster.tracker.apply(late, cluster.now)
    for _ in range(4):
        office.round(heard=1)
        office.poll()
    assert (office.missed, office.unexplained) == (0, 0)


def test_a_restarted_worker_begins_a_new_account() -> None:
    """Events that were missed before stay missed; the new process starts from nothing."""
    office = Office()
    office.round(heard=1, lost=4)
    office.round(heard=1)
    office.round(heard=1)
    office.poll()
    office.cluster.processed[WORKER] = 0
    office.totals = {"add": 0, "quiet": 0}
    office.cluster.heartbeat(kind="worker-online", pid=2)
    for _ in range(4):
        office.round(heard=2)
        office.poll()
    assert (office.missed, office.unexplained) == (4, 0)


def test_the_first_runs_after_a_restart_may_be_missed() -> None:
    """Its predecessor's task events came, so those of the new process are expected from its first run on."""
    office = Office()
    office.cluster.processed[WORKER] = 0
    office.totals = {"add": 0, "quiet": 0}
    office.cluster.heartbeat(kind="worker-online")
    office.round(lost=5)
    for _ in range(3):
        office.round(heard=1)
    office.poll()
    assert office.missed == 5


def test_a_restart_without_task_events_is_no_loss() -> None:
    """It is said to be off after some heartbeats, whatever its predecessor did."""
    office = Office()
    office.cluster.processed[WORKER] = 0
    office.totals = {"add": 0, "quiet": 0}
    office.cluster.heartbeat(kind="worker-online")
    for _ in range(6):
        office.round(lost=5)
        office.poll()
    assert office.off
    assert (office.missed, office.unexplained) == (0, 0)


def test_events_turned_off_are_not_missed() -> None:
    """The worker works on without a single task event: it is said to be off, and nothing is called lost."""
    office = Office()
    for _ in range(10):
        office.round(lost=5)
        office.poll()
    assert office.off
    assert (office.missed, office.unexplained) == (0, 0)
    for _ in range(4):
        office.round(heard=1)
        office.poll()
    assert (office.off, office.missed) == (False, 0)


def test_a_subscription_that_was_away_shows_in_the_count() -> None:
    """Heartbeats are missed too; the first ones afterwards tell what was run meanwhile."""
    office = Office()
    office.cluster.processed[WORKER] += 250
    office.totals["add"] += 250
    office.cluster.now += 20
    for _ in range(3):
        office.round(heard=1)
    office.poll()
    assert office.missed == 250


def test_names_beyond_their_cap_are_not_silent() -> None:
    """Folding a label hides no loss: the names that were heard are remembered as they are."""
    office = Office(Limits(task_names=1))
    office.cluster.run("other", name="other")
    office.totals["other"] = 1
    office.round()
    office.poll()
    office.round(heard=1, lost=9)
    office.totals["add"] -= 9
    office.totals["other"] += 9
    for _ in range(3):
        office.round(heard=1)
    office.poll()
    assert office.missed == 9


def test_a_worker_without_heartbeats_costs_no_memory() -> None:
    """Nothing comes that its starts could be held against; should heartbeats come yet, they begin an account."""
    cluster = Cluster()
    cluster.run("first")
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    most = 0
    for number in range(20 * MAX_MARKS):
        cluster.run(str(number))
        if number % 100 == 99:
            cluster.pass_time(1)
            most = max(most, worker.loss.marks)
    assert most <= 8 * MAX_MARKS
    for number in range(10):
        cluster.run(f"late-{number}")
        cluster.now += 2
        cluster.heartbeat()
    cluster.answer(totals={"add": cluster.processed[WORKER]})
    assert (worker.loss.missed, worker.loss.unexplained) == (0, 0)
