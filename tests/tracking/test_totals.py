"""Totals of aggregating workers: added up exactly, whatever is lost, comes late, twice or in mid-life."""

from __future__ import annotations

import random

import pytest
from tests.aggregate.sender import Sender
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.aggregate.member import Options
from celerymeter.model import ActiveTask


@pytest.fixture
def cluster() -> Cluster:
    """An exporter that is connected."""
    cluster = Cluster()
    cluster.pass_time(1)
    return cluster


@pytest.fixture
def sender(cluster: Cluster) -> Sender:
    """A worker that started after the exporter."""
    sender = Sender(cluster)
    sender.send()
    return sender


def test_every_count_of_a_run_arrives(cluster: Cluster, sender: Sender) -> None:
    sender.receive("a", sent=cluster.now - 3)
    cluster.pass_time(1)
    sender.start("a")
    cluster.pass_time(2)
    sender.end("a", runtime=2.0)
    sender.run("b", outcome="failed", exception="ValueError('x')")
    sender.run("c", outcome="retried", exception="None")
    sender.run("d", outcome="revoked", terminated=True)
    sender.send()
    series = cluster.series()
    assert (series.received, series.started, series.succeeded, series.failed) == (4, 4, 1, 1)
    assert (series.retried, series.polled, series.revoked_terminated) == (1, 1, 1)
    assert series.exceptions == {"ValueError": 1}
    assert series.runtime.sum == 2.0
    assert series.runtime.counts[5] == 1  # up to 2.5 s
    assert series.wait.sum == 4.0
    assert series.busy.seconds(0.0) == pytest.approx(2.0)
    assert series.failed_runtime_count == 1
    assert cluster.tracker.tasks.counts.waits_unmeasured == {"not_sent": 3}
    assert cluster.tracker.tasks.counts.last_success == {"add": cluster.now}


def test_a_lost_message_is_healed_by_the_next(cluster: Cluster, sender: Sender) -> None:
    sender.run("a")
    sender.message()  # is lost
    sender.run("b", name="mul")
    sender.send()
    assert cluster.series().succeeded == 1
    assert cluster.series("mul").succeeded == 1


def test_with_nine_messages_in_ten_lost_all_is_exact_after_the_next_full_one(cluster: Cluster, sender: Sender) -> None:
    chance = random.Random(7)
    for number in range(500):
        sender.run(str(number), name=f"task{chance.randrange(20)}", runtime=chance.random())
        if number % 3 == 0:
            message = sender.message()
            if chance.random() < 0.1:
                sender.deliver(message)
    sender.send(full=True)
    counted = [series for series in cluster.tracker.task_series if series.labels[1] == "celery"]
    assert sum(series.succeeded for series in counted) == 500
    assert sum(sum(series.runtime.counts) for series in counted) == 500


def test_a_message_that_comes_twice_or_late_changes_nothing(cluster: Cluster, sender: Sender) -> None:
    sender.run("a")
    first = sender.message()
    sender.run("b")
    second = sender.message()
    for message in (second, first, second):
        sender.deliver(message)
    assert cluster.series().succeeded == 2


def test_a_worker_first_seen_in_mid_life_is_a_baseline(cluster: Cluster) -> None:
    sender = Sender(cluster)
    sender.began = cluster.now - 1000
    sender.run("a")
    sender.message(full=True)
    sender.run("b", name="mul")
    sender.message()
    sender.send()  # not a full one
    assert [series.succeeded for series in cluster.tracker.task_series] == [0]
    sender.run("d", name="mul")
    sender.send(full=True)
    sender.run("c")
    sender.run("e", name="new")
    sender.send()
    assert cluster.series().succeeded == 1
    assert cluster.series("mul").succeeded == 1
    assert cluster.series("new").succeeded == 1


