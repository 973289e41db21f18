"""One worker: whether it is alive, judged by receipt time; what its heartbeats and its `inspect` replies say."""

from __future__ import annotations

import msgspec

from celerymeter import escaping
from celerymeter.model import Event, WorkerState
from celerymeter.tracking.clocks import ClockOffset
from celerymeter.tracking.loss import MAX_MARKS, LossMeter
from celerymeter.tracking.series import BusyTime

MISSED_HEARTBEATS = 3
DEFAULT_FREQ = 2.0
RECONNECT_GRACE = 30.0
NO_HEARTBEAT = 60.0
"""Seconds without a heartbeat after which starts are no longer kept to be compared with one."""
SOON = 5.0
"""Seconds between a task event and the end of a run, for which task events count as still turned on."""
MAX_ASKED = 3
"""A new worker is asked out of turn so often; one that is too busy to reply waits for the next poll."""
UPTIME_ERROR = 5.0
"""Seconds by which the uptime in a reply may be wrong: it is rounded, and by a clock that may be corrected."""
TAKEOVERS = 3
TAKEOVER_MEMORY = 60.0
"""This many changes of process under one node name within so many seconds are two processes, not a restart."""
HISTORY = 60.0
"""Seconds of heartbeats that prove a worker which does not answer; others go first when there are too many."""
MAX_VERSION = 40
_MANY_THREADS = ("threads", "gevent", "eventlet")
"""Pools that begin runs in other threads or greenlets than the one that sends heartbeats."""


