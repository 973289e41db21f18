"""What the live line shows, read from the exporter's page and remembered for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from celerymeter import metrics

ENDED = tuple(family.name for family in (metrics.TASK_SUCCEEDED, metrics.TASK_FAILED, metrics.TASK_RETRIED))
REMEMBERED = 60


@dataclass(frozen=True, slots=True)
class Figures:
    """One reading: ``time`` in seconds, task totals since the exporter started, queue lengths, workers."""

    time: float
    ended: float
    failed: float
    queues: Mapping[str, float]
    up: int
    workers: int
    broker_up: bool


def read_page(page: str, *, time: float) -> Figures:
    """The figures of an exposition page."""
    ended = failed = up = workers = 0.0
    broker_up = False
    queues: dict[str, float] = {}
    for name, labels, value in _samples(page):
        if name in ENDED:
            ended += value
        if name == metrics.TASK_FAILED.name:
            failed += value
        elif name == metrics.QUEUE_LENGTH.name:
            queues[labels["queue_name"]] = value
        elif name == metrics.WORKER_UP.name:
            up, workers = up + value, workers + 1
        elif name == metrics.BROKER_UP.name:
            broker_up = value == 1
    return Figures(time, ended, failed, queues, int(up), int(workers), broker_up)


def _samples(page: str) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]


@dataclass(slots=True)
class History:
    """The last ``REMEMBERED`` readings; rates are differences of neighbours."""

    readings: deque[Figures] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def add(self, figures: Figures) -> None:
        """Remember a reading; one of an exporter that restarted (its totals fell) begins anew."""
        if self.readings and figures.ended < self.readings[-1].ended:
            self.readings.clear()
        self.readings.append(figures)

    @property
    def latest(self) -> Figures | None:
        """The newest reading."""
        return self.readings[-1] if self.readings else None

    def rates(self, total: Callable[[Figures], float] = lambda figures: figures.ended) -> list[float]:
        """Growth per second from each reading to the next."""
        steps = zip(self.readings, list(self.readings)[1:], strict=False)
        return [(total(new) - total(old)) / max(new.time - old.time, 0.001) for old, new in steps]

    def depths(self, queue: str) -> list[float]:
        """The queue's length at each reading that knew it."""
        return [figures.queues[queue] for figures in self.readings if queue in figures.queues]

    def failed_share(self) -> float | None:
        """Failed ÷ ended over all that is remembered; ``None`` when nothing ended."""
        if len(self.readings) < 2:
            return None
        ended = self.readings[-1].ended - self.readings[0].ended
        return (self.readings[-1].failed - self.readings[0].failed) / ended if ended else None
