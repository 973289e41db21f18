"""Each fault that has an alert: how it is caused, which alert must arrive, how it is repaired."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import redis
from tests.integration.alerts.monitored import Starters
from tests.integration.alerts.timing import AlertTimer, Expected, host, queue, sending, task
from tests.workers import pool_process

from celerymeter.demo.processes import wait_until

OVERRIDES: list[dict[str, object]] = [
    {"record": "celery:task_stuck:limit", "expr": 60, "labels": {"severity": "warning", "name": "tests.sleep"}},
    {"record": "celery:queue_backlog:limit", "expr": 100, "labels": {"severity": "critical", "queue_name": "bulk"}},
    {"record": "celery:queue_age:limit", "expr": 60, "labels": {"severity": "warning", "queue_name": "old"}},
]
"""With shipped pace: what may take an hour, or five minutes, here takes one."""
QUICK_OVERRIDES = [
    line if line["record"] == "celery:queue_backlog:limit" else {**line, "expr": 3} for line in OVERRIDES
]
"""At the tests' pace these seconds are three; the number of messages stays."""


def starters() -> Starters:
    """The clusters and their workers."""
    return {
        "tasks": (
            lambda cluster: cluster.worker("t@tasks", "celery", concurrency=4),
            lambda cluster: cluster.worker("quiet@tasks", "quiet", events=False),
            lambda cluster: cluster.worker("mortal@tasks", "mortal"),
        ),
        "queues": (
            lambda cluster: cluster.worker("ghost@queues", "ghost"),
            lambda cluster: cluster.worker("slow@queues", "bulk", "old"),
        ),
        "workers": (
            lambda cluster: cluster.worker("one@workers", "celery"),
            lambda cluster: cluster.worker("two@workers", "celery"),
        ),
        "broker": (lambda cluster: cluster.worker("b@broker", "celery"),),
    }


NO_WORKERS = Expected("no workers", "workers", "CeleryNoWorkers", "critical")
WORKER_KILLED = Expected("one worker killed", "workers", "CeleryWorkerDown", "warning", host("one@workers"))
BACKLOG = Expected("backlog above 50", "queues", "CeleryQueueBacklog", "warning", queue("bulk"))
LONG_BACKLOG = Expected("backlog above 100", "queues", "CeleryQueueBacklog", "critical", queue("bulk"))
ERRORS = Expected("error rate above 5 %", "tasks", "CeleryHighErrorRate", "warning", task("tests.add"))
MANY_ERRORS = Expected("error rate above 50 %", "tasks", "CeleryHighErrorRate", "critical", task("tests.total"))
UNREAD = Expected("queue without consumer", "queues", "CeleryQueueNoConsumers", "critical", queue("unread"))
STALLED = Expected("stalled queue", "queues", "CeleryQueueStalled", "critical", queue("ghost"))
OLD_HEAD = Expected("old head of queue", "queues", "CeleryQueueHeadOld", "warning", queue("old"))
HANGING = Expected("task that hangs", "tasks", "CeleryTaskStuck", "warning", task("tests.sleep"))
RETRIES = Expected("retry storm", "tasks", "CeleryRetryStorm", "warning", task("tests.retry"))
NO_EVENTS = Expected("worker that sends no events", "tasks", "CeleryWorkerNoTaskEvents", "warning", host("quiet@tasks"))
PROCESS_LOST = Expected("pool process killed", "tasks", "CeleryPoolProcessLost", "warning", task("tests.hold"))
OVERRUN = Expected("time limit exceeded", "tasks", "CeleryTimeLimitExceeded", "warning", task("tests.overrun"))
NEVER_SUCCEEDS = Expected(
    "rare task always fails", "tasks", "CeleryTaskAlwaysFails", "warning", task("tests.sleep_late")
)
BROKER_DOWN = Expected("broker stopped", "broker", "CeleryBrokerDown", "critical")
EXPORTER_DOWN = Expected("exporter stopped", "broker", "CeleryExporterDown", "critical")
EVENTS_MISSED = Expected("events missed", "broker", "CeleryEventsMissed", "warning")


