"""Faults of operation, caused for real; each is over when its function returns."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from tests.events.messages import RECORDED, event, message, recorded
from tests.events.test_rubbish import damaged
from tools.soak.cluster import Cluster

from celerymeter.demo.processes import wait_until

OUTAGE = 4.0
"""Seconds for which broker or exporter are away."""
DROPPING = 40.0
"""Seconds: a worker sends all of its totals every 30 s."""
TIMEOUT = 180.0
"""Seconds; how soon something is noticed is other tests' business, here the machine may be busy."""


@dataclass(frozen=True)
class Fault:
    """``lossy``: events may be lost by it, so `celerymeter_events_missed_total` may grow."""

    name: str
    cause: Callable[[Cluster], None]
    lossy: bool = False


def kill_worker(cluster: Cluster, hostname: str = "w1@soak") -> None:
    """Its `celery_worker_up` goes 1, 0, 1."""
    cluster.kill_worker(hostname)
    wait_until(
        lambda: cluster.exporter.value("celery_worker_up", hostname=hostname) == 0, timeout=TIMEOUT, interval=0.5
    )
    cluster.start_worker(hostname)


@contextmanager
def _renewed_subscription(cluster: Cluster) -> Iterator[None]:
    """The exporter subscribes anew, after what happens within."""
    before = cluster.exporter.value("celerymeter_broker_reconnects_total") or 0
    yield
    wait_until(
        lambda: (cluster.exporter.value("celerymeter_broker_reconnects_total") or 0) > before,
        timeout=TIMEOUT,
        interval=0.2,
    )


def stop_redis(cluster: Cluster) -> None:
    """`celerymeter_broker_up` goes 1, 0, 1."""
    cluster.redis.stop()
    wait_until(lambda: cluster.exporter.value("celerymeter_broker_up") == 0, timeout=TIMEOUT, interval=0.2)
    time.sleep(OUTAGE)
    cluster.redis.up()
    wait_until(lambda: cluster.exporter.value("celerymeter_broker_up") == 1, timeout=TIMEOUT, interval=0.2)


def cut_subscriptions(cluster: Cluster) -> None:
    """Redis drops every subscriber; the exporter comes back by itself."""
    with _renewed_subscription(cluster):
        cluster.client.client_kill_filter(_type="pubsub", skipme=True)


def cut_subscriptions_at_rest(cluster: Cluster) -> None:
    """The same while no task runs: a reconnect as such must cost no count."""
    with cluster.reconnecting():
        cut_subscriptions(cluster)


def cut_workers(cluster: Cluster) -> None:
    """Workers, producer and pollers lose their connections and come back, as new consumers of the same processes."""
    with cluster.reconnecting():
        cluster.client.client_kill_filter(_type="normal", skipme=True)


def restart_worker(cluster: Cluster, hostname: str = "w2@soak") -> None:
    """It finishes what it runs, goes, and comes as a new process under its name."""
    cluster.stop_worker(hostname)
    cluster.start_worker(hostname)


def stop_exporter(cluster: Cluster) -> None:
    """It does not run for a while, too short for Redis to drop it."""
    cluster.away.set()
    cluster.exporter.signal(signal.SIGSTOP)
    time.sleep(OUTAGE)
    cluster.exporter.signal(signal.SIGCONT)
    wait_until(lambda: cluster.exporter.code("/-/ready") == 200, timeout=TIMEOUT)
    cluster.away.clear()


def overrun_exporter(cluster: Cluster) -> None:
    """It does not run until Redis drops it by itself, over its default output limit; it subscribes again."""
    flood = message(event(type="soak-flood", uuid=..., goods="x" * 500_000))
    with _renewed_subscription(cluster):
        cluster.away.set()
        cluster.exporter.signal(signal.SIGSTOP)
        subscribers = len(cluster.client.client_list(_type="pubsub"))
        while len(cluster.client.client_list(_type="pubsub")) >= subscribers > 0:
            cluster.client.publish("/0.celeryev/soak.flood", flood)
        cluster.exporter.signal(signal.SIGCONT)
        wait_until(lambda: cluster.exporter.code("/-/healthy") == 200, timeout=TIMEOUT)
        cluster.away.clear()


def hang_redis(cluster: Cluster) -> None:
    """It keeps its connections open and says nothing, until the exporter has noticed."""
    with _renewed_subscription(cluster):
        cluster.redis.signal(signal.SIGSTOP)
        try:
            wait_until(lambda: cluster.exporter.value("celerymeter_broker_up") == 0, timeout=TIMEOUT, interval=0.2)
        finally:
            cluster.redis.signal(signal.SIGCONT)


