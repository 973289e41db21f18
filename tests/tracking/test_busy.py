"""Busy seconds: how long slots were taken, by task and by worker, to the second and at any time."""

from __future__ import annotations

import pytest
from tests.exposition.golden import render
from tests.scrape import Scrape
from tests.tracking.cluster import START, WORKER, Cluster

from celerymeter.model import ActiveTask

OTHER_WORKER = "celery@two"
TASK = "celery_task_busy_seconds_total"
HOST = "celery_worker_busy_seconds_total"


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one worker online, whose clock is an hour ahead."""
    cluster = Cluster(skew={"one": 3600.0})
    cluster.heartbeat(kind="worker-online")
    return cluster


def start(cluster: Cluster, uuid: str, name: str = "add", hostname: str = WORKER) -> None:
    """A run begins."""
    cluster.publish(uuid, name)
    cluster.receive(uuid, name, hostname)
    cluster.start(uuid, hostname)


def busy(cluster: Cluster) -> tuple[float, float]:
    """The seconds of all tasks, and of all workers, as a scrape shows them now."""
    scrape = Scrape(render(cluster))
    return scrape.sum(TASK), scrape.sum(HOST)


def test_ended_runs_and_those_in_progress_add_up(cluster: Cluster) -> None:
    """At every scrape."""
    start(cluster, "a")
    cluster.pass_time(10, beating=(WORKER,))
    assert busy(cluster) == (10, 10)
    start(cluster, "b", "mail")
    cluster.pass_time(5, beating=(WORKER,))
    assert busy(cluster) == (20, 20)
    cluster.end("a")
    cluster.pass_time(5, beating=(WORKER,))
    assert Scrape(render(cluster)).by(TASK, "name") == {("add",): 15, ("mail",): 10}
    cluster.end("b", "failed")
    cluster.pass_time(60, beating=(WORKER,))
    assert busy(cluster) == (25, 25)


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "retried", "rejected", "revoked"])
def test_every_end_frees_the_slot(cluster: Cluster, outcome: str) -> None:
    """However a run ends."""
    start(cluster, "a")
    cluster.pass_time(10, beating=(WORKER,))
    cluster.end("a", outcome)
    cluster.pass_time(10, beating=(WORKER,))
    assert busy(cluster) == (10, 10)


def test_a_run_that_waits_for_its_queue_to_be_known_is_counted_then(cluster: Cluster) -> None:
    """From its start to its end, without what it waited."""
    cluster.receive("a")
    cluster.start("a")
    cluster.now += 1
    cluster.end("a")
    cluster.pass_time(20, beating=(WORKER,))
    assert busy(cluster) == (1, 1)


def test_a_dead_worker_was_busy_as_long_as_it_was_heard(cluster: Cluster) -> None:
    """Its runs are not in progress any more, and may run again elsewhere."""
    start(cluster, "a")
    cluster.pass_time(10, beating=(WORKER,))
    cluster.pass_time(300)
    tasks, _ = busy(cluster)
    assert 10 <= tasks <= 17
    cluster.heartbeat(OTHER_WORKER)
    start(cluster, "a", hostname=OTHER_WORKER)
    cluster.pass_time(20, beating=(OTHER_WORKER,))
    assert busy(cluster)[0] == pytest.approx(tasks + 20, abs=7)


def test_a_run_without_an_end_is_busy_until_its_worker_leaves_it_out(cluster: Cluster) -> None:
    """`Ignore`, or a result backend that is down; should its end come yet, it is not counted again."""
    start(cluster, "a")
    cluster.pass_time(10, beating=(WORKER,))
    for _ in range(2):
        cluster.answer(active=())
        cluster.pass_time(6, beating=(WORKER,))
    cluster.answer(active=())
    cluster.pass_time(60, beating=(WORKER,))
    tasks, _ = busy(cluster)
    assert 10 <= tasks <= 16
    cluster.end("a")
    assert busy(cluster)[0] == tasks


def test_a_replaced_run_is_busy_until_its_replacement_is_sent(cluster: Cluster) -> None:
    """The replacement waits in its queue then."""
    start(cluster, "a", "outer")
    cluster.pass_time(5, beating=(WORKER,))
    cluster.send("task-sent", "gen3@one", uuid="a", name="inner", queue="celery", retries=0, parent_id="a")
    cluster.pass_time(30, beating=(WORKER,))
    assert busy(cluster) == (5, 5)


def test_nothing_is_busy_while_nothing_is_heard(cluster: Cluster) -> None:
    """A subscription that is down for an hour adds no hour; what runs on afterwards was busy all the time."""
    start(cluster, "a")
    cluster.pass_time(10, beating=(WORKER,))
    cluster.tracker.disconnected()
    cluster.now += 3600
    assert busy(cluster)[0] == 10
    cluster.tracker.connected(cluster.now)
    cluster.heartbeat()
    assert busy(cluster)[0] == 3610


def test_free_slots_are_those_without_a_run(cluster: Cluster) -> None:
    """Of the workers that consume the queue; where a worker sends no task events, its heartbeats tell."""
    from celerymeter.model import PollOutcome

    start(cluster, "a")
    cluster.answer(slots=4, queues=("celery", "mail"))
    cluster.heartbeat(OTHER_WORKER, active=2)
    other = cluster.tracker.workers.get(OTHER_WORKER)
    assert other is not None
    other.loss.off = True
    cluster.answer(OTHER_WORKER, slots=8, queues=("mail",))
    cluster.tracker.polled(PollOutcome("workers", True, cluster.now, 0.1))
    free = Scrape(render(cluster)).by("celery_queue_free_slots", "queue_name")
    assert free == {("celery",): 3, ("mail",): 9}


def test_a_run_whose_worker_is_silent_now_and_then_is_counted_once(cluster: Cluster) -> None:
    """Its worker counts as dead for a while and then lists it again; each time had counted all of it again."""
    start(cluster, "a")
    for _ in range(4):
        cluster.pass_time(10, beating=(WORKER,))
        cluster.pass_time(9)
        assert Scrape(render(cluster)).sum("celery_task_in_progress") == 0
        cluster.heartbeat()
        cluster.answer(active=[ActiveTask("a", "add", started_at=START + 3600.0, queue_name="celery")])
    assert busy(cluster) == (76, 76)
    cluster.pass_time(4, beating=(WORKER,))
    cluster.end("a")
    cluster.pass_time(4, beating=(WORKER,))
    assert busy(cluster) == (80, 80)


def test_a_run_that_began_before_the_exporter_is_counted_from_then_on(cluster: Cluster) -> None:
    """What the exporter before it has counted would be a jump in the counter; the age of the run stays known."""
    cluster.running.add((WORKER, "a"))
    cluster.answer(active=[ActiveTask("a", "add", started_at=START, queue_name="celery")])  # an hour ago, by our clock
    cluster.pass_time(10, beating=(WORKER,))
    assert busy(cluster) == (10, 10)
    assert Scrape(render(cluster)).sum("celery_task_oldest_start_timestamp_seconds") == START - 3600.0
    cluster.end("a")
    assert busy(cluster) == (10, 10)


def test_two_workers_under_one_name_keep_their_runs(cluster: Cluster) -> None:
    """Each heartbeat is of another process than the one before, and a list of tasks is that of one of them."""
    for pid in (1, 2, 1, 2):
        cluster.heartbeat(pid=pid)
    start(cluster, "a")
    start(cluster, "b")
    for step in range(20):
        cluster.pass_time(1)
        cluster.heartbeat(pid=1 + step % 2)
        cluster.answer(pid=1, active=[ActiveTask("a", "add", started_at=START + 3600.0, queue_name="celery")])
    assert Scrape(render(cluster)).sum("celery_task_in_progress") == 2
    assert busy(cluster) == (40, 40)
