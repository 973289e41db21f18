"""The runs of one worker process: those that wait, those in progress, and the last ones that ended.

Not thread-safe: `celerymeter.aggregate.counting.RunCounter` has the lock.
"""

from __future__ import annotations

from celerymeter.aggregate.series import Series

MAX_SAME = 10
"""Messages of one task that wait for their start."""
MAX_WAITING = 100_000
"""Tasks received and not started, beyond which the oldest are forgotten."""
REMEMBERED = 10_000
"""Ended runs that are remembered, at least."""


class Run:
    """One run of a task at this worker. Times are seconds as those of `RunCounter`, 0 for what has not happened."""

    __slots__ = (
        "ended",
        "eta",
        "missing",
        "received",
        "rejected",
        "retries",
        "sent",
        "series",
        "started",
        "state",
        "uuid",
    )

    def __init__(self, uuid: str, series: Series, *, received: float = 0.0, retries: int = 0) -> None:
        self.uuid, self.series = uuid, series
        self.received, self.retries = received, retries
        self.started = self.ended = self.missing = 0.0
        self.sent: float | None = None
        self.eta: float | None = None
        self.state = "received"
        self.rejected = False


class Runs:
    """Runs by the uuid of their task; a task may have several at the same time."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Run]] = {}
        """The first received first: a retry of a retry may come before Celery says that the first began."""
        self._stale: dict[str, list[Run]] = {}
        """Those that waited when the connection was last lost: some are in the pool and will start."""
        self._running: dict[str, Run] = {}
        self._beside: dict[str, list[Run]] = {}
        """Runs in progress of tasks that run a second time: `_running` has the first."""
        self._recent: dict[str, Run] = {}
        self._older: dict[str, Run] = {}

    def receive(self, run: Run) -> None:
        """Add a run that waits for its start."""
        waiting = self._waiting.setdefault(run.uuid, [])
        if len(waiting) < MAX_SAME:
            waiting.append(run)
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def take_waiting(self, uuid: str) -> Run | None:
        """Remove and return the run of a task that has waited for longest."""
        for runs in (self._waiting, self._stale):
            if same := runs.get(uuid):
                run = same.pop(0)
                if not same:
                    del runs[uuid]
                return run
        return None

    def start(self, run: Run) -> Run | None:
        """Add a run in progress; return the first one of the same task, if that is still in progress."""
        first = self._running.setdefault(run.uuid, run)
        if first is run:
            return None
        self._beside.setdefault(run.uuid, []).append(run)
        return first

    def take(self, uuid: str) -> Run | None:
        """Remove and return the run of a task that ends: the first in progress, or else one that waits."""
        run = self._running.pop(uuid, None)
        if run is None:
            return self.take_waiting(uuid)
        if beside := self._beside.get(uuid):
            self._running[uuid] = beside.pop(0)
            if not beside:
                del self._beside[uuid]
        return run

    def remember(self, run: Run) -> None:
        """Keep a run that has ended."""
        if len(self._recent) >= REMEMBERED:
            self._older, self._recent = self._recent, {}
        self._recent[run.uuid] = run

    def ended(self, uuid: str) -> Run | None:
        """Return the run of a task that ended last."""
        return self._recent.get(uuid) or self._older.get(uuid)

    def find(self, uuid: str) -> Run | None:
        """Return a task's unfinished run, or else the one that ended last."""
        if (run := self._running.get(uuid)) is not None:
            return run
        waiting = self._waiting.get(uuid)
        return waiting[0] if waiting else self.ended(uuid)

    def is_known(self, uuid: str) -> bool:
        """Return True if the task has a run here, whatever became of it."""
        return uuid in self._stale or self.find(uuid) is not None

    def is_running(self, uuid: str) -> bool:
        """Return True if a run of the task is in progress."""
        return uuid in self._running

    def in_progress(self) -> list[Run]:
        """Return all runs that have started and not ended."""
        return [*self._running.values(), *(run for runs in self._beside.values() for run in runs)]

    def lost_connection(self) -> None:
        """Set the waiting runs aside: Celery has dropped their messages, and the broker delivers some again."""
        self._stale, self._waiting = self._waiting, {}
