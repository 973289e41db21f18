"""The seam between a reader (bytes off a broker) and whoever wants the events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from celerymeter.model import Event


class EventSink(Protocol):
    """Takes what a reader delivers, on the reader's thread. ``at`` is receipt time in UTC seconds."""

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Decoded events, in the order of receipt."""

    def rejected(self, reason: str, count: int = 1) -> None:
        """Messages or events that could not be used; ``reason`` is one of `celerymeter.events.decode.REASONS`."""

    def connected(self, at: float) -> None:
        """The subscription is confirmed."""

    def disconnected(self, at: float, reason: str) -> None:
        """The subscription is gone, or could not be made; ``reason`` is a short phrase without secrets."""


class Reader(Protocol):
    """Reads events until told to stop; reconnects by itself and never raises for what a broker does or sends."""

    def run(self) -> None:
        """Read until `stop`; returns then."""

    def stop(self) -> None:
        """End `run` soon (within a second); callable from any thread."""
