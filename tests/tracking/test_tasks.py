"""Every event is counted once, under its own queue, and every run has one end."""

from __future__ import annotations

from typing import Any

import pytest
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.model import UNKNOWN, ActiveTask, QueueBinding
from celerymeter.settings import Limits

OTHER_WORKER = "celery@two"
HELD = (("a", "pay", "mail"), ("b", "pay", "mail"), ("c", "send", "bulk"), ("d", "send", "bulk"))
"""Tasks that a worker holds, with their names and queues."""


@pytest.fixture
def cluster() -> Cluster:
    """A cluster without history."""
    return Cluster()


def test_a_task_is_counted_at_every_step(cluster: Cluster) -> None:
    """Sent, received, started and succeeded add one each under the queue that task-sent named."""
    cluster.run("a", queue="mail")
    series = cluster.series(queue="mail")
    assert (series.sent, series.received, series.started, series.succeeded) == (1, 1, 1, 1)
    assert len(cluster.tracker.tasks.runs) == 0


def test_received_may_overtake_sent(cluster: Cluster) -> None:
    """Counts wait for the queue, whatever overtakes task-sent."""
    cluster.receive("a")
    cluster.start("a")
    cluster.end("a")
    cluster.publish("a", queue="mail")
    series = cluster.series(queue="mail")
    assert (series.sent, series.received, series.started, series.succeeded) == (1, 1, 1, 1)
    assert len(cluster.tracker.tasks.runs) == 0


def test_without_task_sent_the_only_queue_of_the_worker_is_taken(cluster: Cluster) -> None:
    """A worker that consumes one queue leaves no doubt."""
    cluster.answer(queues=("mail",))
    cluster.receive("a")
    cluster.start("a")
    cluster.end("a")
    cluster.pass_time(3)
    assert cluster.series(queue="mail").succeeded == 1


def test_without_task_sent_two_queues_are_unknown(cluster: Cluster) -> None:
    """The queue is never guessed."""
    cluster.answer(queues=("mail", "bulk"))
    cluster.receive("a")
    cluster.start("a")
    cluster.end("a")
    cluster.pass_time(3)
    series = cluster.series(queue="unknown")
    assert (series.received, series.started, series.succeeded) == (1, 1, 1)


def test_a_new_worker_is_waited_for_longer(cluster: Cluster) -> None:
    """Until a worker has said which queues it consumes, its tasks wait up to 15 s."""
    cluster.receive("a")
    cluster.pass_time(10)
    cluster.answer(queues=("mail",))
    cluster.pass_time(3)
    assert cluster.series(queue="mail").received == 1


def test_once_unknown_a_run_stays_unknown(cluster: Cluster) -> None:
    """A task-sent that comes too late does not tear a run in two."""
    cluster.answer(queues=("mail", "bulk"))
    cluster.receive("a")
    cluster.pass_time(3)
    cluster.publish("a", queue="mail")
    cluster.start("a")
    cluster.end("a")
    series = cluster.series(queue="unknown")
    assert (series.sent, series.received, series.started, series.succeeded) == (1, 1, 1, 1)


def test_bindings_go_before_the_queue_that_an_event_names(cluster: Cluster) -> None:
    """`apply_async(exchange=…, routing_key=…)`: Celery then names the default queue, where the same task goes too."""
    cluster.heartbeat()
    cluster.answer(queues=("celery", "eu"), bindings=(QueueBinding("eu", "shop", "topic", "eu.#"),))
    cluster.run("a", queue="celery")
    cluster.publish("b", exchange="shop", routing_key="eu.paris")
    cluster.receive("b")
    cluster.start("b")
    cluster.end("b")
    counted = {series.labels: (series.sent, series.succeeded) for series in cluster.tracker.task_series}
    assert counted == {("add", "celery"): (1, 1), ("add", "eu"): (1, 1)}


def test_the_routing_key_names_the_queue_on_the_default_exchange(cluster: Cluster) -> None:
    """Producers that send to the default exchange name no queue."""
    cluster.publish("a", queue=None, exchange="", routing_key="mail")
    assert cluster.series(queue="mail").sent == 1


