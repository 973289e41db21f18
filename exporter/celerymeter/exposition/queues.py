"""Queue families: the broker's depths joined with what the workers say they consume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from celerymeter import metrics as m
from celerymeter.exposition.text import Text
from celerymeter.exposition.workers import fresh
from celerymeter.model import OTHER, UNKNOWN, QueueHead, QueueState
from celerymeter.tracking.tracker import Tracker


def render(text: Text, tracker: Tracker, now: float) -> None:
    """All queue families; unknown is absent."""
    snapshot = tracker.queues if fresh(tracker, now, "queues") else None
    queues = snapshot.queues if snapshot is not None else ()
    cap = tracker.pairs.queue
    text.values(m.QUEUE_LENGTH, sums((cap(queue.name), queue.length) for queue in queues))
    unacked = sums((cap(queue.name), queue.unacked) for queue in queues)
    if snapshot is not None:
        for label, count in ((OTHER, snapshot.unacked_other), (UNKNOWN, snapshot.unacked_unknown)):
            if count:
                unacked[label] = (unacked.get(label) or 0) + count
    text.values(m.QUEUE_UNACKED, unacked)
    _heads(text, tracker, queues)
    text.values(m.QUEUE_OLDEST_UNACKED, _least((cap(queue.name), queue.oldest_unacked_at) for queue in queues))
    _consumers(text, tracker, queues, now)
    if snapshot is not None:
        text.single(m.QUEUE_VISIBILITY, snapshot.visibility_timeout)


def _heads(text: Text, tracker: Tracker, queues: Iterable[QueueState]) -> None:
    oldest: dict[tuple[str, ...], float | None] = {}
    for queue in queues:
        if queue.head is not None:
            sent_at, source = _age(tracker, queue.head)
            key = (tracker.pairs.queue(queue.name), source)
            oldest[key] = min(sent_at, oldest.get(key) or sent_at)
    text.rows(m.QUEUE_OLDEST_TASK, oldest.items())


def _age(tracker: Tracker, head: QueueHead) -> tuple[float, str]:
    if head.stamped_at is not None:
        return head.stamped_at, "stamp"
    sent_at = tracker.tasks.sent_at(head.uuid) if head.uuid is not None else None
    return (sent_at, "event") if sent_at is not None else (head.seen_since, "observed")


def _consumers(text: Text, tracker: Tracker, queues: Iterable[QueueState], now: float) -> None:
    if not fresh(tracker, now, "workers"):
        cap = tracker.pairs.queue
        text.values(m.QUEUE_CONSUMERS, sums((cap(queue.name), queue.consumers) for queue in queues))
        return
    consumers, slots = by_workers(tracker, queues)
    text.values(m.QUEUE_CONSUMERS, consumers)
    text.values(m.QUEUE_SLOTS, slots)


def by_workers(
    tracker: Tracker, queues: Iterable[QueueState]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Workers that list each queue, and their slots; 0 for a queue that none lists."""
    names = sorted({tracker.pairs.queue(queue.name) for queue in queues})
    consumers: dict[str, float | None] = dict.fromkeys(names, 0)
    slots: dict[str, float | None] = dict.fromkeys(names, 0)
    for worker in tracker.workers:
        if worker.up and worker.state is not None:
            for queue in sorted({tracker.pairs.queue(name) for name in worker.state.queues or ()}):
                consumers[queue] = (consumers.get(queue) or 0) + 1
                slots[queue] = (slots.get(queue) or 0) + (worker.state.slots or 0)
    return consumers, slots


def sums(rows: Iterable[tuple[str, float | None]]) -> dict[str, float | None]:
    """The values of each label added up; rows without a value count for nothing."""
    totals: dict[str, float | None] = defaultdict(float)
    for label, value in rows:
        if value is not None:
            totals[label] = (totals[label] or 0) + value
    return totals


def _least(rows: Iterable[tuple[str, float | None]]) -> dict[str, float | None]:
    least: dict[str, float | None] = {}
    for label, value in rows:
        if value is not None:
            known = least.get(label)
            least[label] = value if known is None else min(known, value)
    return least
