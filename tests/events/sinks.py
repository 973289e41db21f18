"""A sink that remembers what a reader reports, and waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from celerymeter.demo.processes import START_TIMEOUT, wait_until
from celerymeter.model import Event


class RecordingSink:
    """Keeps everything; written by the reader's thread, read by the test."""

    def __init__(self) -> None:
        self.received: list[Event] = []
        self.receipts: list[float] = []
        self.read_until = 0.0
        self.rejections: Counter[str] = Counter()
        self.connections: list[float] = []
        self.losses: list[tuple[float, str]] = []

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Part of the seam."""
        self.received += batch
        self.receipts += [at] * len(batch)
        self.read_until = at

    def rejected(self, reason: str, count: int = 1) -> None:
        """Part of the seam."""
        self.rejections[reason] += count

    def connected(self, at: float) -> None:
        """Part of the seam."""
        self.connections.append(at)

    def disconnected(self, at: float, reason: str) -> None:
        """Part of the seam."""
        self.losses.append((at, reason))

    def types(self) -> Counter[str]:
        """Return how many events of each type came."""
        return Counter(event.type for event in self.received)

    def await_connections(self, count: int = 1, timeout: float = START_TIMEOUT) -> None:
        """Return once so many subscriptions were confirmed."""
        wait_until(lambda: len(self.connections) >= count, timeout=timeout, what=f"{count} subscriptions")

    def await_events(self, count: int, timeout: float = START_TIMEOUT) -> None:
        """Return once so many events came."""
        wait_until(lambda: len(self.received) >= count, timeout=timeout, what=f"{count} events")

    def await_loss(self, timeout: float = START_TIMEOUT) -> str:
        """Wait until the subscription was lost; return the reason of the last loss."""
        wait_until(lambda: self.losses, timeout=timeout, what="a disconnection")
        return self.losses[-1][1]
