"""Which workers send task events: judged by the events that arrive, never by what a worker replies.

Pure: no I/O, ``now`` is an argument (UTC seconds of receipt).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from celerymeter.model import Event

State = Literal["enabled", "disabled", "always_on", "impossible", "unknown"]

MAX_WORKERS: Final = 10_000
FORGET_AFTER: Final = 3600.0
RECENTLY: Final = 120.0
GRACE: Final = 1.5
"""Seconds for which a worker may still flush what it had buffered before it was told to stop."""
PATIENCE: Final = 1.5
"""Seconds within which a worker that was asked for a heartbeat sends one, if it can send events at all."""
SILENT_BEATS: Final = 2
"""Heartbeats in a row that show runs without events, before that counts: an event can overtake and be overtaken."""


class Watched:
    """One worker as its events show it; a mutable row of `Watch`."""

    __slots__ = ("any_at", "fresh", "joined_at", "mark", "pid", "silent_beats", "task_at")

    def __init__(self, pid: int, now: float, *, fresh: bool) -> None:
        self.pid = pid
        self.fresh = fresh
        self.joined_at = now
        self.any_at = now
        self.task_at: float | None = None
        self.mark: int | None = None
        self.silent_beats = 0

    def heard_task(self, now: float) -> None:
        """A task event came."""
        self.task_at = now
        self.forget_beats()

    def heard_beat(self, processed: int | None) -> None:
        """A heartbeat came with the count of runs that the worker has begun."""
        if processed is None:
            return
        if self.mark is None or processed < self.mark:
            self.mark, self.silent_beats = processed, 0
        elif processed > self.mark:
            self.silent_beats += 1

    def forget_beats(self) -> None:
        """Judge silence anew from the next heartbeat on."""
        self.mark, self.silent_beats = None, 0

    @property
    def works_silently(self) -> bool:
        """Whether it has run tasks without a task event."""
        return self.silent_beats >= SILENT_BEATS


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker that is seen for the first time. ``fresh``: it has just started or reconnected, and so has forgotten
    whatever it was told before.
    """

    hostname: str
    at: float
    fresh: bool


class Watch:
    """What the event stream shows of each worker; bounded, the longest silent go first."""

    def __init__(self, *, max_workers: int = MAX_WORKERS) -> None:
        self._max_workers = max_workers
        self._workers: OrderedDict[str, Watched] = OrderedDict()
        self.last_event_at: float | None = None

    def take(self, batch: Sequence[Event], now: float) -> list[Joined]:
        """Note a batch; returns the workers that joined with it."""
        self.last_event_at = now
        return [joined for event in batch if (joined := self._take(event, now))]

    def get(self, hostname: str) -> Watched | None:
        """What is known of a worker."""
        return self._workers.get(hostname)

    def alive(self, now: float) -> set[str]:
        """Workers that were heard of late."""
        return {name for name, seen in list(self._workers.items()) if now - seen.any_at <= RECENTLY}

    def _take(self, event: Event, now: float) -> Joined | None:
        if event.type == "task-sent" or not event.type.startswith(("task-", "worker-")):
            return None
        if event.type == "worker-offline":
            self._workers.pop(event.hostname, None)
            return None
        seen = self._workers.get(event.hostname)
        fresh = event.type == "worker-online" or (seen is not None and _differ(event.pid, seen.pid))
        came = fresh or seen is None
        if fresh or seen is None:
            seen = self._workers[event.hostname] = Watched(event.pid, now, fresh=fresh)
        self._workers.move_to_end(event.hostname)
        self._note(seen, event, now)
        self._bound(now)
        return Joined(event.hostname, now, fresh=fresh) if came else None

    def _note(self, seen: Watched, event: Event, now: float) -> None:
        seen.any_at = now
        seen.pid = seen.pid or event.pid
        if event.type.startswith("task-"):
            seen.heard_task(now)
        elif event.type == "worker-heartbeat":
            seen.heard_beat(event.processed)

    def _bound(self, now: float) -> None:
        oldest = next(iter(self._workers.values()))
        if len(self._workers) > self._max_workers or now - oldest.any_at > FORGET_AFTER:
            self._workers.popitem(last=False)


def _differ(pid: int, other: int) -> bool:
    return 0 not in (pid, other) and pid != other


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker was told, and when it first acknowledged. ``ours``: it was us who turned its task events on."""

    wanted: bool
    at: float
    ours: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """The state of one worker's task events. ``confirmed``: events, or runs without them, prove it."""

    hostname: str
    task_events: State
    confirmed: bool
    last_task_event: float | None = None
    """UTC seconds."""


def judge(hostname: str, seen: Watched | None, told: Told | None, *, now: float) -> Judgement:
    """The state of one worker, from what was heard and what it was told."""
    last = None if seen is None else seen.task_at
    state, confirmed = _state(seen, told, now)
    return Judgement(hostname=hostname, task_events=state, confirmed=confirmed, last_task_event=last)


def unheard(seen: Watched | None, told: Told | None) -> bool:
    """Whether a worker that should send task events has sent nothing at all since it acknowledged."""
    return told is not None and told.wanted and (seen is None or seen.any_at < told.at)


def _state(seen: Watched | None, told: Told | None, now: float) -> tuple[State, bool]:
    if told is None:
        return _untold(seen)
    if told.wanted:
        return _turned_on(seen, told, now)
    if seen is not None and (seen.task_at or 0.0) > told.at + GRACE:
        return "always_on", True
    return "disabled", seen is not None and seen.works_silently


def _turned_on(seen: Watched | None, told: Told, now: float) -> tuple[State, bool]:
    if seen is None or seen.any_at < told.at:
        return ("impossible", True) if now - told.at >= PATIENCE else ("unknown", False)
    if seen.works_silently:
        return "disabled", True
    return "enabled" if told.ours else "always_on", (seen.task_at or 0.0) > told.at


def _untold(seen: Watched | None) -> tuple[State, bool]:
    if seen is None:
        return "unknown", False
    if seen.works_silently:
        return "disabled", True
    return ("enabled", True) if seen.task_at is not None else ("unknown", False)
