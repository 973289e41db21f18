"""`--compat celery-exporter`: what dashboards and alerts for danihodovic/celery-exporter query, and we lack.

Most of its families are ours under the same names. Failed tasks get the label ``exception``, whose values add up to
what is there without it; the families of other names (`celerymeter.metrics.COMPATIBLE`) come besides. So whoever
sums as that exporter's dashboards do, or as our own rules do, reads the same figures as before.
"""

from __future__ import annotations

from celerymeter import metrics as m
from celerymeter.exposition.queues import by_workers, sums
from celerymeter.exposition.text import Text
from celerymeter.exposition.workers import fresh
from celerymeter.tracking.series import Pair
from celerymeter.tracking.tracker import Tracker

NEWBORN = 60.0
"""Seconds for which a new class stays at 0, so that every scraper sees it there: `increase()` misses a birth."""


class NamedFailures:
    """Failures by exception class; those of a class's first minute stay without a name, for good."""

    def __init__(self) -> None:
        self._born: dict[tuple[Pair, str], float] = {}
        self._unnamed: dict[tuple[Pair, str], int] = {}

    def of(self, pair: Pair, now: float) -> dict[str, int]:
        """The failures of a pair by class; no count ever falls, also when the clock jumps."""
        return {
            exception: count - self._held(pair, exception, count, now) for exception, count in pair.exceptions.items()
        }

    def _held(self, pair: Pair, exception: str, count: int, now: float) -> int:
        key = pair, exception
        if key not in self._unnamed:
            self._born[key] = now
        if key in self._born:
            if now - self._born[key] < NEWBORN:
                self._unnamed[key] = count
            else:
                del self._born[key]
        return self._unnamed[key]


def render(text: Text, tracker: Tracker, now: float) -> None:
    """Consumers of each queue under the other exporter's names; unknown is absent."""
    snapshot = tracker.queues if fresh(tracker, now, "queues") else None
    queues = snapshot.queues if snapshot is not None else ()
    cap = tracker.pairs.queue
    text.values(m.COMPAT_CONSUMERS, sums((cap(queue.name), queue.consumers) for queue in queues))
    if fresh(tracker, now, "workers"):
        consumers, slots = by_workers(tracker, queues)
        text.values(m.COMPAT_WORKERS, consumers)
        text.values(m.COMPAT_PROCESSES, slots)