def test_a_new_process_under_the_same_name_starts_from_0(cluster: Cluster, sender: Sender) -> None:
    sender.run("a")
    sender.start("b")
    sender.send()
    following = Sender(cluster)
    following.run("c")
    cluster.heartbeat(kind="worker-online", pid=2)
    cluster.processed[WORKER] = 0
    following.send()
    assert cluster.series().succeeded == 2
    assert cluster.series("unknown", "unknown").in_progress == 0  # "b" is lost with its process


def test_runs_in_progress_are_those_of_living_workers(cluster: Cluster, sender: Sender) -> None:
    sender.receive("a")
    sender.start("a")
    began = cluster.now
    cluster.pass_time(3)
    sender.send()
    sums = cluster.tracker.in_progress(cluster.now)
    assert cluster.series().in_progress == 1
    assert sums.by_worker == {WORKER: 1}
    assert sums.oldest == {cluster.series(): pytest.approx(began)}
    assert cluster.series().busy.seconds(0.0) == pytest.approx(3.0)
    cluster.pass_time(40)  # no heartbeat any more
    assert cluster.series().in_progress == 0
    assert not cluster.tracker.in_progress(cluster.now).by_worker


def test_a_worker_never_counts_twice(cluster: Cluster, sender: Sender) -> None:
    """Events of followed tasks and revoked ones are published too, and `inspect active` lists what runs."""
    sender.receive("a")
    sender.start("a")
    sender.send()
    cluster.receive("a")
    cluster.start("a")
    cluster.answer(pool="prefork", queues=("celery",), active=(ActiveTask("a", "add", cluster.now, "celery"),))
    cluster.end("a")
    cluster.end("b", "revoked")
    sender.end("a")
    sender.send()
    series = cluster.series()
    assert (series.received, series.started, series.succeeded, series.in_progress) == (1, 1, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0
    assert [one.labels for one in cluster.tracker.task_series] == [("add", "celery")]


def test_events_beside_totals_are_not_counted_before_the_first_totals_either(cluster: Cluster) -> None:
    """The exporter was restarted, or the totals of a new process were lost."""
    sender = Sender(cluster)
    sender.receive("a")
    sender.end("a", "revoked")
    cluster.send("task-revoked", WORKER, uuid="a", celerymeter_counted=True)
    sender.message()
    sender.send()
    assert cluster.series().revoked == 1
    assert [one.labels for one in cluster.tracker.task_series] == [("add", "celery")]


def test_tasks_sent_to_aggregating_workers_are_counted_and_not_tracked(cluster: Cluster, sender: Sender) -> None:
    cluster.answer(pool="prefork", queues=("celery",))
    for number in range(3):
        cluster.publish(str(number))
    assert cluster.series().sent == 3
    assert len(cluster.tracker.tasks.runs) == 0


def test_workers_of_both_modes_share_a_cluster(cluster: Cluster, sender: Sender) -> None:
    cluster.heartbeat("celery@two")
    for number in range(5):
        sender.run(f"t{number}")
        cluster.publish(f"e{number}")
        cluster.receive(f"e{number}", hostname="celery@two")
        cluster.start(f"e{number}", hostname="celery@two")
        cluster.end(f"e{number}", hostname="celery@two")
    sender.send()
    assert cluster.series().succeeded == 10
    assert {worker.hostname: worker.mode for worker in cluster.tracker.workers} == {
        WORKER: "aggregate",
        "celery@two": "events",
    }


def test_nothing_is_missed_and_events_are_not_off(cluster: Cluster, sender: Sender) -> None:
    for number in range(100):
        sender.run(str(number))
        cluster.now += 2
        sender.send()
        cluster.tracker.tick(cluster.now)
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert (worker.loss.missed, worker.loss.unexplained, worker.loss.off) == (0, 0, False)


def test_what_a_killed_worker_had_begun_since_its_last_totals_is_missed(cluster: Cluster, sender: Sender) -> None:
    sender.run("a")
    sender.send()
    cluster.processed[WORKER] = 4
    cluster.heartbeat()  # the totals after it never come
    cluster.pass_time(40)
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert (worker.loss.missed, worker.loss.unexplained) == (0, 3)
    cluster.pass_time(60)
    assert (worker.loss.missed, worker.loss.unexplained) == (3, 0)


def test_it_is_missed_too_when_a_new_process_has_its_name(cluster: Cluster, sender: Sender) -> None:
    sender.run("a")
    sender.send()
    cluster.processed[WORKER] = 4
    cluster.heartbeat()
    cluster.pass_time(40)
    cluster.processed[WORKER] = 0
    cluster.heartbeat(kind="worker-online", pid=7)
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert (worker.loss.missed, worker.loss.unexplained) == (0, 3)
    cluster.pass_time(60)
    assert (worker.loss.missed, worker.loss.unexplained) == (3, 0)


def test_nothing_is_missed_of_a_worker_that_was_only_silent(cluster: Cluster, sender: Sender) -> None:
    """Its messages were lost for a while; the next one has everything."""
    sender.run("a")
    sender.send()
    for uuid in ("b", "c", "d"):
        sender.run(uuid)
    cluster.processed[WORKER] = 4
    cluster.heartbeat()
    cluster.pass_time(40)
    sender.send(full=True)
    cluster.pass_time(100, beating=(WORKER,))
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert (worker.loss.missed, worker.loss.unexplained) == (0, 0)
    assert cluster.series().started == 4


def test_two_processes_under_one_name_miss_nothing(cluster: Cluster) -> None:
    """The replies of one are not taken for the other's."""
    first, second = Sender(cluster), Sender(cluster)
    for turn in range(8):
        for pid, sender, runs in ((1, first, 5), (2, second, 1)):
            for run in range(runs):
                sender.run(f"{pid}-{turn}-{run}")
            cluster.heartbeat(pid=pid, processed=sender.totals.started_total)
            sender.deliver(sender.message(pid=pid))
            cluster.answer(pid=1, totals={"add": first.totals.started_total})
            cluster.answer(pid=pid, totals={"add": sender.totals.started_total + 1})  # it is busy
            cluster.pass_time(1)
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert worker.duplicate
    for pid, sender in ((1, first), (2, second)):
        cluster.heartbeat(pid=pid, processed=sender.totals.started_total)
        sender.deliver(sender.message(pid=pid))
    assert (worker.loss.missed, worker.loss.unexplained) == (0, 0)
    assert cluster.series().started == 48
    assert cluster.tracker.workers.accepted["add"] <= 48


def test_a_process_whose_totals_are_still_on_their_way_misses_nothing(cluster: Cluster) -> None:
    """The heartbeat of another process of that name comes between its own and its totals."""
    first, second = Sender(cluster), Sender(cluster)
    for turn in range(4):
        first.run(f"1-{turn}")
        first.run(f"1-{turn}-more")
        second.run(f"2-{turn}")
        for pid, sender in ((2, second), (1, first)):
            cluster.heartbeat(pid=pid, processed=sender.totals.started_total)
        first.deliver(first.message())
        second.deliver(second.message(pid=2))
        cluster.pass_time(1)
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert (worker.loss.missed, worker.loss.unexplained) == (0, 0)
    assert cluster.series().started == 12


@pytest.mark.parametrize("step", [1e6, -1e6])
def test_no_process_is_forgotten_when_our_clock_is_set(cluster: Cluster, sender: Sender, step: float) -> None:
    sender.run("a")
    sender.send()
    sender.run("b")
    message = sender.message()
    cluster.now += step
    cluster.tracker.tick(cluster.now)
    sender.deliver(message)
    late = Sender(cluster, hostname="celery@late")
    late.run("c")
    late.message()  # its first is lost
    late.deliver(late.message(full=True))
    assert cluster.series().started == 3


@pytest.mark.parametrize("step", [600.0, -600.0])
def test_what_a_silent_worker_may_come_back_with_is_awaited_when_our_clock_is_set(
    cluster: Cluster, sender: Sender, step: float
) -> None:
    sender.run("a")
    sender.send()
    cluster.processed[WORKER] = 4
    cluster.heartbeat()
    cluster.pass_time(40)
    cluster.now += step
    cluster.pass_time(10)
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert (worker.loss.missed, worker.loss.unexplained) == (0, 3)
    cluster.pass_time(60)
    assert (worker.loss.missed, worker.loss.unexplained) == (3, 0)


def test_a_worker_that_gives_up_sends_events_again(cluster: Cluster, sender: Sender) -> None:
    sender.run("a")
    sender.member.give_up(ValueError("a bug"))
    sender.send()
    cluster.receive("b")
    cluster.publish("b")
    cluster.start("b")
    cluster.end("b")
    assert cluster.series().succeeded == 2
    assert next(iter(cluster.tracker.workers)).mode == "events"


def test_other_bounds_are_put_into_the_buckets_that_hold_them() -> None:
    cluster = Cluster(make_settings(runtime_buckets=(1.0, 10.0)))
    sender = Sender(cluster, Options(runtime_buckets=(0.5, 1.0, 5.0, 20.0)))
    for uuid, runtime in enumerate((0.2, 0.7, 3.0, 15.0, 99.0)):
        sender.run(str(uuid), runtime=runtime)
    sender.send()
    assert cluster.series().runtime.counts == [2, 1, 2]


def test_malformed_totals_are_counted_and_cost_their_neighbours_nothing(cluster: Cluster, sender: Sender) -> None:
    sender.run("a", runtime=1.0)
    sender.run("b", name="mul", runtime=1.0)
    message = sender.message()
    assert message.totals is not None
    rows = dict(message.totals.series)
    good = bytes(rows["0"])
    message.totals.series = {
        "0": type(rows["0"])(good),
        "1": type(rows["0"])(b'["mul", "celery", -5]'),
        "2": type(rows["0"])(b'["div", "celery", 1, 1, 1, 0, 0, 0.0, 0, 0.0, 0.0, 1.0, [99, 1], 0.0, []]'),
    }
    sender.deliver(message)
    assert cluster.series().succeeded == 1
    assert cluster.series("div").received == 0
    assert cluster.tracker.rejections == {"fields": 2}


def test_totals_of_a_version_to_come_are_refused(cluster: Cluster, sender: Sender) -> None:
    message = sender.message()
    assert message.totals is not None
    message.totals.version = 2
    sender.deliver(message)
    assert cluster.tracker.rejections == {"fields": 1}


def test_labels_beyond_a_limit_are_folded(cluster: Cluster) -> None:
    cluster = Cluster(make_settings(limits=type(cluster.settings.limits)(task_names=2)))
    sender = Sender(cluster)
    for number in range(4):
        sender.run(str(number), name=f"task{number}")
    sender.send()
    assert cluster.series("__other__").succeeded == 2
    assert sum(series.succeeded for series in cluster.tracker.task_series) == 4


def test_workers_beyond_the_limit_count_without_a_name() -> None:
    """Their runs in progress are not shown: nobody would notice when they die."""
    cluster = Cluster(make_settings(limits=type(make_settings().limits)(workers=2)))
    senders = [Sender(cluster, hostname=f"celery@{number}") for number in range(3)]
    for number, sender in enumerate(senders):
        cluster.heartbeat(sender.hostname)
        sender.run(f"a{number}")
        sender.receive(f"b{number}")
        sender.start(f"b{number}")
        sender.deliver(sender.message())
    assert cluster.series().succeeded == 3
    cluster.tracker.tick(cluster.now)
    assert cluster.series().in_progress == 2


def test_what_waited_for_workers_that_aggregate_from_now_on_is_not_tracked_for_ever(cluster: Cluster) -> None:
    """No event of theirs will end it."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.publish("b")
    cluster.publish("c", queue="other")
    sender = Sender(cluster)
    sender.send()
    cluster.answer(pool="prefork", queues=("celery",))
    sender.run("a")
    sender.run("b")
    sender.send()
    assert cluster.series().succeeded == 2
    assert len(cluster.tracker.tasks.runs) == 1
