"""The event memory: the last event and the history of each task, for revocations and look-ups."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Final

from celerymeter.control.evidence.history import NO_HISTORY, TaskHistory
from celerymeter.control.evidence.models import LastEvent
from celerymeter.model import Event

MAX_EVENTS: Final = 200_000
MAX_EVENT_AGE: Final = 86400.0
TASK_EVENTS: Final = frozenset(
    f"task-{kind}" for kind in ("sent", "received", "started", "succeeded", "failed", "rejected", "revoked", "retried")
)


class EventCache:
    """Remembers the last event and the history of each task; bounded in number and in age, thread-safe."""

    def __init__(self, *, most: int = MAX_EVENTS) -> None:
        self._most = most
        self._events: OrderedDict[str, tuple[LastEvent, TaskHistory]] = OrderedDict()
        self._lock = Lock()

    def add(self, events: Sequence[Event], at: float) -> None:
        """Remember events that were received at this time (UTC seconds)."""
        with self._lock:
            for event in events:
                if event.uuid is not None and event.type in TASK_EVENTS:
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
        before, history = self._events.pop(task_id, (None, NO_HISTORY))  # put back at the end: this id is young again
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
        self._events[task_id] = last, history.add(event, at)

    def _forget(self, now: float) -> None:
        while self._events:
            oldest = next(iter(self._events.values()))[0]
            if len(self._events) <= self._most and oldest.at >= now - MAX_EVENT_AGE:
                return
            self._events.popitem(last=False)
