"""Task events into counts: which run an event is of. Each counts under its (name, queue_name), and a run ends once.

What an event counts for is `RunCounter`'s, and under which labels `RunLabels`'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from celerymeter.model import UNKNOWN, ActiveTask, Event
from celerymeter.routing import is_broadcast
from celerymeter.tracking.clocks import ProducerClocks
from celerymeter.tracking.counting import RunCounter
from celerymeter.tracking.identity import (
    is_called,
    is_late_for,
    is_of_earlier_try,
    is_of_next,
    is_replacement,
    late_run,
    link,
    place_ahead,
    replaces,
)
from celerymeter.tracking.labels import RunLabels, strip
from celerymeter.tracking.run import Run
from celerymeter.tracking.runs import LONG_TEXT, VANISHED, RunTable
from celerymeter.tracking.series import TaskSeriesTable, is_shadow
from celerymeter.tracking.worker import Worker
from celerymeter.tracking.workers import WorkerTable

MAX_AGE = 7 * 86400.0
MAX_SENT_AHEAD = 8
_UNREGISTERED = re.compile(r"NotRegistered\((['\"])(.+)\1\)", re.DOTALL)
"""The exception by which a worker answers a message of a task that it does not know (`Consumer.on_unknown_task`)."""


class TaskTracker:
    """Follows every run and counts it where it belongs; ``at`` is receipt time, by our clock."""

    def __init__(
        self, table: TaskSeriesTable, workers: WorkerTable, *, limit: int, count_retry_exceptions: bool = False
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
        self._sent_ahead = 0
        """At least the number of `task-sent` that runs keep; `tick` counts them anew."""

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
        if event.parent_id is not None:
            self._note_parent(event)
        if self.counts.repeated and (noted := self.counts.repeated.pop(event)) is not None:
            self._take_as_sent(noted.run, noted.before, event, at)
            self.counts.sent(*noted.series.labels[:2])
            return sent_at
        run = self.runs.get(uuid)
        if run is None and (before := self._before_ended(event)) is not None:
            self.labels.address(before, event, sent_at)
            self._count_addressed(before, (name, queue), event, at)
            return sent_at
        if run is None and uuid in self.runs.beside:  # the runs that followed are over
            run = self._find_late(event)
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
            self._keep_for_next(self._open_unreported(event, at), event, at)
            return sent_at
        run = self.runs.open(Run(uuid, at, at)) if run is None else self._find_sent(run, event, at)
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
            run = self._find_received(run, event, at)
            if run is None:
                return
            if run.name is None and event.name is not None:
                self._name(run, event.name, worker)
        run.worker, run.touched, run.received = event.hostname, at, True
        if run.eta is None:
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
                run = self._find_started(event, at) if newest is None else self._start_elsewhere(newest, at)
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
        if worker is not None and worker.offset is not None:
            at = event.timestamp + worker.offset
        uuid = event.uuid or ""
        run = self.runs.get(uuid)
        if run is None or run.worker != event.hostname or uuid in self.runs.beside:
            run = self.runs.ending(uuid, event.hostname) or self.runs.recently_ended.get(uuid)
            if run is None:
                run = self._unheard(event, at)
            if run.worker is None and not run.ended:
                run.worker = event.hostname
        series = run.series or self.labels.resolve(run)
        if series is None and run.name is None and (name := _unregistered_name(event)) is not None:
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
        if self._sent_ahead > self._limit // 8:
            self._sent_ahead = self.runs.count_sent_ahead()
        self.counts.tick(now)
        self.runs.evict_old(now, MAX_AGE)

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
            run.busy_since = began
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

    # Which run

    def _find_sent(self, run: Run, event: Event, at: float) -> Run | None:
        """The run whose `task-sent` this is, or ``None`` if there is none yet or any more; ``run`` is the newest."""
        if run.before is not None and (before := late_run(run, event)) is not None:
            return before
        if is_of_earlier_try(run, event):
            earlier = self._find_late(event)
            if earlier is None:  # it is over, or its worker has not said anything of it yet
                queue = self._workers.routes.queue_of(event) or UNKNOWN
                run.queue_before = run.queue_before or self.table.queue(queue)
                self.counts.sent(self.table.name(event.name or run.name or UNKNOWN), run.queue_before)
            return earlier
        if is_of_next(run, event):
            self._keep_for_next(run, event, at)
            return None
        if run.redelivered:
            self._take_as_sent(run, self.runs.started_before(run), event, at)
        return run

    def _find_late(self, event: Event) -> Run | None:
        """The run beside the newest whose `task-sent` this is."""
        return next((one for one in self.runs.beside.get(event.uuid or "", ()) if is_late_for(one, event)), None)

    def _find_started(self, event: Event, at: float) -> Run | None:
        """The run of a `task-started` of a task that has no unfinished run, or ``None`` if it was counted as late.

        If the last run had started, two workers held the message, and the other one was done before this one began.
        """
        ended = self.runs.recently_ended.get(event.uuid or "")
        if ended is not None and ended.started is None:
            self._count_late(ended, event)
            return None
        run = self.runs.open(Run(event.uuid or "", at, at))
        if ended is not None:
            run.name, run.queue, run.received, run.redelivered = ended.name, ended.queue, True, ended.ended
        return run

    def _start_elsewhere(self, newest: Run, at: float) -> Run:
        """The run of a `task-started` that fits no unfinished run.

        If another worker has received the task meanwhile, this one held it for longer than the broker waits for an
        acknowledgement (an ETA beyond Redis' visibility timeout): both will run it, and the second start is a
        redelivery. So will one worker that received it several times before it began.
        """
        run = self.runs.open_next(newest, at)
        link(run, newest)
        if newest.received and not newest.sent_ahead:
            (newest if newest.started is None else run).redelivered = True
            run.received = True  # before the other worker's: so a third one's start is another redelivery
        return run

    def _find_received(self, run: Run | None, event: Event, at: float) -> Run | None:
        """The run that a `task-received` begins, or ``None`` if it was counted as late; ``run`` is the newest known."""
        if event.name is not None:
            event.name = self.table.name.clean(event.name)
        uuid, hostname, retries, name = event.uuid or "", event.hostname, event.retries or 0, event.name
        ended = self.runs.recently_ended.get(uuid) if run is None else None
        if (overtaken := self.runs.overtaken(event) or self._replaced_before(run or ended, event, at)) is not None:
            run = overtaken
        elif run is None:
            if ended is not None and not ended.received:
                self._count_late(ended, event)
                return None
            run = self._open_received(ended, event, at)
        elif replaces(run, event):
            run = self._open_replacement(run, event, at)
        elif retries < run.retries and run.worker != hostname:
            run = self.runs.open_earlier(run, hostname, at)
        elif (
            retries > run.retries
            or (run.started is not None and (run.received or run.worker != hostname))
            or (run.received and run.sent_ahead)
        ):
            ahead, run.sent_ahead, is_retry = run.sent_ahead, None, retries > run.retries
            following = self.runs.open_next(run, at)
            if is_retry and (run.addressed or not self.labels.may_consume(hostname, run.queue)):
                following.queue, following.queue_before = None, run.queue  # `Task.retry(queue=…)` may move it
            link(following, run)
            run = self._take_try(following, ahead, retries)
            run.redelivered = not is_retry and not ahead
        run.retries, run.parent_id = retries, event.parent_id
        if len(event.parent_id or "") > LONG_TEXT or len(name or "") > LONG_TEXT:
            self.runs.note_large(run, at)
        if name is not None:
            self.labels.learn_name(name)
            if run.name not in (None, name):
                run.shadow = name
                self.table.learn_shadow(name, run.name)
        return run

    def _open_received(self, ended: Run | None, event: Event, at: float) -> Run:
        """Open the run that a `task-received` begins; ``ended`` is the last of its task, if that ended recently."""
        uuid = event.uuid or ""
        run = self.runs.open(Run(uuid, at, at))
        if ended is not None and is_called(ended, event.name):
            run.queue, run.redelivered = ended.queue, ended.ended
        elif ended is None and event.parent_id == uuid and not event.retries:
            run.before = run.unheard = Run(uuid, at, at, replaced=True)
        return run

    def _replaced_before(self, run: Run | None, event: Event, at: float) -> Run | None:
        """The run of a `task-received` that ``run`` replaces, if another worker received that before."""
        if run is None or run.unheard is None or event.parent_id == event.uuid:
            return None
        before, run.unheard = run.unheard, None
        if run.ended:
            return self.runs.open(before)
        self.runs.set_beside(before, at)
        return before

    def _before_ended(self, event: Event) -> Run | None:
        """The run whose `task-sent` this is, although a later run of its task has ended."""
        ended = self.runs.recently_ended.get(event.uuid or "")
        if ended is None or ended.before is None:
            return None
        if event.name is not None:
            event.name = self.table.name.clean(event.name)
        return late_run(ended, event)

    def _name(self, run: Run, name: str, worker: Worker | None) -> None:
        """Name a run by its `task-received` alone, which may have a shadow name."""
        registered = worker.registered if worker is not None else None
        run.name = self.table.real_name(name, registered)
        if is_shadow(name, registered):
            run.shadow = name

    def _note_parent(self, event: Event) -> None:
        """Note that a run sent this task."""
        parent = self.runs.get(event.parent_id or "")
        if parent is not None and event.parent_id != event.uuid:
            parent.is_parent = True

    def _open_unreported(self, event: Event, at: float) -> Run:
        """Open the run before a `task-sent` of a retry or a replacement: a worker sends that before its own events."""
        run = self.runs.open(Run(event.uuid or "", at, at))
        if event.retries and event.name is not None and (queue := self._workers.routes.queue_of(event)) is not None:
            run.name, run.queue = self.table.name(event.name), self.table.queue(queue)
        return run

    def _keep_for_next(self, run: Run, event: Event, at: float) -> None:
        """Count the `task-sent` of a run that follows ``run``, and keep what is needed of it for then."""
        routed = self._workers.routes.queue_of(event)
        name, queue = event.name or run.name or UNKNOWN, routed or run.queue or UNKNOWN
        self.counts.sent(self.table.name(name), self.table.queue(queue))
        if self._sent_ahead >= self._limit // 4:
            self.runs.evicted["limit"] += 1
            return
        self._sent_ahead += 1
        strip(event, run)
        if routed is not None:
            event.queue, event.exchange, event.routing_key = self.table.queue.clean(routed), None, None
        if run.sent_ahead is None:
            run.sent_ahead = [event]
            run.replaced = is_replacement(run, event)
            if run.replaced and run.started is not None and not run.end_pending:
                self._close(run, at, remember=False)
        elif len(run.sent_ahead) < MAX_SENT_AHEAD:
            run.sent_ahead.insert(place_ahead(run.sent_ahead, event), event)

    def _take_next(self, run: Run, ahead: list[Event] | None) -> Run:
        """Give a run its `task-sent`, which came before the run before it was over."""
        if ahead:
            self.labels.address(run, ahead[0], self.producers.sent_at(ahead[0]))
            if ahead[1:]:
                run.sent_ahead = ahead[1:]
                run.replaced = is_replacement(run, ahead[1])
        return run

    def _take_try(self, run: Run, ahead: list[Event] | None, retries: int) -> Run:
        """Give a run its `task-sent`, unless only that of a later try has come."""
        if ahead and (ahead[0].retries or 0) > retries:
            run.sent_ahead = ahead
            return run
        return self._take_next(run, ahead)

    def _open_replacement(self, run: Run, event: Event, at: float) -> Run:
        """Open the run that replaces ``run``, which is over if it started: a worker may receive the one first."""
        ahead, run.sent_ahead = run.sent_ahead, None
        if ahead and ahead[1:]:  # the first may be of a run whose `task-received` got lost
            ahead = ahead[next((index for index, sent in enumerate(ahead) if sent.name == event.name), 0) :]
        if run.started is not None:
            self._close(run, at, remember=False)
        following = self.runs.open_over(run, Run(run.uuid, at, at))
        link(following, run)
        run.replaced = True
        if not (run.addressed or run.received or run.started is not None):
            following.unheard = run
        return self._take_next(following, ahead)

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

    def _take_as_sent(self, run: Run, before: Run | None, event: Event, at: float) -> None:
        """Take a run for one of its own, which looked like the same message once more until its `task-sent` came.

        If it replaces the unfinished one before it, that is over. An end that came meanwhile went to the older.
        """
        run.redelivered, run.addressed = False, True
        if event.parent_id != run.uuid or before is None or before.end_pending:
            return
        self._close(run if before.ended and not run.ended else before, at, remember=False)

    def _unheard(self, event: Event, at: float) -> Run:
        """The run of an end whose beginning did not come, or not from this worker."""
        uuid = event.uuid or ""
        newest = self.runs.get(uuid)
        return (
            self.runs.open(Run(uuid, at, at)) if newest is None else self.runs.open_earlier(newest, event.hostname, at)
        )

    def _count_late(self, run: Run, event: Event) -> None:
        """An earlier step of a run, overtaken by its end."""
        if run.series is None:
            return
        if event.type == "task-received":
            run.received = True
            run.series.received += 1
        else:
            run.series.started += 1

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
            self._take_next(following, ahead)
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


def _unregistered_name(event: Event) -> str | None:
    """The task that the worker does not know, whose only event this is; a task's own exception has a traceback."""
    if event.type != "task-failed" or event.traceback is not None:
        return None
    found = _UNREGISTERED.fullmatch(event.exception or "")
    return None if found is None else found.group(2)
