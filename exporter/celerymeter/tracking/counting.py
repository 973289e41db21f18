"""Counts what events say of runs: that they were sent, began and waited, and the one end of each."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from celerymeter.exception_names import WORKER_LOST, exception_name
from celerymeter.model import UNKNOWN, Event
from celerymeter.tracking.clocks import parse_eta
from celerymeter.tracking.repeated import RepeatedRuns
from celerymeter.tracking.run import GRACE, Run
from celerymeter.tracking.runs import RunTable
from celerymeter.tracking.series import TaskSeries, TaskSeriesTable
from celerymeter.tracking.workers import WorkerTable

TOLERANCE = 0.05
"""Seconds below 0 that a wait may come out from measurement error alone."""
GREENLETS = ("gevent", "eventlet")
_UNREGISTERED = re.compile(r"NotRegistered\((['\"])(.+)\1\)", re.DOTALL)
"""The exception by which a worker answers a message of a task that it does not know (`Consumer.on_unknown_task`)."""


class Close(Protocol):
    """Ends a run at ``at``; see `TaskTracker._close`."""

    def __call__(
        self, run: Run, at: float, *, remember: bool = True, terminated: bool = False, ran: bool = True
    ) -> None: ...


class _Requeued(NamedTuple):
    """A run whose message went back to the broker: perhaps its process died, perhaps its failure is on the way."""

    at: float
    hostname: str
    started: float
    series: TaskSeries


class RunCounter:
    """Counts under the series of a run; ``close`` is called with each run that is over."""

    def __init__(
        self,
        table: TaskSeriesTable,
        runs: RunTable,
        workers: WorkerTable,
        *,
        limit: int,
        count_retry_exceptions: bool,
        close: Close,
    ) -> None:
        self.duplicates: Counter[str] = Counter()
        """Ends of runs that were over."""
        self.waits_unmeasured: Counter[str] = Counter()
        self.last_success: dict[str, float] = {}
        self.repeated = RepeatedRuns()
        self.sent_series: dict[tuple[str | None, str | None], TaskSeries] = {}
        """The series that a `task-sent` of this name and queue counts for, where neither is folded."""
        self.broadcasts: set[str] = set()
        """Queues whose tasks every worker gets, by their labels, as far as `task-sent` have said so."""
        self._table = table
        self._runs = runs
        self._workers = workers
        self._limit = limit
        self._count_retry_exceptions = count_retry_exceptions
        self._close = close
        self._undecided: deque[tuple[float, Run, TaskSeries]] = deque()
        """Runs that seem to be over, until another event says how they ended."""
        self.requeued: dict[str, _Requeued] = {}
        """By uuid, until it is certain that a process died."""
        self._ends: Mapping[str, Callable[[Run, TaskSeries, Event, float], None]] = {
            "task-succeeded": self._succeeded,
            "task-failed": self._failed,
            "task-retried": self._retried,
            "task-revoked": self._revoked,
            "task-rejected": self._rejected,
            "task-cancelled": self._cancelled,
        }

    def tick(self, now: float) -> None:
        """Count what no other event has explained in time, or when too much waits for one."""
        if self.repeated:
            self.repeated.count(now)
        while self._undecided and (len(self._undecided) > self._limit or abs(now - self._undecided[0][0]) >= GRACE):
            _, run, series = self._undecided.popleft()
            if not run.ended:
                self._decide(run, series, now)
        for uuid, requeued in list(self.requeued.items()):
            if len(self.requeued) > self._limit or abs(now - requeued.at) >= GRACE:
                self._take_as_lost(uuid)

    def _decide(self, run: Run, series: TaskSeries, now: float) -> None:
        if run.rejected:
            series.rejected_end += 1
            run.rejected = False
        elif run.started is not None and run.busy_since is None:  # killed, and it does not run again
            series.without_result += 1
        else:
            return
        self._close(run, now)

    def sent(self, name: str, queue: str) -> None:
        """Producers are not workers: under `--task-hostname-label` a sent task has an empty hostname."""
        self._table.get(name, queue).sent += 1

    def start(self, run: Run, series: TaskSeries, event: Event, offset: float | None, at: float) -> None:
        """Count the start of a run; ``offset`` is that of its worker's clock."""
        series.started += 1
        if self.requeued:
            self._take_as_lost(run.uuid)
        if run.redelivered:
            run.redelivered = False
            if not self._may_be_broadcast(run, series):
                self.repeated.note(run, series, self._runs.started_before(run), at)
        if run.replaced and not run.ended:
            self._close(run, run.touched, remember=False)
        elif not run.ended and not run.end_pending:
            self._runs.start(run)
        if run.sent is None or offset is None or run.eta is not None:
            self._observe_scheduled_wait(run, series, event, offset)
        else:
            self._observe_wait(series, event.timestamp + offset - run.sent)

    def _may_be_broadcast(self, run: Run, series: TaskSeries) -> bool:
        """Return True if other workers get the message too; without its `task-sent` one that may be is taken for it."""
        name, queue = series.labels[:2]
        worker = self._workers.get(run.worker or "")
        addressed = (name, queue) in self.sent_series
        gets = worker is not None and worker.state is not None and bool(worker.state.broadcasts)
        return queue in self.broadcasts or (gets and not addressed)

    def _observe_wait(self, series: TaskSeries, wait: float) -> None:
        if wait < -TOLERANCE:
            self.waits_unmeasured["negative"] += 1
        else:
            series.wait.observe(wait)

    def _observe_scheduled_wait(self, run: Run, series: TaskSeries, event: Event, offset: float | None) -> None:
        """Observe the wait since a task's ETA, by the worker's clock, or count why a wait cannot be measured."""
        if run.sent is None:
            self.waits_unmeasured["not_sent"] += 1
        elif offset is None:
            self.waits_unmeasured["clock_offset"] += 1
        elif (eta := parse_eta(run.eta or "")) is None:
            self.waits_unmeasured["eta"] += 1
        else:
            self._observe_wait(series, event.timestamp + offset - max(run.sent, eta + offset))

    def end(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
        """Count the end of a run, or a duplicate if it is over."""
        if run.ended:
            self.duplicates[event.type] += 1
        else:
            self._ends[event.type](run, series, event, at)

    def _succeeded(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
        if event.runtime is not None:
            series.runtime.observe(event.runtime)
        elif self._is_in_greenlet(run):
            self._take_as_killed(run, series, at)
            return
        series.succeeded += 1
        self.last_success[run.name or UNKNOWN] = at
        self._close(run, at)

    def _is_in_greenlet(self, run: Run) -> bool:
        worker = self._workers.get(run.worker or "")
        return worker is not None and worker.pool in GREENLETS

    def _take_as_killed(self, run: Run, series: TaskSeries, at: float) -> None:
        """Wait for the event that says why a greenlet was killed: Celery lets it succeed, without a run time.

        See `celery.concurrency.gevent.TaskPool._make_killable_target`. The other event comes before or after this one.
        """
        self._runs.stop(run, at)
        self._undecided.append((at, run, series))

    def _failed(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
        if unregistered_name(event) is not None:
            self._discarded(run, series)
        self._count_failure(series, event, run.started)
        self._close(run, at)

    def _count_failure(self, series: TaskSeries, event: Event, started: float | None) -> None:
        series.failed += 1
        name = exception_name(event.exception, event.traceback)
        series.process_lost += name == WORKER_LOST
        self._table.count_exception(series.exceptions, name)
        if started is not None:
            series.failed_runtime_count += 1
            series.failed_runtime_sum += max(0.0, event.timestamp - started)

    def _retried(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
        series.retried += 1
        series.polled += event.exception in (None, "None")
        name = exception_name(event.exception, event.traceback)
        series.process_lost += name == WORKER_LOST
        if self._count_retry_exceptions:
            self._table.count_exception(series.retry_exceptions, name)
        self._close(run, at, remember=False)

    def _discarded(self, run: Run, series: TaskSeries) -> None:
        """Count as received what a worker discards on receipt: it sends the end alone (`celery.worker.strategy`)."""
        if not run.received and run.started is None and run.uuid not in self._runs.beside:
            series.received += 1

    def _revoked(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
        self._discarded(run, series)
        if event.expired:
            series.revoked_expired += 1
        elif event.terminated:
            series.revoked_terminated += 1
        else:
            series.revoked += 1
        self._close(run, at, terminated=bool(event.terminated), ran=run.started is not None)

    def _rejected(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
        """A rejection is the end only if no `task-failed` of the same run comes with it, and never when it requeues."""
        if event.requeue:
            series.rejected_requeued += 1
            worker = self._workers.get(run.worker or "")
            if run.started is not None and (worker is None or worker.pool in ("", "prefork")):
                self._take_as_lost(run.uuid)
                self.requeued[run.uuid] = _Requeued(at, event.hostname, run.started, series)
            if self._explain_repeated(run):  # the message came again before we heard of the rejection
                self._close(run, at, remember=False)
            else:
                self._runs.requeue(run, at, on_purpose=True)
        elif run.rejected:
            self.duplicates["task-rejected"] += 1
        else:
            run.rejected = True
            self._runs.stop(run, at)
            self._undecided.append((at, run, series))

    def _take_as_lost(self, uuid: str) -> None:
        """Count the process of a run that was requeued as lost, if nothing else has explained that.

        With task_reject_on_worker_lost no other event tells of a killed process (`Request.on_failure`). A task that
        raises `Reject(requeue=True)` sends the same.
        """
        if (requeued := self.requeued.pop(uuid, None)) is not None:
            requeued.series.process_lost += 1

    def failed_and_requeued(self, event: Event) -> bool:
        """Count the failure of a run whose message went back to the broker; False for any other event.

        At a time limit Celery sends both, the requeue first (``acks_late`` without ``acks_on_failure_or_timeout``).
        """
        requeued = self.requeued.get(event.uuid or "") if event.type == "task-failed" else None
        if requeued is None or requeued.hostname != event.hostname:
            return False
        del self.requeued[event.uuid or ""]
        self._count_failure(requeued.series, event, requeued.started)
        return True

    def _explain_repeated(self, run: Run) -> bool:
        """Take a run that seemed to be a redelivery for what the requeue of ``run`` led to; False if there is none."""
        if self.repeated.drop(run.uuid):
            return True
        repeated = next((one for one in self._runs.of_task(run.uuid) if one.redelivered), None)
        if repeated is not None:
            repeated.redelivered = False
        return repeated is not None

    def _cancelled(self, run: Run, _series: TaskSeries, _event: Event, at: float) -> None:
        self._runs.requeue(run, at)


def unregistered_name(event: Event) -> str | None:
    """The task that the worker does not know, whose only event this is; a task's own exception has a traceback."""
    if event.type != "task-failed" or event.traceback is not None:
        return None
    found = _UNREGISTERED.fullmatch(event.exception or "")
    return None if found is None else found.group(2)
