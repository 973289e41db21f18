"""Task events into counts: every event under its (name, queue_name), every run with one end.

An event waits until its run's queue is known, because `task-received` can overtake `task-sent`. After `GRACE` it is
counted under the only queue that its worker consumes, else under ``unknown``, and so is the rest of that run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from celerymeter.model import UNKNOWN, Event
from celerymeter.tracking.ends import EndedRuns, apply_end
from celerymeter.tracking.runs import MAX_NEXT, Run, RunTable
from celerymeter.tracking.series import Pair, PairTable
from celerymeter.tracking.waits import Waits

GRACE = 2.0
"""Seconds that an event waits for the one that names its queue."""
GRACE_NEW_WORKER = 15.0
"""The same while a worker has not yet said which queues it consumes."""
MAX_AGE = 7 * 86400.0
MAX_HELD = 32
MAX_NAMES = 10_000
"""Task names that are told from those whose events never come; any beyond them count as such."""


class TaskTracker:
    """Follows every run and counts it where it belongs; ``at`` is receipt time, by our clock.

    ``queues_of`` tells the queues that a worker consumes: a tuple, or ``None`` while that is not known.
    """

    def __init__(
        self,
        pairs: PairTable,
        waits: Waits,
        *,
        limit: int,
        queues_of: Callable[[str], tuple[str, ...] | None],
        count_retry_exceptions: bool = False,
    ) -> None:
        self.pairs = pairs
        self.runs = RunTable(limit)
        self.duplicates: Counter[str] = Counter()
        self.last_success: dict[str, float] = {}
        self.names_received: set[str] = set()
        self._waits = waits
        self._limit = limit
        self._queues_of = queues_of
        self._count_retry_exceptions = count_retry_exceptions
        self.lately = EndedRuns()
        self._waiting: deque[tuple[float, Run]] = deque()

    def sent(self, event: Event, at: float, *, sent_at: float) -> None:
        """`task-sent`: the only event that names the queue. A retry's comes while the run before still runs.

        ``sent_at`` is by our clock.
        """
        uuid = event.uuid or ""
        run = self.runs.get(uuid)
        if run is None:
            run = self.runs.open(uuid, at)
        elif (event.retries or 0) > run.retries:
            self._sent_ahead(run, event)
            return
        known = run.sent is not None
        self._address(run, event, sent_at)
        if run.queue is None or run.name is None:
            self._hold(run, event, at)
            return
        self._count_sent(run.name, run.queue)
        if not known and run.held is not None:
            self._flush(run, at)

    def received(self, event: Event, at: float) -> None:
        """`task-received`: names the task, and begins a run at a worker."""
        known = self.runs.get(event.uuid or "")
        late = self.lately.get(event.uuid or "") if known is None else None
        if late is not None and not late.received:
            self._count_late(late, event)
            return
        run = self._arriving(known, event, at)
        run.received = True
        if late is not None and run.queue is None:
            run.queue = late.queue
        if run.name is None and event.name is not None:
            run.name = self.pairs.name(event.name)
        if event.name is not None and len(self.names_received) < MAX_NAMES:
            self.names_received.add(event.name)
        if run.eta is None:
            run.eta = event.eta
        pair = run.pair or self._resolve(run)
        if pair is None:
            self._hold(run, event, at)
        else:
            pair.received += 1

    def started(self, event: Event, at: float) -> None:
        """`task-started`: names neither task nor queue."""
        uuid, hostname = event.uuid or "", event.hostname
        run = self.runs.starting(uuid, hostname)
        if run is None and (late := self._late(event)) is not None:
            self._count_late(late, event)
            return
        if run is None:
            newest = self.runs.get(uuid)
            run = self.runs.open(uuid, at) if newest is None else self.runs.succeed(newest, at)
        run.worker, run.started, run.touched, run.adopted = hostname, event.timestamp, at, False
        if run.pair is None and self._resolve(run) is None:
            self._hold(run, event, at)
        else:
            self._start(run, event)

    def ended(self, event: Event, at: float) -> None:
        """Any event that may end a run; what comes after the run's one end is a duplicate."""
        uuid = event.uuid or ""
        run = self.runs.ending(uuid, event.hostname)
        if run is None and (late := self.lately.get(uuid)) is not None:
            self._end(late, event, at)
            return
        if run is None:
            newest = self.runs.get(uuid)
            run = self.runs.open(uuid, at) if newest is None else self.runs.precede(newest, event.hostname, at)
        if run.worker is None:
            run.worker = event.hostname
        if run.pair is None and self._resolve(run) is None:
            self._hold(run, event, at)
            run.over = True
        else:
            self._end(run, event, at)

    def tick(self, now: float) -> None:
        """Give up waiting for what did not come, or when too many wait; drop what is too old."""
        still: list[tuple[float, Run]] = []
        excess = len(self._waiting) - self._limit
        while self._waiting and (excess > 0 or not 0 <= now - self._waiting[0][0] < GRACE):
            since, run = self._waiting.popleft()
            if excess <= 0 and 0 <= now - since < GRACE_NEW_WORKER and self._asks_new_worker(run):
                still.append((since, run))
            else:
                self._give_up(run, now)
            excess -= 1
        self._waiting.extendleft(reversed(still))
        for run in self.runs.older_than(now - MAX_AGE):
            self.runs.evict(run, "age")

    def sent_at(self, uuid: str) -> float | None:
        """When a task that waits was sent, by our clock; ``None`` when that is not known."""
        run = self.runs.get(uuid)
        return None if run is None else run.sent

    def _late(self, event: Event) -> Run | None:
        """The run that has ended already, when nothing of this task is unfinished."""
        uuid = event.uuid or ""
        return self.lately.get(uuid) if self.runs.get(uuid) is None else None

    def _count_late(self, run: Run, event: Event) -> None:
        """An earlier step of a run, overtaken by its end."""
        if run.pair is None:
            return
        if event.type == "task-received":
            run.received = True
            run.pair.received += 1
        else:
            run.pair.started += 1

    def _arriving(self, run: Run | None, event: Event, at: float) -> Run:
        """The run that a `task-received` begins; ``run`` is the newest known of its task."""
        hostname, retries = event.hostname, event.retries or 0
        if run is None:
            run = self.runs.open(event.uuid or "", at)
        elif retries < run.retries and run.worker != hostname:
            return self.runs.precede(run, hostname, at)
        elif retries > run.retries or (run.started is not None and (run.received or run.worker != hostname)):
            ahead, run.next = run.next, None
            run = self.runs.succeed(run, at)
            self._take_next(run, ahead)
        run.worker, run.retries, run.touched = hostname, retries, at
        return run

    def _sent_ahead(self, run: Run, event: Event) -> None:
        if run.next is None:
            run.next = []
        if len(run.next) < MAX_NEXT:
            run.next.append(event)
        name, queue = event.name or run.name or UNKNOWN, queue_of(event) or run.queue or UNKNOWN
        self._count_sent(self.pairs.name(name), self.pairs.queue(queue))

    def _take_next(self, run: Run, ahead: list[Event] | None) -> None:
        if ahead:
            self._address(run, ahead[0], self._waits.sent(ahead[0]))
            run.next = ahead[1:] or None

    def _address(self, run: Run, event: Event, sent_at: float | None) -> None:
        """Take name, queue and send time from a `task-sent`; what was counted once keeps its labels."""
        run.sent, run.eta, run.retries = sent_at, event.eta, event.retries or 0
        if run.pair is None:
            queue = queue_of(event)
            run.queue = self.pairs.queue(queue) if queue is not None else None
            run.name = self.pairs.name(event.name) if event.name is not None else run.name

    def _resolve(self, run: Run) -> Pair | None:
        if run.name is None or run.queue is None:
            return None
        run.pair = self.pairs.get(run.name, run.queue, run.worker or "")
        return run.pair

    def _count_sent(self, name: str, queue: str) -> None:
        """Producers are no workers: under `--task-hostname-label` a sent task has an empty hostname."""
        self.pairs.get(name, queue).sent += 1

    def _start(self, run: Run, event: Event) -> None:
        assert run.pair is not None  # noqa: S101 - the caller resolved it; mypy cannot see it
        run.pair.started += 1
        if not run.ended and not run.over:
            run.pair.running[run] = None
        self._waits.observe(run, event)

    def _end(self, run: Run, event: Event, at: float) -> None:
        if run.ended:
            self.duplicates[event.type] += 1
        elif event.type == "task-rejected" and not event.requeue:
            self._reject(run, at)
        elif event.type in ("task-rejected", "task-cancelled"):
            self._give_back(run, event)
        else:
            if run.rejected:
                self.duplicates["task-rejected"] += 1
            apply_end(run, event, exception=self.pairs.exception, count_retry=self._count_retry_exceptions)
            if event.type == "task-succeeded":
                self.last_success[run.name or UNKNOWN] = at
            self._close(run, event, at)

    def _reject(self, run: Run, at: float) -> None:
        """A rejection is the end only if no `task-failed` of the same run comes with it."""
        if run.rejected:
            self.duplicates["task-rejected"] += 1
            return
        run.rejected = True
        run.stop_running()
        self._waiting.append((at, run))

    def _give_back(self, run: Run, event: Event) -> None:
        if event.type == "task-rejected" and run.pair is not None:
            run.pair.rejected_requeued += 1
        run.give_back()

    def _close(self, run: Run, event: Event | None, at: float) -> None:
        newest = self.runs.forget(run)
        run.stop_running()
        run.ended = True
        if newest and run.next:
            ahead, run.next = run.next, None
            self._take_next(self.runs.open(run.uuid, at), ahead)
        elif newest and (event is None or event.type != "task-retried"):
            self.lately.add(run, terminated=event is not None and bool(event.terminated))

    def _hold(self, run: Run, event: Event, at: float) -> None:
        if run.held is None:
            run.held = [event]
            self._waiting.append((at, run))
        elif len(run.held) < MAX_HELD:
            run.held.append(event)
        else:
            self.settle(run, at)
            self._replay(run, event, at)

    def settle(self, run: Run, at: float) -> None:
        """Decide the labels of a run whose `task-sent` did not come, and count what it holds."""
        run.name = run.name or UNKNOWN
        run.queue = run.queue or self._only_queue(run) or UNKNOWN
        self._flush(run, at)

    def _flush(self, run: Run, at: float) -> None:
        if run.pair is None and self._resolve(run) is None:
            return
        held, run.held = run.held, None
        for event in held or ():
            self._replay(run, event, at)

    def _replay(self, run: Run, event: Event, at: float) -> None:
        if event.type == "task-received" and run.pair is not None:
            run.pair.received += 1
        elif event.type == "task-started":
            self._start(run, event)
        elif event.type == "task-sent":
            self._count_sent(run.name or UNKNOWN, run.queue or UNKNOWN)
        else:
            self._end(run, event, at)

    def _only_queue(self, run: Run) -> str | None:
        queues = self._queues_of(run.worker) if run.worker is not None else None
        return self.pairs.queue(queues[0]) if queues is not None and len(queues) == 1 else None

    def _asks_new_worker(self, run: Run) -> bool:
        return run.held is not None and run.worker is not None and self._queues_of(run.worker) is None

    def _give_up(self, run: Run, now: float) -> None:
        if run.held is not None:
            self.settle(run, now)
        if run.rejected and not run.ended and run.pair is not None:
            run.pair.rejected_end += 1
            self._close(run, None, now)


def queue_of(event: Event) -> str | None:
    """The queue that a `task-sent` names: its ``queue``, else its routing key on the default exchange."""
    if event.queue:
        return event.queue
    return event.routing_key or None if event.exchange == "" else None
