"""The API's subscription to events, and the workers that are alive by them: one answer for the whole control API."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Final, Protocol

from celerymeter.events import open_reader
from celerymeter.model import Event
from celerymeter.settings import BrokerSettings

log = logging.getLogger(__name__)

ALIVE: Final = 30.0
"""Seconds since its last event for which a worker counts as alive: many heartbeats of 2 s."""
SLOW_HEARTBEATS: Final = 3
"""Heartbeats of a worker with a longer interval that may be missing."""
INFORMED: Final = 10.0
"""Seconds of subscription after which every worker had the time to send a heartbeat."""
FORGET_AFTER: Final = 3600.0
MAX_WORKERS: Final = 10_000
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0


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
        """Time at which the event subscription was confirmed; ``None`` while there is none."""
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


@dataclass(slots=True)
class _Retry:
    due: float
    pause: float = FIRST_PAUSE


class Retries:
    """The workers to which something is to be sent again, each at its time: its pauses double. Bounded, thread-safe.

    Times are in seconds of the caller's clock.
    """

    def __init__(self) -> None:
        self._retries: dict[str, _Retry] = {}
        self._lock = Lock()

    def add(self, name: str, due: float) -> None:
        """Make a name due from then on, with the shortest pause."""
        with self._lock:
            if name in self._retries or len(self._retries) < MAX_WORKERS:
                self._retries[name] = _Retry(due)

    def take(self, now: float) -> tuple[str, ...]:
        """Return the names that are due; each must be settled."""
        with self._lock:
            return tuple(name for name, retry in self._retries.items() if retry.due <= now)

    def settle(self, name: str, *, done: bool, now: float) -> None:
        """Remove a name that is done; make any other due again after its pause, which doubles."""
        with self._lock:
            if done:
                self._retries.pop(name, None)
                return
            retry = self._retries.setdefault(name, _Retry(now))
            retry.due = now + retry.pause
            retry.pause = min(2 * retry.pause, LONGEST_PAUSE)

    def pause(self, now: float, *, longest: float) -> float:
        """Return the seconds until the next name is due, at most ``longest``."""
        with self._lock:
            soonest = min((retry.due for retry in self._retries.values()), default=now + longest)
        return min(max(soonest - now, 0.0), longest)


class EventConsumer(Protocol):
    """Takes events on the reader's thread; ``at`` is the time of receipt (UTC seconds)."""

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Take decoded events, in the order of receipt."""

    def connected(self, at: float) -> None:
        """The subscription is confirmed."""

    def disconnected(self, at: float, reason: str) -> None:
        """The subscription is gone; events are lost until it is back."""


class EventListener:
    """Reads events on a thread of its own and gives them to every consumer in turn; an error in one harms no other."""

    def __init__(self, broker: BrokerSettings, *consumers: EventConsumer) -> None:
        """Connect to nothing yet; raises `UnsupportedTransport` or `SettingsError`."""
        self._consumers = consumers
        self._reader = open_reader(broker, self)
        self._thread: Thread | None = None

    def start(self) -> None:
        """Subscribe, and stay subscribed."""
        self._thread = Thread(target=self._reader.run, name="events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Unsubscribe."""
        self._reader.stop()
        if self._thread is not None:
            self._thread.join(2.0)

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Pass on a batch."""
        for consumer in self._consumers:
            _pass_on(consumer, batch, at)

    def rejected(self, reason: str, count: int = 1) -> None:
        """Ignore it: the exporter counts what cannot be used."""

    def connected(self, at: float) -> None:
        """Pass it on."""
        for consumer in self._consumers:
            consumer.connected(at)

    def disconnected(self, at: float, reason: str) -> None:
        """Pass it on."""
        for consumer in self._consumers:
            consumer.disconnected(at, reason)


def _pass_on(consumer: EventConsumer, batch: Sequence[Event], at: float) -> None:
    try:
        consumer.events(batch, at)
    except Exception:  # the other consumers, and the reader's thread, must outlive any bug in one
        log.exception("events: unexpected error")