def test_a_retry_begins_a_run_of_its_own(cluster: Cluster) -> None:
    """The retry's task-sent comes before the task-retried of the run that it follows."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    cluster.publish("a", retries=1)
    cluster.end("a", "retried")
    cluster.receive("a", retries=1)
    cluster.start("a")
    cluster.end("a", "failed", exception="ValueError('x')")
    series = cluster.series()
    assert (series.sent, series.received, series.started, series.retried, series.failed) == (2, 2, 2, 1, 1)
    assert series.exceptions == {"ValueError": 1}
    assert not series.in_progress
    assert not cluster.tracker.tasks.counts.duplicates


def test_a_retry_may_overtake_the_whole_run_before(cluster: Cluster) -> None:
    """Worker two runs the retry while worker one's batch of events is still on its way."""
    cluster.publish("a")
    cluster.publish("a", retries=1)
    cluster.receive("a", retries=1, hostname=OTHER_WORKER)
    cluster.start("a", OTHER_WORKER)
    cluster.receive("a")
    cluster.start("a")
    cluster.end("a", "retried")
    cluster.end("a", hostname=OTHER_WORKER)
    series = cluster.series()
    assert (series.sent, series.received, series.started, series.retried, series.succeeded) == (2, 2, 2, 1, 1)
    assert not series.in_progress


def test_a_retry_may_be_received_before_the_run_before_it_has_ended(cluster: Cluster) -> None:
    """By the same worker, which hears of the end only when its pool process reports it."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    for retries in (1, 2):
        cluster.publish("a", retries=retries)
        cluster.receive("a", retries=retries)
        cluster.end("a", "retried")
        cluster.start("a")
    cluster.end("a", "failed")
    series = cluster.series()
    assert (series.sent, series.received, series.started, series.retried, series.failed) == (3, 3, 3, 2, 1)
    assert not series.in_progress
    assert len(cluster.tracker.tasks.runs) == 0


def test_the_clients_task_sent_may_come_after_two_retries(cluster: Cluster) -> None:
    """A quick task is received and retried by two workers before a busy client announces it."""
    first, second = "celery@one", "celery@two"
    cluster.receive("a", hostname=first)
    cluster.start("a", first)
    cluster.receive("a", hostname=second, retries=1)
    cluster.publish("a", retries=1)
    cluster.end("a", "retried", first)
    cluster.start("a", second)
    cluster.receive("a", hostname=first, retries=2)
    cluster.publish("a", retries=2)
    cluster.end("a", "retried", second)
    cluster.start("a", first)
    cluster.end("a", hostname=first)
    cluster.publish("a")
    series = cluster.series()
    assert (series.sent, series.received, series.started, series.retried, series.succeeded) == (3, 3, 3, 2, 1)
    assert len(cluster.tracker.tasks.runs) == 0


def test_without_a_task_sent_of_its_own_a_run_has_the_queue_of_its_retry(cluster: Cluster) -> None:
    """A retry goes where the run before it came from."""
    cluster.receive("a")
    cluster.start("a")
    cluster.publish("a", queue="mail", retries=1)
    cluster.end("a", "retried")
    cluster.receive("a", retries=1)
    cluster.start("a")
    cluster.end("a")
    cluster.pass_time(20)
    assert cluster.series(queue="mail").received == 2
    assert cluster.series(queue="mail").retried == 1
    assert cluster.series(queue=UNKNOWN).received == 0


def test_a_retry_may_change_its_queue(cluster: Cluster) -> None:
    """Each run is counted under its own queue."""
    cluster.publish("a", queue="fast")
    cluster.receive("a")
    cluster.start("a")
    cluster.publish("a", queue="slow", retries=1)
    cluster.end("a", "retried")
    cluster.receive("a", retries=1)
    cluster.start("a")
    cluster.end("a")
    assert (cluster.series(queue="fast").retried, cluster.series(queue="slow").succeeded) == (1, 1)


def test_quick_retries_without_task_sent_keep_every_run(cluster: Cluster) -> None:
    """Three runs within the grace, none of which has named its queue."""
    cluster.answer(queues=("mail",))
    for retries, outcome in enumerate(("retried", "retried", "succeeded")):
        cluster.receive("a", retries=retries)
        cluster.start("a")
        cluster.end("a", outcome)
    cluster.pass_time(4)
    series = cluster.series(queue="mail")
    assert (series.received, series.started, series.retried, series.succeeded) == (3, 3, 2, 1)
    assert not series.in_progress
    assert len(cluster.tracker.tasks.runs) == 0


def test_reject_with_failed_is_one_failure(cluster: Cluster) -> None:
    """Celery 5.7 sends both events for Reject(requeue=False), in either order."""
    for uuid, outcomes in (("a", ("failed", "rejected")), ("b", ("rejected", "failed"))):
        cluster.publish(uuid)
        cluster.receive(uuid)
        cluster.start(uuid)
        for outcome in outcomes:
            cluster.end(uuid, outcome, requeue=False)
    cluster.pass_time(3)
    series = cluster.series()
    assert (series.failed, series.rejected_end) == (2, 0)
    assert cluster.tracker.tasks.counts.duplicates == {"task-rejected": 2}


def test_reject_alone_is_an_end(cluster: Cluster) -> None:
    """Older workers send no task-failed with it."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    cluster.end("a", "rejected", requeue=False)
    assert not cluster.series().in_progress
    cluster.pass_time(3)
    assert cluster.series().rejected_end == 1


