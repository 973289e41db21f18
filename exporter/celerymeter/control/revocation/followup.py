"""Follows active batches until every id is settled, and sends their flags again to workers that may have lost them.

Flags live in the workers' memory: a worker that starts knows none, and it forgets them after three hours
(`celery.worker.state`).
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from threading import RLock
from time import monotonic
from typing import Final

from celerymeter.control.evidence.models import LastEvent, TaskLocation
from celerymeter.control.evidence.sources import Sources
from celerymeter.control.live_workers import INFORMED, LiveWorker
from celerymeter.control.retries import Retries
from celerymeter.control.revocation import decide
from celerymeter.control.revocation.batches import ActiveBatch, ActiveBatches, Recorder
from celerymeter.control.revocation.models import Acknowledgements, Batch, Outcome, TaskResult
from celerymeter.control.revocation.workers import Workers
from celerymeter.errors import BrokerUnavailable, RequestRefused, StateError
from celerymeter.model import Event
from celerymeter.threads import PeriodicThread

INTERVAL: Final = 0.25
MAX_EVENTS: Final = 100_000
RESEND_INTERVAL: Final = 3600.0
"""Seconds after which the flags are sent to all workers again."""
TIMEOUT: Final = 5.0
TIMEOUT_PER_ID: Final = 0.02
"""Seconds more for each id: a worker may be far from its result backend."""
MAX_CHECK_PAUSE: Final = 30.0
PAGE: Final = 1000
"""Ids that are sent before the workers are waited for."""
GIVEN_UP: Final = {
    "expired": "not settled within the time that revokes are held",
    "capacity": "given up: too many revokes are held",
}
_ENDS: Final = frozenset({"task-succeeded", "task-failed", "task-revoked"})

log = logging.getLogger(__name__)


class Followup:
    """An `EventConsumer` and a `WorkerListener`. Thread-safe.

    It has two threads, so that events do not wait for silent workers. The lock guards the active batches; it is
    never held while a worker or the result backend is waited for.
    """

    def __init__(
        self,
        workers: Workers,
        sources: Sources,
        *,
        recorder: Recorder,
        hold: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = recorder.store
        self._workers = workers
        self._live_workers = sources.live_workers
        self._event_cache = sources.event_cache
        self._result_backend = sources.result_backend
        self._recorder = recorder
        self._hold = hold
        self._clock = clock
        self._lock = RLock()
        self._batches = ActiveBatches()
        self._events: deque[tuple[str, LastEvent]] = deque(maxlen=MAX_EVENTS)
        self._pending = Retries()
        """The workers to which the flags are to be sent again."""
        self._resend_all_at: float | None = None
        self._threads = (
            PeriodicThread("revocations: follow-up", self.update, interval=INTERVAL),
            PeriodicThread("revocations: re-sending", self.resend, interval=INTERVAL),
        )
        self._live_workers.listen(self)

    # As an `EventConsumer`

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Remember the events, and queue the ends of followed tasks for the thread."""
        self._event_cache.add(batch, at)
        for event in batch:
            if event.type in _ENDS and event.uuid is not None and event.uuid in self._batches:
                last = LastEvent(event.type, at, event.hostname, event.name, terminated=bool(event.terminated))
                self._events.append((event.uuid, last))

    def connected(self, at: float) -> None:
        """Send the flags to all workers again, now and when every one is known: some may have restarted unnoticed."""
        # A container that restarts may have the same hostname and pid 1 again, so that nothing shows it.
        self._send_to(self._live_workers.alive())
        self._resend_all_at = at + INFORMED

    def disconnected(self, at: float, reason: str) -> None:
        """Do nothing; the reader logs it."""

    # As a `WorkerListener`

    def joined(self, worker: LiveWorker) -> None:
        """Send the flags to a new worker; one that starts also makes the others forget what is old (mingle)."""
        self._send_to({worker.hostname, *self._live_workers.alive()} if worker.restarted else {worker.hostname})

    def left(self, hostname: str) -> None:
        """Wait no longer for a worker that went offline: it gave its tasks back, and gets the flags if it returns."""
        self._pending.settle(hostname, done=True, now=self._clock())
        with self._lock:
            for active in self._batches:
                if active.decided and hostname in active.missing:
                    self._recorder.changed(active.batch, active.leave(hostname))

    def _send_to(self, workers: Collection[str]) -> None:
        """Send the flags to these workers until they acknowledge them."""
        # Once is not enough: a worker sends `worker-online` before it listens for commands (the boot steps of
        # `celery.worker.consumer`: events come before control).
        if self._batches:
            for worker in workers:
                self._pending.add(worker, self._clock())

    # For requests

    def follow(self, batch: Batch) -> None:
        """Follow a batch from before the act on, so that no event is missed."""
        with self._lock:
            self._batches.add(ActiveBatch(batch))
        self._publish_ends([result.task_id for result in batch.results], self._live_workers.alive())

    def _publish_ends(self, task_ids: Sequence[str], workers: Collection[str]) -> None:
        """Make aggregating workers publish the events of these tasks."""
        try:
            self._workers.follow(task_ids, seconds=self._hold, only=workers)
        except (BrokerUnavailable, RequestRefused) as error:
            log.warning("aggregating workers do not publish the events of revoked tasks: %s", error)

    def acted(self, batch_id: str, outcome: Outcome) -> Batch:
        """Take the results of the act, except where events have already settled an id."""
        with self._lock:
            active = self._batches.get(batch_id)
            if active is None:
                raise StateError(f"batch {batch_id} is not followed")
            active.acted(outcome.workers)
            changed = active.change(outcome.results)
            self._send_to(active.missing)
            self._recorder.decided(active.batch, changed)
            self._recorder.changed(active.batch, active.early)
            return active.batch

    def act_failed(self, batch_id: str, workers: frozenset[str]) -> None:
        """Note that the act failed half-way: send the flags to every worker again."""
        with self._lock:
            if (active := self._batches.get(batch_id)) is not None:
                active.acted(Acknowledgements(missing=workers))
                self._send_to(workers)
                self._recorder.changed(active.batch, active.early)

    def find(self, batch_id: str) -> Batch | None:
        """Return the current state of a batch."""
        with self._lock:
            if (active := self._batches.get(batch_id)) is not None:
                return active.batch
        return self._store.get(batch_id)

    # In the background

    def start(self) -> None:
        """Resume the batches that an earlier process left open, and start the threads."""
        self.resume()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads; open batches are resumed at the next start."""
        for thread in self._threads:
            thread.stop()

    def resume(self) -> None:
        """Follow the open batches of an earlier process. Whatever their workers knew, they are sent the flags again."""
        with self._lock:
            for batch in self._store.open_batches():
                self._batches.add(ActiveBatch(batch, decided=True))
                self._send_to(batch.workers.missing)
                log.info("resuming a batch revoke", extra={"batch_id": batch.id})

    def update(self) -> None:
        """Apply the events, give up what is overdue, and forget settled batches."""
        events = [self._events.popleft() for _ in range(len(self._events))]
        changes: dict[ActiveBatch, list[TaskResult]] = defaultdict(list)
        with self._lock:
            for task_id, event in events:
                for active in self._batches.of_task(task_id):
                    changed = active.change([decide.after_event(active.results[task_id], event)])
                    (changes[active] if active.decided else active.early).extend(changed)
            for active, changed in changes.items():
                self._recorder.changed(active.batch, changed)
            for reason, active, results in self._batches.overdue(now=self._clock(), hold=self._hold):
                changed = active.change([decide.unconfirmed(result, GIVEN_UP[reason]) for result in results])
                self._recorder.changed(active.batch, changed)
                self._recorder.metrics.held_dropped.labels(reason).inc(len(changed))
            self._batches.remove_settled()
            self._recorder.metrics.held.set(len(self._batches.open_ids()))

    def resend(self) -> None:
        """Send the flags to the workers that are due, and check whether terminated processes are gone."""
        now = self._clock()
        if self._resend_all_at is not None and now >= self._resend_all_at:
            self._resend_all_at = now + RESEND_INTERVAL
            self._send_to(self._live_workers.alive())
        if due := self._pending.take(now):
            self._drop_finished()
            acknowledged = self._flag_open_ids(frozenset(due))
            for worker in due:
                self._pending.settle(worker, done=worker in acknowledged, now=now)
        self._check_terminated(now)

    def _flag_open_ids(self, workers: frozenset[str]) -> frozenset[str]:
        """Send every open id to these workers, and return those that acknowledged all of them."""
        with self._lock:
            task_ids = self._batches.open_ids()
        for start in range(0, len(task_ids), PAGE):
            page = task_ids[start : start + PAGE]
            if workers:
                self._publish_ends(page, workers)  # one that restarted has forgotten that too
                until = monotonic() + TIMEOUT + TIMEOUT_PER_ID * len(page)
                workers &= self._workers.flag(page, expected=workers, until=until, only=workers).combined.acknowledged
            # A worker that had lost its flags may have started some of these by now.
            if workers:
                self._terminate_running(page, workers)
                # One that aggregates published nothing of what ended before it read the commands.
                ends = self._workers.remembered(page, only=workers)
                self._events.extend((task_id, event) for task_id, event in ends if event.type in _ENDS)
        # A batch that came meanwhile was not sent, and must not count as acknowledged.
        sent = frozenset(task_ids)
        with self._lock:
            for active in self._batches:
                if active.decided and all(result.task_id in sent for result in active.open()):
                    self._recorder.changed(active.batch, active.acknowledge(workers))
        return workers

    def _drop_finished(self) -> None:
        """Send no more what has finished unnoticed: its result is stored, but its event was missed."""
        if self._result_backend is None:
            return
        with self._lock:
            task_ids = self._batches.open_ids()
        states = self._result_backend.states(task_ids)
        finished = {task_id: state for task_id, state in states.items() if state in decide.FINISHED}

        def changed(result: TaskResult) -> TaskResult:
            state = finished.get(result.task_id)
            return result if state is None else decide.ran_anyway(result, state)

        self._change_open(changed)

    def _terminate_running(self, task_ids: Sequence[str], workers: frozenset[str]) -> None:
        """Terminate what these workers turn out to run, where that was asked for."""
        inspection = self._workers.recheck(task_ids, expected=workers, until=monotonic() + TIMEOUT)
        running = {task_id: where for task_id, where in inspection.held.items() if where.location == "running"}
        for active in self._batches:
            with self._lock:
                found = [result for result in active.open() if result.task_id in running and active.decided]
            changed = [self._terminated(active, result, running[result.task_id]) for result in found]
            with self._lock:
                self._recorder.changed(active.batch, active.change(changed))

    def _terminated(self, active: ActiveBatch, result: TaskResult, where: TaskLocation) -> TaskResult:
        request = active.batch.request
        if not request.terminate:
            return decide.found_running(result)
        if result.status in ("terminate_sent", "error") or where.worker is None:
            return result
        until = monotonic() + TIMEOUT
        reply = self._workers.terminate([result.task_id], worker=where.worker, signal=request.signal, until=until)
        return decide.terminate_sent(result, where) if reply.replied and reply.error is None else result

    def _check_terminated(self, now: float) -> None:
        """Ask the workers of terminated tasks for their processes, at growing intervals."""
        for active in self._batches:
            workers = frozenset(
                result.worker
                for result in active.open()
                if result.status == "terminate_sent" and result.worker is not None
            )
            if not workers or not active.decided or now < active.check_at:
                continue
            active.check_at = now + active.check_pause
            active.check_pause = min(2 * active.check_pause, MAX_CHECK_PAUSE)
            inspection = self._workers.recheck([], expected=workers, until=monotonic() + TIMEOUT)
            self._change_open(partial(decide.after_check, gone=inspection.is_gone))

    def _change_open(self, change: Callable[[TaskResult], TaskResult]) -> None:
        """Change the open results of all batches, and record what differs."""
        with self._lock:
            for active in self._batches:
                if active.decided:
                    self._recorder.changed(active.batch, active.change([change(result) for result in active.open()]))
