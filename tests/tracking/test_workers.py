"""Workers are alive or not, judged by receipt time."""

from __future__ import annotations

import pytest
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.settings import Limits
from celerymeter.tracking.worker import Worker

SECOND = "celery-2@one"


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one worker online."""
    cluster = Cluster()
    cluster.heartbeat(kind="worker-online")
    cluster.heartbeat()
    return cluster


def worker(cluster: Cluster, hostname: str = WORKER) -> Worker:
    """A worker that is known."""
    found = cluster.tracker.workers.get(hostname)
    assert found is not None
    return found


def test_the_version_of_the_application_is_that_of_the_process(cluster: Cluster) -> None:
    """It is text of somebody else's, and no other thing spoils the heartbeat."""
    cluster.heartbeat(application_version="1.4", pid=7)
    for nothing in (7, None, ["1"]):
        cluster.heartbeat(application_version=nothing, pid=7)
    assert worker(cluster).application == "1.4"
    cluster.heartbeat(application_version="x" * 5000, pid=7)
    assert worker(cluster).application == "x" * 40
    cluster.heartbeat(pid=8)
    assert worker(cluster).application == ""


def test_heartbeats_keep_a_worker_up(cluster: Cluster) -> None:
    """For as long as they come."""
    cluster.pass_time(60, beating=(WORKER,))
    assert worker(cluster).up


def test_three_missed_heartbeats_are_down(cluster: Cluster) -> None:
    """By the worker's own interval."""
    cluster.pass_time(6)
    assert worker(cluster).up
    cluster.pass_time(1)
    assert not worker(cluster).up


def test_two_workers_on_one_host_are_two(cluster: Cluster) -> None:
    """A worker is its node name."""
    cluster.heartbeat(SECOND)
    cluster.pass_time(10, beating=(SECOND,))
    assert (worker(cluster).up, worker(cluster, SECOND).up) == (False, True)


def test_a_dead_worker_keeps_its_series_for_the_retention(cluster: Cluster) -> None:
    """An hour by default, then it is forgotten."""
    cluster.pass_time(3500)
    assert not worker(cluster).up
    cluster.pass_time(200)
    assert cluster.tracker.workers.get(WORKER) is None


def test_goodbye_is_down_after_one_interval(cluster: Cluster) -> None:
    """Unless the worker comes back: a reconnect to its broker sends offline and online."""
    cluster.heartbeat(kind="worker-offline")
    cluster.pass_time(3)
    assert not worker(cluster).up
    assert worker(cluster).offline_at is not None


def test_a_reconnect_is_neither_down_nor_a_restart(cluster: Cluster) -> None:
    """Same process, same counts."""
    cluster.processed[WORKER] = 40
    cluster.heartbeat()
    cluster.heartbeat(kind="worker-offline")
    cluster.pass_time(1)
    cluster.heartbeat(kind="worker-online")
    cluster.pass_time(4, beating=(WORKER,))
    assert worker(cluster).up
    assert worker(cluster).processed_total == 40
    assert not worker(cluster).takeovers


def test_each_process_under_a_name_is_first_seen_anew(cluster: Cluster) -> None:
    """Also in a container, where the pid is always 1; a reconnect is the same process."""
    seen = [worker(cluster).first_seen]
    for pid, processed in ((2, 0), (2, 9), (2, 0)):
        cluster.pass_time(2)
        cluster.heartbeat(pid=pid, processed=processed)
        seen.append(worker(cluster).first_seen - seen[0])
    cluster.heartbeat(kind="worker-offline", pid=2)
    cluster.heartbeat(kind="worker-online", pid=2)
    seen.append(worker(cluster).first_seen - seen[0])
    cluster.heartbeat(kind="worker-offline", pid=2)
    cluster.pass_time(10)
    cluster.heartbeat(kind="worker-online", pid=2)
    seen.append(worker(cluster).first_seen - seen[0])
    assert seen[1:] == [2, 2, 6, 6, 16]


def test_processed_counts_from_our_first_sight(cluster: Cluster) -> None:
    """A worker that has run a million tasks before us brings none of them along."""
    cluster.heartbeat(SECOND, processed=1_000_000)
    cluster.heartbeat(SECOND, processed=1_000_003)
    assert worker(cluster, SECOND).processed_total == 3


def test_processed_goes_on_over_a_restart(cluster: Cluster) -> None:
    """In a container the pid is always 1: a lower count is a new process."""
    cluster.heartbeat(processed=50)
    cluster.heartbeat(kind="worker-online", processed=0)
    cluster.heartbeat(processed=7)
    assert worker(cluster).processed_total == 57


def test_accepted_counts_growth_of_the_totals(cluster: Cluster) -> None:
    """By task name, from the workers' own counts, complete even when events are lost."""
    for total in (5, 9):
        cluster.answer(totals={"add": total})
    assert cluster.tracker.workers.accepted == {"add": 9}
    cluster.heartbeat(SECOND, processed=100)
    for total in (100, 101):
        cluster.answer(SECOND, totals={"add": total})
    assert cluster.tracker.workers.accepted == {"add": 10}