def test_reject_with_requeue_is_no_end(cluster: Cluster) -> None:
    """The message comes again, perhaps to another worker."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    cluster.end("a", "rejected", requeue=True)
    cluster.receive("a", hostname=OTHER_WORKER)
    cluster.start("a", OTHER_WORKER)
    cluster.end("a", hostname=OTHER_WORKER)
    series = cluster.series()
    assert (series.rejected_requeued, series.rejected_end, series.started, series.succeeded) == (1, 0, 2, 1)
    assert not series.in_progress


def test_a_requeued_message_that_comes_back_before_its_rejection_is_no_redelivery(cluster: Cluster) -> None:
    """RabbitMQ gives it to the worker again at once; seen with its pool of threads."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    cluster.receive("a")
    cluster.end("a", "rejected", requeue=True)
    cluster.start("a")
    cluster.end("a")
    series = cluster.series()
    assert (series.received, series.started, series.rejected_requeued, series.succeeded) == (2, 2, 1, 1)
    assert (series.redelivered, series.in_progress) == (0, 0)
    assert len(cluster.tracker.tasks.runs) == 0


@pytest.mark.parametrize(("exception", "polled"), [("None", 1), (None, 1), ("ValueError('x')", 0)])
def test_retries_without_an_exception_are_counted_of_their_own(
    cluster: Cluster, exception: str | None, polled: int
) -> None:
    """`self.retry()` without ``exc`` is how a task polls; its event says ``None``."""
    cluster.publish("a")
    cluster.start("a")
    cluster.end("a", "retried", exception=exception)
    assert (cluster.series().retried, cluster.series().polled) == (1, polled)


@pytest.mark.parametrize(
    ("outcome", "exception", "requeue", "lost"),
    [
        ("failed", "WorkerLostError('signal 9 (SIGKILL)')", None, 1),
        ("retried", "WorkerLostError('signal 9 (SIGKILL)')", None, 1),
        ("rejected", None, True, 1),
        ("rejected", None, False, 0),
        ("failed", "ValueError('x')", None, 0),
    ],
)
def test_a_killed_pool_process_is_counted_in_every_setting(
    cluster: Cluster, outcome: str, exception: str | None, requeue: bool | None, lost: int
) -> None:
    """Without acks late it fails; task_retry_on_worker_lost retries, task_reject_on_worker_lost only rejects."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    cluster.end("a", outcome, exception=exception, requeue=requeue)
    cluster.pass_time(3)
    assert cluster.series().process_lost == lost


@pytest.mark.parametrize(("pool", "lost"), [("prefork", 1), ("threads", 0), ("gevent", 0), ("solo", 0)])
def test_without_pool_processes_none_is_lost(cluster: Cluster, pool: str, lost: int) -> None:
    """Then the task returned its message itself, by `Reject(requeue=True)`."""
    cluster.heartbeat()
    cluster.answer(pool=pool, slots=4)
    cluster.publish("a")
    cluster.start("a")
    cluster.end("a", "rejected", requeue=True)
    cluster.pass_time(3)
    assert cluster.series().process_lost == lost


def test_a_task_that_is_returned_before_it_starts_lost_no_process(cluster: Cluster) -> None:
    """As a worker does that shuts down."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.end("a", "rejected", requeue=True)
    assert cluster.series().process_lost == 0


