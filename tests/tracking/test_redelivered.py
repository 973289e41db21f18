"""Tasks that may have run twice: a second start of the same message, and what is none."""

from __future__ import annotations

import pytest
from tests.tracking.cluster import WORKER, Cluster

OTHER_WORKER = "celery@two"


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with two workers online."""
    cluster = Cluster()
    for worker in (WORKER, OTHER_WORKER):
        cluster.heartbeat(worker, kind="worker-online")
    return cluster


def begin(cluster: Cluster, worker: str = WORKER, *, retries: int = 0, parent_id: str | None = None) -> None:
    """A worker receives and starts the task."""
    cluster.receive("a", hostname=worker, retries=retries, parent_id=parent_id)
    cluster.start("a", worker)


def redelivered(cluster: Cluster) -> int:
    """The counter of all series, once no `task-sent` is awaited any more."""
    cluster.now += 3.0
    cluster.tracker.tick(cluster.now)
    return sum(series.redelivered for series in cluster.tracker.task_series)


@pytest.mark.parametrize("worker", [WORKER, OTHER_WORKER])
@pytest.mark.parametrize("ended", [False, True])
def test_a_message_that_comes_again(cluster: Cluster, worker: str, ended: bool) -> None:
    """After the visibility timeout, while the first run is under way or has just ended."""
    cluster.publish("a")
    begin(cluster)
    if ended:
        cluster.end("a")
    assert redelivered(cluster) == 0
    begin(cluster, worker)
    assert redelivered(cluster) == 1
    cluster.end("a", hostname=worker)
    assert cluster.series().started == 2


@pytest.mark.parametrize("overlap", [True, False])
def test_an_eta_beyond_the_visibility_timeout(cluster: Cluster, overlap: bool) -> None:
    """Both workers hold the message, and both start it when its time has come; one may be done before the other."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.receive("a", hostname=OTHER_WORKER)
    cluster.start("a")
    if not overlap:
        cluster.end("a")
    cluster.start("a", OTHER_WORKER)
    assert redelivered(cluster) == 1
    if overlap:
        cluster.end("a")
    cluster.end("a", hostname=OTHER_WORKER)
    assert (cluster.series().started, cluster.series().succeeded, cluster.series().in_progress) == (2, 2, 0)
    assert not cluster.tracker.tasks.counts.duplicates


def test_one_worker_that_received_a_message_several_times_runs_it_as_often(cluster: Cluster) -> None:
    """The only worker holds an ETA for several visibility timeouts."""
    cluster.publish("a")
    for _ in range(3):
        cluster.receive("a")
    for _ in range(3):
        cluster.start("a")
    assert redelivered(cluster) == 2
    for _ in range(3):
        cluster.end("a")
    assert (cluster.series().started, cluster.series().succeeded, cluster.series().in_progress) == (3, 3, 0)
    assert not cluster.tracker.tasks.counts.duplicates


def test_the_worker_died_and_another_runs_the_task(cluster: Cluster) -> None:
    """Acknowledged late, the message goes back to the queue."""
    cluster.publish("a")
    begin(cluster)
    cluster.pass_time(10, beating=(OTHER_WORKER,))
    assert redelivered(cluster) == 0
    begin(cluster, OTHER_WORKER)
    assert redelivered(cluster) == 1


def test_a_task_cancelled_for_a_lost_connection(cluster: Cluster) -> None:
    """Celery 5.7 says so; the message is delivered again."""
    cluster.publish("a")
    begin(cluster)
    cluster.end("a", "cancelled")
    begin(cluster)
    assert redelivered(cluster) == 1


def test_a_retry_is_none(cluster: Cluster) -> None:
    """With and without its `task-sent`, in time or late."""
    cluster.publish("a")
    begin(cluster)
    cluster.publish("a", retries=1)
    cluster.end("a", "retried")
    begin(cluster, retries=1)
    begin(cluster, OTHER_WORKER, retries=2)
    cluster.end("a", "retried")
    cluster.end("a", hostname=OTHER_WORKER)
    assert redelivered(cluster) == 0


def test_a_requeue_on_purpose_is_none(cluster: Cluster) -> None:
    """`Reject(requeue=True)` has a counter of its own."""
    cluster.publish("a")
    begin(cluster)
    cluster.end("a", "rejected", requeue=True)
    begin(cluster, OTHER_WORKER)
    assert redelivered(cluster) == 0


@pytest.mark.parametrize("ended", [False, True])
def test_an_id_that_is_sent_again_is_none(cluster: Cluster, ended: bool) -> None:
    """Its `task-sent` shows it."""
    cluster.publish("a")
    begin(cluster)
    if ended:
        cluster.end("a")
    cluster.publish("a")
    begin(cluster, OTHER_WORKER)
    assert redelivered(cluster) == 0


def test_a_message_that_was_received_twice_and_started_once_is_none(cluster: Cluster) -> None:
    """Its first worker died with the message prefetched."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.pass_time(10, beating=(OTHER_WORKER,))
    begin(cluster, OTHER_WORKER)
    assert redelivered(cluster) == 0


def test_a_replacement_is_none(cluster: Cluster) -> None:
    """It has the id of the task that it replaces, and a message of its own."""
    cluster.publish("a")
    begin(cluster)
    cluster.send("task-sent", "gen9@one", uuid="a", name="add", queue="celery", retries=0, parent_id="a")
    begin(cluster, OTHER_WORKER, parent_id="a")
    cluster.end("a", hostname=OTHER_WORKER)
    assert redelivered(cluster) == 0


def test_runs_that_end_without_an_event_are_counted(cluster: Cluster) -> None:
    """The worker no longer lists them: `Ignore`, or the result backend is down."""
    cluster.publish("a")
    begin(cluster)
    for _ in range(3):
        cluster.pass_time(6, beating=(WORKER, OTHER_WORKER))
        cluster.answer(active=())
    assert cluster.series().without_result == 1
