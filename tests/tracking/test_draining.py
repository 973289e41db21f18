"""A worker that shuts down still runs its tasks."""

from __future__ import annotations

import pytest
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.model import WorkersSnapshot, WorkerState

OTHER_WORKER = "celery@two"
MINUTE = 60.0


@pytest.fixture
def cluster() -> Cluster:
    """A worker that has said goodbye while it runs two tasks; its drain time is ten minutes."""
    cluster = Cluster(make_settings(drain_time=10 * MINUTE))
    cluster.heartbeat(OTHER_WORKER)
    cluster.heartbeat(kind="worker-online")
    for uuid in ("a", "b"):
        cluster.publish(uuid)
        cluster.receive(uuid)
        cluster.start(uuid)
    cluster.heartbeat(kind="worker-offline")
    return cluster


def pass_minutes(cluster: Cluster, minutes: float) -> None:
    """Time in which only the other worker sends heartbeats."""
    cluster.pass_time(minutes * MINUTE, beating=(OTHER_WORKER,))


def test_its_runs_stay_in_progress_until_they_end(cluster: Cluster) -> None:
    """Each end is a sign of life, and the drain time begins anew."""
    pass_minutes(cluster, 9)
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert (worker.up, worker.shut_down) == (False, True)
    assert cluster.series().in_progress == 2
    cluster.end("a")
    pass_minutes(cluster, 9)
    assert cluster.series().in_progress == 1
    cluster.end("b")
    assert (cluster.series().succeeded, cluster.series().in_progress, cluster.series().shutdown_lost) == (2, 0, 0)


def test_what_outlives_the_grace_period_is_counted(cluster: Cluster) -> None:
    """The worker was killed: nothing is heard of it any more."""
    pass_minutes(cluster, 11)
    assert (cluster.series().in_progress, cluster.series().shutdown_lost) == (0, 2)
    pass_minutes(cluster, 2)
    assert cluster.series().shutdown_lost == 2


def test_what_outlives_the_grace_period_is_reported_once(cluster: Cluster) -> None:
    """By the next tick, whose caller logs it."""
    lost = []
    for _ in range(12 * 60):
        cluster.now += 1.0
        lost.append(cluster.tracker.tick(cluster.now))
    assert [found for found in lost if found] == [{(WORKER, "add", "celery"): 2}]


def test_a_worker_that_comes_back_as_a_new_process_has_lost_its_runs(cluster: Cluster) -> None:
    """Under the same name, after a deploy."""
    cluster.heartbeat(kind="worker-online", pid=2, processed=0)
    assert (cluster.series().in_progress, cluster.series().shutdown_lost) == (0, 2)


def test_a_worker_that_reconnects_keeps_its_runs(cluster: Cluster) -> None:
    """It says goodbye and hello with the same process."""
    pass_minutes(cluster, 1)
    cluster.heartbeat(kind="worker-online")
    assert cluster.series().in_progress == 2


def test_a_worker_that_dies_without_a_goodbye_does_not_drain(cluster: Cluster) -> None:
    """Its runs are lost with its heartbeats."""
    cluster.publish("c", "other")
    cluster.receive("c", "other", OTHER_WORKER)
    cluster.start("c", OTHER_WORKER)
    cluster.pass_time(10)
    assert (cluster.series("other").in_progress, cluster.series("other").shutdown_lost) == (0, 0)


def test_replies_to_several_polls_at_once_do_not_end_its_runs(cluster: Cluster) -> None:
    """In a soft shutdown it is busy with waiting, then lists nothing, and tells the ends of its runs a second later."""
    cluster.pass_time(1)
    sent_at = cluster.now
    cluster.pass_time(6)
    for at in (sent_at, cluster.now):
        state = WorkerState(hostname=WORKER, active=())
        cluster.tracker.inspected(WorkersSnapshot(at=at, workers={WORKER: state}, replied_at=cluster.now))
    assert cluster.series().in_progress == 2
    cluster.send("task-cancelled", uuid="a")
    cluster.end("b")
    assert (cluster.series().in_progress, cluster.series().succeeded, cluster.series().without_result) == (0, 1, 0)


def test_a_worker_that_skips_heartbeats_has_not_been_idle_meanwhile(cluster: Cluster) -> None:
    """In a soft shutdown it is blocked; what it says when that is over comes before the ends of its runs."""
    cluster.heartbeat(OTHER_WORKER, active=0)
    cluster.publish("c")
    cluster.receive("c", hostname=OTHER_WORKER)
    cluster.start("c", OTHER_WORKER)
    cluster.pass_time(6)
    cluster.heartbeat(OTHER_WORKER, active=0)
    cluster.pass_time(1)
    cluster.send("task-cancelled", OTHER_WORKER, uuid="c")
    assert cluster.series().without_result == 0
