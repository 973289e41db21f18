"""The workers that are alive by their events and answers: one answer for the whole control API."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, Protocol

from celerymeter import escaping
from celerymeter.model import Event

ALIVE: Final = 30.0
"""Seconds since its last event for which a worker counts as alive: many heartbeats of 2 s."""
SLOW_HEARTBEATS: Final = 3
"""Heartbeats of a worker with a longer interval that may be missing."""
INFORMED: Final = 10.0
"""Seconds of subscription after which every worker had the time to send a heartbeat."""
HISTORY: Final = 8.0
"""Seconds over which a worker must have sent events to be believed without an answer; less than `INFORMED`."""
FEW: Final = 100
"""Workers without answer and history that count as alive. Where there are more, somebody invents them."""
ANSWERED: Final = 60.0
"""Seconds for which a worker that sends no heartbeats is waited for after an answer."""
FORGET_AFTER: Final = 3600.0
FORGET_INTERVAL: Final = 60.0
MAX_WORKERS: Final = 10_000
MAX_SILENT: Final = 1000
"""Workers that have a history and never answered: a whole cluster answers, unless its remote control is off."""
MAX_NEW: Final = 1000
MAX_DESTINATIONS: Final = 100


@dataclass(slots=True)
class LiveWorker:
    """A worker as its events show it; times are UTC seconds of receipt.

    ``restarted``: it joined with a `worker-online` or a new pid, so it has forgotten its flags and event settings.
    ``known_since`` and ``answered`` are of all its processes; ``announced``: the listeners have heard of this one.
    """

    hostname: str
    pid: int
    joined_at: float
    last_seen: float
    restarted: bool
    known_since: float
    answered: bool = False
    left: bool = False
    announced: bool = False
    heartbeat_interval: float = 0.0
    aggregates: bool = False
    """It sends totals instead of task events (`celerymeter.aggregate`)."""
    left_at: float | None = None
    """Time of its last `worker-offline`, also after it has come back."""
    task_event_seen: bool = False
    processed: int | None = None
    """Runs begun before it was first heard, by its heartbeat."""
    mute: bool = False
    """True when it has begun runs since then without any task event: it sends none."""
    previous_pid: int = 0
    duplicate: bool = False
    """True when two processes use this name by turns."""

    def alive(self, now: float) -> bool:
        """Return whether it was heard recently enough, and has not said that it goes."""
        return not self.left and now - self.last_seen <= max(ALIVE, SLOW_HEARTBEATS * self.heartbeat_interval)


class WorkerListener(Protocol):
    """Is called on the event thread when a worker comes or goes."""

    def joined(self, worker: LiveWorker) -> None:
        """A worker is heard for the first time or again after a silence, has started again, or has reconnected."""

    def left(self, hostname: str) -> None:
        """A worker has sent `worker-offline`."""


class LiveWorkers:
    """Keeps track of workers by their events. Thread-safe; bounded in numbers and, by the length of names, in bytes.

    Anybody who may publish events can invent workers. So a worker is `_known` once it has answered a command, or has
    sent events for a while; others are `_new`, of which those silent for longest are forgotten first, and count for
    nothing while there are many. No number of inventions makes a known worker forgotten.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        evicted: Callable[[int], object] = lambda _: None,
        max_silent: int = MAX_SILENT,
        max_new: int = MAX_NEW,
    ) -> None:
        """Call ``evicted`` with the number of workers that are forgotten although they may live."""
        self._clock = clock
        self._evicted = evicted
        self._max_silent = max_silent
        self._max_new = max_new
        self._known: dict[str, LiveWorker] = {}
        self._new: OrderedDict[str, LiveWorker] = OrderedDict()
        self._answered_at: dict[str, float] = {}
        self._silent = 0
        """Known workers that never answered."""
        self._listeners: list[WorkerListener] = []
        self._lock = Lock()
        self._forget_at = 0.0
        self.believed = 0
        """Workers that became known by their history alone, so far."""
        self.connected_at: float | None = None
        """Time at which the event subscription was confirmed; ``None`` while there is none."""
        self.last_event_at: float | None = None

    def listen(self, listener: WorkerListener) -> None:
        """Call this listener from now on."""
        self._listeners.append(listener)

    # as a consumer of events

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Note which workers sent these events."""
        self.last_event_at = at if batch else self.last_event_at
        for event in batch:
            # A `task-sent` event comes from a client, not from a worker.
            if event.type.startswith(("worker-", "task-")) and event.type != "task-sent":
                self._take(event, at)
            elif event.totals is not None and (worker := self.get(event.hostname)) is not None:
                worker.aggregates, worker.mute = not event.totals.failed, False

    def connected(self, at: float) -> None:
        """The subscription is confirmed."""
        self.connected_at = at

    def disconnected(self, at: float, reason: str) -> None:  # noqa: ARG002 - the reader logs the reason
        """The subscription is gone: which workers live is unknown until their heartbeats come again."""
        self.connected_at = None

    # for everybody else

    @property
    def informed(self) -> bool:
        """True when the subscription has lasted long enough for every worker to be known."""
        return self.connected_at is not None and self._clock() - self.connected_at > INFORMED

    @property
    def crowded(self) -> bool:
        """True while there are so many new workers that they do not count."""
        return len(self._new) > FEW

    def alive(self) -> frozenset[str]:
        """Return the workers that were heard recently and have not said that they go."""
        now = self._clock()
        with self._lock:
            counted = [*self._known.values(), *(() if self.crowded else self._new.values())]
            return frozenset(worker.hostname for worker in counted if worker.alive(now))

    def expected(self) -> frozenset[str]:
        """Return the workers whose answers to wait for; none in particular while not all have sent a heartbeat."""
        if not self.informed:
            return frozenset()
        now, alive = self._clock(), self.alive()
        with self._lock:
            answered = (name for name, at in self._answered_at.items() if now - at < ANSWERED)
            return alive.union(name for name in answered if not self._has_heartbeats(name))

    def _has_heartbeats(self, hostname: str) -> bool:
        worker = self._known.get(hostname) or self._new.get(hostname)
        return worker is not None and worker.heartbeat_interval > 0

    def aggregating(self) -> frozenset[str]:
        """Return the live workers that send totals and know our commands (`celerymeter.aggregate.commands`)."""
        now = self._clock()
        with self._lock:
            workers = [*self._known.values(), *self._new.values()]
            return frozenset(worker.hostname for worker in workers if worker.aggregates and worker.alive(now))

    def get(self, hostname: str) -> LiveWorker | None:
        """Return what is known of a worker, also of one that has been silent for up to an hour."""
        with self._lock:
            worker = self._known.get(hostname) or self._new.get(hostname)
            return None if worker is None or worker.left else worker

    def left_at(self, hostname: str) -> float | None:
        """Return the time of a worker's last `worker-offline`."""
        with self._lock:
            worker = self._known.get(hostname) or self._new.get(hostname)
            return None if worker is None else worker.left_at

    def answered(self, hostnames: Collection[str]) -> None:
        """Note that these workers answered a command, which is the best proof that they exist."""
        now = self._clock()
        with self._lock:
            for name in hostnames:
                self._answered_at.pop(name, None)
                self._answered_at[name] = now
            while len(self._answered_at) > MAX_WORKERS:
                del self._answered_at[next(iter(self._answered_at))]
            found = [worker for name in hostnames if (worker := self._answered(name)) is not None]
        self._announce(found)

    def _answered(self, hostname: str) -> LiveWorker | None:
        worker = self._known.get(hostname) or self._new.pop(hostname, None)
        if worker is None:
            if not self.crowded:
                return None  # it sends no events, or its first one is yet to come
            now = self._clock()
            worker = LiveWorker(hostname, 0, joined_at=now, last_seen=now, restarted=False, known_since=now)
        elif hostname in self._known:
            self._silent -= not worker.answered
        worker.answered = True
        self._known[hostname] = worker
        if len(self._known) > MAX_WORKERS:
            self._evict(min(self._known.values(), key=lambda each: (each.answered, each.last_seen)))
        return worker

    def _take(self, event: Event, at: float) -> None:
        if event.type == "worker-offline":
            with self._lock:
                if (worker := self._known.get(event.hostname)) is not None:
                    worker.left_at = at
                    worker.left = True  # anybody may say so: what it has proven counts again when it is heard
                self._new.pop(event.hostname, None)
                self._answered_at.pop(event.hostname, None)
            for listener in self._listeners:
                listener.left(event.hostname)
            return
        if escaping.name(event.hostname) != event.hostname or event.hostname.endswith(escaping.CUT):
            self._evicted(1)  # no worker has such a name, and no command could be sent to it
            return
        with self._lock:
            worker = self._note(event, at)
            self._forget(at)
            believed = worker.hostname in self._known or not self.crowded
        if believed:
            self._announce([worker])

    def _announce(self, workers: Collection[LiveWorker]) -> None:
        for worker in workers:
            if not worker.announced:
                worker.announced = True
                for listener in self._listeners:
                    listener.joined(worker)

    def _note(self, event: Event, at: float) -> LiveWorker:
        before = self._known.get(event.hostname) or self._new.get(event.hostname)
        new_pid = before is not None and 0 not in (event.pid, before.pid) and event.pid != before.pid
        restarted = event.type == "worker-online" or new_pid
        worker = before
        if before is not None and not before.alive(at):
            before.announced = False  # commands that it could not take meanwhile have expired
        if worker is None or restarted or worker.left:
            worker = LiveWorker(
                event.hostname,
                event.pid,
                joined_at=at,
                last_seen=at,
                restarted=restarted,
                known_since=at if before is None else before.known_since,
                answered=before is not None and before.answered,
                left_at=None if before is None else before.left_at,
                previous_pid=0 if before is None else before.pid,
                duplicate=before is not None and new_pid and event.pid == before.previous_pid,
            )
        worker.last_seen = at
        worker.pid = worker.pid or event.pid
        worker.heartbeat_interval = event.freq or worker.heartbeat_interval
        worker.task_event_seen = worker.task_event_seen or event.type.startswith("task-")
        if event.processed is not None:
            worker.processed = event.processed if worker.processed is None else worker.processed
            worker.mute = event.processed > worker.processed and not (worker.task_event_seen or worker.aggregates)
        self._keep(worker)
        return worker

    def _keep(self, worker: LiveWorker) -> None:
        """Keep a worker among the known ones, or among the new ones until it has a history."""
        name, history = worker.hostname, worker.last_seen - worker.known_since
        if name in self._known:
            self._known[name] = worker
        elif history >= HISTORY and self._silent < self._max_silent:
            self._new.pop(name, None)
            self._known[name] = worker
            self._silent += 1
            self.believed += 1
        else:
            self._new[name] = worker
            self._new.move_to_end(name)

    def _forget(self, now: float) -> None:
        while self._new and not (oldest := next(iter(self._new.values()))).alive(now):
            del self._new[oldest.hostname]
        if len(self._new) > self._max_new:
            self._new.popitem(last=False)
            self._evicted(1)
        if now >= self._forget_at:
            self._forget_at = now + FORGET_INTERVAL
            for worker in [worker for worker in self._known.values() if now - worker.last_seen > FORGET_AFTER]:
                self._remove(worker)

    def _evict(self, worker: LiveWorker) -> None:
        self._remove(worker)
        self._evicted(1)

    def _remove(self, worker: LiveWorker) -> None:
        del self._known[worker.hostname]
        self._silent -= not worker.answered


def destinations(hostnames: Collection[str]) -> Collection[str] | None:
    """Return the workers for a command to name; None, which means all, when it would get too long."""
    return hostnames if len(hostnames) <= MAX_DESTINATIONS else None