def test_a_hard_time_limit_that_requeues_fails_each_time_and_lost_no_process(cluster: Cluster) -> None:
    """Celery sends both, the requeue first, with acks_late and without acks_on_failure_or_timeout (celery 9596)."""
    cluster.publish("a")
    for _ in range(3):
        cluster.receive("a")
        cluster.start("a")
        cluster.pass_time(1)
        cluster.end("a", "rejected", requeue=True)
        cluster.end("a", "failed", exception="TimeLimitExceeded(1,)")
    cluster.pass_time(3)
    series = cluster.series()
    assert (series.started, series.failed, series.rejected_requeued, series.process_lost) == (3, 3, 3, 0)
    assert (series.exceptions, series.in_progress) == ({"TimeLimitExceeded": 3}, 0)
    assert not cluster.tracker.tasks.counts.duplicates


def test_a_run_that_fails_after_it_was_requeued_is_another(cluster: Cluster) -> None:
    """`Reject(requeue=True)`, and the message comes again to the same worker at once."""
    cluster.publish("a")
    for end in ({"outcome": "rejected", "requeue": True}, {"outcome": "failed", "exception": "ValueError()"}):
        cluster.receive("a")
        cluster.start("a")
        cluster.end("a", **end)
    series = cluster.series()
    assert (series.failed, series.rejected_requeued, series.in_progress) == (1, 1, 0)


def test_a_hard_time_limit_fails_once(cluster: Cluster) -> None:
    """Celery sends two task-failed for it."""
    cluster.run("a", outcome="failed")
    cluster.end("a", "failed")
    assert cluster.series().failed == 1
    assert cluster.tracker.tasks.counts.duplicates == {"task-failed": 1}


def test_a_hard_time_limit_is_named_by_its_traceback(cluster: Cluster) -> None:
    """Celery 5.7 hides the exception behind its own wrapper."""
    cluster.publish("a")
    cluster.start("a")
    text = "Traceback (most recent call last):\n  ...\nbilliard.exceptions.TimeLimitExceeded: TimeLimitExceeded(1,)\n"
    cluster.end("a", "failed", exception="ExceptionWithTraceback()", traceback=text)
    assert cluster.series().exceptions == {"TimeLimitExceeded": 1}


@pytest.mark.parametrize("outcome", ["failed", "retried"])
def test_a_killed_pool_process_is_named_by_its_traceback(cluster: Cluster, outcome: str) -> None:
    """Celery 5.7 hides this exception too."""
    cluster.publish("a")
    cluster.start("a")
    text = "Traceback (most recent call last):\n  ...\nbilliard.exceptions.WorkerLostError: signal 9 (SIGKILL)\n"
    cluster.end("a", outcome, exception="ExceptionWithTraceback()", traceback=text)
    assert cluster.series().process_lost == 1


