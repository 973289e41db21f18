"""The tracker's counters as a value that outlives the exporter, so that they continue after a restart.

Runs in progress are not saved: aggregating workers report theirs with every message, others list them when asked
(`inspect active`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, MutableMapping
from typing import Annotated

import msgspec

from celerymeter.tracking.differences import BucketMaps
from celerymeter.tracking.saved_schedules import SavedSchedules, restore_schedules, save_schedules
from celerymeter.tracking.series import Histogram, TaskSeries
from celerymeter.tracking.totals import Instance
from celerymeter.tracking.tracker import Tracker
from celerymeter.tracking.worker import RememberedWorker

_NUMBERS = tuple(
    name
    for name in TaskSeries.__slots__
    if name not in ("busy", "exceptions", "in_progress", "labels", "retry_exceptions", "runtime", "wait")
)
"""The plain numbers of a series."""


Count = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A larger one would be on the page as it is, and Prometheus refuses a page with a number that no float holds."""


class SavedHistogram(msgspec.Struct):
    """Counts per bucket and the sum."""

    counts: list[Count]
    sum: float


class SavedSeries(msgspec.Struct):
    """One series."""

    labels: tuple[str, ...]
    numbers: dict[str, float]
    runtime: SavedHistogram
    wait: SavedHistogram
    exceptions: dict[str, Count]
    retry_exceptions: dict[str, Count]
    busy: float


class SavedInstance(msgspec.Struct):
    """An aggregating worker process, as it was last added up."""

    id: str
    hostname: str
    heard_at: float
    sequence: int
    begun: Count
    mid_life: bool
    missed: Count
    offset: float
    runtime_map: list[int] | None
    wait_map: list[int] | None
    counters: dict[str, dict[str, Count]]
    added: dict[str, msgspec.Raw]
    pid: int = 0


class Saved(msgspec.Struct):
    """All counters. ``started_at`` is when they began."""

    started_at: float
    runtime_bounds: tuple[float, ...]
    wait_bounds: tuple[float, ...]
    by_host: bool
    series: list[SavedSeries]
    instances: list[SavedInstance]
    workers: dict[str, RememberedWorker]
    counters: dict[str, dict[str, Count]]
    last_success: dict[str, float]
    lag: SavedHistogram
    reconnects: Count
    schedules: SavedSchedules = msgspec.field(default_factory=SavedSchedules)


def save(tracker: Tracker) -> Saved:
    """Return the counters of a tracker."""
    runtime_bounds, wait_bounds = tracker.task_series.bounds
    tracker.totals.add_baselines()
    return Saved(
        tracker.started_at,
        runtime_bounds,
        wait_bounds,
        tracker.task_series.by_host,
        [_saved_series(series) for series in tracker.task_series],
        [_saved_instance(instance) for instance in tracker.totals.instances.values()],
        tracker.workers.remember(),
        {name: dict(counter) for name, counter in _counters(tracker).items()},
        dict(tracker.tasks.counts.last_success),
        _saved_histogram(tracker.lag),
        tracker.reconnects,
        save_schedules(tracker.schedules),
    )


def restore(tracker: Tracker, saved: Saved, *, now: float) -> None:
    """Let a new tracker continue; raises `ValueError` if it counts in another way than the one that saved."""
    if (saved.runtime_bounds, saved.wait_bounds) != tracker.task_series.bounds:
        raise ValueError("the buckets were changed")
    if saved.by_host != tracker.task_series.by_host:
        raise ValueError("--task-hostname-label was changed")
    tracker.started_at = tracker.totals.since = saved.started_at
    for one in saved.series:
        _restore_series(tracker, one)
    for instance in saved.instances:
        tracker.totals.restore(_instance(instance))
    tracker.workers.recall(saved.workers)
    for name, counter in _counters(tracker).items():
        for label, count in saved.counters.get(name, {}).items():
            counter[label] += count
    tracker.tasks.counts.last_success.update(saved.last_success)
    _restore_histogram(tracker.lag, saved.lag)
    tracker.reconnects += saved.reconnects
    restore_schedules(tracker.schedules, saved.schedules)
    tracker.rates.begin(tracker.task_series, now)


def _counters(tracker: Tracker) -> Mapping[str, MutableMapping[str, int]]:
    """The counters that belong to no series, by a name in the file."""
    counters: dict[str, Counter[str]] = {
        "accepted": tracker.workers.accepted,
        "cut": tracker.task_series.cut,
        "duplicates": tracker.tasks.counts.duplicates,
        "evicted": tracker.tasks.runs.evicted,
        "folded": tracker.task_series.folded,
        "rejections": tracker.rejections,
        "unmeasured": tracker.tasks.counts.waits_unmeasured,
    }
    return {**counters, "events": tracker.event_counts}


def _saved_histogram(histogram: Histogram) -> SavedHistogram:
    return SavedHistogram(list(histogram.counts), histogram.sum)


def _restore_histogram(histogram: Histogram, saved: SavedHistogram) -> None:
    if len(saved.counts) != len(histogram.counts):
        raise ValueError("a histogram has another number of buckets")
    histogram.counts[:] = [mine + theirs for mine, theirs in zip(histogram.counts, saved.counts, strict=True)]
    histogram.sum += saved.sum


def _saved_series(series: TaskSeries) -> SavedSeries:
    return SavedSeries(
        series.labels,
        {name: number for name in _NUMBERS if (number := getattr(series, name))},
        _saved_histogram(series.runtime),
        _saved_histogram(series.wait),
        dict(series.exceptions),
        dict(series.retry_exceptions),
        series.busy.seconds(0.0),
    )


def _restore_series(tracker: Tracker, saved: SavedSeries) -> None:
    table = tracker.task_series
    name, queue, *host = saved.labels
    series = table.get(table.name(name), table.queue(queue), *host)
    for number, value in saved.numbers.items():
        if number in _NUMBERS:
            whole = number != "failed_runtime_sum"
            setattr(series, number, getattr(series, number) + (int(value) if whole else value))
    _restore_histogram(series.runtime, saved.runtime)
    _restore_histogram(series.wait, saved.wait)
    for counts, before in ((series.exceptions, saved.exceptions), (series.retry_exceptions, saved.retry_exceptions)):
        for exception, count in before.items():
            table.count_exception(counts, exception, count)
    series.busy.ended += saved.busy


def _saved_instance(instance: Instance) -> SavedInstance:
    return SavedInstance(
        instance.id,
        instance.hostname,
        instance.heard_at,
        instance.sequence,
        instance.begun,
        instance.mid_life,
        instance.missed,
        instance.offset,
        instance.buckets.runtime,
        instance.buckets.wait,
        instance.counters,
        {key: msgspec.Raw(text) for key, text in instance.added.items()},
        instance.pid,
    )


def _instance(saved: SavedInstance) -> Instance:
    return Instance(
        saved.id,
        saved.hostname,
        saved.heard_at,
        pid=saved.pid,
        sequence=saved.sequence,
        begun=saved.begun,
        mid_life=saved.mid_life,
        missed=saved.missed,
        offset=saved.offset,
        buckets=BucketMaps(saved.runtime_map, saved.wait_map),
        counters=saved.counters,
        added={key: bytes(raw) for key, raw in saved.added.items()},
    )
