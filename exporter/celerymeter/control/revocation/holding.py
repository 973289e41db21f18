"""Flags live in workers' memories, which are short: here they are sent again until they are no longer needed."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Final

from celerymeter.control.retries import Retries
from celerymeter.control.revocation.announcer import Announcer
from celerymeter.control.revocation.ledger import Followed, Ledger
from celerymeter.control.revocation.lookups import States
from celerymeter.control.revocation.memory import EventMemory, Trace
from celerymeter.control.revocation.models import Result, Sighting
from celerymeter.control.revocation.replies import Replies
from celerymeter.control.revocation.revoker import gone
from celerymeter.control.revocation.verdict import FINISHED, died, ran_anyway
from celerymeter.control.revocation.workers import Workers
from celerymeter.model import Event

AGAIN: Final = 3600.0
"""Seconds after which all workers are told again."""
PATIENCE: Final = 5.0
FAR: Final = 0.02
"""Seconds more for each id: a worker may be far from its result backend."""
PAGE: Final = 1000
"""Ids that workers are told before they are waited for."""
LONGEST_LOOK: Final = 30.0


class Holding:
    """Knows which workers are to be told again, and tells them. ``lock`` guards the ledger."""

    def __init__(
        self, ledger: Ledger, workers: Workers, memory: EventMemory, *, states: States, announcer: Announcer
    ) -> None:
        self.lock = threading.RLock()
        self._ledger = ledger
        self._workers = workers
        self._memory = memory
        self._states = states
        self._announcer = announcer
        self._due = Retries()
        self._known: set[str] = set()
        self._again_at: float | None = None

    def alive(self) -> frozenset[str]:
        """The workers that are heard."""
        return self._memory.alive()

    def remembered(self, task_ids: Collection[str]) -> Mapping[str, Trace]:
        """What was heard of these last."""
        return self._memory.traces(task_ids)

    def heard(self, event: Event, now: float) -> None:
        """A worker that comes may know nothing, and lets the others forget what is old: all are told again."""
        with self.lock:
            if event.type == "worker-offline":
                self._known.discard(event.hostname)
                self._left(event.hostname)
            elif event.type == "worker-online":
                self._known.add(event.hostname)
                self.chase({event.hostname, *self.alive()}, now)
            elif event.hostname not in self._known:
                self._known.add(event.hostname)
                self.chase({event.hostname}, now)

    def forget_all(self, now: float) -> None:
        """Whoever is heard from now on is told again."""
        with self.lock:
            self._known.clear()
            self._again_at = now + AGAIN

    def chase(self, workers: Collection[str], now: float) -> None:
        """Tell these again until they acknowledge, if there is anything to tell."""
        if self._ledger.all():
            for worker in workers:
                self._due.add(worker, now)

    def turn(self, now: float) -> None:
        """Tell those whose turn it is, and look whether what was told to die is dead; waits for silent workers."""
        with self.lock:
            if self._again_at is not None and now >= self._again_at:
                self.forget_all(now)
        due = self._due.take(now)
        if due:
            self._tell(due, now)
        self._look_for_deaths(now)

    def _left(self, worker: str) -> None:
        """It gave its tasks back, and will be told when it returns."""
        self._due.settle(worker, done=True, now=0.0)
        for followed in self._ledger.all():
            if followed.decided and worker in followed.missing:
                self._announcer.changed(followed.batch, followed.acknowledged([worker]))

    def _tell(self, due: Sequence[str], now: float) -> None:
        self._drop_finished()
        with self.lock:
            task_ids = self._ledger.open_ids()
        if not task_ids:
            for worker in due:
                self._due.settle(worker, done=True, now=now)
            return
        acknowledged = frozenset(due)
        for start in range(0, len(task_ids), PAGE):
            acknowledged = self._tell_page(task_ids[start : start + PAGE], acknowledged)
        for worker in due:
            self._due.settle(worker, done=worker in acknowledged, now=now)
        with self.lock:
            for followed in self._ledger.all():
                if followed.decided and followed.covers(frozenset(task_ids)):
                    self._announcer.changed(followed.batch, followed.acknowledged(acknowledged))

    def _tell_page(self, task_ids: Sequence[str], workers: frozenset[str]) -> frozenset[str]:
        """Tell these workers, if there are any; gives those that have acknowledged all of it."""
        if not workers:
            return workers
        until = monotonic() + PATIENCE + FAR * len(task_ids)
        told = self._workers.flag(task_ids, expected=workers, until=until, only=workers)
        acknowledged = told.together.acknowledged & workers
        if acknowledged:
            self._end_what_runs(task_ids, acknowledged)
        return acknowledged

    def _drop_finished(self) -> None:
        """What has finished although no event said so is not sent again."""
        with self.lock:
            task_ids = self._ledger.open_ids()
        states = self._states.states(task_ids)
        with self.lock:
            for followed in self._ledger.all():
                ended = [
                    ran_anyway(result, states[result.task_id])
                    for result in followed.open()
                    if followed.decided and states.get(result.task_id) in FINISHED
                ]
                self._announcer.changed(followed.batch, followed.change(ended))

    def _end_what_runs(self, task_ids: Sequence[str], workers: frozenset[str]) -> None:
        """What these workers turn out to run ends where that was asked for."""
        until = monotonic() + PATIENCE
        replies = self._workers.recheck(task_ids, expected=workers, until=until)
        running = {task_id: where for task_id, where in replies.held().items() if where.place == "running"}
        for followed in self._ledger.all():
            found = [result for result in list(followed.open()) if result.task_id in running and followed.decided]
            changed = [self._running(followed, result, running[result.task_id]) for result in found]
            with self.lock:
                self._announcer.changed(followed.batch, followed.change(changed))

    def _running(self, followed: Followed, result: Result, where: Sighting) -> Result:
        if not followed.terminate:
            if result.status not in ("partial", "pending"):
                return result  # it lost its flag: what becomes of it will be heard
            return replace(result, status="running_not_terminated", detail="it runs on: terminate was false")
        if result.status in ("terminate_sent", "error") or where.worker is None:
            return result
        until = monotonic() + PATIENCE
        signal = followed.batch.order.signal
        replies = self._workers.kill([result.task_id], worker=where.worker, signal=signal, until=until)
        if where.worker not in replies.answered("revoke"):
            return result
        return replace(
            result,
            status="terminate_sent",
            detail="told to die; not proven dead yet",
            worker=where.worker,
            pid=where.pid,
        )

    def _look_for_deaths(self, now: float) -> None:
        for followed in self._ledger.all():
            dying = {result.worker: result for result in followed.open() if result.status == "terminate_sent"}
            workers = frozenset(worker for worker in dying if worker is not None)
            if workers and followed.decided and now >= followed.look_at:
                followed.look_at = now + followed.look_pause
                followed.look_pause = min(2 * followed.look_pause, LONGEST_LOOK)
                self._note_deaths(followed, self._workers.recheck([], expected=workers, until=monotonic() + PATIENCE))

    def _note_deaths(self, followed: Followed, replies: Replies) -> None:
        with self.lock:
            dead = [
                died(result)
                for result in followed.open()
                if result.status == "terminate_sent" and gone(result.pid, result.worker, replies)
            ]
            self._announcer.changed(followed.batch, followed.change(dead))
