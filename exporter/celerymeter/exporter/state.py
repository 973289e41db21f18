"""The tracker behind one lock: the reader writes, the pollers write, scrapes read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from celerymeter.model import Event
from celerymeter.tracking.tracker import Tracker

log = logging.getLogger(__name__)


class SharedTracker:
    """Takes what a reader delivers (`celerymeter.events.reader.EventSink`) and lends the tracker to others."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._lock = threading.Lock()
        self._away: str | None = "the event stream is not yet subscribed"

    @contextmanager
    def lent(self) -> Iterator[Tracker]:
        """The tracker, for as long as nobody else may touch it: keep it short."""
        with self._lock:
            yield self._tracker

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Decoded events, in the order of receipt."""
        with self._lock:
            self._tracker.apply(batch, at)

    def rejected(self, reason: str, count: int = 1) -> None:
        """Messages that could not be used."""
        with self._lock:
            self._tracker.reject(reason, count)

    def connected(self, at: float) -> None:
        """The event stream is subscribed."""
        with self._lock:
            self._tracker.connected(at)
            self._away = None
        log.info("subscribed to events")

    def disconnected(self, at: float, reason: str) -> None:
        """The event stream is gone; counters stay, and what is missed meanwhile will be counted."""
        with self._lock:
            since = self._tracker.connected_at
            self._tracker.disconnected()
            news = self._away != reason
            self._away = reason
        if since is not None:
            log.warning("event stream lost after %.0f s: %s", max(0.0, at - since), reason)
        elif news:
            log.warning("no event stream: %s", reason)

    def why_not_ready(self) -> str | None:
        """The reason why the exporter does not see its cluster, or ``None``."""
        with self._lock:
            return self._away


def tick_forever(state: SharedTracker, stop: threading.Event, *, beat: Callable[[], None], every: float = 0.5) -> None:
    """Let the tracker's time pass until ``stop``; ``beat`` tells the outside that we live."""
    while not stop.wait(every):
        with state.lent() as tracker:
            tracker.tick(time.time())
        beat()