class Worker:
    """One worker, by its full node name. Times are receipt times by our clock."""

    __slots__ = (
        "active",
        "application",
        "asked",
        "busy",
        "clock",
        "down_since",
        "first_seen",
        "freq",
        "heard_at",
        "hostname",
        "idle_since",
        "inspected_at",
        "last_heartbeat",
        "last_seen",
        "load1",
        "loss",
        "offline_at",
        "offset",
        "online_at",
        "pid",
        "processed",
        "processed_total",
        "queues_stale",
        "state",
        "takeovers",
        "totals",
        "unheard_at",
        "up",
        "version",
    )

    def __init__(self, hostname: str, at: float) -> None:
        self.hostname = hostname
        self.first_seen = self.last_seen = at
        """The first sign of life of its present process, and the last one."""
        self.last_heartbeat: float | None = None
        self.freq = DEFAULT_FREQ
        self.pid = 0
        self.active: int | None = None
        self.idle_since: float | None = None
        """The first of the heartbeats that all said that nothing runs."""
        self.processed: int | None = None
        self.processed_total = 0
        self.busy = BusyTime()
        self.load1: float | None = None
        self.version = ""
        self.application = ""
        """The version of the application, empty if the worker does not say."""
        self.offline_at: float | None = None
        self.online_at: float | None = None
        """Time of its last worker-online event: it started, or reconnected to its broker."""
        self.clock: ClockOffset | None = None
        self.offset: float | None = None
        """Seconds to add to the worker's clock to have ours; ``None`` before its first worker event."""
        self.up = True
        self.down_since: float | None = None
        self.state: WorkerState | None = None
        self.inspected_at: float | None = None
        self.queues_stale = True
        self.asked = 0
        """Polls sent since the worker was last seen to be new."""
        self.totals: dict[str, int] | None = None
        self.loss = LossMeter()
        self.heard_at: float | None = None
        """Time of its last task event that was the first since a heartbeat."""
        self.unheard_at: float | None = None
        """The last time at which events of it may have been lost."""
        self.takeovers: list[float] = []

    @property
    def wanted(self) -> bool:
        """True if a poll should not wait: the worker is new, or some of its events are missing."""
        new = self.queues_stale and self.asked < MAX_ASKED
        return self.up and self.offline_at is None and (new or self.loss.has_question)

    @property
    def unanswered(self) -> bool:
        """True if the new worker was asked twice and has not reported the queues that it consumes.

        Twice, for else every worker that joins would make what is summed over workers vanish for a moment.
        """
        return self.queues_stale and self.asked > 1

    @property
    def proven(self) -> bool:
        """True if it has answered, or sent heartbeats for a while: anybody can invent a name."""
        if self.inspected_at is not None:
            return True
        return self.last_heartbeat is not None and self.last_heartbeat - self.first_seen >= HISTORY

    def has_replied(self, now: float, *, within: float) -> bool:
        """Return True if it replied to a poll of the last ``within`` seconds."""
        return self.inspected_at is not None and now - self.inspected_at <= within

    @property
    def duplicate(self) -> bool:
        """True if two processes send under this node name."""
        return len(self.takeovers) >= TAKEOVERS

    @property
    def shut_down(self) -> bool:
        """True if the worker is down because it was stopped (`worker-offline`)."""
        return self.offline_at is not None and not self.up

    @property
    def registered(self) -> frozenset[str] | None:
        """The tasks that it knows, Celery's own aside; ``None`` while that is not known."""
        return self.state.registered if self.state is not None else None

    @property
    def mode(self) -> str:
        """The way in which it reports its tasks: ``events``, or ``aggregate`` for totals (`celerymeter.aggregate`)."""
        return "aggregate" if self.loss.aggregated else "events"

    @property
    def begun(self) -> int:
        """Runs that its process has begun, as far as it has said."""
        return max(self.processed or 0, sum((self.totals or {}).values()))

    @property
    def pool(self) -> str:
        """The pool's name (``prefork``, ``solo`` …), or the empty string while unknown."""
        return (self.state.pool or "") if self.state is not None else ""

    def our_time(self, event: Event, at: float) -> float:
        """Return the send time of an event by our clock, or ``at``, its receipt, if the offset is not known."""
        return at if self.offset is None else event.timestamp + self.offset

    def heard(self, at: float) -> bool:
        """A task event arrived, the first since its last heartbeat; return whether it counts."""
        self.heard_at = at
        return self.loss.heard()

    def would_have_reported(self, *, started: float, seen: float) -> bool | None:
        """Return whether we would have heard the end of a run, or ``None`` as long as that is not certain.

        It started and was last known to run at these times by our clock. At a reconnect events may get lost (before
        Celery 5.7 a worker loses the ends of all that runs), and operators turn task events off (`disable_events`).
        """
        if self.loss.off or (self.unheard_at is not None and started < self.unheard_at):
            return False
        if self.last_heartbeat is None:
            return True
        proven = self.heard_at is not None and self.heard_at >= seen - max(SOON, 2 * self.freq)
        return True if proven else None

    def event(self, event: Event, at: float) -> bool:
        """Take a worker event; return whether this is a new process under the name."""
        if self.clock is None:
            self.clock = ClockOffset(timestamp=event.timestamp, at=at)
        self.offset = self.clock.observe(timestamp=event.timestamp, at=at)
        if event.type == "worker-offline":
            self.offline_at = at
            return False
        renewed = self._renew(event, at)
        if renewed or (event.type == "worker-online" and self.shut_down):  # in containers the pid is always 1
            self.first_seen = at
        self.offline_at = None
        if event.type == "worker-heartbeat" and event.active is None and event.processed is None:
            # An answer to the command `heartbeat`, which every `celery.events.EventReceiver` sends at its start: its
            # ``freq`` is not that of the worker, which may send no heartbeats at all (``--without-heartbeat``).
            return renewed
        before = self.last_heartbeat or self.online_at
        # A worker that skips heartbeats is blocked (it waits in a soft shutdown), and what its runs did comes later.
        blocked = before is not None and at - before > 2 * self.freq
        if event.type == "worker-online":
            self.online_at = at
        self.freq = event.freq or self.freq
        self.active = event.active if event.active is not None else self.active
        if event.sw_ver and event.sw_ver != self.version:
            self.version = escaping.name(event.sw_ver[:MAX_VERSION])
        if isinstance(event.application_version, str) and event.application_version != self.application:
            self.application = escaping.name(event.application_version[:MAX_VERSION])
        self.load1 = event.loadavg[0] if event.loadavg else self.load1
        if event.type == "worker-heartbeat":
            self.last_heartbeat = at
        if event.active != 0 or renewed:
            self.idle_since = None
        elif self.idle_since is None or blocked:
            self.idle_since = at
        self._take_processed(event)
        reconnected = event.type == "worker-online" and before is not None and not renewed
        if reconnected or self.loss.off:
            self.unheard_at = at
        return renewed

    def _take_processed(self, event: Event) -> None:
        """Take the number of runs that a worker event says to have begun."""
        if event.processed is None:
            return
        if self.processed is not None:
            self.processed_total += max(0, event.processed - self.processed)
        self.processed = event.processed
        beginning = event.active or 0 if self.pool in _MANY_THREADS else 0
        self.loss.heartbeat(processed=event.processed, clock=event.clock, beginning=beginning)

    def _renew(self, event: Event, at: float) -> bool:
        """Begin anew after a new pid, or counts that begin again (in containers the pid is always 1)."""
        before, known = self.processed, self.pid
        fell = before is not None and event.processed is not None and event.processed < before
        renewed = (known not in (0, event.pid)) or fell
        self.pid = event.pid
        if renewed:
            self.takeovers = [*self.takeovers, at][-10:]
            self.queues_stale = True
            self.asked = 0
            self.totals = None
            self.application = ""
            self.loss.restart()
            self.processed = None
        if self.processed is None and event.type == "worker-online" and event.processed == 0:
            self.processed = 0
            self.totals = {}
        return renewed

    def take_uptime(self, seconds: int, at: float) -> None:
        """Take a process that is younger than we thought for another one, whose start no event has shown.

        In a container each process has the pid 1, and one that has run nothing has no count that begins again.
        """
        if self.first_seen < at - seconds - UPTIME_ERROR:
            self.first_seen = at - seconds

    def alive(self, now: float, *, connected_at: float, solo_grace: float, poll_interval: float) -> bool:
        """Return True if the worker counts as up at ``now``, with our own subscription up since ``connected_at``."""
        timeout = MISSED_HEARTBEATS * self.freq
        if self.offline_at is not None and now - self.offline_at > self.freq:
            return False
        if now - connected_at < max(timeout, RECONNECT_GRACE) and self.last_seen < connected_at:
            return self.up
        if now - self.last_seen <= timeout:
            return True
        if self.pool == "solo" and now - self.last_seen <= solo_grace:
            return True
        replies = self.last_heartbeat is None and self.inspected_at is not None
        return replies and now - (self.inspected_at or now) <= 2 * poll_interval + timeout

    def forget_old_marks(self, now: float, *, connected_at: float) -> None:
        """Drop takeovers of long ago, and starts that no heartbeat will come for (``--without-heartbeat``)."""
        if self.takeovers:
            self.takeovers = [mark for mark in self.takeovers if 0 <= now - mark < TAKEOVER_MEMORY]
        last = max(connected_at, self.last_heartbeat or self.first_seen)
        if self.loss.marks > MAX_MARKS and now - last > NO_HEARTBEAT:
            self.loss.restart()


class RememberedWorker(msgspec.Struct):
    """The counters of a worker before the exporter was started again, and what their growth is measured from."""

    first_seen: float
    pid: int
    processed: int | None
    processed_total: int
    busy: float
    missed: int
    totals: dict[str, int] | None

    def fill(self, worker: Worker) -> None:
        """Let the worker continue."""
        worker.first_seen, worker.pid = self.first_seen, self.pid
        worker.processed, worker.processed_total = self.processed, self.processed_total
        worker.busy.ended = self.busy
        worker.loss.lose(self.missed)
        worker.totals = self.totals
