"""The workers that are alive, as their events show: the one answer to this question for the whole control API."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, Protocol

from celerymeter.model import Event

ALIVE: Final = 30.0
"""Seconds since its last event for which a worker counts as alive: many heartbeats of 2 s."""
SLOW_HEARTBEATS: Final = 3
"""Heartbeats of a worker with a longer interval that may be missing."""
INFORMED: Final = 10.0
"""Seconds of subscription after which every worker had the time to send a heartbeat."""
FORGET_AFTER: Final = 3600.0
MAX_WORKERS: Final = 10_000


@dataclass(slots=True)
class LiveWorker:
    """A worker as its events show it; times are UTC seconds of receipt.

    ``restarted``: it joined with a `worker-online` or a new pid, so it has forgotten its flags and event settings.
    """

    hostname: str
    pid: int
    joined_at: float
    last_seen: float
    restarted: bool
    heartbeat_interval: float = 0.0

    def alive(self, now: float) -> bool:
        """Return whether it was heard recently enough."""
        return now - self.last_seen <= max(ALIVE, SLOW_HEARTBEATS * self.heartbeat_interval)


class WorkerListener(Protocol):
    """Is called on the event thread when a worker comes or goes."""

    def joined(self, worker: LiveWorker) -> None:
        """A worker is heard for the first time, or has started again, or has reconnected to its broker."""

    def left(self, hostname: str) -> None:
        """A worker has sent `worker-offline`."""


class LiveWorkers:
    """Keeps track of workers by their events. Thread-safe and bounded: the longest silent are forgotten first."""

    def __init__(self, *, clock: Callable[[], float] = time.time, max_workers: int = MAX_WORKERS) -> None:
        self._clock = clock
        self._max_workers = max_workers
        self._workers: OrderedDict[str, LiveWorker] = OrderedDict()
        self._listeners: list[WorkerListener] = []
        self._lock = Lock()
        self.connected_at: float | None = None
        """When the event subscription was confirmed; ``None`` while there is none."""
        self.last_event_at: float | None = None

    def listen(self, listener: WorkerListener) -> None:
        """Call this listener from now on."""
        self._listeners.append(listener)

    # as a consumer of events

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Note which workers sent these events."""
        self.last_event_at = at
        for event in batch:
            # A `task-sent` event comes from a client, not from a worker.
            if event.type.startswith(("worker-", "task-")) and event.type != "task-sent":
                self._take(event, at)

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

    def alive(self) -> frozenset[str]:
        """Return the workers that were heard recently and have not said that they go."""
        now = self._clock()
        with self._lock:
            return frozenset(name for name, worker in self._workers.items() if worker.alive(now))

    def get(self, hostname: str) -> LiveWorker | None:
        """Return what is known of a worker, also of one that has been silent for up to an hour."""
        with self._lock:
            return self._workers.get(hostname)

    def _take(self, event: Event, at: float) -> None:
        if event.type == "worker-offline":
            with self._lock:
                self._workers.pop(event.hostname, None)
            for listener in self._listeners:
                listener.left(event.hostname)
            return
        with self._lock:
            worker, joined = self._note(event, at)
            self._forget(at)
        if joined:
            for listener in self._listeners:
                listener.joined(worker)

    def _note(self, event: Event, at: float) -> tuple[LiveWorker, bool]:
        worker = self._workers.get(event.hostname)
        new_pid = worker is not None and 0 not in (event.pid, worker.pid) and event.pid != worker.pid
        restarted = event.type == "worker-online" or new_pid
        joined = worker is None or restarted
        if worker is None or restarted:
            worker = LiveWorker(event.hostname, event.pid, joined_at=at, last_seen=at, restarted=restarted)
            self._workers[event.hostname] = worker
        self._workers.move_to_end(event.hostname)
        worker.last_seen = at
        worker.pid = worker.pid or event.pid
        worker.heartbeat_interval = event.freq or worker.heartbeat_interval
        return worker, joined

    def _forget(self, now: float) -> None:
        oldest = next(iter(self._workers.values()))
        if len(self._workers) > self._max_workers or now - oldest.last_seen > FORGET_AFTER:
            self._workers.popitem(last=False)
