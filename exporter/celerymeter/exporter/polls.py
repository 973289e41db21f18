"""The two polls, each on its interval and never in a scrape, and the tracker that they share with the event reader."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from celerymeter.errors import CelerymeterError, PollError
from celerymeter.model import Event, PollOutcome
from celerymeter.polling.queues import QueuePoller
from celerymeter.polling.reply_habits import PollTarget
from celerymeter.polling.workers import WorkerPoller
from celerymeter.threads import PeriodicThread
from celerymeter.tracking.tracker import Tracker

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5
ERROR_PAUSE = 60.0
"""Seconds between two log entries about events that cannot be applied."""
MIN_PAUSE = 1.0
"""Seconds between two polls of the workers that are requested before their turn."""


class SharedTracker:
    """The tracker behind one lock, as an `EventSink`: the reader and the polls write, scrapes read."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._lock = threading.Lock()
        self._not_ready: str | None = "the event stream is not yet subscribed"
        self._error_logged = 0.0
        self._read_until: float | None = None
        """Everything that had come by then has been applied; ``None`` without a subscription. UTC seconds."""

    @contextmanager
    def locked(self) -> Iterator[Tracker]:
        """Give exclusive use of the tracker; keep it short."""
        with self._lock:
            yield self._tracker

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Apply decoded events, in the order of receipt; a bug that one of them meets must not end all later ones."""
        with self._lock:
            try:
                self._tracker.apply(batch, at)
            except Exception:
                self._tracker.reject("fields", len(batch))
                if at >= self._error_logged + ERROR_PAUSE:
                    self._error_logged = at
                    log.exception("%d events cannot be applied", len(batch))
            self._read_until = at

    def tick(self, now: float) -> Counter[tuple[str, str, str]]:
        """Let time pass, as far as the stream has been read: see `Tracker.tick`.

        After a burst, or when this process was stopped or got no processor, what seems late or silent is still unread.
        """
        with self._lock:
            return self._tracker.tick(now if self._read_until is None else min(now, self._read_until))

    def rejected(self, reason: str, count: int = 1) -> None:
        """Count messages that could not be used."""
        with self._lock:
            self._tracker.reject(reason, count)

    def connected(self, at: float) -> None:
        """Note that the event stream is subscribed."""
        with self._lock:
            self._tracker.connected(at)
            self._not_ready = None
            self._read_until = at
        log.info("subscribed to events")

    def disconnected(self, at: float, reason: str) -> None:
        """Note that the event stream is lost; counters stay, and what is missed meanwhile will be counted."""
        with self._lock:
            since = self._tracker.connected_at
            self._tracker.disconnected()
            changed = self._not_ready != reason
            self._not_ready = reason
            self._read_until = None
        if since is not None:
            log.warning("event stream lost after %.0f s: %s", max(0.0, at - since), reason)
        elif changed:
            log.warning("no event stream: %s", reason)

    def why_not_ready(self) -> str | None:
        """Return the reason why the exporter does not see its cluster, or ``None``."""
        with self._lock:
            return self._not_ready


class Poll:
    """Runs one collector on a thread; a failure is a metric, and one log line when it begins and when it ends."""

    def __init__(
        self,
        collector: Literal["queues", "workers"],
        collect: Callable[[float], None],
        *,
        state: SharedTracker,
        interval: float,
        first_delay: float = FIRST_DELAY,
        requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.thread = PeriodicThread(collector, self._turn, interval=min(MIN_PAUSE, interval), first_delay=first_delay)
        self._collector = collector
        self._collect = collect
        self._state = state
        self._interval = interval
        self._requested = requested
        self._due_at = time.monotonic()
        self._failing = False

    def once(self) -> None:
        """Poll once, whatever comes of it."""
        at, began = time.time(), time.monotonic()
        error = self._error(at)
        ended = time.monotonic()
        self._due_at = ended + self._interval
        with self._state.locked() as tracker:
            tracker.polled(PollOutcome(self._collector, error is None, at, ended - began))
        if (error is not None) != self._failing:
            self._failing = error is not None
            log.warning("polling %s %s", self._collector, f"fails: {error}" if error else "works again")

    def _turn(self) -> None:
        if time.monotonic() >= self._due_at or self._requested():
            self.once()

    def _error(self, at: float) -> str | None:
        try:
            self._collect(at)
        except CelerymeterError as error:
            return str(error)
        except Exception as error:  # a bug in one poll must not end all later ones
            log.exception("polling %s: unexpected error", self._collector)
            return type(error).__name__
        return None


def queue_collector(poller: QueuePoller, state: SharedTracker) -> Callable[[float], None]:
    """Return the poll of the depths of all known queues."""

    def collect(at: float) -> None:
        with state.locked() as tracker:
            names = tracker.known_queues()
        snapshot = poller.poll(names, now=at)
        with state.locked() as tracker:
            tracker.queues_seen(snapshot)
        if snapshot.incomplete is not None:
            raise PollError(snapshot.incomplete)

    return collect


def worker_collector(poller: WorkerPoller, state: SharedTracker, *, enable_events: bool) -> Callable[[float], None]:
    """Return the poll of all workers, which waits for the replies of those that are alive."""

    def heard_since(at: float) -> list[str]:
        with state.locked() as tracker:
            return [worker.hostname for worker in tracker.workers if (worker.last_heartbeat or 0.0) >= at]

    def collect(at: float) -> None:
        with state.locked() as tracker:
            live = [
                PollTarget(worker.hostname, (worker.pid, worker.online_at), worker.online_at)
                for worker in tracker.workers.to_wait_for()
            ]
            tracker.asking()
        snapshot = poller.poll(now=at, live=live, heard_since=heard_since)
        beats = poller.beats(now=at)
        with state.locked() as tracker:
            tracker.inspected(snapshot)
            tracker.beats_answered(beats, at)
            without_events = [worker.hostname for worker in tracker.workers if worker.up and worker.loss.off]
        if enable_events and without_events:
            poller.enable_events(without_events)
        if snapshot.silent:
            first, *others = sorted(snapshot.silent)
            more = f" and {len(others)} more" if others else ""
            raise PollError(f"no reply to remote control from {first}{more}")

    return collect
