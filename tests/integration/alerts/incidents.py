"""Incidents that processes can cause within seconds: a broker that is full, messages that expire or come twice, …"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import redis
from celery import chord
from tests.apps.worker_app import BACKEND, OPTIONS, SETTINGS, make_app
from tests.integration.alerts.monitored import Cluster, Starters
from tests.integration.alerts.pace import LEAST_FOR
from tests.integration.alerts.timing import AlertTimer, Expected, host, queue, sending, task
from tests.workers import pool_process

from celerymeter.demo.processes import wait_until

QUICK_OVERRIDES: list[dict[str, object]] = [
    {"record": "celery:worker_scheduled:limit", "expr": 50, "labels": {"severity": "warning", "cluster": "eta"}},
]
"""Fifty tasks are enough here; by default it takes thousands."""

EXPIRED = Expected("tasks expire", "tasks", "CeleryTasksExpired", "warning", task("tests.add"))
TWICE = Expected("tasks run twice", "tasks", "CeleryTaskRanTwice", "warning", task("tests.sleep_late"))
UNREADABLE = Expected("events that cannot be read", "tasks", "CeleryEventsInvalid", "warning")
SCHEDULED = Expected("many scheduled tasks", "eta", "CeleryWorkerManyScheduled", "warning", host("e@eta"))
MEMORY = Expected("broker near its memory limit", "full", "CeleryBrokerMemoryHigh", "warning")
BLOCKED = Expected("broker full", "full", "CeleryBrokerBlocked", "critical")
EVICTED = Expected("Redis deletes keys", "eta", "CeleryBrokerEvictsKeys", "warning")
HOARDING = Expected("one worker holds the messages", "unfair", "CeleryWorkerHoarding", "warning", host("greedy@unfair"))
STUCK = Expected("a pool hangs", "full", "CeleryWorkerStuck", "critical", host("f@full"))
FEWER = Expected("most slots leave", "fewer", "CeleryCapacityLost", "warning")
ENDLESS = Expected("result backend down", "resultless", "CeleryRunsWithoutResult", "critical")
LOST = Expected("messages are lost", "lossy", "CeleryMessagesLost", "warning", queue("mail"))
CHORD = Expected("a chord that never ends", "chords", "CeleryChordStuck", "warning")
ORPHANS = Expected("replies that nobody reads", "eta", "CeleryOrphanedMessages", "warning")


_SWEEP = {"visibility_timeout": 2, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
IMPATIENT = {OPTIONS: json.dumps(_SWEEP)}
"""Workers that give a message to another one after two seconds, and look for such messages all the time."""

CLOSED = {
    BACKEND: "redis://127.0.0.1:1/0",
    SETTINGS: json.dumps({"result_backend_transport_options": {"retry_policy": {"max_retries": 0}}}),
}
"""Workers whose result backend is down, and which do not wait for it."""


def starters() -> Starters:
    """The clusters and their workers."""
    return {
        "tasks": (
            lambda cluster: cluster.worker("t@tasks", "celery"),
            lambda cluster: cluster.worker("late1@tasks", "late", env=IMPATIENT),
            lambda cluster: cluster.worker("late2@tasks", "late", env=IMPATIENT),
        ),
        "eta": (lambda cluster: cluster.worker("e@eta", "celery"),),
        "full": (lambda cluster: cluster.worker("f@full", "celery"),),
        "unfair": (
            lambda cluster: cluster.worker("greedy@unfair", "celery", options=("--prefetch-multiplier", "200")),
        ),
        "fewer": (
            lambda cluster: cluster.worker("stays@fewer", "celery"),
            lambda cluster: cluster.worker("leaves@fewer", "celery", concurrency=3),
        ),
        "lossy": (lambda cluster: cluster.worker("l@lossy", "mail"),),
        "chords": (
            lambda cluster: cluster.worker(
                "c@chords", "celery", concurrency=2, env={BACKEND: results_in_files(cluster)}
            ),
        ),
        "renamed": (
            lambda cluster: cluster.worker("old1@renamed", "celery"),
            lambda cluster: cluster.worker("old2@renamed", "celery"),
        ),
        "resultless": (lambda cluster: cluster.worker("b@resultless", "endless", env=CLOSED),),
    }


def broker(cluster: Cluster) -> Any:
    """A client of the cluster's Redis."""
    return redis.Redis(port=cluster.redis.port)


def results_in_files(cluster: Cluster) -> str:
    """A result backend that cannot tell when a chord's header is done, so that Celery polls."""
    folder = cluster.folder / "results"
    folder.mkdir(exist_ok=True)
    return f"file://{folder}"


