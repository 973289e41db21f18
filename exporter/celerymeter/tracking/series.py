"""The series that events feed: plain numbers in slots, one object for each (name, queue_name)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator

from celerymeter import escaping
from celerymeter.model import OTHER, UNKNOWN
from celerymeter.settings import Limits

RATE_STEPS = 12
MAX_SHADOWS = 10_000
"""Shadow names that are remembered; they often contain arguments."""
LABEL_BYTES = 64
"""Bytes of name and queue that each pair may have on average: a page repeats them some 60 times."""
MIN_LABEL_BYTES = 64 * 1024


class Histogram:
    """Counts per bucket (not cumulative; the last one is +Inf) and the sum of what was observed."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a negative one, which only clocks can cause, counts as 0."""
        value = value if value > 0.0 else 0.0  # a third of the time of max()
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class BusyTime:
    """Seconds that runs took a slot, as a counter."""

    __slots__ = ("_shown", "ended")

    def __init__(self) -> None:
        self.ended = 0.0
        """Of the runs that ended."""
        self._shown = 0.0

    def seconds(self, in_progress: float) -> float:
        """All, with those of the runs in progress; never less than before.

        A clock offset that is measured anew may shorten a run a little.
        """
        self._shown = max(self._shown, self.ended + in_progress)
        return self._shown


class TaskSeries:
    """All that is counted for one (name, queue_name), with every counter at 0 from the start."""

    __slots__ = (
        "busy",
        "exceptions",
        "failed",
        "failed_runtime_count",
        "failed_runtime_sum",
        "in_progress",
        "labels",
        "polled",
        "process_lost",
        "received",
        "redelivered",
        "rejected_end",
        "rejected_requeued",
        "retried",
        "retry_exceptions",
        "revoked",
        "revoked_expired",
        "revoked_terminated",
        "runtime",
        "sent",
        "shutdown_lost",
        "started",
        "succeeded",
        "wait",
        "without_result",
    )

    def __init__(
        self, labels: tuple[str, ...], *, runtime_buckets: tuple[float, ...], wait_buckets: tuple[float, ...]
    ) -> None:
        self.labels = labels
        self.sent = self.received = self.started = 0
        self.succeeded = self.failed = self.retried = 0
        self.polled = self.process_lost = 0
        self.rejected_end = self.rejected_requeued = 0
        self.redelivered = self.without_result = self.shutdown_lost = 0
        self.revoked = self.revoked_terminated = self.revoked_expired = 0
        self.failed_runtime_count = 0
        self.failed_runtime_sum = 0.0
        self.runtime = Histogram(runtime_buckets)
        self.wait = Histogram(wait_buckets)
        self.exceptions: dict[str, int] = {}
        """Failed runs by exception class: they add up to ``failed``."""
        self.retry_exceptions: dict[str, int] = {}
        """Retried runs by exception class, with ``count_retry_exceptions``."""
        self.in_progress = 0
        """Runs started and not finished."""
        self.busy = BusyTime()

    @property
    def finished(self) -> int:
        """Tasks that came to an end (a retry is none)."""
        return (
            self.succeeded
            + self.failed
            + self.rejected_end
            + self.revoked
            + self.revoked_terminated
            + self.revoked_expired
        )


class LabelCap:
    """The values that one label may take: the first ``limit`` to come, then `OTHER`.

    The value returned is always the same object for equal input, so that a million tasks share one name.
    Every value folded adds one to ``folded[label]``, every value that `celerymeter.escaping.name` changes one to
    ``cut[label]``.
    """

    def __init__(self, label: str, limit: int, *, folded: Counter[str], cut: Counter[str]) -> None:
        self._label = label
        self._limit = limit
        self._folded = folded
        self._cut = cut
        self._values: dict[str, str] = {UNKNOWN: UNKNOWN, OTHER: OTHER}

    def clean(self, value: str) -> str:
        """Return the value as its label has it, below the limit."""
        if value in self._values:
            return value
        clean = escaping.name(value)
        if clean != value:
            self._cut[self._label] += 1
        return clean

    @property
    def room(self) -> int:
        """How many more values get a label of their own."""
        return self._limit - (len(self._values) - 2)

    def known(self, value: str) -> str | None:
        """The label of a value that has come before and is not folded."""
        return self._values.get(value)

    def __call__(self, value: str) -> str:
        known = self._values.get(value)
        if known is not None:
            return known
        value = self.clean(value)
        known = self._values.get(value)
        if known is not None:
            return known
        if self.room <= 0:
            self._folded[self._label] += 1
            return OTHER
        self._values[value] = value
        return value


def is_shadow(reported: str, registered: Collection[str] | None) -> bool:
    """True for a name that the worker which reports it has not registered (`celery.app.task.Task.shadow_name`)."""
    if registered is None or reported.startswith("celery."):
        return False
    return reported not in registered and escaping.name(reported) not in registered


