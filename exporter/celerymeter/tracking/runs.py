"""Unfinished runs of tasks: how one is found by an event, and how their number stays bounded.

A task's uuid is not enough to name a run: a retry comes with the same uuid (its `task-sent` and even its
`task-received` may overtake the end of the run before), and a redelivered task may run on two workers at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from celerymeter.model import Event
from celerymeter.tracking.series import Pair

MAX_NEXT = 8


class Run:
    """One unfinished run of a task, or a task that is still to run. Times are UTC seconds."""

    __slots__ = (
        "ended",
        "eta",
        "held",
        "name",
        "next",
        "opened",
        "pair",
        "queue",
        "received",
        "rejected",
        "retries",
        "sent",
        "started",
        "touched",
        "uuid",
        "vanishing",
        "worker",
    )

    def __init__(self, uuid: str, at: float) -> None:
        self.uuid = uuid
        self.opened = self.touched = at
        self.name: str | None = None
        self.queue: str | None = None
        self.pair: Pair | None = None
        self.sent: float | None = None
        """By our clock."""
        self.started: float | None = None
        """By the worker's clock."""
        self.eta: str | None = None
        self.retries = 0
        self.worker: str | None = None
        self.held: list[Event] | None = None
        """Events not yet counted, because the queue is not yet known."""
        self.next: list[Event] | None = None
        """The `task-sent` of later runs of this task."""
        self.received = self.ended = self.rejected = self.vanishing = False

    def stop_running(self) -> None:
        """No longer in progress."""
        if self.pair is not None:
            self.pair.running.pop(self, None)

    def give_back(self) -> None:
        """The message is with the broker again: the task may come to any worker."""
        self.stop_running()
        self.worker = self.started = None


class RunTable:
    """Runs by uuid; runs of the same task beside the newest are found by uuid and worker."""

    def __init__(self, limit: int) -> None:
        self.evicted: Counter[str] = Counter()
        self._limit = limit
        self._runs: dict[str, Run] = {}
        self._beside: dict[tuple[str, str], Run] = {}

    def __len__(self) -> int:
        return len(self._runs) + len(self._beside)

    def __iter__(self) -> Iterator[Run]:
        yield from self._runs.values()
        yield from self._beside.values()

    def get(self, uuid: str) -> Run | None:
        """The newest run of a task."""
        return self._runs.get(uuid)

    def open(self, uuid: str, at: float) -> Run:
        """A new run, which becomes the newest of its task."""
        if len(self._runs) >= self._limit:
            self._evict_oldest()
        run = self._runs[uuid] = Run(uuid, at)
        return run

    def at_worker(self, uuid: str, hostname: str) -> Run | None:
        """The run of a task that an event of this worker speaks of."""
        run = self._runs.get(uuid)
        if run is None or run.worker is None or run.worker == hostname:
            return run
        beside = self._beside.get((uuid, hostname))
        return beside if beside is not None or run.started is not None else run

    def succeed(self, run: Run, at: float) -> Run:
        """Open the run that follows ``run``, which may still be unfinished (elsewhere, or its end got lost)."""
        if run.worker is not None and not run.ended:
            self._set_beside(run)
        following = self.open(run.uuid, at)
        following.name, following.queue = run.name, run.queue
        following.sent, following.eta, following.retries = run.sent, run.eta, run.retries
        return following

    def precede(self, run: Run, hostname: str, at: float) -> Run:
        """Open a run that came before the newest, at another worker, and is heard of only now."""
        earlier = Run(run.uuid, at)
        earlier.name, earlier.queue, earlier.worker = run.name, run.queue, hostname
        self._set_beside(earlier)
        return earlier

    def forget(self, run: Run) -> None:
        """Drop a run."""
        if self._runs.get(run.uuid) is run:
            del self._runs[run.uuid]
        key = (run.uuid, run.worker or "")
        if self._beside.get(key) is run:
            del self._beside[key]

    def evict(self, run: Run, reason: str) -> None:
        """Drop an unfinished run, and count it; what it still holds is counted when its grace is over."""
        run.stop_running()
        run.ended = run.held is None
        self.evicted[reason] += 1
        self.forget(run)

    def older_than(self, then: float) -> list[Run]:
        """Runs opened before ``then``."""
        old: list[Run] = []
        for runs in (self._runs, self._beside):
            for run in runs.values():
                if run.opened > then:
                    break
                old.append(run)
        return old

    def _set_beside(self, run: Run) -> None:
        key = (run.uuid, run.worker or "")
        if (replaced := self._beside.pop(key, None)) is not None:
            replaced.stop_running()
            self.evicted["superseded"] += 1
        elif len(self._beside) >= max(1, self._limit // 20):
            self.evict(next(iter(self._beside.values())), "limit")
        self._beside[key] = run

    def _evict_oldest(self) -> None:
        """A twentieth at once: reaching the front of a dict one by one costs 46 µs a time at 100,000."""
        for run in list(islice(self._runs.values(), max(1, self._limit // 20))):
            self.evict(run, "limit")
