"""What is in progress, held against what the workers say of themselves: they die, and events may never come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from celerymeter.model import ActiveTask
from celerymeter.tracking.runs import Run
from celerymeter.tracking.tasks import TaskTracker

VANISHED = 5.0
"""Seconds for which a worker must have left out a run: its end may be on the way, as events come in batches."""


class Progress:
    """Corrects the runs in progress of a `TaskTracker`."""

    def __init__(self, tasks: TaskTracker) -> None:
        self._tasks = tasks

    def workers_lost(self, hostnames: Collection[str]) -> None:
        """These workers are dead: what they ran is no longer in progress, and may be delivered again.

        To be told again and again: a start may have been held until its queue was known, and count only now.
        """
        for run in [run for run in self._running() if run.worker in hostnames]:
            run.give_back()

    def workers_idle(self, since: Mapping[str, float]) -> None:
        """These workers have said in every heartbeat since then that they run nothing: what they ran before is gone.

        For workers that do not answer `inspect`; others are asked sooner than they are idle for so long.
        """
        gone = [run for run in self._running() if run.touched <= since.get(run.worker or "", 0.0)]
        for run in gone:
            self._vanish(run)

    def reconcile(self, active: Mapping[str, Iterable[ActiveTask]], *, at: float) -> None:
        """Hold the unfinished runs of workers against their own lists, asked for at ``at``.

        A run missing twice in a row, and for `VANISHED`, is gone without an end (`celery.exceptions.Ignore`); should
        its end come yet, it is still counted. A task that we never heard of was started before we were.
        """
        running: dict[str | None, list[Run]] = defaultdict(list)
        for run in self._running():
            running[run.worker].append(run)
        for hostname, tasks in active.items():
            self._reconcile(hostname, running[hostname], {task.uuid: task for task in tasks}, at)

    def _reconcile(self, hostname: str, running: Iterable[Run], listed: dict[str, ActiveTask], at: float) -> None:
        for run in running:
            if listed.pop(run.uuid, None) is not None or run.touched >= at:
                run.missing_since = None
            elif run.missing_since is None:
                run.missing_since = at
            elif not 0 <= at - run.missing_since < VANISHED:
                self._vanish(run)
        for task in listed.values():
            self._adopt(hostname, task, at)

    def _vanish(self, run: Run) -> None:
        self._tasks.runs.evict(run, "vanished")
        run.ended = False
        self._tasks.lately.add(run)

    def _adopt(self, hostname: str, task: ActiveTask, at: float) -> None:
        tasks = self._tasks
        run = tasks.runs.get(task.uuid)
        known = run is not None and (run.started is not None or run.touched >= at)
        if known or task.started_at is None or tasks.lately.get(task.uuid) is not None:
            return
        run = run or tasks.runs.open(task.uuid, at)
        run.worker, run.started, run.touched, run.adopted = hostname, task.started_at, at, True
        run.name = run.name or tasks.pairs.name(task.name)
        run.queue = run.queue or (tasks.pairs.queue(task.queue_name) if task.queue_name else None)
        tasks.settle(run, at)
        if run.pair is not None and not run.ended:
            run.pair.running[run] = None

    def _running(self) -> Iterator[Run]:
        return (run for pair in self._tasks.pairs for run in pair.running)
