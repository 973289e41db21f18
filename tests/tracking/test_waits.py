"""Waits are measured across two clocks, or counted apart."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from tests.tracking.cluster import PRODUCER, WORKER, Cluster

HOUR = 3600.0


def wait_sum(cluster: Cluster) -> float:
    """The one wait that was observed."""
    assert sum(cluster.series().wait.counts) == 1
    return cluster.series().wait.sum


@pytest.mark.parametrize("skew", [{}, {"web": HOUR}, {"one": -HOUR}, {"web": -90.0, "one": 7 * HOUR}])
def test_a_wait_is_right_whatever_the_clocks_say(skew: dict[str, float]) -> None:
    """Producer and worker may be hours apart."""
    cluster = Cluster(skew=skew)
    cluster.heartbeat()
    cluster.publish("a")
    cluster.pass_time(5, beating=(WORKER,))
    cluster.receive("a")
    cluster.start("a")
    assert wait_sum(cluster) == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=8)), timezone(timedelta(hours=-5))])
def test_a_scheduled_task_waits_from_its_eta(zone: timezone) -> None:
    """In whatever zone the ETA is written."""
    cluster = Cluster()
    cluster.heartbeat()
    eta = datetime.fromtimestamp(cluster.now + 60, tz=zone).isoformat()
    cluster.publish("a", eta=eta)
    cluster.pass_time(62, beating=(WORKER,))
    cluster.receive("a", eta=eta)
    cluster.start("a")
    assert wait_sum(cluster) == pytest.approx(2.0, abs=0.05)


def test_a_worker_knows_the_zone_of_an_eta_without_one() -> None:
    """A producer may send a naive time; `task-received` has it as the worker read it."""
    cluster = Cluster()
    cluster.heartbeat()
    eta = datetime.fromtimestamp(cluster.now + 60, tz=timezone(timedelta(hours=8)))
    cluster.publish("a", eta=eta.replace(tzinfo=None).isoformat())
    cluster.pass_time(62, beating=(WORKER,))
    cluster.receive("a", eta=eta.isoformat())
    cluster.start("a")
    assert wait_sum(cluster) == pytest.approx(2.0, abs=0.05)


def test_an_eta_is_held_against_the_clock_of_the_worker() -> None:
    """The worker waits by its own clock: one an hour ahead starts the task an hour early, and not late."""
    cluster = Cluster(skew={"one": HOUR})
    cluster.heartbeat()
    cluster.publish("a", eta=datetime.fromtimestamp(cluster.now + HOUR + 3, tz=timezone.utc).isoformat())
    cluster.pass_time(4, beating=(WORKER,))
    cluster.start("a")
    assert wait_sum(cluster) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("reason", "fields"),
    [("eta", {"eta": "2030-01-01T00:00:00"}), ("eta", {"eta": "soon"}), ("clock_offset", {}), ("negative", {})],
)
def test_what_cannot_be_measured_is_counted_apart(reason: str, fields: dict[str, str]) -> None:
    """An ETA without a zone, a worker never heard before, a start before its sending."""
    cluster = Cluster()
    if reason != "clock_offset":
        cluster.heartbeat()
    cluster.publish("a", **fields)
    if reason == "negative":
        cluster.skew["one"] = -5.0
    cluster.start("a")
    assert cluster.tracker.tasks.counts.waits_unmeasured == {reason: 1}
    assert sum(cluster.series().wait.counts) == 0


def test_without_task_sent_there_is_no_wait() -> None:
    """Nobody knows when the task was sent."""
    cluster = Cluster()
    cluster.heartbeat()
    cluster.answer(queues=("celery",))
    cluster.receive("a")
    cluster.start("a")
    cluster.pass_time(3)
    assert cluster.tracker.tasks.counts.waits_unmeasured == {"not_sent": 1}


def test_a_retry_waits_from_its_own_sending() -> None:
    """The newest task-sent of the run counts, not the first."""
    cluster = Cluster()
    cluster.heartbeat()
    cluster.publish("a")
    cluster.start("a")
    cluster.pass_time(100, beating=(WORKER,))
    cluster.publish("a", retries=1)
    cluster.end("a", "retried")
    cluster.pass_time(2, beating=(WORKER,))
    cluster.receive("a", retries=1)
    cluster.start("a")
    assert cluster.series().wait.sum == pytest.approx(2.0, abs=0.05)


def test_a_clock_that_was_stepped_is_believed_within_twenty_seconds() -> None:
    """Waits are wrong no longer than the offset's window."""
    cluster = Cluster()
    cluster.heartbeat()
    cluster.skew["one"] = -HOUR
    cluster.pass_time(21, beating=(WORKER,))
    assert cluster.tracker.workers.offset_of(WORKER) == pytest.approx(HOUR)


def test_clocks_of_many_producers_are_bounded() -> None:
    """Ten thousand hosts leave at most that many offsets, and no series."""
    cluster = Cluster()
    for number in range(20_000):
        cluster.send("task-sent", f"gen1@host-{number}", uuid=str(number), name="add", queue="celery")
    assert len(cluster.tracker.tasks.producers) <= 10_000
    assert PRODUCER
    assert cluster.series().sent == 20_000
