"""A month of a large shop as Prometheus would have scraped it: the same runs for every task in every queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from celerymeter.buckets import RUNTIME_BUCKETS, WAIT_BUCKETS

END = 1_700_000_000 - 1_700_000_000 % 86_400
"""UTC seconds; a month that never changes can be written once and asked often."""
SCRAPE = 15
TARGET = {"cluster": "bench", "job": "celerymeter", "instance": "exporter:9808"}
WORKERS = 20

Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Month:
    """The size of a month: counts of tasks every ``fine`` seconds, their sums and histograms every ``coarse`` seconds.

    All else is there every 15 s.
    """

    tasks: int = 500
    queues: int = 5
    days: float = 30
    fine: int = SCRAPE
    coarse: int = 900

    @property
    def start(self) -> int:
        """The first scrape."""
        return END - int(self.days * 86_400)

    @property
    def pairs(self) -> int:
        """Every task runs in every queue."""
        return self.tasks * self.queues

    def times(self, every: int) -> range:
        """Scrapes, every so many seconds."""
        return range(self.start, END + 1, every)

    def runs(self) -> list[int]:
        """Successes of one pair by each scrape: none, one or two in between."""
        draw = Random(6)
        return list(accumulate(draw.choice((0, 1, 1, 2)) for _ in self.times(SCRAPE)))


@dataclass(frozen=True, slots=True)
class Pattern:
    """Samples that many series share: the same times, the same values."""

    name: str
    labels: Labels
    every: int
    values: list[float]


def of_a_pair(month: Month) -> Iterator[Pattern]:
    """The series of a task in a queue; a run in 50 fails, one in 25 is retried."""
    runs = month.runs()
    fine, coarse = runs[:: month.fine // SCRAPE], runs[:: month.coarse // SCRAPE]
    for outcome, one_in in (("succeeded", 1), ("failed", 50), ("retried", 25)):
        yield Pattern(f"celery_task_{outcome}_total", {}, month.fine, [float(count // one_in) for count in fine])
    yield from _summary("celery_task_failed_runtime_seconds", month, [count // 50 for count in coarse])
    for name, bounds in (("runtime", RUNTIME_BUCKETS), ("wait", WAIT_BUCKETS)):
        yield from _summary(f"celery_task_{name}_seconds", month, coarse)
        for number, bound in enumerate((*bounds, "+Inf"), start=1):
            share = min(1.0, number / 8)
            values = [float(int(count * share)) for count in coarse]
            yield Pattern(f"celery_task_{name}_seconds_bucket", {"le": str(bound)}, month.coarse, values)


def _summary(name: str, month: Month, counts: list[int]) -> Iterator[Pattern]:
    yield Pattern(f"{name}_count", {}, month.coarse, [float(count) for count in counts])
    yield Pattern(f"{name}_sum", {}, month.coarse, [0.25 * count for count in counts])


def of_the_rest(month: Month) -> Iterator[Pattern]:
    """The exporter's own series, queues, workers, and the recorded rate; each once."""
    scrapes, runs = month.times(SCRAPE), month.runs()
    before = [0] * 20 + runs
    yield _steady("celerymeter_start_time_seconds", {}, scrapes, month.start - 5)
    yield _steady("celerymeter_build_info", {}, scrapes, 1)
    rate = [month.pairs * (now - then) / 300 for now, then in zip(runs, before, strict=False)]
    yield Pattern("celery:tasks_ended:rate5m", {}, SCRAPE, rate)
    for number in range(month.queues):
        length = [float(now - then) for now, then in zip(runs, before, strict=False)]
        yield Pattern("celery_queue_length", {"queue_name": f"queue-{number}"}, SCRAPE, length)
    for number in range(WORKERS):
        worker = {"hostname": f"w{number}@host"}
        yield _steady("celery_worker_pool_size", worker, scrapes, 8)
        yield _steady("celery_worker_tasks_active", worker, scrapes, 6)
        yield _steady("celery_worker_tasks_reserved", worker, scrapes, 4)
        yield Pattern("celery_worker_tasks_processed_total", worker, SCRAPE, [float(count) for count in runs])


def pairs(month: Month) -> Iterator[Labels]:
    """Task and queue."""
    for task in range(month.tasks):
        for queue in range(month.queues):
            yield {"name": f"shop.tasks.work_{task}", "queue_name": f"queue-{queue}"}


def samples(month: Month) -> int:
    """The number of all samples."""
    shared = month.pairs * sum(len(pattern.values) for pattern in of_a_pair(month))
    return shared + sum(len(pattern.values) for pattern in of_the_rest(month))


def metric(pattern: Pattern, pair: Labels | None = None) -> Labels:
    """All labels, with the metric's name."""
    return {"__name__": pattern.name, **TARGET, **pattern.labels, **(pair or {})}


def _steady(name: str, labels: Labels, times: range, value: float) -> Pattern:
    return Pattern(name, labels, SCRAPE, [value] * len(times))