def test_a_terminated_task_that_runs_on_does_not_count_twice(cluster: Cluster) -> None:
    """task-revoked(terminated) is sent at the command, not at the death."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    cluster.end("a", "revoked", terminated=True)
    for number in range(30_000):
        cluster.run(f"other-{number}", name="other")
    cluster.end("a", "succeeded")
    assert (cluster.series().revoked_terminated, cluster.series().succeeded) == (1, 0)
    assert cluster.tracker.tasks.counts.duplicates == {"task-succeeded": 1}


@pytest.mark.parametrize(
    ("terminated", "expired", "counter"),
    [(False, False, "revoked"), (True, False, "revoked_terminated"), (False, True, "revoked_expired")],
)
def test_revoked_tells_its_reason(cluster: Cluster, terminated: bool, expired: bool, counter: str) -> None:
    """A task revoked in its queue is never received."""
    cluster.publish("a", queue="mail")
    cluster.end("a", "revoked", terminated=terminated, expired=expired)
    assert getattr(cluster.series(queue="mail"), counter) == 1


def test_ignore_leaves_progress_after_two_polls(cluster: Cluster) -> None:
    """A task that raises Ignore() sends no end; the worker's own list shows that it is gone."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    for seconds, running in ((1, 1), (1, 1), (5, 0)):
        cluster.pass_time(seconds, beating=(WORKER,))
        cluster.answer(active=())
        assert cluster.series().in_progress == running
    assert cluster.tracker.tasks.runs.evicted["vanished"] == 1


def test_an_end_that_comes_after_all_is_counted(cluster: Cluster) -> None:
    """Held up somewhere for longer than two polls."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    for _ in range(3):
        cluster.pass_time(6, beating=(WORKER,))
        cluster.answer(active=())
    cluster.end("a")
    cluster.end("a")
    assert cluster.series().succeeded == 1
    assert cluster.tracker.tasks.counts.duplicates == {"task-succeeded": 1}


def lose_end(cluster: Cluster, *, active: int) -> None:
    """A run begins between two heartbeats; its end is never heard of, and heartbeats go on, one every two seconds."""
    cluster.pass_time(10, beating=(WORKER,))
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    for _ in range(5):
        cluster.pass_time(2)
        cluster.heartbeat(active=active)
    cluster.pass_time(1)


def test_heartbeats_without_active_tasks_end_what_was_lost(cluster: Cluster) -> None:
    """Of workers that do not answer `inspect`: it is evicted, counted, and may still end should it be heard of yet."""
    lose_end(cluster, active=0)
    assert not cluster.series().in_progress
    assert cluster.tracker.tasks.runs.evicted["vanished"] == 1
    assert len(cluster.tracker.tasks.runs) == 0
    cluster.end("a")
    assert cluster.series().succeeded == 1


def test_heartbeats_with_active_tasks_end_nothing(cluster: Cluster) -> None:
    """Any of them may be the one."""
    lose_end(cluster, active=1)
    assert cluster.series().in_progress == 1


def test_a_start_after_an_idle_time_stays_in_progress(cluster: Cluster) -> None:
    """The heartbeats before it say nothing of it."""
    cluster.pass_time(20, beating=(WORKER,))
    cluster.publish("a")
    cluster.start("a")
    cluster.pass_time(1)
    cluster.heartbeat()
    cluster.pass_time(20, beating=(WORKER,))
    assert cluster.series().in_progress == 1


def test_a_poll_may_overtake_the_start_that_it_shows(cluster: Cluster) -> None:
    """The worker lists the task before its batch of events has come: one run, not two."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.pass_time(1)
    cluster.answer(active=(ActiveTask("a", "add", cluster.now - 1, "celery"),))
    cluster.start("a")
    cluster.end("a")
    series = cluster.series()
    assert (series.started, series.succeeded, series.in_progress) == (1, 1, 0)
    assert len(cluster.tracker.tasks.runs) == 0


def test_a_task_that_its_worker_lists_stays_in_progress(cluster: Cluster) -> None:
    """However long it runs."""
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    for _ in range(3):
        cluster.pass_time(15, beating=(WORKER,))
        cluster.answer(active=(ActiveTask("a", "add", cluster.now - 20, None),))
    assert cluster.series().in_progress == 1