def tasks_expire(timer: AlertTimer) -> None:
    """They may wait for no time at all; then others may."""
    cluster = timer.monitored.clusters["tasks"]

    def send() -> None:
        cluster.send("tests.add", 1, 2)
        for _ in range(4):
            cluster.app.send_task("tests.add", (1, 2), expires=-1)

    since = time.monotonic()
    with sending(send, every=1):
        timer.arrives(EXPIRED, since=since)
    since = time.monotonic()
    with sending(lambda: cluster.send("tests.add", 1, 2), every=1):
        timer.resolves(EXPIRED, since=since)


def tasks_run_twice(timer: AlertTimer) -> None:
    """A run outlasts the visibility timeout of two seconds, so another worker gets its message too; then all stop."""
    cluster = timer.monitored.clusters["tasks"]
    since = time.monotonic()
    cluster.send("tests.sleep_late", 20, queue="late")
    timer.arrives(TWICE, since=since)
    since = time.monotonic()
    for number in (1, 2):
        cluster.workers[f"late{number}@tasks"].kill()
    with broker(cluster) as client:
        client.delete("unacked", "unacked_index", "late")
    timer.resolves(TWICE, since=since)


def events_are_garbage(timer: AlertTimer) -> None:
    """Something else publishes on the channel of events, until it is stopped."""
    cluster = timer.monitored.clusters["tasks"]
    since = time.monotonic()
    with broker(cluster) as client:
        with sending(lambda: client.publish("/0.celeryev/worker.heartbeat", "no event"), every=1):
            timer.arrives(UNREADABLE, since=since)
        timer.resolves(UNREADABLE, since=time.monotonic())


def tasks_wait_in_a_worker(timer: AlertTimer) -> None:
    """Eighty tasks for tomorrow, until the worker is replaced and they are purged."""
    cluster = timer.monitored.clusters["eta"]
    since = time.monotonic()
    for _ in range(80):
        cluster.app.send_task("tests.add", (1, 2), countdown=86400)
    timer.arrives(SCHEDULED, since=since)
    since = time.monotonic()
    cluster.workers["e@eta"].kill()
    with broker(cluster) as client:
        client.delete("unacked", "unacked_index", "celery")
    cluster.worker("e@eta", "celery")
    timer.resolves(SCHEDULED, since=since)
    keys_are_deleted(timer)
    replies_are_left(timer)


def keys_are_deleted(timer: AlertTimer) -> None:
    """Results fill Redis, which deletes those with an expiry; then it has room again."""
    cluster = timer.monitored.clusters["eta"]
    since = time.monotonic()
    with broker(cluster) as client:
        client.config_set("maxmemory-policy", "volatile-ttl")
        client.config_set("maxmemory", client.info()["used_memory"] + 4 * 2**20)
        for number in range(100):
            client.set(f"result{number}", b"x" * 100_000, ex=3600)
        timer.arrives(EVICTED, since=since)
        client.config_set("maxmemory", 0)
    timer.resolves(EVICTED, since=time.monotonic())


def replies_are_left(timer: AlertTimer) -> None:
    """22 MB of replies to a client that has ended, until somebody deletes them."""
    cluster = timer.monitored.clusters["eta"]
    since = time.monotonic()
    with broker(cluster) as client:
        for _ in range(22):
            client.lpush("0e1f.reply.celery.pidbox", b"x" * 1_000_000)
        timer.arrives(ORPHANS, since=since)
        client.delete("0e1f.reply.celery.pidbox")
    timer.resolves(ORPHANS, since=time.monotonic())


