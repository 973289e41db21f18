"""One task, its events heard in every order in which those of several senders can come.

A sender's own events keep their order. Workers send theirs in batches, so those of one may come a second after what
another did later (`celery.events.dispatcher.EventDispatcher`, `buffer_group`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from tests.tracking.cluster import PRODUCER, WORKER, Cluster

OTHER_WORKER = "celery@two"

Step = tuple[str, int]
"""The last word of an event's type, and its number of retries."""

RUN = (("received", 0), ("started", 0), ("succeeded", 0))
FAILURE = (*RUN[:2], ("failed", 0))
REQUEUE = (*RUN[:2], ("requeued", 0))
RETRY = (*RUN[:2], ("sent", 1), ("retried", 0))
SECOND_TRY = (("received", 1), ("started", 1), ("succeeded", 1))


def orders(streams: tuple[tuple[Step, ...], ...]) -> Iterator[tuple[tuple[int, Step], ...]]:
    """Every merge of the streams that keeps the order within each, as (number of the stream, step)."""
    if not any(streams):
        yield ()
    for number, stream in enumerate(streams):
        if stream:
            rest = (*streams[:number], stream[1:], *streams[number + 1 :])
            yield from (((number, stream[0]), *order) for order in orders(rest))


def play(order: tuple[tuple[int, Step], ...], *, retry_parent: str | None) -> Cluster:
    """Let the two workers and the producer send these events, and time pass until nothing is awaited any more."""
    cluster = Cluster()
    workers = (WORKER, OTHER_WORKER)
    for worker in workers:
        cluster.heartbeat(worker, kind="worker-online")
    for number, (kind, retries) in order:
        hostname = (*workers, PRODUCER)[number]
        message = {"name": "add", "retries": retries, "parent_id": retry_parent if retries else None}
        if kind == "sent":
            cluster.send("task-sent", hostname, uuid="a", queue="celery", **message)
        elif kind == "received":
            cluster.send("task-received", hostname, uuid="a", **message)
        elif kind == "requeued":
            cluster.end("a", "rejected", hostname, requeue=True)
        elif kind == "started":
            cluster.start("a", hostname)
        else:
            cluster.end("a", kind, hostname)
    cluster.pass_time(20, beating=workers)
    return cluster


def counts(cluster: Cluster) -> Counter[str]:
    """Return the counts of the task's series, by the words of `Step`, and of what went wrong."""
    found: Counter[str] = Counter()
    for series in cluster.tracker.task_series:
        for field in ("sent", "received", "started", "succeeded", "failed", "retried", "redelivered", "in_progress"):
            found[field] += getattr(series, field)
        found["requeued"] += series.rejected_requeued
        found[f"under {series.labels[:2]}"] += series.received
    return +(found + Counter({f"twice {kind}": n for kind, n in cluster.tracker.tasks.counts.duplicates.items()}))


@pytest.mark.parametrize(
    ("one", "two", "retry_parent", "redelivered"),
    [
        pytest.param(RUN, RUN, None, 1, id="both ran the message"),
        pytest.param(FAILURE, RUN, None, 1, id="one failed"),
        pytest.param(REQUEUE, RUN, None, 0, id="one requeued it on purpose"),
        pytest.param((*REQUEUE, *RUN), (), None, 0, id="a worker requeued it and took it again"),
        pytest.param(RUN[:1], RUN, None, 0, id="one still holds it"),
        pytest.param(RETRY, SECOND_TRY, None, 0, id="the other has the retry"),
        pytest.param(RETRY, SECOND_TRY, "a", 0, id="the other has the retry of a task without parent"),
    ],
)
@pytest.mark.parametrize("heard_sent", [True, False])
def test_every_order_counts_the_same(
    one: tuple[Step, ...], two: tuple[Step, ...], retry_parent: str | None, redelivered: int, heard_sent: bool
) -> None:
    """With the producer's `task-sent` at any place, or with none."""
    if not heard_sent:
        one = tuple(step for step in one if step[0] != "sent")
    streams = (one, two, (("sent", 0),) if heard_sent else ())
    expected = Counter(kind for stream in streams for kind, _ in stream)
    expected["redelivered"] = redelivered
    expected[f"under {('add', 'celery' if heard_sent else 'unknown')}"] = expected["received"]
    wrong = {
        order: found
        for order in orders(streams)
        if (found := counts(play(order, retry_parent=retry_parent))) != +expected
    }
    assert not wrong, f"{len(wrong)} orders, of which one is {next(iter(wrong.items()))}; expected {expected}"


TRIES = (*RUN[:2], ("retried", 0), *SECOND_TRY[:2], ("retried", 1), ("received", 2), ("started", 2), ("succeeded", 2))
TRIES_AT_ONCE = (
    *(*RUN[:2], ("received", 1), ("retried", 0), ("started", 1)),
    *(("received", 2), ("retried", 1), ("started", 2), ("succeeded", 2)),
)
"""A retry comes to the worker while the process that sent it still runs."""


@pytest.mark.parametrize("worker", [TRIES, TRIES_AT_ONCE], ids=["one after the other", "at once"])
@pytest.mark.parametrize("retry_parent", [None, "a"])
def test_retries_are_sent_in_any_order(worker: tuple[Step, ...], retry_parent: str | None) -> None:
    """Each by another process of the worker's pool, which may be kept waiting between the message and its event."""
    expected = Counter(kind for kind, _ in worker) + Counter({"sent": 3, f"under {('add', 'celery')}": 3})
    wrong = {}
    for order in orders((worker, (("sent", 0),), (("sent", 1),), (("sent", 2),))):
        steps = [step for _, step in order]
        by_sender = tuple((2 if kind == "sent" else 0, (kind, tries)) for kind, tries in steps)
        if _is_possible(steps) and (found := counts(play(by_sender, retry_parent=retry_parent))) != expected:
            wrong[order] = found
    assert not wrong, f"{len(wrong)} orders, of which one is {next(iter(wrong.items()))}; expected {expected}"


def _is_possible(steps: list[Step]) -> bool:
    """A worker has received a try before it sends the next but one; each is sent before its `task-retried`."""
    at = steps.index
    sent_before_retried = all(at(("sent", tries)) < at(("retried", tries - 1)) for tries in (1, 2))
    return sent_before_retried and at(("received", 0)) < at(("sent", 2))