def test_tasks_that_ran_before_us_are_adopted(cluster: Cluster) -> None:
    """After a restart of the exporter, long tasks keep name, queue and start."""
    cluster.answer(active=(ActiveTask("a", "add", cluster.now - 60, "mail"),), queues=("mail", "bulk"))
    cluster.pass_time(1)
    series = cluster.series(queue="mail")
    assert cluster.tracker.in_progress(cluster.now).oldest == {series: cluster.now - 61}
    cluster.end("a")
    assert (series.succeeded, series.in_progress) == (1, 0)


def test_a_dead_worker_holds_nothing_in_progress(cluster: Cluster) -> None:
    """Its tasks may be delivered again, and end elsewhere under their queue."""
    cluster.heartbeat()
    cluster.publish("a", queue="mail")
    cluster.receive("a")
    cluster.start("a")
    cluster.pass_time(10)
    series = cluster.series(queue="mail")
    assert not series.in_progress
    cluster.receive("a", hostname=OTHER_WORKER)
    cluster.start("a", OTHER_WORKER)
    cluster.end("a", hostname=OTHER_WORKER)
    assert (series.started, series.succeeded) == (2, 1)


def test_a_start_that_is_counted_only_after_its_worker_died_is_not_in_progress(cluster: Cluster) -> None:
    """Without `task-sent` it is held while the worker is asked for its queues; by then the worker may be gone."""
    cluster.heartbeat()
    cluster.receive("a")
    cluster.start("a")
    cluster.pass_time(30)
    series = cluster.series(queue="unknown")
    assert series.started == 1
    assert not series.in_progress


def test_a_redelivered_task_may_run_twice_at_once(cluster: Cluster) -> None:
    """Two workers, one uuid: two starts, two ends."""
    cluster.publish("a")
    for worker in (WORKER, OTHER_WORKER):
        cluster.receive("a", hostname=worker)
        cluster.start("a", worker)
    assert cluster.series().in_progress == 2
    for worker in (WORKER, OTHER_WORKER):
        cluster.end("a", hostname=worker)
    assert (cluster.series().succeeded, cluster.series().in_progress) == (2, 0)


def test_an_end_without_a_beginning_is_unknown() -> None:
    """Nothing is dropped: what cannot be named is counted as unknown."""
    cluster = Cluster()
    cluster.answer(queues=("a", "b"))
    cluster.end("stranger", "failed")
    cluster.pass_time(3)
    assert cluster.series("unknown", "unknown").failed == 1


def test_a_task_that_the_worker_does_not_know_has_its_name(cluster: Cluster) -> None:
    """Its only event says so; a task that raises the same has a traceback, and is another one."""
    cluster.answer(queues=("mail",))
    cluster.end("a", "failed", exception="NotRegistered('shop.pay')")
    cluster.end("b", "failed", exception='NotRegistered("it\'s")')
    cluster.end("c", "failed", exception="NotRegistered('shop.pay')", traceback="Traceback …")
    cluster.pass_time(20, beating=(WORKER,))
    assert cluster.series("shop.pay", "mail").failed == 1
    assert cluster.series("it's", "mail").failed == 1
    assert cluster.series("unknown", "mail").failed == 1
    assert cluster.series("shop.pay", "mail").exceptions == {"NotRegistered": 1}


@pytest.mark.parametrize("first", ["the success", "the reason"])
@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_killed_greenlet_has_not_succeeded(cluster: Cluster, pool: str, first: str) -> None:
    """Celery says that it has, without a run time, and says why it was killed, before or after."""
    cluster.heartbeat()
    cluster.answer(pool=pool, slots=4)
    cluster.publish("a")
    cluster.receive("a")
    cluster.start("a")
    cluster.now += 2
    if first == "the success":
        cluster.end("a", runtime=None)
        assert cluster.series().in_progress == 0
        cluster.end("a", "revoked", terminated=True)
    else:
        cluster.end("a", "revoked", terminated=True)
        cluster.end("a", runtime=None)
    cluster.pass_time(4, beating=(WORKER,))
    series = cluster.series()
    assert (series.succeeded, series.revoked_terminated, series.without_result) == (0, 1, 0)
    assert series.busy.seconds(0.0) == 2.0
    assert "add" not in cluster.tracker.tasks.counts.last_success