class TaskSeriesTable:
    """Every `TaskSeries`, found by its labels; names, queues and pairs of both are capped."""

    def __init__(
        self, limits: Limits, *, runtime_buckets: tuple[float, ...], wait_buckets: tuple[float, ...], by_host: bool
    ) -> None:
        self.folded: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        """Names that were cut or had characters replaced, by label."""
        self.name = LabelCap("name", limits.task_names, folded=self.folded, cut=self.cut)
        self.queue = LabelCap("queue_name", limits.queues, folded=self.folded, cut=self.cut)
        self.exception = LabelCap("exception", limits.exceptions, folded=self.folded, cut=self.cut)
        self._shadows: dict[str, str] = {}
        self._limit = limits.task_pairs
        self._bytes_left = max(MIN_LABEL_BYTES, LABEL_BYTES * limits.task_pairs)
        self._exceptions_left = 2 * limits.task_pairs
        self._runtime_buckets = runtime_buckets
        self._wait_buckets = wait_buckets
        self.by_host = by_host
        """True if the worker is a label too; it is empty for events of producers."""
        self._series: dict[tuple[str, ...], TaskSeries] = {}

    @property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The bounds of the histograms: run times, then waits."""
        return self._runtime_buckets, self._wait_buckets

    def learn_shadow(self, shadow: str, name: str) -> None:
        """Remember that workers call a task ``shadow`` (`celery.app.task.Task.shadow_name`), while there is room."""
        if len(self._shadows) < MAX_SHADOWS and not {shadow, name} & {UNKNOWN, OTHER}:
            self._shadows[self.name.clean(shadow)] = name

    def real_name(self, reported: str, registered: Collection[str] | None = None) -> str:
        """The label of a task that a worker reports, under its own name if it has a shadow name.

        Every run may have another shadow name, so those whose own name is not known are folded.
        """
        known = self._shadows.get(reported) or self._shadows.get(self.name.clean(reported)) or self.name.known(reported)
        if known is not None:
            return known
        return OTHER if is_shadow(reported, registered) else self.name(reported)

    def get(self, name: str, queue: str, hostname: str = "") -> TaskSeries:
        """The series of these labels (already capped by `name` and `queue`), made at 0 when it is new."""
        key = (name, queue, hostname) if self.by_host else (name, queue)
        series = self._series.get(key)
        return series if series is not None else self._make(key)

    def count_exception(self, counts: dict[str, int], name: str, count: int = 1) -> None:
        """Count an exception of one series by its class, beyond the limit of pairs of both as `OTHER`."""
        label = self.exception(name) if name != UNKNOWN else name
        if label not in counts and label != OTHER:
            if self._exceptions_left <= 0:
                self.folded["exception"] += 1
                label = OTHER
            self._exceptions_left -= 1
        counts[label] = counts.get(label, 0) + count

    def _make(self, key: tuple[str, ...]) -> TaskSeries:
        size = sum(map(escaping.memory, key))
        if len(self._series) >= self._limit or size > self._bytes_left:
            self.folded["pair"] += 1
            key = (OTHER,) * len(key)
        if key not in self._series:
            self._bytes_left -= size
            self._series[key] = TaskSeries(key, runtime_buckets=self._runtime_buckets, wait_buckets=self._wait_buckets)
        return self._series[key]

    def __iter__(self) -> Iterator[TaskSeries]:
        return iter(self._series.values())

    def __len__(self) -> int:
        return len(self._series)


class RateWindow:
    """Throughput and error ratio over a sliding window, for people who read the page with their eyes.

    Every series' totals are sampled twelve times a window; a new series counts from 0.
    """

    def __init__(self, window: float, now: float) -> None:
        self._window = window
        self._samples: deque[tuple[float, dict[TaskSeries, tuple[int, int]]]] = deque([(now, {})])

    def begin(self, table: Iterable[TaskSeries], now: float) -> None:
        """Count from the present totals."""
        self._samples.clear()
        self._samples.append((now, {series: (series.finished, series.failed) for series in table if series.finished}))

    def sample(self, table: Iterable[TaskSeries], now: float) -> None:
        """Remember the totals, if a step has passed."""
        newest = self._samples[-1][0]
        if 0 <= now - newest < self._window / RATE_STEPS:
            return
        if now < newest:
            self._samples.clear()
        self._samples.append((now, {series: (series.finished, series.failed) for series in table if series.finished}))
        while len(self._samples) > 1 and now - self._samples[1][0] >= self._window:
            self._samples.popleft()

    def of(self, series: TaskSeries, now: float) -> tuple[float, float | None]:
        """Finished per second, and the failed share (``None`` when nothing finished in the window)."""
        since, totals = self._samples[0]
        finished, failed = totals.get(series, (0, 0))
        ended = series.finished - finished
        rate = ended / max(now - since, 1.0)
        return rate, (series.failed - failed) / ended if ended > 0 else None
