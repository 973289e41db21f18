"""Adds up the totals of aggregating workers: a counter grows by the difference to the last totals of each instance.

An instance is one worker process. Its messages only replace what is waiting here; `TotalsTable.add_up` decodes and adds
it, so many at a time: with thousands of workers most messages are replaced by newer ones before they cost anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import islice

import msgspec

from celerymeter.model import OTHER, Event
from celerymeter.settings import ExporterSettings
from celerymeter.totals_message import SeriesTotals, WorkerTotals, decode_all, decode_series, encode_all
from celerymeter.tracking.differences import NOTHING, BucketMaps, Differences
from celerymeter.tracking.runs import InProgress
from celerymeter.tracking.series import TaskSeries
from celerymeter.tracking.tasks import TaskTracker
from celerymeter.tracking.worker import Worker
from celerymeter.tracking.workers import WorkerTable

AT_ONCE = 1000
"""Series that are added up at each tick, some 5 ms."""
CYCLE = 30
"""Ticks in which all instances have their turn, if there are more: 15 s, as long as between two scrapes."""
RETENTION = 6 * 3600.0
"""Seconds that the totals of a silent process are kept: it may come back after an outage of its network."""
MAX_FORGOTTEN = 50_000
BYTES_PER_WORKER = 16 * 1024
"""Memory for the totals of each of `Limits.workers` on average, and as much for those that wait to be added up.

