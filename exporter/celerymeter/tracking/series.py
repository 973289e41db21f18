"""The task series: plain numbers in slots, one object per (name, queue_name)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from celerymeter.model import OTHER
from celerymeter.settings import Limits
from celerymeter.tracking.labels import LabelCap

if TYPE_CHECKING:
    from celerymeter.tracking.runs import Run


class Histogram:
    """Counts per bucket (not cumulative; the last one is +Inf) and the sum of what was observed."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Pair:
    """All that is counted for one (name, queue_name), with every counter at 0 from the start."""

    __slots__ = (
        "exceptions",
        "failed",
        "failed_runtime_count",
        "failed_runtime_sum",
        "labels",
        "received",
        "rejected_end",
        "rejected_requeued",
        "retried",
        "retry_exceptions",
        "revoked",
        "revoked_expired",
        "revoked_terminated",
        "running",
        "runtime",
        "sent",
        "started",
        "succeeded",
        "wait",
    )

    def __init__(
        self, labels: tuple[str, ...], *, runtime_buckets: tuple[float, ...], wait_buckets: tuple[float, ...]
    ) -> None:
        self.labels = labels
        self.sent = self.received = self.started = 0
        self.succeeded = self.failed = self.retried = 0
        self.rejected_end = self.rejected_requeued = 0
        self.revoked = self.revoked_terminated = self.revoked_expired = 0
        self.failed_runtime_count = 0
        self.failed_runtime_sum = 0.0
        self.runtime = Histogram(runtime_buckets)
        self.wait = Histogram(wait_buckets)
        self.exceptions: dict[str, int] = {}
        """Failed runs by exception class: they add up to ``failed``."""
        self.retry_exceptions: dict[str, int] = {}
        """Retried runs by exception class, with ``count_retry_exceptions``."""
        self.running: dict[Run, None] = {}
        """Runs started and not finished, oldest first."""

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


class PairTable:
    """Every `Pair`, found by its labels; names, queues and pairs are capped."""

    def __init__(
        self, limits: Limits, *, runtime_buckets: tuple[float, ...], wait_buckets: tuple[float, ...], by_host: bool
    ) -> None:
        self.folded: Counter[str] = Counter()
        self.name = LabelCap("name", limits.task_names, self.folded)
        self.queue = LabelCap("queue_name", limits.queues, self.folded)
        self.exception = LabelCap("exception", limits.exceptions, self.folded)
        self._limit = limits.task_pairs
        self._runtime_buckets = runtime_buckets
        self._wait_buckets = wait_buckets
        self._by_host = by_host
        self._pairs: dict[tuple[str, ...], Pair] = {}

    def get(self, name: str, queue: str, hostname: str = "") -> Pair:
        """The pair of these labels (already capped by `name` and `queue`), made at 0 when it is new."""
        key = (name, queue, hostname) if self._by_host else (name, queue)
        pair = self._pairs.get(key)
        return pair if pair is not None else self._make(key)

    def _make(self, key: tuple[str, ...]) -> Pair:
        if len(self._pairs) >= self._limit:
            self.folded["pair"] += 1
            key = (OTHER,) * len(key)
        if key not in self._pairs:
            self._pairs[key] = Pair(key, runtime_buckets=self._runtime_buckets, wait_buckets=self._wait_buckets)
        return self._pairs[key]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs.values())

    def __len__(self) -> int:
        return len(self._pairs)
