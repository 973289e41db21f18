"""Writers of queues and of the broker's memory, where more than one reading decides."""

from __future__ import annotations

from collections.abc import Callable

from celerymeter.exposition.scrape import Scrape
from celerymeter.exposition.writers import Rows, Writer, single
from celerymeter.metrics import Family
from celerymeter.model import OTHER, UNKNOWN, BrokerMemory


def unacked(scrape: Scrape) -> Rows:
    """Unacknowledged messages by queue; those of queues without a series are added up."""
    found = scrape.by_queue(lambda queue: queue.unacked)
    if scrape.queues is not None:
        for label, count in ((OTHER, scrape.queues.unacked_other), (UNKNOWN, scrape.queues.unacked_unknown)):
            if count:
                found[label] = (found.get(label) or 0) + count
    return found


def oldest_task(scrape: Scrape, family: Family) -> None:
    """Send time of each queue's oldest message from the best source: its stamp, its event, or the first poll."""
    oldest: dict[tuple[str, ...], float | None] = {}
    for queue in scrape.queues.queues if scrape.queues is not None else ():
        if (head := queue.head) is None:
            continue
        sent_at, source = head.seen_since, "observed"
        if head.stamped_at is not None:
            sent_at, source = head.stamped_at, "stamp"
        elif head.uuid is not None and (by_event := scrape.tracker.tasks.sent_at(head.uuid)) is not None:
            sent_at, source = by_event, "event"
        key = (scrape.queue_labels[queue.name], source)
        oldest[key] = min(sent_at, oldest.get(key) or sent_at)
    scrape.text.rows(family, oldest.items())


def oldest_unacked(scrape: Scrape) -> Rows:
    """Time at which each queue's oldest unacknowledged message was delivered."""
    least: dict[str, float | None] = {}
    for queue in scrape.queues.queues if scrape.queues is not None else ():
        if queue.oldest_unacked_at is not None:
            label = scrape.queue_labels[queue.name]
            least[label] = min(queue.oldest_unacked_at, least.get(label) or queue.oldest_unacked_at)
    return least


def consumers(scrape: Scrape) -> Rows:
    """Workers that list each queue; where that is not known what the broker itself counts."""
    return {**scrape.by_queue(lambda queue: queue.consumers), **scrape.by_consumed_queue(lambda _: 1)}


def free_slots(scrape: Scrape) -> Rows:
    """Slots without a run; by heartbeats where a worker sends no task events."""
    taken = {
        worker.hostname: scrape.in_progress.by_worker[worker.hostname] if not worker.loss.off else worker.active or 0
        for worker in scrape.up
    }
    return scrape.by_consumed_queue(lambda state: max(0, (state.slots or 0) - taken.get(state.hostname, 0)))


def visibility(scrape: Scrape) -> float | None:
    """The visibility timeout in seconds, as long as queues are read."""
    return scrape.tracker.visibility_timeout() if scrape.queues is not None else None


def memory(value: Callable[[BrokerMemory], int | None]) -> Writer:
    """A figure of the broker's memory, as long as queues are read."""
    return single(lambda scrape: value(scrape.queues.memory) if scrape.queues is not None else None)
