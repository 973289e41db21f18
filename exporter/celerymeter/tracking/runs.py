"""All runs that are not over: how one is found by an event, which are in progress, how their number stays bounded."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from celerymeter.model import UNKNOWN, ActiveTask, Event
from celerymeter.tracking.run import EndedRuns, Run
from celerymeter.tracking.series import TaskSeries
from celerymeter.tracking.workers import WorkerTable

MAX_BESIDE = 256
"""Runs of one task beside the newest: every worker may run a broadcast at the same time."""
LONG_TEXT = 64
"""Characters of an id or a name, from which on a run counts as large; the ids that Celery makes have 36."""
BESIDE_AGE = 600.0
"""Seconds that a run beside the newest is kept for a worker to report it."""
REPLACEMENT_AGE = 3600.0
"""Seconds that a run which vanished may be replaced by what follows the tasks that it sent."""
MAX_UNREPORTED = 10_000
"""Runs whose missing end may have been turned off; of more the oldest are never counted as without a result."""
VANISHED = 5.0
"""Seconds for which a worker must have left out a run: its end may be on the way, as events come in batches."""


@dataclass(slots=True)
class InProgress:
    """Sums over the runs in progress."""

    oldest: dict[TaskSeries, float] = field(default_factory=dict)
    """The earliest start of each series, UTC seconds by our clock."""
    busy: defaultdict[TaskSeries, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds since their starts that are not counted yet, by series."""
    worker_busy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """The same by node name of the worker."""
    by_worker: Counter[str] = field(default_factory=Counter)
    """Their number, by node name of the worker."""


@dataclass(frozen=True, slots=True)
class _Unreported:
    """A run that ended without an event, until it is certain that its worker would have sent one and we heard it."""

    series: TaskSeries
    hostname: str
    started: float
    seen: float
    """The last time it was known to run; both times are by our clock."""


