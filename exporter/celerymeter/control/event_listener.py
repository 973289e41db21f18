"""The API's subscription to events, which several parts share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Thread
from typing import Final, Protocol

from celerymeter.events import open_reader
from celerymeter.model import Event
from celerymeter.settings import BrokerSettings

READ_AHEAD: Final = 32 * 1024 * 1024
"""Bytes of events that may wait: here it matters more that they are of now than that none is lost."""

log = logging.getLogger(__name__)


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
        self._reader = open_reader(broker, self, read_ahead=READ_AHEAD)
        self._thread: Thread | None = None
        self._problem = ""

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
        """Pass it on, and log it."""
        self._problem = ""
        log.info("subscribed to events")
        for consumer in self._consumers:
            consumer.connected(at)

    def disconnected(self, at: float, reason: str) -> None:
        """Pass it on, and log it: every attempt fails, most of them for the same reason."""
        if reason != self._problem:
            self._problem = reason
            log.warning("no event stream: %s", reason)
        for consumer in self._consumers:
            consumer.disconnected(at, reason)


def _pass_on(consumer: EventConsumer, batch: Sequence[Event], at: float) -> None:
    try:
        consumer.events(batch, at)
    except Exception:  # the other consumers, and the reader's thread, must outlive any bug in one
        log.exception("events: unexpected error")
