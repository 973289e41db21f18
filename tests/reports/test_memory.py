"""The memory that a report needs does not grow with the restarts and the scrapes of its window."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from celerymeter.prometheus import Matrix, Point, PrometheusClient, PrometheusSettings, Scope, Vector
from celerymeter.prometheus.values import Sample, Series
from celerymeter.reports.counting import DAY, WindowCounter

MB = 1024 * 1024
NOON = 1_700_000_000.0
TARGET = {"cluster": "", "job": "celery", "instance": "a"}


class Exporters(PrometheusClient):
    """A Prometheus that scraped an exporter every ``interval`` seconds; it restarted every ``life`` seconds."""

    def __init__(self, *, interval: float, life: float, counters: int) -> None:
        super().__init__(PrometheusSettings("http://nowhere.invalid"))
        self._interval, self._life, self._counters = interval, life, counters

    def samples(self, query: str, *, time: float) -> Matrix:
        """Return the scrapes of the day before ``time``, or of the rest of the window."""
        length = float(query.rpartition("[")[2].removesuffix("ms]")) / 1000
        return Matrix((Series(TARGET, tuple(self._points(time - length, time))),))

    def _points(self, start: float, end: float) -> Iterator[Point]:
        for number in range(int(start // self._interval) + 1, int(end // self._interval) + 1):
            at = number * self._interval
            yield Point(at, at // self._life * self._life)

    def instant(self, query: str, *, time: float | None = None) -> Vector:
        """Return one task more than 0 in each counter of the process."""
        labels = {"__name__": "celery_task_succeeded_total", "queue_name": "q"}
        return Vector(tuple(Sample({**labels, "name": f"t{n}"}, 1.0, time or 0.0) for n in range(self._counters)))


@dataclass(frozen=True)
class Measured:
    """The tasks of a window, and the most MB that counting them had allocated at once."""

    tasks: float
    peak: float


def measure(*, days: float, interval: float, life: float, counters: int) -> Measured:
    """Count a window in a process of its own, where no other thread allocates anything."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(count, days=days, interval=interval, life=life, counters=counters).result()


def count(*, days: float, interval: float, life: float, counters: int) -> Measured:
    """Count a window here."""
    counter = WindowCounter(Exporters(interval=interval, life=life, counters=counters), Scope(cluster=""))
    tracemalloc.start()
    found = counter.count(start=NOON, end=NOON + days * DAY)
    assert found.counts is not None
    return Measured(found.counts.ended, tracemalloc.get_traced_memory()[1] / MB)


def test_an_exporter_that_restarts_all_day_is_counted_scrape_by_scrape() -> None:
    """72 processes with 200 counters each: all scrapes at once would take nine times as much."""
    found = measure(days=1, interval=300, life=1200, counters=200)

    assert found.tasks >= 71 * 200
    assert found.peak < 2


def test_months_of_scrapes_take_a_few_bytes_each() -> None:
    """20 days at a scrape each 15 s are 115,200 scrapes."""
    assert measure(days=20, interval=15, life=400 * DAY, counters=1).peak < 5