def test_accepted_tasks_share_the_cap_of_task_names() -> None:
    """Names that nobody heard of in events are names too; what is folded adds up."""
    cluster = Cluster(make_settings(Limits(task_names=2)))
    cluster.answer(totals={})
    for growth in (1, 3):
        cluster.answer(totals={f"name-{number}": growth for number in range(5)})
    assert cluster.tracker.workers.accepted == {"name-0": 3, "name-1": 3, "__other__": 9}
    assert cluster.tracker.task_series.folded["name"] > 0


def test_a_silent_solo_worker_is_up_for_its_grace(cluster: Cluster) -> None:
    """A busy solo worker sends nothing at all until its task is done."""
    cluster.answer(pool="solo")
    cluster.pass_time(1800)
    assert worker(cluster).up
    cluster.pass_time(1810)
    assert not worker(cluster).up


def test_a_solo_worker_may_fall_silent_before_its_first_heartbeat() -> None:
    """Its first task comes within the first interval."""
    cluster = Cluster()
    cluster.heartbeat(kind="worker-online")
    cluster.answer(pool="solo")
    cluster.pass_time(60)
    assert worker(cluster).up


def test_a_worker_without_heartbeats_is_judged_by_its_replies() -> None:
    """`celery worker --without-heartbeat` still answers inspect."""
    cluster = Cluster()
    cluster.heartbeat(kind="worker-online")
    for _ in range(4):
        cluster.pass_time(15)
        cluster.answer()
    assert worker(cluster).up
    cluster.pass_time(60)
    assert not worker(cluster).up


@pytest.mark.parametrize("kind", ["", "worker-online"])
def test_an_answer_to_another_monitor_is_no_heartbeat(kind: str) -> None:
    """Flower's start makes every worker send one event with ``freq=5`` and no counts, whatever its own interval is."""
    cluster = Cluster()
    if kind:
        cluster.heartbeat(kind=kind)
    for step in range(6):
        cluster.answer()
        if step == 3:
            cluster.heartbeat(active=None, processed=None, freq=5.0)
        for _ in range(15):
            cluster.pass_time(1)
            assert worker(cluster).up
    cluster.heartbeat(freq=60.0)
    cluster.heartbeat(active=None, processed=None, freq=5.0)
    cluster.pass_time(100)
    assert worker(cluster).up


def test_a_process_that_ran_nothing_and_is_replaced_by_one_with_the_same_pid_is_another(cluster: Cluster) -> None:
    """A container that is killed and started again; a process that was there before us stays what it is."""
    cluster.heartbeat(pid=1)
    began = worker(cluster).first_seen
    cluster.answer(pid=1, uptime=7200)
    cluster.pass_time(100, beating=(WORKER,))
    cluster.answer(pid=1, uptime=7300)
    assert worker(cluster).first_seen == began
    cluster.heartbeat(kind="worker-online", pid=1)
    cluster.pass_time(10, beating=(WORKER,))
    cluster.answer(pid=1, uptime=9)
    assert worker(cluster).first_seen == cluster.now - 9
    cluster.answer(pid=2, uptime=1)  # another process under the same name
    assert worker(cluster).first_seen == cluster.now - 9


def test_liveness_waits_after_our_own_reconnect(cluster: Cluster) -> None:
    """Nobody is declared dead for what we did not hear while we were away."""
    cluster.tracker.disconnected()
    cluster.pass_time(60)
    cluster.tracker.connected(cluster.now)
    cluster.pass_time(20)
    assert worker(cluster).up
    cluster.pass_time(20)
    assert not worker(cluster).up


def test_two_processes_under_one_name_are_reported(cluster: Cluster) -> None:
    """Their heartbeats alternate."""
    for _ in range(3):
        cluster.heartbeat(pid=1)
        cluster.heartbeat(pid=2)
    assert worker(cluster).duplicate


def test_when_one_of_two_processes_has_gone_the_name_is_no_longer_a_duplicate(cluster: Cluster) -> None:
    """A minute after the last change."""
    for _ in range(3):
        cluster.heartbeat(pid=1)
        cluster.heartbeat(pid=2)
    cluster.pass_time(50, beating=())
    assert worker(cluster).duplicate
    cluster.pass_time(11, beating=())
    assert not worker(cluster).duplicate


def test_a_restart_is_no_duplicate(cluster: Cluster) -> None:
    """One change of process is a deploy."""
    cluster.heartbeat(kind="worker-online", pid=2)
    cluster.pass_time(10, beating=())
    assert not worker(cluster).duplicate


def test_workers_beyond_the_cap_are_counted_and_not_kept() -> None:
    """A hundred thousand names cannot fill the memory."""
    cluster = Cluster(make_settings(Limits(workers=10)))
    for number in range(100):
        cluster.heartbeat(f"celery@{number}")
    assert len(cluster.tracker.workers) == 10
    assert cluster.tracker.task_series.folded["hostname"] == 90