def test_a_killed_greenlet_may_run_again(cluster: Cluster) -> None:
    """A cold shutdown returns its message; where no event says why, the run ends without a result."""
    cluster.heartbeat()
    cluster.answer(pool="gevent", slots=4)
    for uuid in "ab":
        cluster.publish(uuid)
        cluster.receive(uuid)
        cluster.start(uuid)
        cluster.end(uuid, runtime=None)
    cluster.send("task-cancelled", uuid="a")
    cluster.start("a")
    cluster.pass_time(4, beating=(WORKER,))
    series = cluster.series()
    assert (series.succeeded, series.in_progress, series.without_result) == (0, 1, 1)
    cluster.end("a", runtime=1.0)
    assert (series.succeeded, series.in_progress, len(cluster.tracker.tasks.runs)) == (1, 0, 0)


def test_memory_is_bounded_by_number_and_age() -> None:
    """Unfinished tasks beyond the limit, or older than a week, are dropped and counted."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=100)))
    for number in range(250):
        cluster.publish(str(number))
    assert len(cluster.tracker.tasks.runs) <= 100
    assert cluster.tracker.tasks.runs.evicted["limit"] == 250 - len(cluster.tracker.tasks.runs)
    cluster.now += 8 * 86400
    cluster.tracker.tick(cluster.now)
    assert len(cluster.tracker.tasks.runs) == 0


def test_a_task_that_goes_on_for_ever_keeps_no_older_one_in_memory(cluster: Cluster) -> None:
    """A run that follows another of the same task is as old as itself."""
    cluster.receive("endless")
    cluster.publish("old")
    for retries in range(1, 11):
        cluster.start("endless")
        cluster.pass_time(1)
        cluster.now += 86400
        cluster.receive("endless", retries=retries)  # the end of the run before was lost
    cluster.tracker.tick(cluster.now)
    assert cluster.tracker.tasks.runs.get("old") is None
    assert cluster.tracker.tasks.runs.evicted["age"] > 0


def test_tasks_whose_queue_is_awaited_are_bounded() -> None:
    """Without `task-sent`, from a worker that does not say its queues: beyond the limit they are counted at once."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=100)))
    for number in range(250):
        cluster.receive(str(number))
        cluster.start(str(number))
    cluster.tracker.tick(cluster.now)
    counted = cluster.series(queue="unknown")
    assert 150 <= counted.received <= 250
    cluster.pass_time(16, beating=(WORKER,))
    assert (counted.received, counted.started) == (250, 250)
    assert counted.in_progress == len(cluster.tracker.tasks.runs) <= 100


def test_what_exceeds_a_cap_is_folded_and_counted() -> None:
    """Names, queues and pairs beyond their caps go to __other__."""
    cluster = Cluster(make_settings(Limits(task_names=2, queues=2, task_pairs=3)))
    for number in range(5):
        cluster.run(str(number), name=f"name-{number}", queue=f"queue-{number}")
    folded = cluster.tracker.task_series.folded
    assert folded["name"] > 0
    assert folded["queue_name"] > 0
    assert cluster.series("__other__", "__other__").succeeded == 3
    assert len(cluster.tracker.task_series) <= 4


def test_exceptions_beyond_their_cap_are_folded_and_counted() -> None:
    """They add up to the failures all the same."""
    cluster = Cluster(make_settings(Limits(exceptions=2)))
    for number in range(5):
        cluster.publish(str(number))
        cluster.end(str(number), "failed", exception=f"Error{number}('x')")
    assert cluster.series().exceptions == {"Error0": 1, "Error1": 1, "__other__": 3}
    assert cluster.tracker.task_series.folded["exception"] == 3


def test_retry_exceptions_are_counted_on_request() -> None:
    """Off by default, since a retry is no failure."""
    for wanted in (False, True):
        cluster = Cluster(make_settings(count_retry_exceptions=wanted))
        cluster.publish("a")
        cluster.receive("a")
        cluster.start("a")
        cluster.end("a", "retried", exception="Retry(ValueError('x'))")
        assert cluster.series().retry_exceptions == ({"Retry": 1} if wanted else {})


