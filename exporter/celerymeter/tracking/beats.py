"""One entry of a schedule and one beat process, as the tracker keeps them."""

from __future__ import annotations

from celerymeter.tracking.clocks import ClockOffset
from celerymeter.tracking.series import Histogram

LATENESS_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
SHARED = frozenset({"celery.backend_cleanup"})
"""Entries that Celery gives to every beat."""


class Schedule:
    """One entry of a schedule, by its name and its task's; times by our clock."""

    __slots__ = (
        "due",
        "every",
        "failed",
        "failed_at",
        "failures",
        "labels",
        "last_sent_at",
        "last_success_at",
        "lateness",
        "left_out_at",
        "next_due_at",
        "runs_failed",
        "runs_succeeded",
        "sent",
    )

    def __init__(self, labels: tuple[str, str]) -> None:
        self.labels = labels
        self.due = self.sent = self.failed = 0
        self.runs_succeeded = self.runs_failed = self.failures = 0
        self.every: float | None = None
        self.failed_at = 0.0
        self.last_sent_at: float | None = None
        self.last_success_at: float | None = None
        self.next_due_at: float | None = None
        """By the beat that spoke last."""
        self.left_out_at: float | None = None
        """A time of a crontab that passed while no beat was there and that the next one left out; until it is sent."""
        self.lateness = Histogram(LATENESS_BUCKETS)

    @property
    def due_at(self) -> float | None:
        """Return when it is due next, in the past if it is late."""
        return self.next_due_at if self.left_out_at is None else self.left_out_at


class Beat:
    """One beat process with the hook, from its start to its end."""

    __slots__ = (
        "count",
        "counts",
        "down_since",
        "fresh",
        "hostname",
        "lag",
        "last_seen",
        "offline",
        "offset",
        "skew",
        "up",
    )

    def __init__(self, hostname: str, *, fresh: bool, at: float) -> None:
        self.hostname = hostname
        self.fresh = fresh
        """True if everything that it counts happened while we listened."""
        self.last_seen = at
        self.up = True
        self.offline = False
        self.down_since: float | None = None
        self.lag = 0.0
        self.count = 0
        self.offset: ClockOffset | None = None
        self.skew: float | None = None
        """Its clock minus one that nobody sets."""
        self.counts: dict[tuple[str, str], tuple[int, int, int]] = {}
        """Of each of its entries: due, sent and failed, as it last said."""

    @property
    def own(self) -> set[tuple[str, str]]:
        """Return its entries, without those that Celery gives to every beat."""
        return {labels for labels in self.counts if labels[0] not in SHARED}
