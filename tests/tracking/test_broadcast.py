"""A task that every worker gets (`kombu.common.Broadcast`): one message, many runs, and none is a redelivery.

Each process that sends or consumes has a queue of its own for it, ``bcast.UUID``; only the exchange has a name.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from tests.tracking.cluster import Cluster

HOSTS = tuple(f"celery@{number}" for number in range(40))
BROADCASTS = frozenset({"reloads"})


@pytest.fixture
def cluster() -> Cluster:
    """Forty workers."""
    cluster = Cluster()
    for hostname in HOSTS:
        cluster.heartbeat(hostname, kind="worker-online")
    return cluster


def send(cluster: Cluster, key: str) -> None:
    """A process of its own sends, so the queue has another name each time."""
    cluster.publish(key, "reload", f"bcast.{uuid.uuid4()}", exchange="reloads", routing_key=None)


@pytest.mark.parametrize("sent_first", [True, False])
@pytest.mark.parametrize("overlap", [True, False])
def test_every_run_is_counted_under_the_exchange(cluster: Cluster, sent_first: bool, overlap: bool) -> None:
    """Runs may be all at once or one after the other, and workers faster than the producer's event."""
    for key in ("a", "b"):
        if sent_first:
            send(cluster, key)
        for hostname in HOSTS if overlap else ():
            cluster.receive(key, "reload", hostname)
        for hostname in HOSTS if overlap else ():
            cluster.start(key, hostname)
        for hostname in HOSTS if overlap else ():
            cluster.end(key, hostname=hostname)
        for hostname in () if overlap else HOSTS:
            cluster.receive(key, "reload", hostname)
            cluster.start(key, hostname)
            cluster.end(key, hostname=hostname)
        if not sent_first:
            send(cluster, key)
    cluster.pass_time(20, beating=HOSTS)
    series = cluster.series("reload", "reloads")
    assert (series.sent, series.received, series.started, series.succeeded) == (2, 80, 80, 80)
    assert (series.in_progress, series.redelivered) == (0, 0)
    assert {one.labels for one in cluster.tracker.task_series} == {("reload", "reloads")}
    assert not cluster.tracker.tasks.runs.evicted
    assert "reloads" not in cluster.tracker.known_queues(), "no message waits there"


def interleavings(*sequences: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every order of steps in which each sequence keeps its own."""
    if not any(sequences):
        yield ()
    for sequence in sequences:
        if sequence:
            rest = [other[1:] if other is sequence else other for other in sequences]
            yield from ((sequence[0], *others) for others in interleavings(*rest))


ORDERS = [*interleavings(("receive 0", "start 0", "end 0"), ("receive 1", "start 1", "end 1"), ("send",))]


def test_two_workers_and_the_producer_may_report_in_any_order() -> None:
    """One may be done before the other begins."""
    for order in ORDERS:
        cluster = Cluster()
        for hostname in HOSTS[:2]:
            cluster.heartbeat(hostname)
        for step in order:
            hostname = HOSTS[int(step[-1])] if step != "send" else ""
            if step == "send":
                send(cluster, "a")
            elif step.startswith("receive"):
                cluster.receive("a", "reload", hostname)
            elif step.startswith("start"):
                cluster.start("a", hostname)
            else:
                cluster.end("a", hostname=hostname)
        cluster.pass_time(20, beating=HOSTS[:2])
        series = cluster.series("reload", "reloads")
        counted = (series.sent, series.received, series.started, series.succeeded, series.redelivered)
        assert counted == (1, 2, 2, 2, 0), order
        assert not cluster.tracker.tasks.counts.duplicates, order


def test_without_task_sent_a_run_that_may_be_of_a_broadcast_is_no_redelivery(cluster: Cluster) -> None:
    """It is one where its worker gets no broadcasts, or the task is sent to a queue."""
    for hostname in HOSTS[:2]:
        cluster.answer(hostname, queues=("celery", "other"), broadcasts=BROADCASTS)
    cluster.publish("b", "add")
    for key, name in (("a", "reload"), ("b", "add")):
        for hostname in HOSTS[:2]:
            cluster.receive(key, name, hostname)
            cluster.start(key, hostname)
    for hostname in HOSTS[2:4]:
        cluster.receive("c", "slow", hostname)
        cluster.start("c", hostname)
    cluster.pass_time(20, beating=HOSTS)
    redelivered = {series.labels: series.redelivered for series in cluster.tracker.task_series}
    assert redelivered == {("reload", "unknown"): 0, ("add", "celery"): 1, ("slow", "unknown"): 1}
