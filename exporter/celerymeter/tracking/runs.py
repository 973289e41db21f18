"""Unfinished runs of tasks: how one is found by an event, and how their number stays bounded.

A task's uuid is not enough to name a run: a retry comes with the same uuid (its `task-sent` and even its
`task-received` may overtake the end of the run before), and a redelivered task may run on two workers at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

import msgspec

from celerymeter.model import Event
from celerymeter.tracking.series import Pair

MAX_NEXT = 8
MAX_BESIDE = 8


class Run(msgspec.Struct, gc=False, eq=False):
    """One unfinished run of a task, or a task that is still to run. Times are UTC seconds.

    A Struct is made in a third of the time of a class and never looked at by the garbage collector: a run and its
    pair point at each other only while the run is in progress.
    """

    uuid: str
    opened: float
    touched: float
    name: str | None = None
    queue: str | None = None
    pair: Pair | None = None
    sent: float | None = None
    """By our clock."""
    started: float | None = None
    """By the worker's clock."""
    eta: str | None = None
    retries: int = 0
    worker: str | None = None
    held: list[Event] | None = None
    """Events not yet counted, because the queue is not yet known."""
    next: list[Event] | None = None
    """The `task-sent` of later runs of this task."""
    received: bool = False
    ended: bool = False
    rejected: bool = False
    over: bool = False
    """Its end has come, but is still held."""
    adopted: bool = False
    """Its worker lists it as running, but its `task-started` has not come."""
    missing_since: float | None = None
    """Since when its worker no longer lists it."""

    def stop_running(self) -> None:
        """No longer in progress."""
        if self.pair is not None:
            self.pair.running.pop(self, None)

    def give_back(self) -> None:
        """The message is with the broker again: the task may come to any worker."""
        self.stop_running()
        self.worker = self.started = None
        self.over = self.adopted = False


class RunTable:
    """Runs by uuid; runs of the same task beside the newest are found by uuid and worker."""

    def __init__(self, limit: int) -> None:
        self.evicted: Counter[str] = Counter()
        self._limit = limit
        self._runs: dict[str, Run] = {}
        self.get: Callable[[str], Run | None] = self._runs.get
        """The newest run of a task, by its uuid."""
        self._beside: dict[tuple[str, str], list[Run]] = {}

    def __len__(self) -> int:
        return len(self._runs) + sum(map(len, self._beside.values()))

    def __iter__(self) -> Iterator[Run]:
        yield from self._runs.values()
        for runs in self._beside.values():
            yield from runs

    def open(self, uuid: str, at: float) -> Run:
        """A new run, which becomes the newest of its task."""
        if len(self._runs) >= self._limit:
            self._evict_oldest()
        run = self._runs[uuid] = Run(uuid, at, at)
        return run

    def starting(self, uuid: str, hostname: str) -> Run | None:
        """The run that a `task-started` of this worker begins: the oldest at hand that has not started."""
        newest = self._runs.get(uuid)
        if not self._beside and newest is not None and newest.worker in (None, hostname):
            return newest if newest.started is None or newest.adopted else None
        return next((run for run in self._at(uuid, hostname) if run.started is None or run.adopted), None)

    def ending(self, uuid: str, hostname: str) -> Run | None:
        """The run that an end told by this worker belongs to: the oldest that has started, else any that waits."""
        newest = self._runs.get(uuid)
        if not self._beside and newest is not None and newest.worker == hostname:
            return newest
        runs = self._at(uuid, hostname)
        if not runs:
            return newest if newest is not None and newest.started is None else None
        unfinished = [run for run in runs if not run.over]
        return next((run for run in unfinished if run.started is not None), (unfinished or runs[-1:])[0])

    def _at(self, uuid: str, hostname: str) -> list[Run]:
        """The unfinished runs of a task that may be at this worker, oldest first."""
        newest = self._runs.get(uuid)
        here = newest is not None and (newest.worker is None or newest.worker == hostname)
        runs = list(self._beside.get((uuid, hostname), ())) if self._beside else []
        return [*runs, newest] if here and newest is not None else runs

    def succeed(self, run: Run, at: float) -> Run:
        """Open the run that follows ``run``, which may still be unfinished (elsewhere, or its end got lost)."""
        if run.worker is not None and not run.ended:
            self._set_beside(run)
        self._runs.pop(run.uuid, None)  # the table is in the order of opening, or nothing behind this one would age
        following = self.open(run.uuid, at)
        following.name, following.queue = run.name, run.queue
        following.sent, following.eta, following.retries = run.sent, run.eta, run.retries
        return following

    def precede(self, run: Run, hostname: str, at: float) -> Run:
        """Open a run that came before the newest, at another worker, and is heard of only now."""
        earlier = Run(run.uuid, at, at)
        earlier.name, earlier.queue, earlier.worker = run.name, run.queue, hostname
        self._set_beside(earlier)
        return earlier

    def forget(self, run: Run) -> bool:
        """Drop a run; whether it was the newest of its task."""
        if self._runs.get(run.uuid) is run:
            del self._runs[run.uuid]
            return True
        if self._beside:
            key = (run.uuid, run.worker or "")
            rest = [other for other in self._beside.pop(key, ()) if other is not run]
            if rest:
                self._beside[key] = rest
        return False

    def evict(self, run: Run, reason: str) -> None:
        """Drop an unfinished run, and count it; what it still holds is counted when its grace is over."""
        run.stop_running()
        run.ended, run.over = run.held is None, True
        self.evicted[reason] += 1
        self.forget(run)

    def older_than(self, then: float) -> list[Run]:
        """Runs opened before ``then``."""
        old = [run for runs in self._beside.values() for run in runs if run.opened < then]
        for run in self._runs.values():
            if run.opened >= then:
                break
            old.append(run)
        return old

    def _set_beside(self, run: Run) -> None:
        runs = self._beside.setdefault((run.uuid, run.worker or ""), [])
        if len(runs) >= MAX_BESIDE:
            self.evict(runs[0], "superseded")
        elif len(self._beside) > max(1, self._limit // 20):
            self.evict(next(iter(self._beside.values()))[0], "limit")
        self._beside.setdefault((run.uuid, run.worker or ""), []).append(run)

    def _evict_oldest(self) -> None:
        """A twentieth at once: reaching the front of a dict one by one costs 46 µs a time at 100,000."""
        for run in list(islice(self._runs.values(), max(1, self._limit // 20))):
            self.evict(run, "limit")