def test_custom_events_are_counted_by_type_and_are_a_sign_of_life(cluster: Cluster) -> None:
    """Whatever an application sends besides; types beyond the cap are counted together."""
    cluster.heartbeat()
    cluster.pass_time(5)
    cluster.send("task-progress", uuid="a")
    cluster.pass_time(5)
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert worker.up
    for number in range(100):
        cluster.send(f"task-step-{number}")
    assert cluster.tracker.event_counts["task-progress"] == 1
    assert cluster.tracker.event_counts["__other__"] > 0
    assert len(cluster.tracker.event_counts) <= 51
    assert not list(cluster.tracker.task_series)


def test_what_waited_at_a_worker_before_we_listened_gets_its_name(cluster: Cluster) -> None:
    """From its first answer to `inspect reserved`; also when the start has come before that answer."""
    cluster.heartbeat()
    cluster.start("a")
    cluster.start("b")
    cluster.end("b")
    held = tuple(ActiveTask(uuid, name, None, queue) for uuid, name, queue in HELD)
    cluster.answer(held=held, active=(), queues=("mail", "bulk"))
    cluster.start("c")
    cluster.end("c")
    cluster.pass_time(20, beating=(WORKER,))
    found = {
        series.labels: (series.received, series.started, series.succeeded) for series in cluster.tracker.task_series
    }
    assert found == {("pay", "mail"): (0, 2, 1), ("send", "bulk"): (0, 1, 1)}
    assert len(cluster.tracker.tasks.runs) == 2, "a, which runs, and d, which waits"


def test_what_waits_at_workers_takes_no_place_of_runs() -> None:
    """A worker may hold thousands of tasks for tomorrow."""
    cluster = Cluster(make_settings(Limits(tracked_tasks=10)))
    cluster.heartbeat()
    held = tuple(ActiveTask(str(number), "tomorrow", None, "celery") for number in range(100))
    cluster.answer(held=held, active=())
    assert len(cluster.tracker.tasks.runs) == 5
    assert not cluster.tracker.tasks.runs.evicted


@pytest.mark.parametrize(
    "end",
    [
        {"outcome": "revoked", "expired": True},
        {"outcome": "revoked", "expired": False},
        {"outcome": "failed", "exception": "NotRegistered('add')"},
    ],
)
def test_what_a_worker_discards_on_receipt_was_received(cluster: Cluster, end: dict[str, Any]) -> None:
    """Celery sends no `task-received` for it; who compares what was sent with what was received finds no loss."""
    cluster.publish("a")
    cluster.end("a", **end)
    cluster.publish("b")
    cluster.receive("b")
    cluster.end("b", "revoked", expired=True)
    series = cluster.series()
    assert (series.sent, series.received, series.started) == (2, 2, 0)


def test_tasks_without_events_push_out_none_that_waits() -> None:
    """With ``send_events=False`` a task is sent and never heard of again; the workers' own counts tell that it runs."""
    cluster = Cluster(settings=make_settings(Limits(tracked_tasks=100)))
    cluster.heartbeat()
    cluster.answer(totals={"quiet": 0}, queues=("celery", "mail"))
    cluster.publish("waits", "add", "mail")
    for number in range(60):
        cluster.publish(f"q{number}", "quiet")
    cluster.answer(totals={"quiet": 60}, queues=("celery", "mail"))
    cluster.pass_time(2, beating=(WORKER,))
    for number in range(60, 1000):
        cluster.publish(f"q{number}", "quiet")
    cluster.receive("waits")
    cluster.start("waits")
    assert cluster.series("quiet").sent == 1000
    assert (cluster.series("add", "mail").started, sum(cluster.series("add", "mail").wait.counts)) == (1, 1)
    cluster.receive("q999", "quiet")  # events are on again
    cluster.pass_time(2, beating=(WORKER,))
    cluster.run("q1000", "quiet")
    assert cluster.series("quiet").succeeded == 1