def workers_die(timer: AlertTimer) -> None:
    """One is killed, then the other, and messages wait; both are started again."""
    cluster = timer.monitored.clusters["workers"]
    since = time.monotonic()
    cluster.workers["one@workers"].kill()
    timer.arrives(WORKER_KILLED, since=since)
    since = time.monotonic()
    cluster.workers["two@workers"].kill()
    cluster.send("tests.add", 1, 2, count=5)
    timer.arrives(NO_WORKERS, since=since)
    since = time.monotonic()
    for name in ("one@workers", "two@workers"):
        cluster.worker(name, "celery")
    timer.resolves(WORKER_KILLED, NO_WORKERS, since=since)


def queues_are_unread(timer: AlertTimer) -> None:
    """Messages go to a queue that nobody reads, until a worker does, and to two whose only slot is taken."""
    cluster = timer.monitored.clusters["queues"]
    ids = cluster.send("tests.sleep", 3600, queue="bulk")
    wait_until(lambda: cluster.exporter.scrape().sum("celery_task_in_progress", queue_name="bulk") == 1)

    def send() -> None:
        for name in ("unread", "old"):
            cluster.send("tests.add", 1, 2, queue=name)

    since = time.monotonic()
    cluster.send("tests.add", 1, 2, queue="bulk", count=60)  # the worker prefetches one of these, and none of "old"
    send()
    with sending(send, every=30):  # a queue in which nothing changes is disused
        timer.arrives(BACKLOG, UNREAD, OLD_HEAD, since=since)
    since = time.monotonic()
    cluster.send("tests.add", 1, 2, queue="bulk", count=60)
    timer.arrives(LONG_BACKLOG, since=since)
    since = time.monotonic()
    cluster.app.control.revoke(ids, terminate=True, signal="SIGKILL")
    cluster.worker("reader@queues", "unread")
    timer.resolves(LONG_BACKLOG, BACKLOG, UNREAD, OLD_HEAD, since=since)


def a_queue_stalls(timer: AlertTimer) -> None:
    """The worker's pool process is stopped: heartbeats go on, nothing starts."""
    cluster = timer.monitored.clusters["queues"]
    child = pool_process(cluster.workers["ghost@queues"])
    since = time.monotonic()
    os.kill(child, signal.SIGSTOP)
    cluster.send("tests.add", 1, 2, queue="ghost", count=10)
    timer.arrives(STALLED, since=since)
    since = time.monotonic()
    os.kill(child, signal.SIGCONT)
    timer.resolves(STALLED, since=since)


def a_task_hangs(timer: AlertTimer) -> None:
    """A run does not end until it is killed."""
    cluster = timer.monitored.clusters["tasks"]
    since = time.monotonic()
    ids = cluster.send("tests.sleep", 3600)
    timer.arrives(HANGING, since=since)
    since = time.monotonic()
    cluster.app.control.revoke(ids, terminate=True, signal="SIGKILL")
    timer.resolves(HANGING, since=since)


def tasks_fail(timer: AlertTimer) -> None:
    """2 of 15 runs of one task and 8 of 10 of another fail (they add numbers and words), then none.

    Far from 5 and 50 %: a scrape in the middle of a burst sees successes whose failures are still to come.
    """
    cluster = timer.monitored.clusters["tasks"]

    def send() -> None:
        cluster.send("tests.add", 1, 2, count=13)
        cluster.send("tests.add", 1, "two", count=2)
        cluster.send("tests.total", [1, 2], count=2)
        cluster.send("tests.total", [1, "two"], count=8)

    since = time.monotonic()
    with sending(send, every=2):
        timer.arrives(MANY_ERRORS, ERRORS, since=since)
    since = time.monotonic()
    timer.resolves(MANY_ERRORS, ERRORS, since=since)


def tasks_retry(timer: AlertTimer) -> None:
    """Each run retries three times, then succeeds."""
    cluster = timer.monitored.clusters["tasks"]
    since = time.monotonic()
    with sending(lambda: cluster.send("tests.retry", 3, count=4), every=2):
        timer.arrives(RETRIES, since=since)
    since = time.monotonic()
    timer.resolves(RETRIES, since=since)