def send_rubbish(cluster: Cluster) -> None:
    """Some thousand damaged messages: every one that is no event is counted."""
    dice = random.Random(cluster.sent)
    real = [data for path in RECORDED for _, data in recorded(path)]
    before = cluster.exporter.scrape().sum("celerymeter_events_invalid_total")
    pipeline = cluster.client.pipeline(transaction=False)
    for _ in range(2_000):
        pipeline.publish("/0.celeryev/task.multi", damaged(dice, real))
    pipeline.execute()
    wait_until(
        lambda: cluster.exporter.scrape().sum("celerymeter_events_invalid_total") > before + 500, timeout=TIMEOUT
    )


def restart_exporter(cluster: Cluster) -> None:
    """It ends with status 0 and begins anew, in the midst of the load."""
    cluster.away.set()
    status = cluster.exporter.stop()
    cluster.generation += 1
    cluster.exporter.up()
    cluster.away.clear()
    if status != 0:
        raise TimeoutError(f"the exporter ended with status {status}")


def kill_exporter(cluster: Cluster) -> None:
    """It dies with SIGKILL, and begins anew from what it had saved up to 10 s before."""
    cluster.away.set()
    cluster.exporter.kill()
    cluster.generation += 1
    cluster.exporter.up()
    cluster.away.clear()


def cut_workers_under_load(cluster: Cluster) -> None:
    """All connections but subscriptions are lost, in the midst of the load."""
    cluster.client.client_kill_filter(_type="normal", skipme=True)
    time.sleep(OUTAGE)


def drop_messages(cluster: Cluster) -> None:
    """The proxy drops nine of ten events of aggregating workers, heartbeats and totals alike."""
    before = cluster.proxy.dropped
    cluster.proxy.share = 0.9
    time.sleep(DROPPING)
    cluster.proxy.share = 0.0
    if cluster.proxy.dropped == before:
        raise TimeoutError("the proxy has dropped nothing")


FAULTS = (
    Fault("a worker is killed", kill_worker),
    Fault("the exporter is stopped", stop_exporter),
    Fault("subscriptions are cut", cut_subscriptions, lossy=True),
    Fault("rubbish is sent", send_rubbish),
    Fault("Redis is away", stop_redis, lossy=True),
    Fault("the exporter is too slow", overrun_exporter, lossy=True),
    Fault("Redis hangs", hang_redis, lossy=True),
)
GENTLE = (
    Fault("a worker is killed", kill_worker),
    Fault("workers are cut off", cut_workers),
    Fault("the exporter is stopped", stop_exporter),
    Fault("a worker is restarted", restart_worker),
    Fault("subscriptions are cut", cut_subscriptions_at_rest),
    Fault("rubbish is sent", send_rubbish),
)
"""Nothing of this loses an event of a task: none may be counted as missed, however long it goes on."""
RESTART = Fault("the exporter is restarted", restart_exporter)
"""Once, at half time: memory can only be judged over a long life."""
MIXED = (
    Fault("w1 is killed", partial(kill_worker, hostname="w1@soak"), lossy=True),
    Fault("messages are dropped", drop_messages, lossy=True),
    Fault("the exporter is restarted", restart_exporter, lossy=True),
    Fault("workers are cut off", cut_workers_under_load, lossy=True),
    Fault("w1 is restarted", partial(restart_worker, hostname="w1@soak"), lossy=True),
    Fault("Redis is away", stop_redis, lossy=True),
    Fault("w3 is killed", partial(kill_worker, hostname="w3@soak"), lossy=True),
    Fault("the exporter is stopped", stop_exporter),
    Fault("the exporter is killed", kill_exporter, lossy=True),
    Fault("w3 is restarted", partial(restart_worker, hostname="w3@soak"), lossy=True),
    Fault("subscriptions are cut", cut_subscriptions, lossy=True),
    Fault("w4 is killed", partial(kill_worker, hostname="w4@soak"), lossy=True),
    Fault("rubbish is sent", send_rubbish),
    Fault("Redis hangs", hang_redis, lossy=True),
    Fault("w4 is restarted", partial(restart_worker, hostname="w4@soak"), lossy=True),
    Fault("the exporter is too slow", overrun_exporter, lossy=True),
)
"""With workers of both kinds: after each, the counters of those that aggregate are compared with the truth."""
