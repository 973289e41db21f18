"""What events told of tasks and workers: the program's own memory, bounded in number and in age."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

from celerymeter.model import Event

MOST: Final = 200_000
LONGEST: Final = 86400.0
ALIVE: Final = 30.0
"""Seconds since its last heartbeat for which a worker counts as alive."""
INFORMED: Final = 10.0
MOST_WORKERS: Final = 10_000
KINDS: Final = frozenset(
    f"task-{kind}" for kind in ("sent", "received", "started", "succeeded", "failed", "rejected", "revoked", "retried")
)


@dataclass(frozen=True, slots=True)
class Trace:
    """The last that was heard of a task: ``kind`` of the event, when it came (UTC seconds), from which worker."""

    kind: str
    at: float
    worker: str | None = None
    name: str | None = None
    queue: str | None = None
    terminated: bool = False

    @property
    def announced(self) -> bool:
        """Whether it only tells that the task was told to die: the event is sent at the command."""
        return self.kind == "task-revoked" and self.terminated


class EventMemory:
    """An `EventSink` that remembers; thread-safe. An id that is heard of again is young again."""

    def __init__(self, *, most: int = MOST, clock: Callable[[], float] = time.time) -> None:
        self._most = most
        self._clock = clock
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._beats: dict[str, float] = {}
        self._lock = Lock()
        self._connected_at: float | None = None

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Remember them."""
        with self._lock:
            for event in batch:
                if event.uuid is None:
                    self._beat(event, at)
                elif event.type in KINDS:
                    self._remember(event, event.uuid, at)
            self._forget(at)

    def rejected(self, reason: str, count: int = 1) -> None:
        """What cannot be used is counted by the exporter."""

    def connected(self, at: float) -> None:
        """What was missed meanwhile is not known; other evidence has to do."""
        self._connected_at = at

    def disconnected(self, at: float, reason: str) -> None:  # noqa: ARG002 - the reader logs them
        """Who lives is not known until heartbeats come again."""
        self._connected_at = None

    @property
    def informed(self) -> bool:
        """Whether heartbeats have been heard for so long that every worker had its turn."""
        return self._connected_at is not None and self._clock() - self._connected_at > INFORMED

    def traces(self, task_ids: Collection[str]) -> Mapping[str, Trace]:
        """What is remembered of these."""
        with self._lock:
            return {task_id: self._traces[task_id] for task_id in task_ids if task_id in self._traces}

    def alive(self) -> frozenset[str]:
        """The workers that were heard within the last half minute and have not said goodbye."""
        since = self._clock() - ALIVE
        with self._lock:
            return frozenset(name for name, at in self._beats.items() if at >= since)

    def _beat(self, event: Event, at: float) -> None:
        if event.type == "worker-offline":
            self._beats.pop(event.hostname, None)
        elif event.type in ("worker-heartbeat", "worker-online") and len(self._beats) < MOST_WORKERS:
            self._beats[event.hostname] = at

    def _remember(self, event: Event, uuid: str, at: float) -> None:
        before = self._traces.pop(uuid, None)
        trace = Trace(
            kind=event.type,
            at=at,
            worker=None if event.type == "task-sent" else event.hostname,
            name=event.name,
            queue=event.queue or event.routing_key,
            terminated=bool(event.terminated),
        )
        if before is not None:
            trace = replace(trace, name=trace.name or before.name, queue=trace.queue or before.queue)
            if event.type == "task-sent" and before.kind != "task-retried":
                trace = replace(before, name=trace.name, queue=trace.queue)  # it overtook nothing: senders are slow
        self._traces[uuid] = trace

    def _forget(self, now: float) -> None:
        while self._traces:
            oldest = next(iter(self._traces.values()))
            if len(self._traces) <= self._most and oldest.at >= now - LONGEST:
                return
            self._traces.popitem(last=False)
