"""Following batches until every id is settled, and sending their flags again to workers that may have lost them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from celerymeter.control.revocation.announcer import Announcer
from celerymeter.control.revocation.holding import Holding
from celerymeter.control.revocation.ledger import Followed, Ledger, give_up
from celerymeter.control.revocation.memory import Trace
from celerymeter.control.revocation.models import Acknowledgements, Batch, Result
from celerymeter.control.revocation.revoker import Acted
from celerymeter.control.revocation.store import Batches
from celerymeter.control.revocation.verdict import after_event
from celerymeter.errors import CelerymeterError, StateError
from celerymeter.model import Event

TURN: Final = 0.25
CLAIM: Final = 3.0
"""Seconds between renewals of the leases."""
MOST_EVENTS: Final = 100_000
_ENDS: Final = frozenset({"task-succeeded", "task-failed", "task-revoked"})

log = logging.getLogger(__name__)


class Followup:
    """An `EventSink` and two background threads, for neither leases nor events wait for workers; thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        batches: Batches,
        *,
        holding: Holding,
        announcer: Announcer,
        hold: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._batches = batches
        self._holding = holding
        self._announcer = announcer
        self._hold = hold
        self._clock = clock
        self._heard: deque[tuple[str, Trace]] = deque(maxlen=MOST_EVENTS)
        self._lock = holding.lock
        self._claim_at = 0.0
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"revocations {work.__name__}", daemon=True)
            for work in (self.keep, self.remind)
        ]

    # as an event sink

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Keep what concerns followed ids for the thread, and note who came."""
        for event in batch:
            if event.uuid is None:
                self._holding.heard(event, self._clock())
            elif event.type in _ENDS and self._ledger.knows(event.uuid):
                trace = Trace(event.type, at, event.hostname, event.name, terminated=bool(event.terminated))
                self._heard.append((event.uuid, trace))

    def rejected(self, reason: str, count: int = 1) -> None:
        """What cannot be used is counted by the exporter."""

    def connected(self, at: float) -> None:
        """Workers may have restarted meanwhile: every one is told again when it is heard."""
        self._holding.forget_all(at)

    def disconnected(self, at: float, reason: str) -> None:
        """The reader logs it."""

    # for requests

    def follow(self, batch: Batch) -> None:
        """From before the act on, so that no event is missed."""
        with self._lock:
            self._ledger.add(batch)

    def decide(self, batch: str, acted: Acted) -> Batch:
        """Take the results of the act, where events have not said more already."""
        with self._lock:
            followed = self._ledger.get(batch)
            if followed is None:
                raise StateError(f"batch {batch} is not followed")
            followed.acted(acted.workers)
            changed = followed.change(acted.results)
            self._holding.chase(followed.missing, self._clock())
            self._announcer.decided(followed.batch, changed)
            self._announcer.changed(followed.batch, followed.early)
            return followed.batch

    def broke_off(self, batch: str, workers: frozenset[str]) -> None:
        """The act did not come to its end: tell every worker anew."""
        with self._lock:
            if (followed := self._ledger.get(batch)) is not None:
                followed.acted(Acknowledgements(workers))
                self._holding.chase(workers, self._clock())
                self._announcer.changed(followed.batch, followed.early)

    def find(self, batch: str) -> Batch | None:
        """A batch as it stands, whoever follows it."""
        with self._lock:
            followed = self._ledger.get(batch)
            return followed.batch if followed is not None else self._batches.get(batch)

    # in the background

    def start(self) -> None:
        """Begin, with what an earlier process left."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and let others go on."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(2.0)
        try:
            with self._lock:
                self._batches.release(followed.id for followed in self._ledger.all())
        except CelerymeterError as error:
            log.warning("revocations: %s", error)

    def _run(self, work: Callable[[], None]) -> None:
        while not self._stopping.wait(TURN):
            if not _done(work):
                self._stopping.wait(1.0)

    def keep(self) -> None:
        """See to leases, to what was heard, and to what is held for too long."""
        with self._lock:
            now = self._clock()
            if now >= self._claim_at:
                self._claim_at = now + CLAIM
                self._claim(now)
                self._give_up(now)
        self._take_events()
        with self._lock:
            self._ledger.tidy()
            self._announcer.holding(len(self._ledger.open_ids()))

    def remind(self) -> None:
        """See to what workers are to be told; takes seconds while they are silent."""
        self._holding.turn(self._clock())

    def _take_events(self) -> None:
        while self._heard:
            task_id, trace = self._heard.popleft()
            with self._lock:
                for followed in self._ledger.of_task(task_id):
                    self._take(followed, task_id, trace)

    def _take(self, followed: Followed, task_id: str, trace: Trace) -> None:
        changed = followed.change([after_event(followed.results[task_id], trace)])
        if followed.decided:
            self._announcer.changed(followed.batch, changed)
        else:
            followed.early += changed

    def _claim(self, now: float) -> None:
        claimed = self._batches.claim([followed.id for followed in self._ledger.all()])
        for followed in self._ledger.all():
            if followed.id in claimed.lost and followed.decided:
                self._ledger.drop(followed.id)
                log.warning("another process goes on with a batch revoke", extra={"batch_id": followed.id})
        for batch in claimed.taken:
            followed = self._ledger.add(batch)
            followed.decided = True
            followed.missing |= batch.workers.expected
            self._catch_up(followed)
            self._holding.chase(followed.missing | self._holding.alive(), now)
            log.info("going on with a batch revoke", extra={"batch_id": batch.id})

    def _catch_up(self, followed: Followed) -> None:
        """What was heard while nobody followed it."""
        traces = self._holding.remembered([result.task_id for result in followed.open()])
        ends = [
            after_event(followed.results[task_id], trace)
            for task_id, trace in traces.items()
            if trace.at >= followed.batch.at
        ]
        self._announcer.changed(followed.batch, followed.change(ends))

    def _give_up(self, now: float) -> None:
        for reason, followed, results in self._ledger.overdue(now=now, hold=self._hold):
            changed: list[Result] = followed.change(give_up(results, reason))
            self._announcer.changed(followed.batch, changed)
            self._announcer.dropped(reason, len(changed))


def _done(work: Callable[[], None]) -> bool:
    try:
        work()
    except CelerymeterError as error:
        log.warning("revocations: %s", error)
    except Exception:
        log.exception("revocations: unexpected error")
    else:
        return True
    return False
