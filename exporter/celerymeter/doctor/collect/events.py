"""Listens to the event stream for some seconds, with the exporter's own reader."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from celerymeter.doctor.evidence import EventWatch, SenderEvents, TotalsSeen
from celerymeter.events import open_reader
from celerymeter.model import Event
from celerymeter.settings import BrokerSettings

SUBSCRIBE_TIMEOUT = 10.0
MAX_SENDERS = 10_000
MAX_TASKS = 100_000
"""Senders and tasks that are remembered; more of them add nothing to the findings."""
REORDERING = 1.0
"""Seconds by which a task-received may arrive before its task-sent, and after the look at its queue."""


@dataclass
class _Sender:
    events: Counter[str] = field(default_factory=Counter)
    processed: list[int] = field(default_factory=list)
    active: list[int] = field(default_factory=list)
    offset: float | None = None
    totals: TotalsSeen | None = None

    def add(self, event: Event, at: float) -> None:
        self.events[event.type] += 1
        if event.processed is not None:
            self.processed.append(event.processed)
        if event.active is not None:
            self.active.append(event.active)
        if (totals := event.totals) is not None:
            self.totals = TotalsSeen(totals.runtime_bounds, totals.wait_bounds, totals.failed)
        offset = at - event.timestamp
        self.offset = offset if self.offset is None else min(self.offset, offset)


class _Sink:
    """Counts events; does not keep them."""

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
        """Count the tasks that were received after ``since`` without a task-sent, by name."""
        until = time.time() - REORDERING
        return dict(
            Counter(
                name for uuid, (name, at) in list(self.received.items()) if uuid not in self.sent and since < at < until
            )
        )

    def rejected(self, reason: str, count: int = 1) -> None:
        self.refused[reason] += count

    def connected(self, at: float) -> None:  # noqa: ARG002 - part of the interface
        self.subscribed.set()
        self.settled.set()

    def disconnected(self, at: float, reason: str) -> None:  # noqa: ARG002 - part of the interface
        self.failure = reason
        self.settled.set()


class Watcher:
    """Listens while the ``with`` block runs; `result` waits until it has listened long enough."""

    def __init__(self, broker: BrokerSettings, *, seconds: float) -> None:
        self._seconds = seconds
        self._sink = _Sink()
        self._reader = open_reader(broker, self._sink)
        self._thread = threading.Thread(target=self._reader.run, name="watch", daemon=True)
        self._over = threading.Timer(seconds, lambda: None)

    def __enter__(self) -> Watcher:
        self._thread.start()
        self._sink.settled.wait(SUBSCRIBE_TIMEOUT)
        self._over.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.cancel()
        self._reader.stop()
        self._thread.join(2)

    def result(self, *, empty_at: float | None = None) -> EventWatch:
        """Return what was heard; at once when there is no subscription.

        ``empty_at`` is a time (UTC seconds) at which all queues were empty: tasks that are received later were sent
        later as well.
        """
        sink = self._sink
        if not sink.subscribed.is_set():
            return EventWatch(failure=sink.failure or "no answer")
        self._over.join()
        return EventWatch(
            seconds=self._seconds,
            senders={
                name: SenderEvents(dict(one.events), tuple(one.processed), tuple(one.active), one.offset, one.totals)
                for name, one in list(sink.senders.items())
            },
            unsent={} if empty_at is None else sink.unsent(empty_at + REORDERING),
            rejected=dict(sink.refused),
        )