def the_broker_is_full(timer: AlertTimer) -> None:
    """Nothing may be deleted, and nothing more fits; then the limit is raised."""
    cluster = timer.monitored.clusters["full"]
    since = time.monotonic()
    with broker(cluster) as client:
        client.setrange("ballast", 8_000_000, b"x")
        client.config_set("maxmemory", client.info()["used_memory"] * 10 // 9)
        timer.arrives(MEMORY, since=since)
        since = time.monotonic()
        client.config_set("maxmemory", client.info()["used_memory"] * 9 // 10)
        timer.arrives(BLOCKED, since=since)
        client.config_set("maxmemory", 0)
    timer.resolves(BLOCKED, MEMORY, since=time.monotonic())
    _a_pool_hangs(timer)


def _a_pool_hangs(timer: AlertTimer) -> None:
    """The worker's pool process is stopped, and the worker has taken the only message."""
    cluster = timer.monitored.clusters["full"]
    child = pool_process(cluster.workers["f@full"])
    since = time.monotonic()
    os.kill(child, signal.SIGSTOP)
    cluster.send("tests.add", 1, 2)
    timer.arrives(STUCK, since=since)
    since = time.monotonic()
    os.kill(child, signal.SIGCONT)
    timer.resolves(STUCK, since=since)


def one_worker_takes_all(timer: AlertTimer) -> None:
    """It holds 60 messages for its one slot when a second worker comes; then it dies and they are purged."""
    cluster = timer.monitored.clusters["unfair"]
    since = time.monotonic()
    cluster.send("tests.sleep", 600, count=60)
    cluster.worker("idle@unfair", "celery")
    timer.arrives(HOARDING, since=since)
    since = time.monotonic()
    cluster.workers["greedy@unfair"].kill()
    with broker(cluster) as client:
        client.delete("unacked", "unacked_index", "celery")
    timer.resolves(HOARDING, since=since)


def most_slots_leave(timer: AlertTimer) -> None:
    """Three of four slots leave with a goodbye while messages wait for more than a minute; then they come back."""
    cluster = timer.monitored.clusters["fewer"]
    cluster.send("tests.sleep", 2, count=150)
    since = time.monotonic()
    cluster.workers["leaves@fewer"].stop()
    timer.arrives(FEWER, since=since)
    since = time.monotonic()
    with broker(cluster) as client:
        client.delete("celery")
    cluster.worker("leaves@fewer", "celery", concurrency=3)
    timer.resolves(FEWER, since=since)


def results_are_lost(timer: AlertTimer) -> None:
    """Every run ends without a result, until no more is sent."""
    cluster = timer.monitored.clusters["resultless"]
    since = time.monotonic()
    with sending(lambda: cluster.send("tests.add", 1, 2, queue="endless"), every=0.5):
        timer.arrives(ENDLESS, since=since)
    timer.resolves(ENDLESS, since=time.monotonic())


def a_chord_waits(timer: AlertTimer) -> None:
    """One task of its header does not end. Celery asks ten times a second, by design, until it does."""
    cluster = timer.monitored.clusters["chords"]
    since = time.monotonic()
    with make_app(cluster.redis.url, backend=results_in_files(cluster)) as app:
        add = app.signature("tests.add", (1, 2), immutable=True)
        hold = app.signature("tests.hold", (str(cluster.folder),), immutable=True)
        chord([add.clone(), hold], app=app, interval=0.1)(add)
    timer.arrives(CHORD, since=since)
    assert ("chords", "CeleryRetryStorm") not in timer.monitored.notified()
    since = time.monotonic()
    (cluster.folder / "go").touch()
    timer.resolves(CHORD, since=since)


def workers_get_new_names(timer: AlertTimer) -> None:
    """Both are killed without a goodbye, and two of other names take their place, as pods do: no alert is sent."""
    watched = timer.monitored
    cluster = watched.clusters["renamed"]
    age = 'time() - max(celerymeter_start_time_seconds{cluster="renamed"})'
    wait_until(
        lambda: (watched.value(age) or 0) > 130, timeout=200, interval=1, what="a new name is that of a new worker"
    )
    for name in ("old1@renamed", "old2@renamed"):
        cluster.workers[name].kill()
    for name in ("new1@renamed", "new2@renamed"):
        cluster.worker(name, "celery")
    seconds = 2 * LEAST_FOR + 5
    gone = f'sum(min_over_time(celery:worker_lost:bool{{cluster="renamed"}}[{seconds:.0f}s]))'
    wait_until(lambda: watched.value(gone) == 2, interval=1, what="they are gone for long enough")
    assert not [alert for name, alert in watched.notified() if name == "renamed"]


def messages_are_lost(timer: AlertTimer) -> None:
    """Again and again somebody deletes the queue while its worker does not consume it; then nobody does."""
    cluster = timer.monitored.clusters["lossy"]
    # what an hour is for people: without the queue's length then, nothing is known to be lost
    long_ago = f'celery:queue_length:max{{cluster="lossy"}} offset {12 * timer.monitored.pace.five_minutes:.0f}s'
    wait_until(lambda: timer.monitored.value(long_ago) is not None, timeout=300, interval=1, what="a past")
    since = time.monotonic()

    def lose() -> None:
        cluster.app.control.cancel_consumer("mail", reply=True)
        cluster.send("tests.add", 1, 2, queue="mail", count=30)
        client.delete("mail")
        cluster.app.control.add_consumer("mail", reply=True)
        cluster.send("tests.add", 1, 2, queue="mail", count=3)

    with broker(cluster) as client:
        with sending(lose, every=2):
            timer.arrives(LOST, since=since)
        with sending(lambda: cluster.send("tests.add", 1, 2, queue="mail"), every=2):
            timer.resolves(LOST, since=time.monotonic())


SCRIPTS: dict[Callable[[AlertTimer], None], tuple[Expected, ...]] = {
    tasks_expire: (EXPIRED,),
    tasks_run_twice: (TWICE,),
    events_are_garbage: (UNREADABLE,),
    tasks_wait_in_a_worker: (SCHEDULED, EVICTED, ORPHANS),
    the_broker_is_full: (MEMORY, BLOCKED, STUCK),
    one_worker_takes_all: (HOARDING,),
    most_slots_leave: (FEWER,),
    messages_are_lost: (LOST,),
    results_are_lost: (ENDLESS,),
    a_chord_waits: (CHORD,),
    workers_get_new_names: (),
}
