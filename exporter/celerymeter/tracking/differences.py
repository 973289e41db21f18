"""Adds the difference between two totals of a series, as an aggregating worker sends them, to our own counters."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from celerymeter.totals_message import Rare, SeriesTotals, WorkerTotals
from celerymeter.tracking.series import Histogram, TaskSeries
from celerymeter.tracking.tasks import TaskTracker

NOTHING = SeriesTotals("-", "-")
"""Totals of a series that was not there before."""
_NO_RARE = Rare()
_RARE_COUNTS: Mapping[str, str] = {
    "rejected": "rejected_end",
    "requeued": "rejected_requeued",
    "revoked_revoked": "revoked",
    "revoked_terminated": "revoked_terminated",
    "revoked_expired": "revoked_expired",
    "polled": "polled",
    "process_lost": "process_lost",
    "redelivered": "redelivered",
    "without_result": "without_result",
    "failed_runtime_count": "failed_runtime_count",
    "failed_runtime_sum": "failed_runtime_sum",
}
"""Fields of `Rare`, and where a `TaskSeries` counts them."""


@dataclass(frozen=True, slots=True)
class BucketMaps:
    """Our bucket for each of a worker's, by histogram; ``None`` where its bounds are ours."""

    runtime: list[int] | None = None
    wait: list[int] | None = None

    @classmethod
    def between(cls, theirs: WorkerTotals, ours: Sequence[tuple[float, ...]]) -> BucketMaps:
        """Map the bounds of a message to ``ours``: those of run times and those of waits."""
        return cls(_bucket_map(theirs.runtime_bounds, ours[0]), _bucket_map(theirs.wait_bounds, ours[1]))

    def fit(self, totals: SeriesTotals, series: TaskSeries) -> bool:
        """Return True if every bucket of these totals exists."""
        return _fits(totals.runtime, self.runtime, series.runtime) and _fits(totals.wait, self.wait, series.wait)


class Differences:
    """Adds differences to the `TaskSeries` that they count for."""

    def __init__(self, tasks: TaskTracker, *, count_retry_exceptions: bool) -> None:
        self._table = tasks.table
        self._labels = tasks.labels
        self._count_retry_exceptions = count_retry_exceptions
        self._known: dict[tuple[str, str], TaskSeries] = {}
        """The series of each name and queue, where neither is folded and workers have no label."""

    def series_of(self, totals: SeriesTotals, hostname: str) -> TaskSeries:
        """Return the series that totals of this worker count for."""
        return self._known.get((totals.name, totals.queue)) or self._find(totals, hostname)

    def _find(self, totals: SeriesTotals, hostname: str) -> TaskSeries:
        table = self._table
        name, queue = table.name(totals.name), table.queue(totals.queue)
        series = table.get(name, queue, hostname)
        self._labels.learn_name(table.name.clean(totals.name))
        if series.labels == (totals.name, totals.queue):
            self._known[totals.name, totals.queue] = series
        return series

    def add(self, series: TaskSeries, new: SeriesTotals, old: SeriesTotals, maps: BucketMaps) -> None:
        """Add ``new`` less ``old``; most of a series has not changed, so that is checked first."""
        if new.runtime != old.runtime:
            _add_buckets(series.runtime, new.runtime, old.runtime, maps.runtime)
            series.runtime.sum += new.runtime_sum - old.runtime_sum
        if new.wait != old.wait:
            _add_buckets(series.wait, new.wait, old.wait, maps.wait)
            series.wait.sum += new.wait_sum - old.wait_sum
        series.received += new.received - old.received
        series.started += new.started - old.started
        series.succeeded += new.succeeded - old.succeeded
        series.failed += new.failed - old.failed
        series.retried += new.retried - old.retried
        series.busy.ended += max(0.0, new.busy - old.busy)
        if new.rare is not None:
            self._add_rare(series, new.rare, old.rare or _NO_RARE)

    def _add_rare(self, series: TaskSeries, new: Rare, old: Rare) -> None:
        for field_name, counter in _RARE_COUNTS.items():
            if growth := getattr(new, field_name) - getattr(old, field_name):
                setattr(series, counter, getattr(series, counter) + growth)
        self._add_classes(series.exceptions, new.exceptions, old.exceptions)
        if self._count_retry_exceptions:
            self._add_classes(series.retry_exceptions, new.retry_exceptions, old.retry_exceptions)

    def _add_classes(self, counts: dict[str, int], new: Mapping[str, int], old: Mapping[str, int]) -> None:
        for name, count in new.items():
            if growth := count - old.get(name, 0):
                self._table.count_exception(counts, name, growth)


def _bucket_map(theirs: tuple[float, ...], ours: tuple[float, ...]) -> list[int] | None:
    """Our bucket for each of theirs: the first that has all of it; ``None`` if the bounds are the same."""
    if theirs == ours:
        return None
    return [*(bisect_left(ours, bound) for bound in theirs), len(ours)]


def _fits(sparse: list[int], bucket_map: list[int] | None, histogram: Histogram) -> bool:
    size = len(histogram.counts if bucket_map is None else bucket_map)
    return not sparse or max(sparse[::2]) < size


def _add_buckets(histogram: Histogram, new: list[int], old: list[int], bucket_map: list[int] | None) -> None:
    """Add the difference of two sparse histograms: index, count, index, count, …"""
    counts = histogram.counts
    for index, count in zip(new[::2], new[1::2], strict=False):
        counts[index if bucket_map is None else bucket_map[index]] += count
    for index, count in zip(old[::2], old[1::2], strict=False):
        counts[index if bucket_map is None else bucket_map[index]] -= count