50 series take some 14 KiB, and half of that while they wait. If less could wait, messages of a large cluster would be
refused that a bit later fit.
"""
SERIES_OVERHEAD = 150
"""Bytes of memory that a series takes beside its text."""
MESSAGE_OVERHEAD = 64
"""Bytes of memory that a message which waits takes beside its series."""
FULL = 0.5
"""Seconds until the table looks again for processes to forget, if it has found few."""
COUNTERS: Mapping[str, frozenset[str]] = {
    "unmeasured": frozenset({"not_sent", "clock_offset", "eta", "negative"}),
    "duplicates": frozenset({"task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked"}),
    "folded": frozenset({"name", "queue_name", "exception", "pair", "shadow"}),
}
"""The names that are counted of each of these fields; a message may have any."""


@dataclass(slots=True)
class Running:
    """Runs in progress of one series at one worker process; ``oldest`` by our clock."""

    series: TaskSeries
    count: int
    oldest: float


@dataclass(slots=True, eq=False)
class Instance:
    """One worker process, and its totals as they were last added up."""

    id: str
    hostname: str
    heard_at: float
    pid: int = 0
    sequence: int = 0
    begun: int = 0
    mid_life: bool = False
    """Its totals of before are not ours to count: what comes first of a series is a baseline, until all have come."""
    missed: int = 0
    deficit: int = 0
    buckets: BucketMaps = field(default_factory=BucketMaps)
    offset: float = 0.0
    added: dict[str, bytes] = field(default_factory=dict)
    """The JSON of each series that is added up: decoded again for a difference, it takes a fifth of the memory."""
    waiting: list[bytes] = field(default_factory=list)
    """The series that wait to be added up, all in one JSON object, and then those of each later message."""
    waiting_bytes: int = 0
    baselines: set[str] = field(default_factory=set)
    """Series whose waiting totals are a baseline, unless they have been added up before."""
    running: dict[str, Running] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    """Counts of the process that belong to no series, as added up."""


class TotalsTable:
    """All instances. ``since``: instances that began later are counted from 0, others from where we first see them.

    Times are those of `SteadyTime`.
    """

    def __init__(
        self,
        tasks: TaskTracker,
        workers: WorkerTable,
        settings: ExporterSettings,
        *,
        since: float,
        reject: Callable[[str], None],
    ) -> None:
        self.since = since
        self.instances: dict[str, Instance] = {}
        self._tasks = tasks
        self._table = tasks.table
        self._workers = workers
        self._limit = 2 * settings.limits.workers
        self._counters: Mapping[str, Counter[str]] = {
            "unmeasured": tasks.counts.waits_unmeasured,
            "duplicates": tasks.counts.duplicates,
            "folded": tasks.table.folded,
        }
        """The counters to which the fields of a message with the same names are added."""
        self._bytes_left = self._waiting_left = BYTES_PER_WORKER * max(1000, settings.limits.workers)
        self._full_until = 0.0
        self._reject = reject
        self._differences = Differences(tasks, count_retry_exceptions=settings.count_retry_exceptions)
        self._dirty: dict[Instance, None] = {}
        self._forgotten: dict[str, None] = {}
        self._by_host: dict[str, Instance] = {}

    # Messages

    def take(self, event: Event, totals: WorkerTotals, at: float, worker: Worker | None) -> None:
        """Take a message received at ``at``, by `SteadyTime`; it waits until `add_up`."""
        instance = self.instances.get(totals.instance) or self._admit(event, totals, at)
        if instance is None or totals.sequence <= instance.sequence:
            return
        message = encode_all(totals.series) if totals.series else b""
        if message and len(message) + MESSAGE_OVERHEAD > self._waiting_left:
            self._reject("too_large")
            return
        instance.sequence, instance.heard_at, instance.begun = totals.sequence, at, totals.begun
        instance.pid = event.pid
        if instance.mid_life:
            instance.baselines.update(totals.series)
            instance.mid_life = not totals.full
        if message:
            self._let_wait(instance, totals.series, message)
        self._count(instance, totals)
        if worker is not None:
            before = self._by_host.get(worker.hostname)
            if before is not None and before is not instance:
                self.worker_lost(worker.hostname, offline=False)
            self._by_host[worker.hostname] = instance
            instance.offset = worker.offset or 0.0
            self._measure_loss(instance, totals, worker)

    def _let_wait(self, instance: Instance, series: Mapping[str, msgspec.Raw], message: bytes) -> None:
        """Keep the series of a message, and merge them with what waits as soon as they are an eighth of it.

        So a small message costs little where much waits, and what is replaced takes little memory.
        """
        before, waiting = instance.waiting_bytes, instance.waiting
        size = before + len(message) + MESSAGE_OVERHEAD
        if waiting and 8 * size > 9 * (len(waiting[0]) + MESSAGE_OVERHEAD):
            merged = _merged(waiting)
            merged.update(series)
            instance.waiting = waiting = []
            message = message if len(merged) == len(series) else encode_all(merged)
            size = len(message) + MESSAGE_OVERHEAD
        waiting.append(message)
        instance.waiting_bytes = size
        self._waiting_left -= size - before
        self._dirty[instance] = None

    def _take_waiting(self, instance: Instance) -> list[bytes]:
        """Return the messages that wait of an instance, which are then none."""
        waiting, instance.waiting = instance.waiting, []
        self._waiting_left += instance.waiting_bytes
        instance.waiting_bytes = 0
        self._dirty.pop(instance, None)
        return waiting

    def _admit(self, event: Event, totals: WorkerTotals, at: float) -> Instance | None:
        if len(self.instances) >= self._limit and not self._forget_some(at):
            self._table.folded["hostname"] += 1
            return None
        instance = Instance(totals.instance, event.hostname, at)
        began_before = totals.sequence > 1 and at - totals.age < self.since
        instance.mid_life = began_before or totals.instance in self._forgotten
        if instance.mid_life:
            instance.counters = {name: _known(name, totals) for name in self._counters}
        instance.buckets = BucketMaps.between(totals, self._table.bounds)
        self.instances[totals.instance] = instance
        return instance

    def _count(self, instance: Instance, totals: WorkerTotals) -> None:
        for name, counter in self._counters.items():
            counts = _known(name, totals)
            if counts:
                _grow(counter, counts, instance.counters.get(name, {}))
                instance.counters[name] = counts

    def _measure_loss(self, instance: Instance, totals: WorkerTotals, worker: Worker) -> None:
        """Runs that Celery counted and the totals have not; with threads a run may be about to be added."""
        deficit = totals.processed - totals.started
        lost = min(deficit, instance.deficit)
        instance.deficit = deficit
        if lost > instance.missed:
            worker.loss.lose(lost - instance.missed)
            instance.missed = lost

    # Adding up

    def add_up(self, *, everything: bool = False) -> None:
        """Add what waits, the longest waiting first: about `AT_ONCE` series and a `CYCLE`-th of the instances.

        So a small cluster is never behind, and of a large one most messages are replaced before they cost anything.
        """
        instances = len(self._dirty) if everything else -(-len(self._dirty) // CYCLE)
        series = 0
        while self._dirty and (instances > 0 or series < AT_ONCE):
            series += self._add_instance(next(iter(self._dirty)))
            instances -= 1

    def add_baselines(self) -> None:
        """Add what waits as a baseline: what is not added up here is lost with this process, and sent again."""
        for instance in [instance for instance in self._dirty if instance.baselines]:
            self._add_instance(instance)

    def restore(self, instance: Instance) -> None:
        """Take an instance that another process of the exporter had added up."""
        if len(self.instances) < self._limit:
            self.instances[instance.id] = instance
            self._bytes_left -= _size(instance.added)

    def _add_instance(self, instance: Instance) -> int:
        """Add what waits of an instance, and return how many series that were."""
        waiting = _merged(self._take_waiting(instance))
        for key, text in waiting.items():
            self._add(instance, key, bytes(text))
        instance.baselines.clear()
        return len(waiting)

    def _add(self, instance: Instance, key: str, text: bytes) -> None:
        before = instance.added.get(key)
        try:
            new = decode_series(text)
            old = decode_series(before) if before is not None else NOTHING
        except msgspec.DecodeError:
            self._reject("fields")
            return
        series = self._differences.series_of(new, instance.hostname)
        if not instance.buckets.fit(new, series):
            self._reject("fields")
            return
        growth = len(text) - len(before) if before is not None else len(text) + SERIES_OVERHEAD
        if growth > self._bytes_left:
            self._reject("too_large")
            return
        self._bytes_left -= growth
        instance.added[key] = text
        if before is not None or key not in instance.baselines:
            self._differences.add(series, new, old, instance.buckets)
            if new.busy > old.busy and (worker := self._workers.get(instance.hostname)) is not None:
                worker.busy.ended += new.busy - old.busy
        if (new.running or key in instance.running) and instance.hostname != OTHER:  # whose death nobody would notice
            self._set_running(instance, key, series, new)
        if new.succeeded != old.succeeded:
            last, names = new.last_success + instance.offset, self._tasks.counts.last_success
            if last > names.get(series.labels[0], 0.0):
                names[series.labels[0]] = last

    def _set_running(self, instance: Instance, key: str, series: TaskSeries, new: SeriesTotals) -> None:
        before = instance.running.pop(key, None)
        series.in_progress += new.running - (before.count if before is not None else 0)
        if new.running:
            instance.running[key] = Running(series, new.running, new.oldest + instance.offset)

    # Workers come and go

    def worker_lost(self, hostname: str, *, offline: bool) -> Instance | None:
        """Return the process that last sent totals under this name, which is gone."""
        instance = self._by_host.pop(hostname, None)
        if instance is not None:
            self._add_instance(instance)
            self._drop_running(instance, offline=offline)
        return instance

    def _drop_running(self, instance: Instance, *, offline: bool) -> None:
        for running in instance.running.values():
            running.series.in_progress -= running.count
            if offline:
                running.series.shutdown_lost += running.count
        instance.running.clear()

    def forget_silent(self, now: float) -> None:
        """Forget processes that sent nothing for long."""
        for instance in [one for one in self.instances.values() if now - one.heard_at > RETENTION]:
            self._forget(instance)

    def _forget_some(self, at: float) -> bool:
        """Make room for processes by forgetting those that are silent for longest, a twentieth at once.

        Those that are the last of their worker stay.
        """
        if self._full_until - FULL <= at < self._full_until:
            return False
        gone = (one for one in self.instances.values() if self._by_host.get(one.hostname) is not one)
        wanted = max(1, self._limit // 20)
        found = nsmallest(wanted, gone, key=lambda instance: instance.heard_at)
        if len(found) < wanted:
            self._full_until = at + FULL
        for instance in found:
            self._forget(instance)
        return bool(found)

    def _forget(self, instance: Instance) -> None:
        self._drop_running(instance, offline=False)
        self._take_waiting(instance)
        del self.instances[instance.id]
        self._bytes_left += _size(instance.added)
        if self._by_host.get(instance.hostname) is instance:
            del self._by_host[instance.hostname]
        self._forgotten[instance.id] = None
        for old in list(islice(self._forgotten, max(0, len(self._forgotten) - MAX_FORGOTTEN))):
            del self._forgotten[old]

    # What others read

    def add_in_progress(self, sums: InProgress) -> None:
        """Add the runs in progress; their busy time is in the counters already."""
        for hostname, instance in self._by_host.items():
            for running in instance.running.values():
                sums.by_worker[hostname] += running.count
                oldest = sums.oldest.get(running.series)
                sums.oldest[running.series] = running.oldest if oldest is None else min(oldest, running.oldest)

    def hostnames(self) -> Collection[str]:
        """The node names under which totals come."""
        return self._by_host.keys()


def _known(name: str, totals: WorkerTotals) -> dict[str, int]:
    counts: dict[str, int] = getattr(totals, name)
    return {key: count for key, count in counts.items() if key in COUNTERS[name]} if counts else {}


def _size(added: Mapping[str, bytes]) -> int:
    return sum(map(len, added.values())) + SERIES_OVERHEAD * len(added)


def _merged(messages: list[bytes]) -> dict[str, msgspec.Raw]:
    """Return the series of all messages; of each the last."""
    series = decode_all(messages[0]) if messages else {}
    for message in messages[1:]:
        series.update(decode_all(message))
    return series


def _grow(counter: Counter[str], new: Mapping[str, int], old: Mapping[str, int]) -> None:
    for name, count in new.items():
        counter[name] += max(0, count - old.get(name, 0))
