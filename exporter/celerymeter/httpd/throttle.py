"""Slows down who guesses passwords. Pure: time is an argument."""

from __future__ import annotations

from celerymeter.rate_limit import RateLimit, RecentKeys, network

PER_ADDRESS = 10
"""Failures of one address within a minute, after which its attempts are verified at this rate only."""
PER_USER = 60
"""The same for one user, from all addresses but those from which that user came before."""
MAX_KEYS = 1000


class Throttle:
    """Counts failures by address and by user. Credentials that were right before never ask it."""

    def __init__(self) -> None:
        self._addresses = RateLimit(PER_ADDRESS, max_keys=MAX_KEYS)
        self._users = RateLimit(PER_USER, max_keys=MAX_KEYS)
        self._known = RecentKeys(max_keys=MAX_KEYS)
        self._reported = RateLimit(1.0, max_keys=MAX_KEYS)

    def wait(self, address: str, user: str, now: float) -> float:
        """Return the seconds until an attempt may be verified; 0 for at once."""
        wait = self._addresses.wait(network(address), now)
        return wait if (network(address), user) in self._known else max(wait, self._users.wait(user, now))

    def failed(self, address: str, user: str, now: float) -> bool:
        """Count a failure; return whether to log that the address has reached its limit, once a minute."""
        key = network(address)
        self._users.take(user, now)
        self._addresses.take(key, now)
        return self._addresses.wait(key, now) > 0 and self._reported.take(key, now) == 0

    def succeeded(self, address: str, user: str) -> None:
        """Remember that a user comes from this address."""
        self._known.add((network(address), user))
