"""The event memory: the last event and the history of each task, for revocations and look-ups."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Final

from celerymeter.control.evidence.history import NO_HISTORY, TaskHistory
from celerymeter.control.evidence.models import LastEvent
from celerymeter.model import Event

MAX_EVENTS: Final = 200_000
MAX_EVENT_AGE: Final = 86400.0
MAX_BYTES: Final = 80 * 1024 * 1024
ENTRY: Final = 600
"""Bytes that an id takes beside its text, and `RUN` those of each run, as measured."""
RUN: Final = 150
MAX_ID: Final = 255
"""Characters of an id: longer ones can be asked about nowhere."""
TASK_EVENTS: Final = frozenset(
    f"task-{kind}" for kind in ("sent", "received", "started", "succeeded", "failed", "rejected", "revoked", "retried")
)

_ENDS: Final = frozenset({"task-succeeded", "task-failed", "task-revoked", "task-rejected"})


class EventCache:
    """Remembers the last event and the history of each task; bounded in number, bytes and age, thread-safe."""

    def __init__(
        self, *, most: int = MAX_EVENTS, most_bytes: int = MAX_BYTES, evicted: Callable[[int], object] = lambda _: None
    ) -> None:
        """Call ``evicted`` with the number of ids that are forgotten before their time."""
        self._most = most
        self._most_bytes = most_bytes
        self._evicted = evicted
        self._bytes = 0
        self._events: OrderedDict[str, tuple[LastEvent, TaskHistory, int]] = OrderedDict()
        self._lock = Lock()

    def add(self, events: Sequence[Event], at: float) -> None:
        """Remember events that were received at this time (UTC seconds)."""
        with self._lock:
            for event in events:
                if event.uuid is not None and event.type in TASK_EVENTS:
                    if len(event.uuid) > MAX_ID:
                        self._evicted(1)
                        continue
                    self._remember(event, event.uuid, at)
            self._forget(at)

    def last_events(self, task_ids: Collection[str]) -> Mapping[str, LastEvent]:
        """Return the last event of each of these tasks that is remembered."""
        with self._lock:
            return {task_id: self._events[task_id][0] for task_id in task_ids if task_id in self._events}

    def histories(self, task_ids: Collection[str]) -> Mapping[str, TaskHistory]:
        """Return the history of each of these tasks that is remembered."""
        with self._lock:
            return {task_id: self._events[task_id][1] for task_id in task_ids if task_id in self._events}

    def _remember(self, event: Event, task_id: str, at: float) -> None:
        # Put back at the end: this id is young again.
        before, history, size = self._events.pop(task_id, (None, NO_HISTORY, 0))
        last = LastEvent(
            type=event.type,
            at=at,
            worker=None if event.type == "task-sent" else event.hostname,
            name=event.name,
            queue=event.queue or event.routing_key,
            terminated=bool(event.terminated),
        )
        if before is not None:
            last = replace(last, name=last.name or before.name, queue=last.queue or before.queue)
            # A producer's task-sent often arrives after the worker's events; only a retry is really sent again.
            if event.type == "task-sent" and before.type != "task-retried":
                last = replace(before, name=last.name, queue=last.queue)
        history = history.add(event, at)
        self._bytes -= size
        size = _size(task_id, last, history)
        self._events[task_id] = last, history, size
        self._bytes += size

    def _forget(self, now: float) -> None:
        while self._events:
            oldest, _, size = next(iter(self._events.values()))
            too_many = len(self._events) > self._most or self._bytes > self._most_bytes
            if not too_many and oldest.at >= now - MAX_EVENT_AGE:
                return
            self._events.popitem(last=False)
            self._bytes -= size
            if too_many:
                self._evicted(1)


def _size(task_id: str, last: LastEvent, history: TaskHistory) -> int:
    """Return the bytes that an id takes at most; text is usually shared with others, and it may not be."""
    workers = "".join(run.worker for run in history.runs)
    texts = (task_id, last.name, last.queue, last.worker, history.name, history.queue, workers)
    return (
        ENTRY + RUN * len(history.runs) + sum(len(text) if text.isascii() else 4 * len(text) for text in texts if text)
    )


def with_remembered(events: Mapping[str, LastEvent], remembered: Mapping[str, LastEvent]) -> dict[str, LastEvent]:
    """Add to the last events what aggregating workers remember; an end that was published is the last there is."""
    newer = {
        task_id: last
        for task_id, last in remembered.items()
        if (event := events.get(task_id)) is None or event.type not in _ENDS or last.at > event.at
    }
    return {**events, **newer}
