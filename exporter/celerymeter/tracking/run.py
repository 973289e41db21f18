"""One run of a task, and the runs that ended last.

A task's uuid is not enough to name a run. A retry comes with the same uuid (its `task-sent` and even its
`task-received` may overtake the end of the run before), and so does a task that replaces another
(`celery.app.task.Task.replace`), under a name and queue of its own. A redelivered task may run on two workers at once.
"""

from __future__ import annotations

import msgspec

from celerymeter.model import Event
from celerymeter.tracking.series import TaskSeries

GRACE = 2.0
"""Seconds by which an event may come later than another of the same run that was sent after it."""


class Run(msgspec.Struct, gc=False, eq=False):
    """One run of a task, or a task that is still to run. Times are UTC seconds.

    A Struct is made in a third of the time of a class, and the garbage collector never looks at it: nothing that a
    run refers to refers back to it.
    """

    uuid: str
    opened: float
    touched: float
    name: str | None = None
    queue: str | None = None
    series: TaskSeries | None = None
    sent: float | None = None
    """By our clock; that of the run before, until its own `task-sent` has come."""
    started: float | None = None
    """By the worker's clock."""
    eta: str | None = None
    retries: int = 0
    parent_id: str | None = ""
    """The task that sent it, ``None`` for none, empty while that is not known."""
    addressed: bool = False
    """Its own `task-sent` has come."""
    busy_since: float | None = None
    """Its start by our clock, for as long as it takes a slot."""
    busy_counted_until: float = 0.0
    """Its busy time before then is counted: it ran on while its worker was silent, or began before this exporter."""
    worker: str | None = None
    pending: list[Event] | None = None
    """Events not yet counted, because the queue is not yet known."""
    sent_ahead: list[Event] | None = None
    """The `task-sent` of later runs of this task."""
    queue_before: str | None = None
    """The queue of the run that it retries: it stays there unless its `task-sent` names another."""
    shadow: str | None = None
    """The worker's name for it (`celery.app.task.Task.shadow_name`), if not ``name``."""
    replaced: bool = False
    """Its replacement has been sent: it ends without an event of its own."""
    redelivered: bool = False
    """Its start will be a second one of the same message."""
    before: Run | None = None
    """The run that it replaced or repeats, if the `task-sent` of that has not come."""
    unheard: Run | None = None
    """The run that it replaces, if no worker has said anything of that yet."""
    is_parent: bool = False
    """It has sent another task, so it may be replaced by what that begins."""
    received: bool = False
    ended: bool = False
    rejected: bool = False
    end_pending: bool = False
    """Its end has come, but is not yet counted."""
    adopted: bool = False
    """Its worker lists it as running, but its `task-started` has not come."""
    missing_since: float | None = None
    """Since when its worker no longer lists it."""


class EndedRuns:
    """The runs that ended last, at most ``3 * limit``; terminated ones are kept apart, because they may run on.

    Of most only the series is kept: thousands of runs would be memory that nothing is read from.
    """

    def __init__(self, limit: int = 8000) -> None:
        self._limit = limit
        self._young: dict[str, Run | TaskSeries] = {}
        self._old: dict[str, Run | TaskSeries] = {}
        self._terminated: dict[str, Run | TaskSeries] = {}

    def add(self, run: Run, *, terminated: bool = False) -> None:
        """Remember a run that ended, or that vanished and may still end."""
        heard = run.received and run.started is not None and run.before is None and run.unheard is None
        complete = run.ended and heard
        kept = run.series if complete and run.series is not None else run
        if terminated:
            self._terminated[run.uuid] = kept
            if len(self._terminated) > self._limit:
                self._terminated = dict(list(self._terminated.items())[self._limit // 2 :])
            return
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[run.uuid] = kept

    def get(self, uuid: str) -> Run | None:
        """The last run of this task, if it ended recently."""
        kept = self._young.get(uuid) or self._old.get(uuid) or self._terminated.get(uuid)
        if isinstance(kept, TaskSeries):
            name, queue = kept.labels[:2]
            return Run(uuid, 0.0, 0.0, name, queue, kept, started=0.0, received=True, ended=True)
        return kept
