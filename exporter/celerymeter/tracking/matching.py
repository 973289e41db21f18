"""Finds the run that an event is of, among several of one task, or opens it.

Events of one task come from producers and several workers, and overtake each other. `celerymeter.tracking.identity`
says what one of them proves.
"""

from __future__ import annotations

from celerymeter.model import UNKNOWN, Event
from celerymeter.tracking.identity import (
    is_called,
    is_late_for,
    is_of_earlier_try,
    is_of_next,
    late_run,
    link,
    replaces,
)
from celerymeter.tracking.run import Run
from celerymeter.tracking.runs import LONG_TEXT
from celerymeter.tracking.sent_ahead import SentAhead, TaskParts
from celerymeter.tracking.series import is_shadow
from celerymeter.tracking.worker import Worker


class RunMatcher:
    """Finds runs for `TaskTracker`, where the newest of the task is not certainly the one."""

    def __init__(self, parts: TaskParts, ahead: SentAhead) -> None:
        self._table, self._runs, self._workers = parts.table, parts.runs, parts.workers
        self._labels, self._counts, self._close = parts.labels, parts.counts, parts.close
        self._ahead = ahead

    def of_sent(self, run: Run, event: Event, at: float) -> Run | None:
        """Return the run whose `task-sent` this is, or ``None`` if there is none yet or any more.

        ``run`` is the newest that is known.
        """
        if run.before is not None and (before := late_run(run, event)) is not None:
            return before
        if is_of_earlier_try(run, event):
            earlier = self.of_late_sent(event)
            if earlier is None:  # it is over, or its worker has not said anything of it yet
                queue = self._workers.routes.queue_of(event) or UNKNOWN
                run.queue_before = run.queue_before or self._table.queue(queue)
                self._counts.sent(self._table.name(event.name or run.name or UNKNOWN), run.queue_before)
            return earlier
        if is_of_next(run, event):
            self._ahead.keep(run, event, at)
            return None
        if run.redelivered:
            self.take_as_sent(run, self._runs.started_before(run), event, at)
        return run

    def of_late_sent(self, event: Event) -> Run | None:
        """Return the run beside the newest whose `task-sent` this is."""
        return next((one for one in self._runs.beside.get(event.uuid or "", ()) if is_late_for(one, event)), None)

    def of_sent_after_end(self, event: Event) -> Run | None:
        """Return the run whose `task-sent` this is, although a later run of its task has ended."""
        ended = self._runs.recently_ended.get(event.uuid or "")
        if ended is None or ended.before is None:
            return None
        if event.name is not None:
            event.name = self._table.name.clean(event.name)
        return late_run(ended, event)

    def open_unreported(self, event: Event, at: float) -> Run:
        """Open the run before a `task-sent` of a retry or a replacement: a worker sends that before its own events."""
        run = self._runs.open(Run(event.uuid or "", at, at))
        if event.retries and event.name is not None and (queue := self._workers.routes.queue_of(event)) is not None:
            run.name, run.queue = self._table.name(event.name), self._table.queue(queue)
        return run

    def of_received(self, run: Run | None, event: Event, at: float) -> Run | None:
        """Return the run that a `task-received` begins, or ``None`` if it was counted as late.

        ``run`` is the newest that is known.
        """
        if event.name is not None:
            event.name = self._table.name.clean(event.name)
        uuid, hostname, retries, name = event.uuid or "", event.hostname, event.retries or 0, event.name
        ended = self._runs.recently_ended.get(uuid) if run is None else None
        if (overtaken := self._runs.overtaken(event) or self._replaced_before(run or ended, event, at)) is not None:
            run = overtaken
        elif run is None:
            if ended is not None and not ended.received:
                self._count_late(ended, event)
                return None
            run = self._open_received(ended, event, at)
        elif replaces(run, event):
            run = self._open_replacement(run, event, at)
        elif retries < run.retries and run.worker != hostname:
            run = self._runs.open_earlier(run, hostname, at)
        elif (
            retries > run.retries
            or (run.started is not None and (run.received or run.worker != hostname))
            or (run.received and run.sent_ahead)
        ):
            ahead, run.sent_ahead, is_retry = run.sent_ahead, None, retries > run.retries
            following = self._runs.open_next(run, at)
            if is_retry and (run.addressed or not self._labels.may_consume(hostname, run.queue)):
                following.queue, following.queue_before = None, run.queue  # `Task.retry(queue=…)` may move it
            link(following, run)
            run = self._ahead.take_try(following, ahead, retries)
            run.redelivered = not is_retry and not ahead
        run.retries, run.parent_id = retries, event.parent_id
        if len(event.parent_id or "") > LONG_TEXT or len(name or "") > LONG_TEXT:
            self._runs.note_large(run, at)
        if name is not None:
            self._labels.learn_name(name)
            if run.name not in (None, name):
                run.shadow = name
                self._table.learn_shadow(name, run.name)
        return run

    def _open_received(self, ended: Run | None, event: Event, at: float) -> Run:
        """Open the run that a `task-received` begins; ``ended`` is the last of its task, if that ended recently."""
        uuid = event.uuid or ""
        run = self._runs.open(Run(uuid, at, at))
        if ended is not None and is_called(ended, event.name):
            run.queue, run.redelivered = ended.queue, ended.ended
        elif ended is None and event.parent_id == uuid and not event.retries:
            run.before = run.unheard = Run(uuid, at, at, replaced=True)
        return run

    def _open_replacement(self, run: Run, event: Event, at: float) -> Run:
        """Open the run that replaces ``run``, which is over if it started: a worker may receive the one first."""
        ahead, run.sent_ahead = run.sent_ahead, None
        if ahead and ahead[1:]:  # the first may be of a run whose `task-received` got lost
            ahead = ahead[next((index for index, sent in enumerate(ahead) if sent.name == event.name), 0) :]
        if run.started is not None:
            self._close(run, at, remember=False)
        following = self._runs.open_over(run, Run(run.uuid, at, at))
        link(following, run)
        run.replaced = True
        if not (run.addressed or run.received or run.started is not None):
            following.unheard = run
        return self._ahead.take(following, ahead)

    def _replaced_before(self, run: Run | None, event: Event, at: float) -> Run | None:
        """Return the run of a `task-received` that ``run`` replaces, if another worker received that before."""
        if run is None or run.unheard is None or event.parent_id == event.uuid:
            return None
        before, run.unheard = run.unheard, None
        if run.ended:
            return self._runs.open(before)
        self._runs.set_beside(before, at)
        return before

    def name_by_received(self, run: Run, name: str, worker: Worker | None) -> None:
        """Name a run by its `task-received` alone, which may have a shadow name."""
        registered = worker.registered if worker is not None else None
        run.name = self._table.real_name(name, registered)
        if is_shadow(name, registered):
            run.shadow = name

    def of_started(self, event: Event, at: float) -> Run | None:
        """Return the run of a `task-started` of a task without an unfinished run; ``None`` if it was counted as late.

        If the last run had started, two workers held the message, and the other one was done before this one began.
        """
        ended = self._runs.recently_ended.get(event.uuid or "")
        if ended is not None and ended.started is None:
            self._count_late(ended, event)
            return None
        run = self._runs.open(Run(event.uuid or "", at, at))
        if ended is not None:
            run.name, run.queue, run.received, run.redelivered = ended.name, ended.queue, True, ended.ended
        return run

    def started_elsewhere(self, newest: Run, at: float) -> Run:
        """Open the run of a `task-started` that fits no unfinished run.

        If another worker has received the task meanwhile, this one held it for longer than the broker waits for an
        acknowledgement (an ETA beyond Redis' visibility timeout): both will run it, and the second start is a
        redelivery. So will one worker that received it several times before it began.
        """
        run = self._runs.open_next(newest, at)
        link(run, newest)
        if newest.received and not newest.sent_ahead:
            (newest if newest.started is None else run).redelivered = True
            run.received = True  # before the other worker's: so a third one's start is another redelivery
        return run

    def _count_late(self, run: Run, event: Event) -> None:
        """Count an earlier step of a run, overtaken by its end."""
        if run.series is None:
            return
        if event.type == "task-received":
            run.received = True
            run.series.received += 1
        else:
            run.series.started += 1

    def of_end(self, event: Event, at: float) -> Run:
        """Open the run of an end whose beginning did not come, or not from this worker."""
        newest = self._runs.get(event.uuid or "")
        if newest is None:
            return self._runs.open(Run(event.uuid or "", at, at))
        return self._runs.open_earlier(newest, event.hostname, at)

    def take_as_sent(self, run: Run, before: Run | None, event: Event, at: float) -> None:
        """Take a run for one of its own, which looked like the same message once more until its `task-sent` came.

        If it replaces the unfinished one before it, that is over. An end that came meanwhile went to the older.
        """
        run.redelivered, run.addressed = False, True
        if event.parent_id != run.uuid or before is None or before.end_pending:
            return
        self._close(run if before.ended and not run.ended else before, at, remember=False)
