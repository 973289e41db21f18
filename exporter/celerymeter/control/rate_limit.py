"""Rates and recent keys in bounded memory, and the address that a request comes from. ``now`` is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from threading import Lock
from typing import Generic, TypeVar

from celerymeter.control.settings import Network

MAX_KEYS = 10_000
_K = TypeVar("_K")
UNKNOWN = "unknown"


class RateLimit:
    """A token bucket for each key: lets ``per_minute`` calls through, and as many at once.

    Beyond ``MAX_KEYS`` the key that was idle longest is forgotten: it starts afresh with a full bucket.
    """

    def __init__(self, per_minute: float, *, max_keys: int = MAX_KEYS) -> None:
        self._capacity = per_minute
        self._rate = per_minute / 60.0
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def wait(self, key: str, now: float) -> float:
        """Return the seconds until ``key`` has a call left; 0 when it has one now. Takes nothing."""
        with self._lock:
            return max(0.0, (1.0 - self._level(key, now)) / self._rate)

    def take(self, key: str, now: float) -> float:
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

    def _level(self, key: str, now: float) -> float:
        level, since = self._buckets.get(key, (self._capacity, now))
        return min(self._capacity, level + max(0.0, now - since) * self._rate)


class RecentKeys(Generic[_K]):
    """A set that forgets its oldest keys beyond ``max_keys``."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._keys: OrderedDict[_K, None] = OrderedDict()
        self._lock = Lock()

    def add(self, key: _K) -> None:
        """Add a key, or make it the newest."""
        with self._lock:
            self._keys[key] = None
            self._keys.move_to_end(key)
            if len(self._keys) > self._max_keys:
                self._keys.popitem(last=False)

    def __contains__(self, key: object) -> bool:
        return key in self._keys


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the nearest address that is no trusted proxy.

    ``forwarded_for`` is ``X-Forwarded-For`` from left to right. Each proxy appends the address that it got the
    request from, so the list is read from its right end for as long as the sender is trusted: what a client wrote
    stands further left and is never reached.
    """
    address = _parsed(peer or "")
    if address is None:
        return UNKNOWN
    for entry in reversed(forwarded_for):
        if not any(address in network for network in trusted):
            break
        before = _parsed(entry)
        if before is None:
            break
        address = before
    return str(address)


def rate_limit_key(address: str) -> str:
    """Return the key that an address is counted under: an IPv6 client commands a whole /64."""
    parsed = _parsed(address)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64" if isinstance(parsed, IPv6Address) else address


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address with or without a port or brackets; an IPv4 address mapped into IPv6 counts as itself."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
