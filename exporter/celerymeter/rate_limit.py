"""Limits of how often somebody may do something, in bounded memory. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address
from threading import Lock

MAX_KEYS = 10_000


class RateLimit:
    """A token bucket for each key: lets ``per_minute`` calls through, and as many at once.

    Beyond ``max_keys`` the key that was idle longest is forgotten: it starts afresh with a full bucket.
    """

    def __init__(self, per_minute: float, *, max_keys: int = MAX_KEYS) -> None:
        self._capacity = per_minute
        self._rate = per_minute / 60.0
        self._max_keys = max_keys
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def wait(self, key: Hashable, now: float) -> float:
        """Return the seconds until ``key`` has a call left; 0 when it has one now. Takes nothing."""
        with self._lock:
            return max(0.0, (1.0 - self._level(key, now)) / self._rate)

    def take(self, key: Hashable, now: float) -> float:
        """Take one call of ``key``: return 0 when there was one, else the seconds until there will be."""
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

    def _level(self, key: Hashable, now: float) -> float:
        level, since = self._buckets.get(key, (self._capacity, now))
        return min(self._capacity, level + max(0.0, now - since) * self._rate)


class RecentKeys:
    """A set that forgets its oldest keys beyond ``max_keys``."""

    def __init__(self, *, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._keys: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = Lock()

    def add(self, key: Hashable) -> None:
        """Add a key, or make it the newest."""
        with self._lock:
            self._keys[key] = None
            self._keys.move_to_end(key)
            if len(self._keys) > self._max_keys:
                self._keys.popitem(last=False)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)


def network(address: str) -> str:
    """Return the key that an address is counted under: an IPv6 client commands a whole /64."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