class RunTable:
    """Unfinished runs by uuid; runs of the same task beside the newest are found by uuid and worker."""

    def __init__(self, limit: int, workers: WorkerTable) -> None:
        self.evicted: Counter[str] = Counter()
        self.recently_ended = EndedRuns()
        self._limit = limit
        self._worker = workers.get
        self._runs: dict[str, Run] = {}
        self.get: Callable[[str], Run | None] = self._runs.get
        """The newest run of a task, by its uuid."""
        self.beside: dict[str, list[Run]] = {}
        """Unfinished runs of the same tasks beside the newest, oldest first."""
        self._running: dict[Run, bool] = {}
        """Runs in progress; the values mean nothing."""
        self._large: dict[Run, bool] = {}
        """Runs with a long id or name, oldest first; the values mean nothing."""
        self._perhaps_replaced: dict[Run, float] = {}
        """Runs that no worker runs any more, and since when: their replacement may come."""
        self._unreported: deque[_Unreported] = deque(maxlen=MAX_UNREPORTED)

    def __len__(self) -> int:
        return len(self._runs) + sum(map(len, self.beside.values()))

    # One run

    def open(self, run: Run) -> Run:
        """Take a new run, which becomes the newest of its task."""
        if len(self._runs) >= self._limit:
            self._evict(self._runs.values(), run.opened)
        if len(run.uuid) > LONG_TEXT or (run.parent_id is not None and len(run.parent_id) > LONG_TEXT):
            self.note_large(run, run.opened)
        self._runs[run.uuid] = run
        return run

    def note_large(self, run: Run, at: float) -> None:
        """Take the run as one of those that take much memory, of which there may be a tenth of the limit."""
        if len(self._large) >= max(1, self._limit // 10):
            self._evict(self._large, at)
        self._large[run] = True

    def count_sent_ahead(self) -> int:
        """Return the number of `task-sent` that are kept for later runs."""
        runs = (*self._runs.values(), *(run for runs in self.beside.values() for run in runs))
        return sum(len(run.sent_ahead) for run in runs if run.sent_ahead is not None)

    def starting(self, uuid: str, hostname: str) -> Run | None:
        """The run that a `task-started` of this worker begins: the oldest at hand that has not started."""
        return next((run for run in self._at(uuid, hostname) if run.started is None or run.adopted), None)

    def ending(self, uuid: str, hostname: str) -> Run | None:
        """The run whose end this worker reports: the oldest that has started, else any that waits."""
        runs = self._at(uuid, hostname)
        if not runs:
            newest = self._runs.get(uuid)
            return newest if newest is not None and newest.started is None else None
        unfinished = [run for run in runs if not run.end_pending and not run.replaced]
        return next((run for run in unfinished if run.started is not None), (unfinished or runs[-1:])[0])

    def of_task(self, uuid: str) -> list[Run]:
        """The unfinished runs of a task, oldest first."""
        newest = self._runs.get(uuid)
        return [*self.beside.get(uuid, ()), *([newest] if newest is not None else [])]

    def of_same_message(self, run: Run) -> list[Run]:
        """The other unfinished runs of the message of ``run``, if their queue is not known: it came more than once."""
        if run.uuid not in self.beside:
            return []
        message = (run.name, run.retries, run.parent_id)
        others = (one for one in self.of_task(run.uuid) if one is not run and one.queue is None)
        return [one for one in others if (one.name, one.retries, one.parent_id) == message]

    def _at(self, uuid: str, hostname: str) -> list[Run]:
        """The unfinished runs of a task at this worker, oldest first, then those that no worker has reported yet."""
        runs = self.of_task(uuid)
        return [run for run in runs if run.worker == hostname] + [run for run in runs if run.worker is None]

    def queue_of_others(self, run: Run) -> str | None:
        """Return the queue of another run of this task under the same name: a retry goes where it came from."""
        others = (self._runs.get(run.uuid), *self.beside.get(run.uuid, ()), self.recently_ended.get(run.uuid))
        queues = (one.queue for one in others if one is not None and one is not run and one.name == run.name)
        return next((queue for queue in queues if queue not in (None, UNKNOWN)), None)

    def overtaken(self, event: Event) -> Run | None:
        """The run that a `task-received` belongs to, although a later run of the task was received before."""
        for run in self.beside.get(event.uuid or "", ()):
            if not run.received and run.retries == (event.retries or 0) and run.parent_id == event.parent_id:
                return run
        return None

    def open_next(self, run: Run, at: float) -> Run:
        """Open the run that follows ``run`` with the same message or a retry; ``run`` may still be unfinished."""
        following = Run(run.uuid, at, at, run.name, run.queue, parent_id=run.parent_id, shadow=run.shadow)
        following.sent, following.eta, following.retries = run.sent, run.eta, run.retries
        return self.open_over(run, following)

    def open_over(self, run: Run, following: Run) -> Run:
        """Make ``following`` the newest of its task; ``run``, if ever heard of, is kept beside until it ends."""
        if not run.ended and (run.addressed or run.received or run.started is not None or run.pending):
            self.set_beside(run, following.opened)
        else:
            self._large.pop(run, None)
        self._runs.pop(run.uuid, None)  # the table is in the order of opening, or nothing behind this one would age
        return self.open(following)

    def open_earlier(self, run: Run, hostname: str, at: float) -> Run:
        """Open a run that came before the newest, at another worker, and is heard of only now."""
        earlier = Run(run.uuid, at, at, run.name, run.queue or run.queue_before, worker=hostname)
        self.set_beside(earlier, at)
        return earlier

    def start(self, run: Run) -> None:
        """The run, whose series is known, is in progress from now on."""
        if run not in self._running and run.series is not None:
            self._running[run] = True
            run.series.in_progress += 1

    def stop(self, run: Run, at: float) -> None:
        """The run takes no slot any more, as of ``at`` by our clock."""
        series = run.series
        if series is None:
            return
        if self._running.pop(run, False):
            series.in_progress -= 1
        if run.busy_since is not None:
            since, counted_until = run.busy_since, run.busy_counted_until
            seconds = at - (since if since > counted_until else counted_until)  # a third of the time of max()
            run.busy_since = None
            if at > counted_until:
                run.busy_counted_until = at
            if seconds > 0.0:  # clocks may differ by more than a run takes
                series.busy.ended += seconds
                if (worker := self._worker(run.worker or "")) is not None:
                    worker.busy.ended += seconds

    def started_before(self, run: Run) -> Run | None:
        """The last unfinished run of the same task that started before this one."""
        started = [one for one in self.beside.get(run.uuid, ()) if one is not run and one.started is not None]
        return started[-1] if started else None

    def requeue(self, run: Run, at: float, *, on_purpose: bool = False) -> None:
        """The message is with the broker again: the task may come to any worker."""
        self.stop(run, at)
        run.redelivered = run.started is not None and not on_purpose
        run.worker = run.started = None
        run.end_pending = run.adopted = False

    def forget(self, run: Run, at: float) -> bool:
        """Drop a run that ended at ``at``; whether it was the newest of its task."""
        self.stop(run, at)
        if self._perhaps_replaced:
            self._perhaps_replaced.pop(run, None)
        if self._large:
            self._large.pop(run, None)
        if self._runs.get(run.uuid) is run:
            del self._runs[run.uuid]
            return True
        rest = [other for other in self.beside.pop(run.uuid, ()) if other is not run]
        if rest:
            self.beside[run.uuid] = rest
        return False

    def evict(self, run: Run, reason: str, at: float) -> None:
        """Drop an unfinished run, and count it; events that still wait for its queue are counted in time."""
        run.ended, run.end_pending = run.pending is None, True
        self.evicted[reason] += 1
        self.forget(run, at)

    def set_beside(self, run: Run, at: float) -> None:
        """Keep an unfinished run beside the newest of its task."""
        runs = self.beside.get(run.uuid, [])
        if len(runs) >= MAX_BESIDE:
            self.evict(runs[0], "superseded", at)
        elif len(self.beside) > max(1, self._limit // 20):
            self.evict(next(iter(self.beside.values()))[0], "limit", at)
        self.beside.setdefault(run.uuid, []).append(run)

    def _evict(self, runs: Collection[Run], at: float) -> None:
        """The first twentieth at once: reaching the front of a dict one by one costs 46 µs a time at 100,000."""
        for run in list(islice(runs, max(1, len(runs) // 20))):
            self.evict(run, "limit", at)

    # Many runs

    def in_progress(self, now: float) -> InProgress:
        """Add up the runs in progress, as of ``now``."""
        sums = InProgress()
        for run in self._running:
            since, series, hostname = run.busy_since, run.series, run.worker or ""
            sums.by_worker[hostname] += 1
            if since is None or series is None:
                continue
            if since < sums.oldest.get(series, math.inf):
                sums.oldest[series] = since
            if (uncounted := now - max(since, run.busy_counted_until)) > 0.0:
                sums.busy[series] += uncounted
                sums.worker_busy[hostname] += uncounted
        return sums

    def evict_old(self, now: float, max_age: float) -> None:
        """Drop the runs that were opened too long ago, and sooner those beside the newest that no worker reports."""
        old = []
        for run in self._runs.values():
            if run.opened >= now - max_age:
                break
            old.append(run)
        for run in old:
            self.evict(run, "age", now)
        for run in [run for run, since in self._perhaps_replaced.items() if since < now - REPLACEMENT_AGE]:
            self._vanish(run, now)
        for run in [run for runs in self.beside.values() for run in runs]:
            if run.opened < now - (max_age if run.worker is not None else BESIDE_AGE):
                self.evict(run, "age" if run.worker is not None else "superseded", now)

    def workers_lost(
        self, hostnames: Collection[str], at: float, *, was_shutting_down: bool = False
    ) -> Counter[tuple[str, str, str]]:
        """These workers are dead: their runs are no longer in progress, and may be delivered again.

        Call it again while they are dead: a start may have waited for its queue, and count only now.
        ``was_shutting_down``: so were they before they came back under the same names. Return how many runs had not
        ended when their workers shut down, by worker, task and queue.
        """
        outlived: Counter[tuple[str, str, str]] = Counter()
        for run in [run for run in self._running if run.worker in hostnames]:
            worker = self._worker(run.worker or "")
            offline = worker is not None and worker.offline_at is not None
            if run.series is not None and (offline or was_shutting_down):
                run.series.shutdown_lost += 1
                outlived[run.worker or "", run.series.labels[0], run.series.labels[1]] += 1
            self.requeue(run, at if worker is None else worker.last_seen)
        return outlived

    def workers_restarted(self, at: Mapping[str, float]) -> None:
        """These workers have started again: what they ran before then is lost."""
        for run in [run for run in self._running if run.touched < at.get(run.worker or "", 0.0)]:
            self.requeue(run, at[run.worker or ""])

    def forget_queues(self, queues: Collection[str], at: float) -> None:
        """Drop tasks that wait in these queues: they are counted elsewhere when they run."""
        for run in [run for run in self._runs.values() if run.queue in queues and run.started is None]:
            self.forget(run, at)

    def forget_workers(self, hostnames: Collection[str], at: float) -> None:
        """The runs of these workers are counted elsewhere."""
        for run in [run for run in self._running if run.worker in hostnames]:
            self.forget(run, at)

    def workers_idle(self, since: Mapping[str, float]) -> None:
        """These workers have reported in every heartbeat since then that they run nothing: earlier runs are gone.

        For workers that do not answer `inspect`; others are asked sooner than they are idle for so long.
        """
        for run in [run for run in self._running if run.touched <= since.get(run.worker or "", 0.0)]:
            self._lose(run, since[run.worker or ""])

    def reconcile(
        self, active: Mapping[str, Iterable[ActiveTask]], *, at: float, replied_at: float
    ) -> Iterator[tuple[str, ActiveTask]]:
        """Compare the runs in progress with the workers' own lists, asked for at ``at``; yield tasks only they have.

        A run missing twice in a row, the second time in a list that was asked for `VANISHED` after the first had come,
        is gone without an end (`celery.exceptions.Ignore`). Should its end come yet, it is still counted.
        """
        running: dict[str | None, list[Run]] = defaultdict(list)
        for run in self._running:
            running[run.worker].append(run)
        for hostname, tasks in active.items():
            worker = self._worker(hostname)
            partial = worker is not None and worker.duplicate  # the list is that of one of two processes
            listed = {task.uuid: task for task in tasks}
            for run in running[hostname]:
                if listed.pop(run.uuid, None) is not None:
                    run.missing_since, run.touched = None, max(run.touched, at)
                elif run.touched >= at or partial:
                    run.missing_since = None
                elif run.missing_since is None:
                    run.missing_since = replied_at
                elif not 0 <= at - run.missing_since < VANISHED:
                    self._lose(run, run.missing_since)
            yield from ((hostname, task) for task in listed.values())

    def count_without_result(self) -> None:
        """Count the runs that have ended without an event although we would have heard it."""
        for _ in range(len(self._unreported)):
            run = self._unreported.popleft()
            worker = self._worker(run.hostname)
            if worker is None or not worker.up:
                continue
            reported = worker.would_have_reported(started=run.started, seen=run.seen)
            if reported is None:
                self._unreported.append(run)
            elif reported:
                run.series.without_result += 1

    def _lose(self, run: Run, at: float) -> None:
        """Take a run as over without an end; if it sent tasks, they may be a chain, group or chord that replaces it.

        Only the last of these has its uuid, and may come much later.
        """
        if run.is_parent and self._runs.get(run.uuid) is run:
            self.stop(run, at)
            self._perhaps_replaced[run] = at
        else:
            self._vanish(run, at)

    def _vanish(self, run: Run, at: float) -> None:
        if run.series is not None and run.worker is not None and run.started is not None:
            worker = self._worker(run.worker)
            offset = (worker.offset if worker is not None else None) or 0.0
            self._unreported.append(_Unreported(run.series, run.worker, run.started + offset, run.touched))
        self.evict(run, "vanished", at)
        run.ended = False
        self.recently_ended.add(run)
