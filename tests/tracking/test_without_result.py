"""Runs that end without an event: only those count as without a result whose end we would have heard."""

from __future__ import annotations

import pytest
from tests.tracking.cluster import WORKER, Cluster

from celerymeter.model import ActiveTask


@pytest.fixture
def cluster() -> Cluster:
    """One worker, which runs a task for a minute before its end is not heard."""
    cluster = Cluster()
    cluster.heartbeat()
    cluster.answer(pool="prefork", slots=2, active=(), totals={})
    cluster.publish("long")
    cluster.receive("long")
    cluster.start("long")
    started_at = cluster.now
    for _ in range(4):
        cluster.pass_time(15, beating=(WORKER,))
        cluster.answer(active=(ActiveTask("long", "add", started_at, "celery"),))
    return cluster


def vanish(cluster: Cluster) -> None:
    """The worker does not list it any more."""
    cluster.running.clear()
    for _ in range(3):
        cluster.pass_time(6, beating=(WORKER,))
        cluster.answer(active=())
    assert cluster.tracker.tasks.runs.evicted["vanished"] == 1
    assert cluster.series().in_progress == 0


def work(cluster: Cluster, uuid: str) -> None:
    """The worker runs another task, and time passes."""
    cluster.publish(uuid)
    cluster.receive(uuid)
    cluster.start(uuid)
    cluster.end(uuid)
    cluster.pass_time(4, beating=(WORKER,))


def test_its_worker_sends_other_events_meanwhile(cluster: Cluster) -> None:
    """It raised `Ignore`, or the result backend is down."""
    work(cluster, "short")
    vanish(cluster)
    assert cluster.series().without_result == 1


def test_nothing_is_heard_of_its_worker_until_later(cluster: Cluster) -> None:
    """As long as task events may be turned off nobody knows; the next one says that they are not."""
    vanish(cluster)
    assert cluster.series().without_result == 0
    work(cluster, "later")
    assert cluster.series().without_result == 1


def test_task_events_were_turned_off(cluster: Cluster) -> None:
    """By an operator (`disable_events`), and on again; the worker has worked meanwhile."""
    vanish(cluster)
    for _ in range(5):
        cluster.processed[WORKER] += 1
        cluster.pass_time(2, beating=(WORKER,))
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert worker.loss.off
    work(cluster, "later")
    assert cluster.series().without_result == 0


def test_its_worker_has_reconnected_meanwhile(cluster: Cluster) -> None:
    """Before Celery 5.7 the ends of all that runs are lost then (celery 8541)."""
    cluster.heartbeat(kind="worker-online")
    work(cluster, "short")
    vanish(cluster)
    assert cluster.series().without_result == 0


def test_we_have_reconnected_meanwhile(cluster: Cluster) -> None:
    cluster.tracker.disconnected()
    cluster.tracker.connected(cluster.now + 1.0)
    work(cluster, "short")
    vanish(cluster)
    assert cluster.series().without_result == 0


def test_its_worker_dies_before_it_says_more(cluster: Cluster) -> None:
    vanish(cluster)
    cluster.pass_time(60)
    work(cluster, "later")
    assert cluster.series().without_result == 0
