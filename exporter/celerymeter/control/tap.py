"""The program's own subscription to events: one reader for all who want them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from celerymeter.events import EventSink, open_reader
from celerymeter.model import Event
from celerymeter.settings import BrokerSettings

log = logging.getLogger(__name__)


class EventTap:
    """Reads events on a thread of its own and hands them to every sink; one that fails harms no other."""

    def __init__(self, broker: BrokerSettings, *sinks: EventSink) -> None:
        """Raises `UnsupportedTransport` or `SettingsError`."""
        self._sinks = sinks
        self._reader = open_reader(broker, self)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Subscribe, and stay subscribed."""
        self._thread = threading.Thread(target=self._reader.run, name="events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Unsubscribe."""
        self._reader.stop()
        if self._thread is not None:
            self._thread.join(2.0)

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Hand on a batch."""
        for sink in self._sinks:
            _hand(sink, batch, at)

    def rejected(self, reason: str, count: int = 1) -> None:
        """Hand on."""
        for sink in self._sinks:
            sink.rejected(reason, count)

    def connected(self, at: float) -> None:
        """Hand on."""
        for sink in self._sinks:
            sink.connected(at)

    def disconnected(self, at: float, reason: str) -> None:
        """Hand on."""
        for sink in self._sinks:
            sink.disconnected(at, reason)


def _hand(sink: EventSink, batch: Sequence[Event], at: float) -> None:
    try:
        sink.events(batch, at)
    except Exception:
        log.exception("events: unexpected error")
