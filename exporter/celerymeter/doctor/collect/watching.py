"""The event stream for some seconds, by the exporter's own reader."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from celerymeter.doctor.evidence import Heard, Watch
from celerymeter.events import open_reader
from celerymeter.model import Event
from celerymeter.settings import BrokerSettings

SUBSCRIBE_TIMEOUT = 10.0
MAX_SENDERS = 10_000
MAX_TASKS = 100_000
"""Senders and tasks that are remembered; a watch of some seconds that has more needs no more."""
OVERTAKING = 1.0
"""Seconds by which a task-received may come before its task-sent, and a receipt may follow the look at its queue."""


@dataclass
class _Sender:
    events: Counter[str] = field(default_factory=Counter)
    processed: list[int] = field(default_factory=list)
    active: int = 0
    offset: float | None = None

    def add(self, event: Event, at: float) -> None:
        self.events[event.type] += 1
        if event.processed is not None:
            self.processed.append(event.processed)
        self.active = max(self.active, event.active or 0)
        offset = at - event.timestamp
        self.offset = offset if self.offset is None else min(self.offset, offset)


class _Notes:
    """The sink: keeps counts, never events."""

    def __init__(self) -> None:
        self.subscribed = threading.Event()
        self.settled = threading.Event()
        self.failure: str | None = None
        self.senders: dict[str, _Sender] = {}
        self.sent: set[str] = set()
        self.received: dict[str, tuple[str, float]] = {}
        self.refused: Counter[str] = Counter()

    def events(self, batch: Sequence[Event], at: float) -> None:
        for event in batch:
            if event.hostname in self.senders or len(self.senders) < MAX_SENDERS:
                self.senders.setdefault(event.hostname, _Sender()).add(event, at)
            if event.type == "task-sent" and event.uuid and len(self.sent) < MAX_TASKS:
                self.sent.add(event.uuid)
            if event.type == "task-received" and event.uuid and event.name and len(self.received) < MAX_TASKS:
                self.received[event.uuid] = event.name, at

    def unsent(self, since: float) -> dict[str, int]:
        """By name: tasks received from ``since`` on without a task-sent, but for those of the last moment."""
        until = time.time() - OVERTAKING
        names = (
            name for uuid, (name, at) in list(self.received.items()) if uuid not in self.sent and since < at < until
        )
        return dict(Counter(names))

    def rejected(self, reason: str, count: int = 1) -> None:
        self.refused[reason] += count

    def connected(self, at: float) -> None:  # noqa: ARG002 - the seam's signature
        self.subscribed.set()
        self.settled.set()

    def disconnected(self, at: float, reason: str) -> None:  # noqa: ARG002 - the seam's signature
        self.failure = reason
        self.settled.set()


class Watching:
    """Listens while the ``with`` block runs; `result` waits until it has listened long enough."""

    def __init__(self, broker: BrokerSettings, *, seconds: float) -> None:
        self._seconds = seconds
        self._notes = _Notes()
        self._reader = open_reader(broker, self._notes)
        self._thread = threading.Thread(target=self._reader.run, name="watch", daemon=True)
        self._over = threading.Timer(seconds, lambda: None)

    def __enter__(self) -> Watching:
        self._thread.start()
        self._notes.settled.wait(SUBSCRIBE_TIMEOUT)
        self._over.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.cancel()
        self._reader.stop()
        self._thread.join(2)

    def result(self, *, empty_at: float | None = None) -> Watch:
        """What was heard; at once when there is no subscription.

        ``empty_at`` is when all queues were empty (UTC seconds): what is received later was sent later as well.
        """
        notes = self._notes
        if not notes.subscribed.is_set():
            return Watch(failure=notes.failure or "no answer")
        self._over.join()
        return Watch(
            seconds=self._seconds,
            senders={name: _heard(sender) for name, sender in list(notes.senders.items())},
            unsent={} if empty_at is None else notes.unsent(empty_at + OVERTAKING),
            rejected=dict(notes.refused),
        )


def _heard(sender: _Sender) -> Heard:
    return Heard(dict(sender.events), tuple(sender.processed), sender.active, sender.offset)
