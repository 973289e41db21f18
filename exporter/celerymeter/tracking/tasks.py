"""Task events into counts. Each event counts under the (name, queue_name) of its run, and a run ends once.

`RunMatcher` finds that run where several are possible, `RunLabels` its labels, and `RunCounter` counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from celerymeter.model import UNKNOWN, ActiveTask, Event
from celerymeter.routing import is_broadcast
from celerymeter.tracking.clocks import ProducerClocks
from celerymeter.tracking.counting import RunCounter, unregistered_name
from celerymeter.tracking.identity import link
from celerymeter.tracking.labels import RunLabels
from celerymeter.tracking.matching import RunMatcher
from celerymeter.tracking.run import Run
from celerymeter.tracking.runs import VANISHED, RunTable
from celerymeter.tracking.sent_ahead import SentAhead, TaskParts
from celerymeter.tracking.series import TaskSeriesTable
from celerymeter.tracking.worker import Worker
from celerymeter.tracking.workers import WorkerTable

MAX_AGE = 7 * 86400.0
SILENT_RUNS = 50
"""Runs that workers say to have begun (`inspect stats`): so many events are not merely late."""


class TaskTracker:
    """Follows every run and counts it where it belongs; ``at`` is receipt time, by our clock.

    Busy time before ``since`` was counted by the process of the exporter that ran then, or by nobody: its counters
    begin at ``since``, and what is older would be a jump in them.
    """

    def __init__(
        self,
        table: TaskSeriesTable,
        workers: WorkerTable,
        *,
        limit: int,
        count_retry_exceptions: bool = False,
        since: float = 0.0,
    ) -> None:
        self.table = table
        self.runs = RunTable(limit, workers)
        self.producers = ProducerClocks()
        self.counts = RunCounter(
            table, self.runs, workers, limit=limit, count_retry_exceptions=count_retry_exceptions, close=self._close
        )
        self.labels = RunLabels(table, self.runs, workers, self.counts, limit=limit)
        self._workers = workers
        self._limit = limit
        self._since = since
        parts = TaskParts(table, self.runs, workers, self.labels, self.counts, self.producers, limit, self._close)
        self._ahead = SentAhead(parts)
        self._silent: frozenset[str] = frozenset()
        """Names of tasks with ``send_events=False``: no event would end their runs, so none is opened."""
        self._matcher = RunMatcher(parts, self._ahead)

    # Events

    def sent(self, event: Event, at: float) -> float:
        """Take a `task-sent`, the only event that names the queue; return when it was sent, by our clock.

        That of a retry or a replacement comes while the run before it still runs.
        """
        uuid, name, queue, retries = (
            event.uuid or "",
            event.name,
            event.queue or self._workers.routes.queue_of(event),
            event.retries or 0,
        )
        sent_at = self.producers.observe(event, at)
        if name is not None and name in self._silent:
            self.counts.sent(self.table.name(name), self.table.queue(queue or UNKNOWN))
            return sent_at
        if event.parent_id is not None:
            self._note_parent(event)
        if self.counts.repeated and (noted := self.counts.repeated.pop(event)) is not None:
            self._matcher.take_as_sent(noted.run, noted.before, event, at)
            self.counts.sent(*noted.series.labels[:2])
            return sent_at
        run = self.runs.get(uuid)
        if run is None and (before := self._matcher.of_sent_after_end(event)) is not None:
            self.labels.address(before, event, sent_at)
            self._count_addressed(before, (name, queue), event, at)
            return sent_at
        if run is None and uuid in self.runs.beside:  # the runs that followed are over
            run = self._matcher.of_late_sent(event)
        follows = retries > 0 or event.parent_id == uuid
        direct = run is None and not follows and not event.exchange  # the queue is certain: see `QueueRoutes.queue_of`
        if direct and (series := self.counts.sent_series.get((name, queue))) is not None:
            series.sent += 1
            own = None if self.table.by_host else series
            name, queue = series.labels[0], series.labels[1]  # one string for all tasks of a name
            run = Run(uuid, at, at, name, queue, own, sent_at, None, event.eta, retries, event.parent_id, True)
            self.runs.open(run)
            return sent_at
        if name is not None:
            event.name = name = self.table.name.clean(name)
        if is_broadcast(event):
            queue = self.table.queue(event.exchange or "")
            self.labels.broadcast(uuid, queue, at)
        if run is None and follows:
            self._ahead.keep(self._matcher.open_unreported(event, at), event, at)
            return sent_at
        run = self.runs.open(Run(uuid, at, at)) if run is None else self._matcher.of_sent(run, event, at)
        if run is None:
            return sent_at
        self.labels.address(run, event, sent_at)
        self._count_addressed(run, (name, queue), event, at)
        return sent_at

    def received(self, event: Event, at: float, worker: Worker | None) -> None:
        """Take a `task-received`: it names the task, and begins a run at a worker."""
        if event.parent_id is not None:
            self._note_parent(event)
        run = self.runs.get(event.uuid or "")
        if (
            run is None
            or run.started is not None
            or run.replaced
            or run.sent_ahead is not None
            or run.name != event.name
            or run.parent_id != event.parent_id
            or run.retries != (event.retries or 0)
        ):
            run = self._matcher.of_received(run, event, at)
            if run is None:
                return
            if run.name is None and event.name is not None:
                self._matcher.name_by_received(run, event.name, worker)
        run.worker, run.touched, run.received = event.hostname, at, True
        if event.eta is not None:  # with its zone, which that of the `task-sent` may lack
            run.eta = event.eta
        if run.name not in self.labels.names_received:
            self.labels.learn_name(event.name)
        series = run.series or self.labels.resolve(run)
        if series is None:
            self.labels.wait(run, event, at)
        else:
            series.received += 1

    def started(self, event: Event, at: float, worker: Worker | None) -> None:
        """Take a `task-started`, which names neither task nor queue."""
        if worker is not None:
            worker.loss.started(event.clock)
        uuid, hostname = event.uuid or "", event.hostname
        run = self.runs.get(uuid)
        if run is None or run.worker != hostname or run.started is not None or uuid in self.runs.beside:
            newest, run = run, self.runs.starting(uuid, hostname)
            if run is None:
                run = (
                    self._matcher.of_started(event, at)
                    if newest is None
                    else self._matcher.started_elsewhere(newest, at)
                )
                if run is None:
                    return
        run.worker, run.started, run.touched, run.adopted = hostname, event.timestamp, at, False
        offset = None if worker is None else worker.offset
        run.busy_since = at if offset is None else event.timestamp + offset
        series = run.series or self.labels.resolve(run)
        if series is None:
            self.labels.wait(run, event, at)
        else:
            self.counts.start(run, series, event, offset, at)

    def ended(self, event: Event, at: float, worker: Worker | None) -> None:
        """Take any event that may end a run; what comes after the run's one end is a duplicate."""
        if self.counts.requeued and self.counts.failed_and_requeued(event):
            return
        if worker is not None and worker.offset is not None:
            at = event.timestamp + worker.offset
        uuid = event.uuid or ""
        run = self.runs.get(uuid)
        if run is None or run.worker != event.hostname or uuid in self.runs.beside:
            run = self.runs.ending(uuid, event.hostname) or self.runs.recently_ended.get(uuid)
            if run is None:
                run = self._matcher.of_end(event, at)
            if run.worker is None and not run.ended:
                run.worker = event.hostname
        series = run.series or self.labels.resolve(run)
        if series is None and run.name is None and (name := unregistered_name(event)) is not None:
            run.name = self.table.name(name)
            series = self.labels.resolve(run)
        if series is None:
            self.labels.wait(run, event, at)
            run.end_pending = True
        else:
            self.counts.end(run, series, event, at)

    def tick(self, now: float) -> None:
        """Give up waiting for what did not come, and drop what is too old."""
        self.labels.tick(now)
        self._ahead.tick()
        self.counts.tick(now)
        self.runs.evict_old(now, MAX_AGE)
        self._silent = self._silent_names()

    # What others read

    def sent_at(self, uuid: str) -> float | None:
        """Return the send time of a waiting task by our clock, or ``None`` if it is not known."""
        run = self.runs.get(uuid)
        return None if run is None else run.sent

    def reconcile(
        self,
        active: Mapping[str, Iterable[ActiveTask]],
        *,
        at: float,
        replied_at: float,
        connected_at: float | None,
    ) -> None:
        """Compare the runs in progress with the workers' own lists; a task never heard of was started before us.

        Of one that began just now the events may be on their way: replies overtake them.
        """
        for task in (task for tasks in active.values() for task in tasks):
            if task.registered_name not in (None, task.name):
                self.table.learn_shadow(task.name, self.table.name(task.registered_name or UNKNOWN))
        for hostname, task in self.runs.reconcile(active, at=at, replied_at=replied_at):
            run = self.runs.get(task.uuid)
            known = run is not None and (run.started is not None or run.touched >= at)
            if known or task.started_at is None or self.runs.recently_ended.get(task.uuid) is not None:
                continue
            began = task.started_at + (self._workers.offset_of(hostname) or 0.0)
            if connected_at is not None and began > max(connected_at, at - VANISHED):
                continue
            run = run or self.runs.open(Run(task.uuid, at, at))
            run.worker, run.started, run.touched, run.adopted = hostname, task.started_at, at, True
            run.busy_since, run.busy_counted_until = began, max(run.busy_counted_until, self._since)
            run.name = run.name or self.table.name(task.registered_name or task.name)
            run.queue = run.queue or (self.table.queue(task.queue_name) if task.queue_name else None)
            self.labels.settle(run, at)
            if not run.ended:
                self.runs.start(run)

    def learn_held(self, hostname: str, tasks: Iterable[ActiveTask], *, at: float) -> None:
        """Learn names and queues of tasks that a worker received before we listened: its further events have none."""
        for task in tasks:
            run = self.runs.get(task.uuid)
            if run is None:
                if len(self.runs) >= self._limit // 2 or self.runs.recently_ended.get(task.uuid) is not None:
                    continue
                run = self.runs.open(Run(task.uuid, at, at, worker=hostname, received=True))
            if run.name is None:
                run.name = self.table.name(task.registered_name or task.name)
            if run.queue is None and task.queue_name:
                run.queue = self.table.queue(task.queue_name)
            if run.pending is not None:
                self.labels.count_pending(run, at)

    def _silent_names(self) -> frozenset[str]:
        """Return the names of which workers have begun many runs without an event of any."""
        often = {name for name, count in self._workers.accepted.items() if count >= SILENT_RUNS}
        if often:
            often -= {series.labels[0] for series in self.table if series.received or series.started}
        return frozenset(often)

    # Which run

    def _note_parent(self, event: Event) -> None:
        """Note that a run sent this task."""
        parent = self.runs.get(event.parent_id or "")
        if parent is not None and event.parent_id != event.uuid:
            parent.is_parent = True

    def _count_addressed(self, run: Run, sent: tuple[str | None, str | None], event: Event, at: float) -> None:
        """Count a run's own `task-sent`, and what has waited for it."""
        if run.queue is None or run.name is None:
            self.labels.wait(run, event, at)
            return
        self.counts.sent(run.name, run.queue)
        if sent == (run.name, run.queue):
            series = self.table.get(run.name, run.queue)
            if series.labels[:2] == sent:
                self.counts.sent_series[sent] = series
        others = self.runs.of_same_message(run)
        for other in others:
            other.queue = run.queue
        for one in (run, *others):
            if one.pending is not None:
                self.labels.count_pending(one, at)

    def _close(self, run: Run, at: float, *, remember: bool = True, terminated: bool = False, ran: bool = True) -> None:
        newest = self.runs.forget(run, at)
        run.ended = True
        if run.rejected:  # it was not the end after all
            self.counts.duplicates["task-rejected"] += 1
        if newest and run.sent_ahead:
            ahead, run.sent_ahead = run.sent_ahead, None
            following = self.runs.open(Run(run.uuid, at, at))
            link(following, run)
            if (ahead[0].retries or 0) > run.retries:
                following.queue = run.queue
            self._ahead.take(following, ahead)
        elif newest and remember:
            self.runs.recently_ended.add(run, terminated=terminated)
        if self.runs.beside and ran:
            self._drop_replaced(run, at)

    def _drop_replaced(self, run: Run, at: float) -> None:
        """Drop the runs before ``run`` at the same worker whose `task-started` got lost."""
        for other in list(self.runs.beside.get(run.uuid, ())):
            if other.replaced and other.started is None and other.worker == run.worker:
                other.ended = other.pending is None
                self.runs.forget(other, at)
