"""Slows down who guesses passwords. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

WINDOW = 60.0
PER_ADDRESS = 10
"""Failures of one address in a window, after which its attempts are not verified until the window is over."""
PER_USER = 60
"""The same for one user, from all addresses but those from which that user came before."""
MAX_KEYS = 1000


class Throttle:
    """Counts failures by address and by user. Credentials that were right before never ask it."""

    def __init__(self) -> None:
        self._failures: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        """The end of the window, and the failures in it."""
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, address: str, user: str, now: float) -> float:
        """Return the seconds until an attempt may be verified; 0 for at once."""
        wait = self._wait(("address", network(address)), PER_ADDRESS, now)
        if (network(address), user) not in self._known:
            wait = max(wait, self._wait(("user", user), PER_USER, now))
        return wait

    def failed(self, address: str, user: str, now: float) -> bool:
        """Count a failure; return whether the address has just reached its limit."""
        self._count(("user", user), now)
        return self._count(("address", network(address)), now) == PER_ADDRESS

    def succeeded(self, address: str, user: str) -> None:
        """Remember that a user comes from this address."""
        self._known[network(address), user] = None
        while len(self._known) > MAX_KEYS:
            self._known.popitem(last=False)

    def _wait(self, key: Hashable, limit: int, now: float) -> float:
        end, count = self._failures.get(key, (0.0, 0))
        return end - now if count >= limit and now < end else 0.0

    def _count(self, key: Hashable, now: float) -> int:
        end, count = self._failures.pop(key, (0.0, 0))
        if now >= end:
            end, count = now + WINDOW, 0
        self._failures[key] = (end, count + 1)
        while len(self._failures) > MAX_KEYS:
            self._failures.popitem(last=False)
        return count + 1


def network(address: str) -> str:
    """Return what an address is counted under: an IPv6 client commands a whole /64."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
