"""How long tasks waited: from sent (or their ETA) to started, across two clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from celerymeter.model import Event
from celerymeter.tracking.clocks import ClockOffsets

if TYPE_CHECKING:
    from celerymeter.tracking.runs import Run

TOLERANCE = 0.05
"""A wait may come out this many seconds below 0 from measuring alone."""


def host_of(hostname: str) -> str:
    """The machine in a producer's node name (``gen123@host``): its processes share a clock."""
    return hostname.rpartition("@")[2]


class Waits:
    """Measures waits, and counts by reason those that cannot be measured.

    ``offset_of`` tells the clock offset of a worker by its node name; those of producers, by machine, are kept here.
    """

    def __init__(self, offset_of: Callable[[str], float | None]) -> None:
        self.producers = ClockOffsets()
        self.unmeasured: Counter[str] = Counter()
        self._offset_of = offset_of

    def sent(self, event: Event) -> float | None:
        """When a task was sent, by our clock; ``None`` for a producer whose clock is not known."""
        offset = self.producers.get(host_of(event.hostname))
        return None if offset is None else event.timestamp + offset

    def observe(self, run: Run, event: Event) -> None:
        """A run has started."""
        if run.sent is None:
            self.unmeasured["not_sent"] += 1
            return
        offset = self._offset_of(event.hostname)
        if offset is None:
            self.unmeasured["clock_offset"] += 1
            return
        due = run.sent
        if run.eta is not None:
            eta = parse_eta(run.eta)
            if eta is None:
                self.unmeasured["eta"] += 1
                return
            due = max(due, eta + offset)
        wait = event.timestamp + offset - due
        if wait < -TOLERANCE:
            self.unmeasured["negative"] += 1
        elif run.pair is not None:
            run.pair.wait.observe(max(0.0, wait))


def parse_eta(text: str) -> float | None:
    """UTC seconds of an ISO 8601 time; ``None`` when it is malformed or says no zone.

    The worker waits by its own clock, so an ETA is compared with that clock.
    """
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None
