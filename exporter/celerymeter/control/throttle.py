"""Token buckets by key, in bounded memory. Pure: ``now`` is an argument (monotonic seconds)."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

MAX_KEYS = 10_000


class Throttle:
    """Lets ``per_minute`` calls a minute through for each key, and as many at once.

    Beyond ``MAX_KEYS`` the key that was idle longest is forgotten: it starts afresh with a full bucket.
    """

    def __init__(self, per_minute: float, *, max_keys: int = MAX_KEYS) -> None:
        self._capacity = per_minute
        self._rate = per_minute / 60.0
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def wait(self, key: str, now: float) -> float:
        """Seconds until ``key`` has a call left; 0 when it has one now. Takes nothing."""
        with self._lock:
            return max(0.0, (1.0 - self._level(key, now)) / self._rate)

    def take(self, key: str, now: float) -> float:
        """Take one call of ``key``: 0 when there was one, else the seconds until there will be."""
        with self._lock:
            level = self._level(key, now)
            granted = level >= 1.0
            self._buckets[key] = (level - 1.0 if granted else level, now)
            self._buckets.move_to_end(key)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
            return 0.0 if granted else (1.0 - level) / self._rate

    def __len__(self) -> int:
        return len(self._buckets)

    def _level(self, key: str, now: float) -> float:
        level, since = self._buckets.get(key, (self._capacity, now))
        return min(self._capacity, level + max(0.0, now - since) * self._rate)