def a_pool_process_is_killed(timer: AlertTimer) -> None:
    """By the kernel, as it were, while it runs a task; it does not happen again."""
    cluster = timer.monitored.clusters["tasks"]
    cluster.send("tests.hold", str(cluster.folder), queue="mortal")
    wait_until((cluster.folder / "began").exists, what="the task runs")
    since = time.monotonic()
    os.kill(pool_process(cluster.workers["mortal@tasks"]), signal.SIGKILL)
    timer.arrives(PROCESS_LOST, since=since)
    timer.resolves(PROCESS_LOST, since=time.monotonic())


def a_time_limit_is_exceeded(timer: AlertTimer) -> None:
    """Once."""
    since = time.monotonic()
    timer.monitored.clusters["tasks"].send("tests.overrun")
    timer.arrives(OVERRUN, since=since)
    timer.resolves(OVERRUN, since=time.monotonic())


def a_rare_task_always_fails(timer: AlertTimer) -> None:
    """It cannot sleep for a word; then it succeeds."""
    cluster = timer.monitored.clusters["tasks"]
    since = time.monotonic()
    with sending(lambda: cluster.send("tests.sleep_late", "soon"), every=2):
        timer.arrives(NEVER_SUCCEEDS, since=since)
        since = time.monotonic()
    cluster.send("tests.sleep_late", 0)
    timer.resolves(NEVER_SUCCEEDS, since=since)


def a_worker_is_quiet(timer: AlertTimer) -> None:
    """It works and sends no task events until they are turned on."""
    cluster = timer.monitored.clusters["tasks"]
    since = time.monotonic()
    with sending(lambda: cluster.send("tests.add", 1, 2, queue="quiet"), every=1):
        timer.arrives(NO_EVENTS, since=since)
        since = time.monotonic()
        cluster.app.control.enable_events(destination=["quiet@tasks"])
        timer.resolves(NO_EVENTS, since=since)


def _events_are_missed(timer: AlertTimer) -> None:
    """The exporter is halted, loses its subscription, and tasks run meanwhile."""
    cluster = timer.monitored.clusters["broker"]
    broker = redis.Redis(port=cluster.redis.port)
    with sending(lambda: cluster.send("tests.add", 1, 2), every=1):  # an account of events needs some to begin with
        wait_until(lambda: cluster.exporter.scrape().sum("celery_worker_tasks_processed_total") >= 8)
    since = time.monotonic()
    cluster.exporter.signal(signal.SIGSTOP)
    try:
        for subscription in cluster.subscriptions:
            broker.client_kill_filter(_id=subscription)
        cluster.send("tests.add", 1, 2, count=30)
        wait_until(lambda: broker.llen("celery") == 0)
        time.sleep(0.5)  # the last of them runs
    finally:
        cluster.exporter.signal(signal.SIGCONT)
        broker.close()
    timer.arrives(EVENTS_MISSED, since=since)
    since = time.monotonic()
    timer.resolves(EVENTS_MISSED, since=since)


def events_the_broker_the_exporter(timer: AlertTimer) -> None:
    """Events are lost; then the broker, and last the exporter, is killed and started again."""
    _events_are_missed(timer)
    cluster = timer.monitored.clusters["broker"]
    for expected, process, start in (
        (BROKER_DOWN, cluster.redis, cluster.redis.up),
        (EXPORTER_DOWN, cluster.exporter, cluster.exporter.up),
    ):
        since = time.monotonic()
        process.kill()
        timer.arrives(expected, since=since)
        since = time.monotonic()
        start()
        timer.resolves(expected, since=since)


SCRIPTS: dict[Callable[[AlertTimer], None], tuple[Expected, ...]] = {
    workers_die: (NO_WORKERS, WORKER_KILLED),
    queues_are_unread: (BACKLOG, LONG_BACKLOG, UNREAD, OLD_HEAD),
    a_queue_stalls: (STALLED,),
    a_task_hangs: (HANGING,),
    tasks_fail: (ERRORS, MANY_ERRORS),
    tasks_retry: (RETRIES,),
    a_pool_process_is_killed: (PROCESS_LOST,),
    a_time_limit_is_exceeded: (OVERRUN,),
    a_rare_task_always_fails: (NEVER_SUCCEEDS,),
    a_worker_is_quiet: (NO_EVENTS,),
    events_the_broker_the_exporter: (EVENTS_MISSED, BROKER_DOWN, EXPORTER_DOWN),
}
