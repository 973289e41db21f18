"""Which name and queue a run has. An event waits until that is known, because `task-received` can overtake `task-sent`.

After `GRACE` it is counted under the only queue that its worker consumes, else under ``unknown``, and so is the rest of
that run.
"""

from __future__ import annotations

from collections import deque

from celerymeter.exception_names import brief_traceback
from celerymeter.model import OTHER, UNKNOWN, Event
from celerymeter.tracking.clocks import LONGEST_HOST
from celerymeter.tracking.counting import RunCounter
from celerymeter.tracking.run import GRACE, Run
from celerymeter.tracking.runs import RunTable
from celerymeter.tracking.series import TaskSeries, TaskSeriesTable
from celerymeter.tracking.workers import WorkerTable

GRACE_NEW_WORKER = 15.0
"""`GRACE` while a worker has not yet said which queues it consumes."""
MAX_PENDING = 256
"""Events of one run that wait for its queue: every worker may receive a broadcast before the first starts it."""
MAX_TEXT = 1000
"""Characters of an exception that are kept while its event waits; only its class counts."""
MAX_NAMES = 10_000
"""Task names known to send events; any beyond them count as names that send none."""


class RunLabels:
    """Finds the labels of runs, and has what waits for them counted."""

    def __init__(
        self, table: TaskSeriesTable, runs: RunTable, workers: WorkerTable, counts: RunCounter, *, limit: int
    ) -> None:
        self.names_received: set[str] = set()
        self._table = table
        self._runs = runs
        self._workers = workers
        self._counts = counts
        self._limit = limit
        self._waiting: deque[tuple[float, Run]] = deque()
        self._events_waiting = 0

    def tick(self, now: float) -> None:
        """Give up waiting for what did not come, or when too many wait."""
        still: list[tuple[float, Run]] = []
        excess = len(self._waiting) - self._limit
        while self._waiting and (excess > 0 or abs(now - self._waiting[0][0]) >= GRACE):
            since, run = self._waiting.popleft()
            if excess <= 0 and abs(now - since) < GRACE_NEW_WORKER and self._queues_may_be_learned(run):
                still.append((since, run))
            elif run.pending is not None:
                self.settle(run, now)
            excess -= 1
        self._waiting.extendleft(reversed(still))

    def address(self, run: Run, event: Event, sent_at: float | None) -> None:
        """Take name, queue and send time from a `task-sent`; what was counted once keeps its labels."""
        run.sent, run.addressed, run.eta = sent_at, True, event.eta
        run.retries, run.parent_id = event.retries or 0, event.parent_id
        if run.series is None:
            queue = self._workers.routes.queue_of(event)
            if queue is not None:  # else a retry has that of its task
                run.queue = self._table.queue(queue)
            if event.name is not None:
                name = self._table.name(event.name)
                if run.name not in (None, name):
                    run.shadow = run.shadow or run.name
                    self._table.learn_shadow(run.shadow or "", name)
                run.name = name

    def learn_name(self, name: str | None) -> None:
        """Remember that tasks of this name are reported."""
        if name is not None and len(self.names_received) < MAX_NAMES:
            self.names_received.add(name)

    def resolve(self, run: Run) -> TaskSeries | None:
        """Return the series of a run, or ``None`` while its name or its queue is not known."""
        if run.name is None or run.queue is None:
            return None
        run.series = self._table.get(run.name, run.queue, run.worker or "")
        return run.series

    def wait(self, run: Run, event: Event, at: float) -> None:
        """Keep an event until its run's queue is known."""
        strip(event, run)
        self._events_waiting += 1
        if run.pending is None:
            run.pending = [event]
            self._waiting.append((at, run))
        else:
            run.pending.append(event)
        if len(run.pending) > MAX_PENDING or self._events_waiting > 2 * self._limit:
            self.settle(run, at)

    def settle(self, run: Run, at: float) -> TaskSeries:
        """Decide the labels of a run whose `task-sent` did not come, and count what waits for them."""
        run.name = run.name or UNKNOWN
        if run.queue is None and run.worker is not None and self.may_consume(run.worker, run.queue_before):
            run.queue = run.queue_before
        run.queue = run.queue or self._only_queue(run) or self._runs.queue_of_others(run) or UNKNOWN
        if run.name == OTHER and run.shadow is not None:
            self._table.folded["shadow"] += 1
        series = run.series or self._table.get(run.name, run.queue, run.worker or "")
        run.series = series
        self.count_pending(run, at)
        return series

    def count_pending(self, run: Run, at: float) -> None:
        """Count what waits for a run's queue, if that is known now."""
        series = run.series or self.resolve(run)
        if series is None:
            return
        pending, run.pending = run.pending, None
        self._events_waiting -= len(pending or ())
        for event in pending or ():
            self._count(run, series, event, at)

    def _count(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
        """Count an event that had to wait."""
        worker = self._workers.get(event.hostname)
        if event.type == "task-received":
            series.received += 1
        elif event.type == "task-started":
            self._counts.start(run, series, event, None if worker is None else worker.offset, at)
        elif event.type == "task-sent":
            self._counts.sent(run.name or UNKNOWN, run.queue or UNKNOWN)
        else:
            self._counts.end(run, series, event, at if worker is None else worker.our_time(event, at))

    def _only_queue(self, run: Run) -> str | None:
        queues = self._workers.queues_of(run.worker) if run.worker is not None else None
        return self._table.queue(queues[0]) if queues is not None and len(queues) == 1 else None

    def may_consume(self, hostname: str, queue: str | None) -> bool:
        """Return False if the worker has said that it consumes other queues only."""
        queues = self._workers.queues_of(hostname)
        return queues is None or queue in (None, UNKNOWN, OTHER, *map(self._table.queue.clean, queues))

    def _queues_may_be_learned(self, run: Run) -> bool:
        known = run.queue_before is not None or run.worker is None or self._workers.queues_of(run.worker) is not None
        return run.pending is not None and not known

    def broadcast(self, uuid: str, queue: str, at: float) -> None:
        """Note that every worker gets the tasks of this queue, and count what some of them said of this one before."""
        if queue != OTHER:
            self._counts.broadcasts.add(queue)
        for run in self._runs.of_task(uuid):
            if run.queue is None:
                run.queue = queue
                self.count_pending(run, at)


def strip(event: Event, run: Run) -> None:
    """Drop from an event that is kept what nothing will read: it may be of many megabytes."""
    event.uuid = run.uuid  # one text for all events of a run
    if event.type == "task-sent":
        event.hostname = event.hostname.rpartition("@")[2][:LONGEST_HOST]  # for its clock
    event.expires = event.application_version = event.totals = event.beat = None
    event.celerymeter_counted = bool(event.celerymeter_counted)
    if event.traceback is not None:
        event.traceback = brief_traceback(event.exception, event.traceback)
    if event.exception is not None:
        event.exception = event.exception[:MAX_TEXT]
