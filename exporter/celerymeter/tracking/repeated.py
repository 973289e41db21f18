"""Runs that seem to be second ones of the same message, until that is certain.

A worker's events may come before the `task-sent` which tells that a task was sent again under its id, or replaces
itself under its own name. So such a run counts as redelivered only after a while.
"""

from __future__ import annotations

from dataclasses import dataclass

from celerymeter.model import Event
from celerymeter.tracking.identity import is_called
from celerymeter.tracking.run import GRACE, Run
from celerymeter.tracking.series import TaskSeries

MAX_REPEATED = 10_000


@dataclass(frozen=True, slots=True)
class Repeated:
    """A run that has started, and the unfinished run of the same task before it."""

    since: float
    run: Run
    series: TaskSeries
    before: Run | None


class RepeatedRuns:
    """At most one run of each task, by its id."""

    def __init__(self) -> None:
        self._runs: dict[str, Repeated] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def note(self, run: Run, series: TaskSeries, before: Run | None, at: float) -> None:
        """Take a run; one of the same task that was noted before counts now."""
        noted = self._runs.pop(run.uuid, None)
        if noted is not None:
            noted.series.redelivered += 1
        if len(self._runs) < MAX_REPEATED:
            self._runs[run.uuid] = Repeated(at, run, series, before)
        else:
            series.redelivered += 1

    def pop(self, event: Event) -> Repeated | None:
        """Return the run that this `task-sent` is of, which so is no second one of its message."""
        noted = self._runs.get(event.uuid or "")
        if noted is None:
            return None
        run = noted.run
        same = (event.retries or 0) == run.retries and event.parent_id == run.parent_id
        if not same or run.addressed or not is_called(run, event.name):
            return None
        return self._runs.pop(run.uuid)

    def drop(self, uuid: str) -> bool:
        """Forget the run of this task, which so is no second one of its message; return False if there is none."""
        return self._runs.pop(uuid, None) is not None

    def count(self, now: float) -> None:
        """Count those whose `task-sent` does not come any more."""
        for uuid, noted in list(self._runs.items()):
            if not 0 <= now - noted.since < GRACE:
                del self._runs[uuid]
                noted.series.redelivered += 1
