"""Clocks of other hosts: how far each is from ours, and how long tasks waited between two of them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from celerymeter.model import Event
from celerymeter.tracking.runs import Run

HALF_WINDOW = 10.0
"""Seconds of one generation: an offset rests on the last 10 to 20 s, so a clock that was stepped is believed soon."""
TOLERANCE = 0.05
"""Seconds below 0 that a wait may come out from measurement error alone."""


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
        return self.seconds

    @property
    def seconds(self) -> float:
        """Seconds to add to the host's clock to have ours."""
        return self._current if self._current < self._previous else self._previous


class ProducerClocks:
    """The clocks of the machines that send tasks, at most ``2 * limit``."""

    def __init__(self, limit: int = 5000) -> None:
        self._limit = limit
        self._young: dict[str, ClockOffset] = {}
        self._old: dict[str, ClockOffset] = {}

    def observe(self, sent: Event, at: float) -> float:
        """Take a `task-sent` received at ``at``; return when it was sent, by our clock."""
        host = _host_of(sent.hostname)
        clock = self._find(host)
        if clock is None:
            self._admit(host, ClockOffset(timestamp=sent.timestamp, at=at))
            return at
        return sent.timestamp + clock.observe(timestamp=sent.timestamp, at=at)

    def sent_at(self, sent: Event) -> float | None:
        """When a task was sent, by our clock; ``None`` for a machine whose clock is not known."""
        clock = self._find(_host_of(sent.hostname))
        return None if clock is None else sent.timestamp + clock.seconds

    def _find(self, host: str) -> ClockOffset | None:
        clock = self._young.get(host)
        if clock is None and (clock := self._old.pop(host, None)) is not None:
            self._admit(host, clock)
        return clock

    def _admit(self, host: str, clock: ClockOffset) -> None:
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[host] = clock

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


def _host_of(hostname: str) -> str:
    """The machine in a producer's node name (``gen123@host``): its processes share a clock."""
    return hostname.rpartition("@")[2]


def observe_wait(run: Run, *, started: float, offset: float | None, unmeasured: Counter[str]) -> None:
    """Observe how long a run waited, from sent (or its ETA) to ``started``, or count why that cannot be measured.

    ``started`` is by the worker's clock; ``offset`` is what to add to that clock to have ours.
    """
    if run.sent is None:
        unmeasured["not_sent"] += 1
        return
    if offset is None:
        unmeasured["clock_offset"] += 1
        return
    due = run.sent
    if run.eta is not None:
        eta = parse_eta(run.eta)
        if eta is None:
            unmeasured["eta"] += 1
            return
        due = max(due, eta + offset)
    wait = started + offset - due
    if wait < -TOLERANCE:
        unmeasured["negative"] += 1
    elif run.series is not None:
        run.series.wait.observe(wait)


def parse_eta(text: str) -> float | None:
    """UTC seconds of an ISO 8601 time; ``None`` when it is malformed or says no zone.

    The worker waits by its own clock, so an ETA is compared with that clock.
    """
    try:
        eta = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return eta.timestamp() if eta.tzinfo is not None else None
