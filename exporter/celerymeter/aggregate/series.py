"""The totals of each task and queue in one worker process, and their form in a message."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Any

from celerymeter.exception_names import UNKNOWN

OTHER = "__other__"
MAX_NAMES = 1000
MAX_QUEUES = 1000
MAX_PAIRS = 5000
MAX_EXCEPTIONS = 100


class Series:
    """Totals of one (name, queue). ``changed`` is the number of messages made before its last change."""

    __slots__ = (
        "busy",
        "changed",
        "failed",
        "index",
        "last_success",
        "name",
        "oldest",
        "queue",
        "rare",
        "received",
        "retried",
        "running",
        "runtime",
        "runtime_sum",
        "started",
        "succeeded",
        "wait",
        "wait_sum",
    )

    def __init__(self, index: str, name: str, queue: str, *, runtime: int, wait: int) -> None:
        self.index, self.name, self.queue = index, name, queue
        self.changed = 0
        self.received = self.started = self.succeeded = self.failed = self.retried = self.running = 0
        self.busy = self.runtime_sum = self.wait_sum = 0.0
        self.oldest = self.last_success = 0.0
        self.runtime = [0] * (runtime + 1)
        self.wait = [0] * (wait + 1)
        self.rare: dict[str, Any] = {}
        """Totals that most tasks never have, by their names in the message."""

    def add(self, key: str, count: float = 1) -> None:
        """Add to one of the rare totals."""
        self.rare[key] = self.rare.get(key, 0) + count

    def add_exception(self, key: str, name: str) -> None:
        """Add to the counts by exception class."""
        counts = self.rare.setdefault(key, {})
        counts[name] = counts.get(name, 0) + 1

    def row(self, busy: float, to_utc: float = 0.0) -> list[Any]:
        """Return the series as in a message (`celerymeter.totals_message`); ``busy`` is of runs in progress."""
        oldest, last = (round(at + to_utc, 3) if at else 0.0 for at in (self.oldest, self.last_success))
        row = [self.name, self.queue, self.received, self.started, self.succeeded, self.failed, self.retried]
        row += [round(self.busy + busy, 6), self.running, oldest, last]
        row += [round(self.runtime_sum, 6), _sparse(self.runtime), round(self.wait_sum, 6), _sparse(self.wait)]
        return [*row, self.rare] if self.rare else row


def _sparse(counts: list[int]) -> list[int]:
    """Return index and count of the buckets that are not empty, one after the other."""
    return [number for index, count in enumerate(counts) if count for number in (index, count)]


class SeriesTable:
    """All series of a worker process. Names, queues and exceptions beyond a limit are ``__other__``, and counted."""

    def __init__(self, *, runtime_buckets: tuple[float, ...], wait_buckets: tuple[float, ...]) -> None:
        self.folded: Counter[str] = Counter()
        self._runtime_buckets = runtime_buckets
        self._wait_buckets = wait_buckets
        self._series: dict[tuple[str, str], Series] = {}
        self._names: set[str] = set()
        self._queues: set[str] = set()
        self._exceptions: set[str] = set()

    def __iter__(self) -> Iterator[Series]:
        return iter(self._series.values())

    def find(self, name: str, queue: str) -> Series:
        """Return the series of a task and queue."""
        series = self._series.get((name, queue))
        return series if series is not None else self._add(name, queue)

    def exception(self, name: str) -> str:
        """Return the name under which an exception is counted."""
        return self._fold(name, self._exceptions, MAX_EXCEPTIONS, "exception")

    def observe_runtime(self, series: Series, seconds: float) -> None:
        """Add a run to the histogram of run times."""
        seconds = max(0.0, seconds)
        series.runtime[bisect_left(self._runtime_buckets, seconds)] += 1
        series.runtime_sum += seconds

    def observe_wait(self, series: Series, seconds: float) -> None:
        """Add a run to the histogram of waits."""
        seconds = max(0.0, seconds)
        series.wait[bisect_left(self._wait_buckets, seconds)] += 1
        series.wait_sum += seconds

    def _add(self, name: str, queue: str) -> Series:
        name = self._fold(name, self._names, MAX_NAMES, "name")
        queue = self._fold(queue, self._queues, MAX_QUEUES, "queue_name")
        if len(self._series) >= MAX_PAIRS and (name, queue) not in self._series:
            self.folded["pair"] += 1
            name = queue = OTHER
        series = self._series.get((name, queue))
        if series is None:
            sizes = {"runtime": len(self._runtime_buckets), "wait": len(self._wait_buckets)}
            series = self._series[name, queue] = Series(str(len(self._series)), name, queue, **sizes)
        return series

    def _fold(self, value: str, known: set[str], limit: int, label: str) -> str:
        if value in known or value in (UNKNOWN, OTHER):
            return value
        if len(known) >= limit:
            self.folded[label] += 1
            return OTHER
        known.add(value)
        return value
