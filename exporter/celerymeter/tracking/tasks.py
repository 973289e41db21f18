"""Task events into counts: every event under its (name, queue_name), every run with one end.

An event waits until its run's queue is known, because `task-received` can overtake `task-sent`. After `GRACE` it is
counted under the only queue that its worker consumes, else under ``unknown``, and so is the rest of that run.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping

from celerymeter.exception_names import WORKER_LOST, exception_name, last_line
from celerymeter.model import OTHER, UNKNOWN, ActiveTask, Event
from celerymeter.routing import is_broadcast
from celerymeter.tracking.clocks import LONGEST_HOST, ProducerClocks, parse_eta
from celerymeter.tracking.identity import (
    is_called,
    is_late_for,
    is_of_earlier_try,
    is_of_next,
    is_replacement,
    late_run,
    link,
    replaces,
)
from celerymeter.tracking.repeated import RepeatedRuns
from celerymeter.tracking.runs import LONG_TEXT, Run, RunTable
from celerymeter.tracking.series import TaskSeries, TaskSeriesTable, is_shadow
from celerymeter.tracking.workers import Worker, WorkerTable

GRACE = 2.0
"""Seconds that an event waits for the one that names its queue."""
GRACE_NEW_WORKER = 15.0
"""The same while a worker has not yet said which queues it consumes."""
MAX_AGE = 7 * 86400.0
TOLERANCE = 0.05
"""Seconds below 0 that a wait may come out from measurement error alone."""
MAX_PENDING = 256
"""Events of one run that wait for its queue: every worker may receive a broadcast before the first starts it."""
MAX_SENT_AHEAD = 8
MAX_TEXT = 1000
"""Characters of an exception that are kept while its event waits; only its class counts."""
MAX_NAMES = 10_000
"""Task names known to send events; any beyond them count as names that send none."""
GREENLETS = ("gevent", "eventlet")
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
        self.duplicates: Counter[str] = Counter()
        self.waits_unmeasured: Counter[str] = Counter()
        self.last_success: dict[str, float] = {}
        self.names_received: set[str] = set()
        self.broadcasts: set[str] = set()
        """Queues whose tasks every worker gets, by their labels, as far as `task-sent` have said so."""
        self._sent_series: dict[tuple[str | None, str | None], TaskSeries] = {}
        """The series that a `task-sent` of this name and queue counts for, where neither is folded."""
        self._workers = workers
        self._limit = limit
        self._count_retry_exceptions = count_retry_exceptions
        self._waiting: deque[tuple[float, Run]] = deque()
        self._killed: deque[tuple[float, Run, TaskSeries]] = deque()
        """Runs in greenlets that were killed, until another event says why."""
        self._events_waiting = 0
        self._sent_ahead = 0
        self.repeated = RepeatedRuns()
        """At least the number of `task-sent` that runs keep; `tick` counts them anew."""
        self._ends: Mapping[str, Callable[[Run, TaskSeries, Event, float], None]] = {
            "task-succeeded": self._succeeded,
            "task-failed": self._failed,
            "task-retried": self._retried,
            "task-revoked": self._revoked,
            "task-rejected": self._rejected,
            "task-cancelled": self._cancelled,
        }

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
        if self.repeated and (noted := self.repeated.pop(event)) is not None:
            self._take_as_sent(noted.run, noted.before, event, at)
            self._count_sent(*noted.series.labels[:2])
            return sent_at
        run = self.runs.get(uuid)
        if run is None and (before := self._before_ended(event)) is not None:
            self._address(before, event, sent_at)
            self._count_addressed(before, (name, queue), event, at)
            return sent_at
        if run is None and uuid in self.runs.beside:  # the runs that followed are over
            run = self._find_late(event)
        follows = retries > 0 or event.parent_id == uuid
        direct = run is None and not follows and not event.exchange  # the queue is certain: see `QueueRoutes.queue_of`
        if direct and (series := self._sent_series.get((name, queue))) is not None:
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
            self._broadcast(uuid, queue, at)
        if run is None and follows:
            self._keep_for_next(self._open_unreported(event, at), event, at)
            return sent_at
        run = self.runs.open(Run(uuid, at, at)) if run is None else self._find_sent(run, event, at)
        if run is None:
            return sent_at
        self._address(run, event, sent_at)
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
        if run.name not in self.names_received:
            self.learn_name(event.name)
        series = run.series or self._resolve(run)
        if series is None:
            self._wait_for_queue(run, event, at)
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
        series = run.series or self._resolve(run)
        if series is None:
            self._wait_for_queue(run, event, at)
        else:
            self._start(run, series, event, offset, at)

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
        series = run.series or self._resolve(run)
        if series is None and run.name is None and (name := _unregistered_name(event)) is not None:
            run.name = self.table.name(name)
            series = self._resolve(run)
        if series is None:
            self._wait_for_queue(run, event, at)
            run.end_pending = True
        else:
            self._end(run, series, event, at)

    def tick(self, now: float) -> None:
        """Give up waiting for what did not come, or when too many wait; drop what is too old."""
        still: list[tuple[float, Run]] = []
        excess = len(self._waiting) - self._limit
        while self._waiting and (excess > 0 or abs(now - self._waiting[0][0]) >= GRACE):
            since, run = self._waiting.popleft()
            if excess <= 0 and abs(now - since) < GRACE_NEW_WORKER and self._queues_may_be_learned(run):
                still.append((since, run))
            else:
                self._stop_waiting(run, now)
            excess -= 1
        self._waiting.extendleft(reversed(still))
        if self._sent_ahead > self._limit // 8:
            self._sent_ahead = self.runs.count_sent_ahead()
        if self.repeated:
            self.repeated.count(now)
        while self._killed and (len(self._killed) > self._limit or abs(now - self._killed[0][0]) >= GRACE):
            _, run, series = self._killed.popleft()
            self._give_up_killed(run, series, now)
        self.runs.evict_old(now, MAX_AGE)

    # What others read

    def sent_at(self, uuid: str) -> float | None:
        """Return the send time of a waiting task by our clock, or ``None`` if it is not known."""
        run = self.runs.get(uuid)
        return None if run is None else run.sent

    def reconcile(self, active: Mapping[str, Iterable[ActiveTask]], *, at: float, replied_at: float) -> None:
        """Compare the runs in progress with the workers' own lists; a task never heard of was started before us."""
        for task in (task for tasks in active.values() for task in tasks):
            if task.registered_name not in (None, task.name):
                self.table.learn_shadow(task.name, self.table.name(task.registered_name or UNKNOWN))
        for hostname, task in self.runs.reconcile(active, at=at, replied_at=replied_at):
            run = self.runs.get(task.uuid)
            known = run is not None and (run.started is not None or run.touched >= at)
            if known or task.started_at is None or self.runs.recently_ended.get(task.uuid) is not None:
                continue
            run = run or self.runs.open(Run(task.uuid, at, at))
            run.worker, run.started, run.touched, run.adopted = hostname, task.started_at, at, True
            run.busy_since = task.started_at + (self._workers.offset_of(hostname) or 0.0)
            run.name = run.name or self.table.name(task.registered_name or task.name)
            run.queue = run.queue or (self.table.queue(task.queue_name) if task.queue_name else None)
            self._settle(run, at)
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
                self._count_pending(run, at)

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
                self._count_sent(self.table.name(event.name or run.name or UNKNOWN), run.queue_before)
            return earlier
        if is_of_next(run, event):
            self._keep_for_next(run, event, at)
            return None
        if run.redelivered:
            self._take_as_sent(run, self._before(run), event, at)
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
            if is_retry and (run.addressed or not self._may_consume(hostname, run.queue)):
                following.queue, following.queue_before = None, run.queue  # `Task.retry(queue=…)` may move it
            link(following, run)
            run = self._take_next(following, ahead)
            run.redelivered = not is_retry and not ahead
        run.retries, run.parent_id = retries, event.parent_id
        if len(event.parent_id or "") > LONG_TEXT or len(name or "") > LONG_TEXT:
            self.runs.note_large(run, at)
        if name is not None:
            self.learn_name(name)
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
        self._count_sent(self.table.name(name), self.table.queue(queue))
        if self._sent_ahead >= self._limit // 4:
            self.runs.evicted["limit"] += 1
            return
        self._sent_ahead += 1
        _strip(event, run)
        if routed is not None:
            event.queue, event.exchange, event.routing_key = self.table.queue.clean(routed), None, None
        if run.sent_ahead is None:
            run.sent_ahead = [event]
            run.replaced = is_replacement(run, event)
            if run.replaced and run.started is not None and not run.end_pending:
                self._close(run, at, remember=False)
        elif len(run.sent_ahead) < MAX_SENT_AHEAD:
            run.sent_ahead.append(event)

    def _take_next(self, run: Run, ahead: list[Event] | None) -> Run:
        """Give a run its `task-sent`, which came before the run before it was over."""
        if ahead:
            self._address(run, ahead[0], self.producers.sent_at(ahead[0]))
            if ahead[1:]:
                run.sent_ahead = ahead[1:]
                run.replaced = is_replacement(run, ahead[1])
        return run

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
            self._wait_for_queue(run, event, at)
            return
        self._count_sent(run.name, run.queue)
        if sent == (run.name, run.queue):
            series = self.table.get(run.name, run.queue)
            if series.labels[:2] == sent:
                self._sent_series[sent] = series
        others = self.runs.of_same_message(run)
        for other in others:
            other.queue = run.queue
        for one in (run, *others):
            if one.pending is not None:
                self._count_pending(one, at)

    def _take_as_sent(self, run: Run, before: Run | None, event: Event, at: float) -> None:
        """Take a run for one of its own, which looked like the same message once more until its `task-sent` came.

        If it replaces the unfinished one before it, that is over. An end that came meanwhile went to the older.
        """
        run.redelivered, run.addressed = False, True
        if event.parent_id != run.uuid or before is None or before.end_pending:
            return
        self._close(run if before.ended and not run.ended else before, at, remember=False)

    def _broadcast(self, uuid: str, queue: str, at: float) -> None:
        """Note that every worker gets the tasks of this queue, and count what some of them said of this one before."""
        if queue != OTHER:
            self.broadcasts.add(queue)
        for run in self.runs.of_task(uuid):
            if run.queue is None:
                run.queue = queue
                self._count_pending(run, at)

    def _before(self, run: Run) -> Run | None:
        """The last unfinished run of the same task that started before this one."""
        started = [one for one in self.runs.beside.get(run.uuid, ()) if one is not run and one.started is not None]
        return started[-1] if started else None

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

    # Which series

    def _address(self, run: Run, event: Event, sent_at: float | None) -> None:
        """Take name, queue and send time from a `task-sent`; what was counted once keeps its labels."""
        run.sent, run.addressed, run.eta = sent_at, True, event.eta
        run.retries, run.parent_id = event.retries or 0, event.parent_id
        if run.series is None:
            queue = self._workers.routes.queue_of(event)
            if queue is not None:  # else a retry has that of its task
                run.queue = self.table.queue(queue)
            if event.name is not None:
                name = self.table.name(event.name)
                if run.name not in (None, name):
                    run.shadow = run.shadow or run.name
                    self.table.learn_shadow(run.shadow or "", name)
                run.name = name

    def learn_name(self, name: str | None) -> None:
        """Remember that tasks of this name are reported."""
        if name is not None and len(self.names_received) < MAX_NAMES:
            self.names_received.add(name)

    def _resolve(self, run: Run) -> TaskSeries | None:
        if run.name is None or run.queue is None:
            return None
        run.series = self.table.get(run.name, run.queue, run.worker or "")
        return run.series

    def _wait_for_queue(self, run: Run, event: Event, at: float) -> None:
        _strip(event, run)
        self._events_waiting += 1
        if run.pending is None:
            run.pending = [event]
            self._waiting.append((at, run))
        else:
            run.pending.append(event)
        if len(run.pending) > MAX_PENDING or self._events_waiting > 2 * self._limit:
            self._settle(run, at)

    def _settle(self, run: Run, at: float) -> TaskSeries:
        """Decide the labels of a run whose `task-sent` did not come, and count what waits for them."""
        run.name = run.name or UNKNOWN
        if run.queue is None and run.worker is not None and self._may_consume(run.worker, run.queue_before):
            run.queue = run.queue_before
        run.queue = run.queue or self._only_queue(run) or self.runs.queue_of_others(run) or UNKNOWN
        if run.name == OTHER and run.shadow is not None:
            self.table.folded["shadow"] += 1
        series = run.series or self.table.get(run.name, run.queue, run.worker or "")
        run.series = series
        self._count_pending(run, at)
        return series

    def _count_pending(self, run: Run, at: float) -> None:
        series = run.series or self._resolve(run)
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
            self._start(run, series, event, None if worker is None else worker.offset, at)
        elif event.type == "task-sent":
            self._count_sent(run.name or UNKNOWN, run.queue or UNKNOWN)
        else:
            self._end(run, series, event, at if worker is None else worker.our_time(event, at))

    def _only_queue(self, run: Run) -> str | None:
        queues = self._workers.queues_of(run.worker) if run.worker is not None else None
        return self.table.queue(queues[0]) if queues is not None and len(queues) == 1 else None

    def _may_consume(self, hostname: str, queue: str | None) -> bool:
        """Return False if the worker has said that it consumes other queues only."""
        queues = self._workers.queues_of(hostname)
        return queues is None or queue in (None, UNKNOWN, OTHER, *map(self.table.queue.clean, queues))

    def _queues_may_be_learned(self, run: Run) -> bool:
        known = run.queue_before is not None or run.worker is None or self._workers.queues_of(run.worker) is not None
        return run.pending is not None and not known

    def _stop_waiting(self, run: Run, now: float) -> None:
        if run.pending is not None:
            self._settle(run, now)
        if run.rejected and not run.ended and run.series is not None:
            run.series.rejected_end += 1
            run.rejected = False
            self._close(run, now)

    # Counting

    def _count_sent(self, name: str, queue: str) -> None:
        """Producers are not workers: under `--task-hostname-label` a sent task has an empty hostname."""
        self.table.get(name, queue).sent += 1

    def _start(self, run: Run, series: TaskSeries, event: Event, offset: float | None, at: float) -> None:
        series.started += 1
        if run.redelivered:
            run.redelivered = False
            if not self._may_be_broadcast(run, series):
                self.repeated.note(run, series, self._before(run), at)
        if run.replaced and not run.ended:
            self._close(run, run.touched, remember=False)
        elif not run.ended and not run.end_pending:
            self.runs.start(run)
        if run.sent is None or offset is None or run.eta is not None:
            self._observe_scheduled_wait(run, series, event, offset)
        else:
            self._observe_wait(series, event.timestamp + offset - run.sent)

    def _may_be_broadcast(self, run: Run, series: TaskSeries) -> bool:
        """Return True if other workers get the message too; without its `task-sent` one that may be is taken for it."""
        name, queue = series.labels[:2]
        worker = self._workers.get(run.worker or "")
        addressed = (name, queue) in self._sent_series
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

    def _end(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
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
        self.runs.stop(run, at)
        self._killed.append((at, run, series))

    def _give_up_killed(self, run: Run, series: TaskSeries, now: float) -> None:
        if not run.ended and run.started is not None and run.busy_since is None:  # nor does it run again
            series.without_result += 1
            self._close(run, now)

    def _failed(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
        series.failed += 1
        series.process_lost += _is_process_lost(event)
        self._count_exception(series.exceptions, event)
        if run.started is not None:
            series.failed_runtime_count += 1
            series.failed_runtime_sum += max(0.0, event.timestamp - run.started)
        self._close(run, at)

    def _retried(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
        series.retried += 1
        series.polled += event.exception in (None, "None")
        series.process_lost += _is_process_lost(event)
        if self._count_retry_exceptions:
            self._count_exception(series.retry_exceptions, event)
        self._close(run, at, remember=False)

    def _revoked(self, run: Run, series: TaskSeries, event: Event, at: float) -> None:
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
            # With task_reject_on_worker_lost no other event tells of a killed process (`Request.on_failure`). A task
            # that raises `Reject(requeue=True)` sends the same.
            worker = self._workers.get(run.worker or "")
            series.process_lost += run.started is not None and (worker is None or worker.pool in ("", "prefork"))
            if self._explain_repeated(run):  # the message came again before we heard of the rejection
                self._close(run, at, remember=False)
            else:
                self.runs.requeue(run, at, on_purpose=True)
        elif run.rejected:
            self.duplicates["task-rejected"] += 1
        else:
            run.rejected = True
            self.runs.stop(run, at)
            self._waiting.append((at, run))

    def _explain_repeated(self, run: Run) -> bool:
        """Take a run that seemed to be a redelivery for what the requeue of ``run`` led to; False if there is none."""
        if self.repeated.drop(run.uuid):
            return True
        repeated = next((one for one in self.runs.of_task(run.uuid) if one.redelivered), None)
        if repeated is not None:
            repeated.redelivered = False
        return repeated is not None

    def _cancelled(self, run: Run, _series: TaskSeries, _event: Event, at: float) -> None:
        self.runs.requeue(run, at)

    def _count_exception(self, counts: dict[str, int], event: Event) -> None:
        self.table.count_exception(counts, _exception_name(event))

    def _close(self, run: Run, at: float, *, remember: bool = True, terminated: bool = False, ran: bool = True) -> None:
        newest = self.runs.forget(run, at)
        run.ended = True
        if run.rejected:  # it was not the end after all
            self.duplicates["task-rejected"] += 1
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


def _exception_name(event: Event) -> str:
    return exception_name(event.exception, event.traceback)


def _strip(event: Event, run: Run) -> None:
    """Drop from an event that is kept what nothing will read: it may be of many megabytes."""
    event.uuid = run.uuid  # one text for all events of a run
    if event.type == "task-sent":
        event.hostname = event.hostname.rpartition("@")[2][:LONGEST_HOST]  # for its clock
    event.expires = event.application_version = event.totals = event.beat = None
    event.celerymeter_counted = bool(event.celerymeter_counted)
    if event.traceback is not None:
        event.traceback = last_line(event.traceback)
    if event.exception is not None:
        event.exception = event.exception[:MAX_TEXT]


def _is_process_lost(event: Event) -> bool:
    return _exception_name(event) == WORKER_LOST
