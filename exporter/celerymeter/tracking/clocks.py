"""Clocks of other hosts: how far each is from ours, and what an ETA means by them; and our own, if it is set."""

from __future__ import annotations

from datetime import datetime

from celerymeter.model import Event

HALF_WINDOW = 10.0
"""Seconds of one generation: an offset rests on the last 10 to 20 s, so a clock that was stepped is believed soon."""
LONGEST_HOST = 64
"""Characters of a host's name that tell it from others (RFC 1035 allows 63 between two dots)."""

SET = 60.0
"""Seconds between two looks at our clock, more of which mean that it was set, or that we did not run."""


class SteadyTime:
    """Our clock without the steps by which it is set: for how long something lasted."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._steps = 0.0

    def at(self, at: float) -> float:
        """Return a time of our clock as if it had never been set."""
        step, self._last = at - self._last, at
        if abs(step) > SET:
            self._steps += step
        return at - self._steps


class ClockOffset:
    """One host's clock: receipt minus timestamp, minimum over a sliding window.

    Feed it only with messages that are sent at once (heartbeats, `task-sent`): buffered ones arrive late by design.
    The estimate is too high by the quickest message's travel time, about a millisecond on a local network.
    """

    __slots__ = ("_current", "_previous", "_since")

    def __init__(self, *, timestamp: float, at: float) -> None:
        self._current = self._previous = at - timestamp
        self._since = at

    def observe(self, *, timestamp: float, at: float) -> float:
        """Take a message stamped ``timestamp`` by the host's clock and received ``at`` by ours; return the offset."""
        sample = at - timestamp
        age = at - self._since
        if not 0 <= age < HALF_WINDOW:
            self._previous = self._current if 0 <= age < 2 * HALF_WINDOW else sample
            self._current, self._since = sample, at
        elif sample < self._current:
            self._current = sample
        return self._current if self._current < self._previous else self._previous

    @property
    def seconds(self) -> float:
        """Seconds to add to the host's clock to have ours."""
        return min(self._current, self._previous)


class ProducerClocks:
    """The clocks of the machines that send tasks, at most ``2 * limit``.

    A producer's node name is ``gen123@host``: the processes of one host share its clock.
    """

    def __init__(self, limit: int = 5000) -> None:
        self._limit = limit
        self._young: dict[str, ClockOffset] = {}
        self._old: dict[str, ClockOffset] = {}

    def observe(self, sent: Event, at: float) -> float:
        """Take a `task-sent` received at ``at``; return when it was sent, by our clock."""
        host = sent.hostname.rpartition("@")[2]
        clock = self._young.get(host) or self._find(host)
        if clock is None:
            self._admit(host, ClockOffset(timestamp=sent.timestamp, at=at))
            return at
        return sent.timestamp + clock.observe(timestamp=sent.timestamp, at=at)

    def sent_at(self, sent: Event) -> float | None:
        """Return the send time of a task by our clock; ``None`` if the clock of the sender is not known."""
        clock = self._find(sent.hostname.rpartition("@")[2])
        return None if clock is None else sent.timestamp + clock.seconds

    def _find(self, host: str) -> ClockOffset | None:
        host = host[:LONGEST_HOST]
        clock = self._young.get(host)
        if clock is None and (clock := self._old.pop(host, None)) is not None:
            self._admit(host, clock)
        return clock

    def _admit(self, host: str, clock: ClockOffset) -> None:
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[host[:LONGEST_HOST]] = clock

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


def parse_eta(text: str) -> float | None:
    """UTC seconds of an ISO 8601 time; ``None`` when it is malformed or says no zone.

    The worker waits by its own clock, so an ETA is compared with that clock.
    """
    try:
        eta = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return eta.timestamp() if eta.tzinfo is not None else None
