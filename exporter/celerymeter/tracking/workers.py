"""Workers: who is alive, judged by receipt time; what their heartbeats and `inspect` replies say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from heapq import nlargest, nsmallest
from itertools import islice

import msgspec

from celerymeter import escaping
from celerymeter.model import Event, WorkersSnapshot, WorkerState
from celerymeter.routing import QueueRoutes
from celerymeter.tracking.clocks import ClockOffset
from celerymeter.tracking.loss import MAX_MARKS, LossMeter
from celerymeter.tracking.series import BusyTime, TaskSeriesTable

MISSED_HEARTBEATS = 3
DEFAULT_FREQ = 2.0
RECONNECT_GRACE = 30.0
NO_HEARTBEAT = 60.0
"""Seconds without a heartbeat after which starts are no longer kept to be compared with one."""
IDLE = 5.0
"""Seconds of heartbeats without any active task, after which events of ends are not on their way any more."""
SOON = 5.0
"""Seconds between a task event and the end of a run, for which task events count as still turned on."""
MAX_ASKED = 3
"""A new worker is asked out of turn so often; one that is too busy to reply waits for the next poll."""
TAKEOVERS = 3
TAKEOVER_MEMORY = 60.0
"""This many changes of process under one node name within so many seconds are two processes, not a restart."""
HISTORY = 60.0
"""Seconds of heartbeats that prove a worker which does not answer; others go first when there are too many."""
FULL = 0.5
"""Seconds until the table looks again for workers to drop, if it has found few."""
NAME_BYTES = 64
"""Bytes of its name that each worker may have on average: a page repeats it some 20 times."""
MIN_NAME_BYTES = 16 * 1024
MAX_UNPROVEN = 500
"""Workers without evidence that a poll waits for."""
MAX_VERSION = 40
MOST_MARKS = 500_000
"""Starts of all workers together that may wait for heartbeats."""

_MANY_THREADS = ("threads", "gevent", "eventlet")
"""Pools that begin runs in other threads or greenlets than the one that sends heartbeats."""


class Worker:
    """One worker, by its full node name. Times are receipt times by our clock."""

    __slots__ = (
        "active",
        "application",
        "asked",
        "busy",
        "clock",
        "down_since",
        "first_seen",
        "freq",
        "heard_at",
        "hostname",
        "idle_since",
        "inspected_at",
        "last_heartbeat",
        "last_seen",
        "load1",
        "loss",
        "offline_at",
        "offset",
        "online_at",
        "pid",
        "processed",
        "processed_total",
        "queues_stale",
        "state",
        "takeovers",
        "totals",
        "unheard_at",
        "up",
        "version",
    )

    def __init__(self, hostname: str, at: float) -> None:
        self.hostname = hostname
        self.first_seen = self.last_seen = at
        """The first sign of life of its present process, and the last one."""
        self.last_heartbeat: float | None = None
        self.freq = DEFAULT_FREQ
        self.pid = 0
        self.active: int | None = None
        self.idle_since: float | None = None
        """The first of the heartbeats that all said that nothing runs."""
        self.processed: int | None = None
        self.processed_total = 0
        self.busy = BusyTime()
        self.load1: float | None = None
        self.version = ""
        self.application = ""
        """The version of the application, empty if the worker does not say."""
        self.offline_at: float | None = None
        self.online_at: float | None = None
        """Time of its last worker-online event: it started, or reconnected to its broker."""
        self.clock: ClockOffset | None = None
        self.offset: float | None = None
        """Seconds to add to the worker's clock to have ours; ``None`` before its first worker event."""
        self.up = True
        self.down_since: float | None = None
        self.state: WorkerState | None = None
        self.inspected_at: float | None = None
        self.queues_stale = True
        self.asked = 0
        """Polls sent since the worker was last seen to be new."""
        self.totals: dict[str, int] | None = None
        self.loss = LossMeter()
        self.heard_at: float | None = None
        """Time of its last task event that was the first since a heartbeat."""
        self.unheard_at: float | None = None
        """The last time at which events of it may have been lost."""
        self.takeovers: list[float] = []

    @property
    def wanted(self) -> bool:
        """True if a poll should not wait: the worker is new, or some of its events are missing."""
        new = self.queues_stale and self.asked < MAX_ASKED
        return self.up and self.offline_at is None and (new or self.loss.has_question)

    @property
    def unanswered(self) -> bool:
        """True if the new worker was asked twice and has not reported the queues that it consumes.

        Twice, for else every worker that joins would make what is summed over workers vanish for a moment.
        """
        return self.queues_stale and self.asked > 1

    @property
    def proven(self) -> bool:
        """True if it has answered, or sent heartbeats for a while: anybody can invent a name."""
        if self.inspected_at is not None:
            return True
        return self.last_heartbeat is not None and self.last_heartbeat - self.first_seen >= HISTORY

    def has_replied(self, now: float, *, within: float) -> bool:
        """Return True if it replied to a poll of the last ``within`` seconds."""
        return self.inspected_at is not None and now - self.inspected_at <= within

    @property
    def duplicate(self) -> bool:
        """True if two processes send under this node name."""
        return len(self.takeovers) >= TAKEOVERS

    @property
    def shut_down(self) -> bool:
        """True if the worker is down because it was stopped (`worker-offline`)."""
        return self.offline_at is not None and not self.up

    @property
    def registered(self) -> frozenset[str] | None:
        """The tasks that it knows, Celery's own aside; ``None`` while that is not known."""
        return self.state.registered if self.state is not None else None

    @property
    def mode(self) -> str:
        """How it reports its tasks: ``events``, or ``aggregate`` for totals (`celerymeter.aggregate`)."""
        return "aggregate" if self.loss.aggregated else "events"

    @property
    def begun(self) -> int:
        """Runs that its process has begun, as far as it has said."""
        return max(self.processed or 0, sum((self.totals or {}).values()))

    @property
    def pool(self) -> str:
        """The pool's name (``prefork``, ``solo`` …), or the empty string while unknown."""
        return (self.state.pool or "") if self.state is not None else ""

    def our_time(self, event: Event, at: float) -> float:
        """Return the send time of an event by our clock, or ``at``, its receipt, if the offset is not known."""
        return at if self.offset is None else event.timestamp + self.offset

    def heard(self, at: float) -> bool:
        """A task event arrived, the first since its last heartbeat; return whether it counts."""
        self.heard_at = at
        return self.loss.heard()

    def would_have_reported(self, *, started: float, seen: float) -> bool | None:
        """Return whether we would have heard the end of a run, or ``None`` as long as that is not certain.

        It started and was last known to run at these times by our clock. At a reconnect events may get lost (before
        Celery 5.7 a worker loses the ends of all that runs), and operators turn task events off (`disable_events`).
        """
        if self.loss.off or (self.unheard_at is not None and started < self.unheard_at):
            return False
        if self.last_heartbeat is None:
            return True
        proven = self.heard_at is not None and self.heard_at >= seen - max(SOON, 2 * self.freq)
        return True if proven else None

    def event(self, event: Event, at: float) -> bool:
        """Take a worker event; return whether this is a new process under the name."""
        if self.clock is None:
            self.clock = ClockOffset(timestamp=event.timestamp, at=at)
        self.offset = self.clock.observe(timestamp=event.timestamp, at=at)
        if event.type == "worker-offline":
            self.offline_at = at
            return False
        renewed = self._renew(event, at)
        if renewed or (event.type == "worker-online" and self.shut_down):  # in containers the pid is always 1
            self.first_seen = at
        self.offline_at = None
        before = self.last_heartbeat or self.online_at
        # A worker that skips heartbeats is blocked (it waits in a soft shutdown), and what its runs did comes later.
        blocked = before is not None and at - before > 2 * self.freq
        if event.type == "worker-online":
            self.online_at = at
        self.freq = event.freq or self.freq
        self.active = event.active if event.active is not None else self.active
        if event.sw_ver and event.sw_ver != self.version:
            self.version = escaping.name(event.sw_ver[:MAX_VERSION])
        if isinstance(event.application_version, str) and event.application_version != self.application:
            self.application = escaping.name(event.application_version[:MAX_VERSION])
        self.load1 = event.loadavg[0] if event.loadavg else self.load1
        if event.type == "worker-heartbeat":
            self.last_heartbeat = at
        if event.active != 0 or renewed:
            self.idle_since = None
        elif self.idle_since is None or blocked:
            self.idle_since = at
        if event.processed is not None:
            if self.processed is not None:
                self.processed_total += max(0, event.processed - self.processed)
            self.processed = event.processed
            beginning = event.active or 0 if self.pool in _MANY_THREADS else 0
            self.loss.heartbeat(processed=event.processed, clock=event.clock, beginning=beginning)
        reconnected = event.type == "worker-online" and before is not None and not renewed
        if reconnected or self.loss.off:
            self.unheard_at = at
        return renewed

    def _renew(self, event: Event, at: float) -> bool:
        """Begin anew after a new pid, or counts that begin again (in containers the pid is always 1)."""
        before, known = self.processed, self.pid
        fell = before is not None and event.processed is not None and event.processed < before
        renewed = (known not in (0, event.pid)) or fell
        self.pid = event.pid
        if renewed:
            self.takeovers = [*self.takeovers, at][-10:]
            self.queues_stale = True
            self.asked = 0
            self.totals = None
            self.application = ""
            self.loss.restart()
            self.processed = None
        if self.processed is None and event.type == "worker-online" and event.processed == 0:
            self.processed = 0
            self.totals = {}
        return renewed

    def alive(self, now: float, *, connected_at: float, solo_grace: float, poll_interval: float) -> bool:
        """Return True if the worker counts as up at ``now``, with our own subscription up since ``connected_at``."""
        timeout = MISSED_HEARTBEATS * self.freq
        if self.offline_at is not None and now - self.offline_at > self.freq:
            return False
        if now - connected_at < max(timeout, RECONNECT_GRACE) and self.last_seen < connected_at:
            return self.up
        if now - self.last_seen <= timeout:
            return True
        if self.pool == "solo" and now - self.last_seen <= solo_grace:
            return True
        replies = self.last_heartbeat is None and self.inspected_at is not None
        return replies and now - (self.inspected_at or now) <= 2 * poll_interval + timeout

    def forget_old_marks(self, now: float, *, connected_at: float) -> None:
        """Drop takeovers of long ago, and starts that no heartbeat will come for (``--without-heartbeat``)."""
        if self.takeovers:
            self.takeovers = [mark for mark in self.takeovers if 0 <= now - mark < TAKEOVER_MEMORY]
        last = max(connected_at, self.last_heartbeat or self.first_seen)
        if self.loss.marks > MAX_MARKS and now - last > NO_HEARTBEAT:
            self.loss.restart()


class RememberedWorker(msgspec.Struct):
    """The counters of a worker before the exporter was started again, and what their growth is measured from."""

    first_seen: float
    pid: int
    processed: int | None
    processed_total: int
    busy: float
    missed: int
    totals: dict[str, int] | None

    def fill(self, worker: Worker) -> None:
        """Let the worker continue."""
        worker.first_seen, worker.pid = self.first_seen, self.pid
        worker.processed, worker.processed_total = self.processed, self.processed_total
        worker.busy.ended = self.busy
        worker.loss.lose(self.missed)
        worker.totals = self.totals


class WorkerTable:
    """Every worker, at most ``limit``; the rest is folded and counted."""

    def __init__(
        self,
        *,
        limit: int,
        retention: float,
        drain_time: float,
        solo_grace: float,
        table: TaskSeriesTable,
    ) -> None:
        """``table`` gives the label of a task name, and counts what is cut and folded."""
        self.accepted: Counter[str] = Counter()
        self.other_seen: float | None = None
        self._limit = limit
        self._retention = retention
        self._drain_time = drain_time
        self._solo_grace = solo_grace
        self._folded, self._cut = table.folded, table.cut
        self._name = table.real_name
        self._bytes_left = max(MIN_NAME_BYTES, NAME_BYTES * limit)
        self._full_until = 0.0
        self._dropped: set[str] = set()
        """Workers that made room for others since the last judgement."""
        self._workers: dict[str, Worker] = {}
        self._remembered: dict[str, RememberedWorker] = {}
        """Workers of before this exporter was started, that have not been heard yet."""
        self.routes = QueueRoutes()
        self.get: Callable[[str], Worker | None] = self._workers.get
        """A known worker, by its node name."""

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    def seen(self, hostname: str, at: float) -> Worker | None:
        """The worker that showed a sign of life; ``None`` when it is beyond the cap."""
        worker = self._workers.get(hostname) or self._admit(hostname, at)
        if worker is not None:
            worker.last_seen = at
        return worker

    def _admit(self, hostname: str, at: float) -> Worker | None:
        """Return a worker that is new, or known under the name that its own is cut to; ``None`` without room for it."""
        clean = escaping.name(hostname)
        if clean != hostname:
            self._cut["hostname"] += 1
            if clean in self._workers:
                return self._workers[clean]
        size = escaping.memory(clean)
        if not self._has_room(size):
            self._drop_unproven(at)
            if not self._has_room(size):
                self._folded["hostname"] += 1
                self.other_seen = at
                return None
        self._bytes_left -= size
        worker = self._workers[clean] = Worker(clean, at)
        if (before := self._remembered.pop(clean, None)) is not None:
            before.fill(worker)
        return worker

    def remember(self) -> dict[str, RememberedWorker]:
        """Return the counters of all workers, for `recall` in another process."""
        present = {
            worker.hostname: RememberedWorker(
                worker.first_seen,
                worker.pid,
                worker.processed,
                worker.processed_total,
                worker.busy.seconds(0.0),
                worker.loss.missed,
                worker.totals,
            )
            for worker in self._workers.values()
        }
        return {**self._remembered, **present}

    def recall(self, workers: Mapping[str, RememberedWorker]) -> None:
        """Let these workers continue when they are heard."""
        self._remembered = dict(islice(workers.items(), self._limit))

    def _has_room(self, size: int) -> bool:
        return len(self._workers) < self._limit and size <= self._bytes_left

    def _drop_unproven(self, at: float) -> None:
        """Drop a twentieth at once, those without evidence that were silent for longest; they may be invented."""
        if self._full_until - FULL <= at < self._full_until:
            return
        wanted = max(1, self._limit // 20)
        found = nsmallest(
            wanted, (worker for worker in self._workers.values() if not worker.proven), key=lambda one: one.last_seen
        )
        if len(found) < wanted:
            self._full_until = at + FULL
        for worker in found:
            self._forget(worker)
            self._dropped.add(worker.hostname)
        self._folded["hostname"] += len(found)
        if found:
            self.other_seen = at

    def _forget(self, worker: Worker) -> None:
        del self._workers[worker.hostname]
        self._bytes_left += escaping.memory(worker.hostname)

    def to_wait_for(self) -> list[Worker]:
        """The workers that are up and whose replies are worth a wait: of unproven ones those seen last."""
        up = [worker for worker in self._workers.values() if worker.up]
        unproven = nlargest(MAX_UNPROVEN, (one for one in up if not one.proven), key=lambda one: one.last_seen)
        return [worker for worker in up if worker.proven] + unproven

    def reconnected(self, at: float) -> None:
        """We have subscribed again: events of every worker may be lost."""
        for worker in self._workers.values():
            worker.unheard_at = at

    def asking(self) -> None:
        """All workers are being asked."""
        for worker in self._workers.values():
            worker.asked += 1
            worker.loss.ask()

    def offset_of(self, hostname: str) -> float | None:
        """The clock offset of a worker, from its heartbeats; ``None`` before the first."""
        worker = self._workers.get(hostname)
        return None if worker is None else worker.offset

    def queues_of(self, hostname: str) -> tuple[str, ...] | None:
        """The queues that a worker consumes, as it last said itself."""
        worker = self._workers.get(hostname)
        if worker is None or worker.queues_stale or worker.state is None:
            return None
        return worker.state.queues

    def aggregated_queues(self) -> frozenset[str]:
        """Queues that only workers with totals consume."""
        queues: dict[bool, set[str]] = {False: set(), True: set()}
        for worker in self._workers.values():
            if worker.state is not None:
                queues[worker.loss.aggregated].update(worker.state.queues or ())
        return frozenset(queues[True] - queues[False])

    def inspected(self, snapshot: WorkersSnapshot, *, heard_names: Collection[str]) -> None:
        """Take the replies of one poll; a reply is a sign of life."""
        for hostname, state in snapshot.workers.items():
            worker = self._workers.get(hostname) or self.seen(hostname, snapshot.at)
            if worker is None:
                continue
            worker.last_seen = max(worker.last_seen, snapshot.at)
            worker.state, worker.inspected_at = replace(state, hostname=worker.hostname), snapshot.at
            worker.queues_stale = state.queues is None
            another = worker.pid and state.pid not in (None, worker.pid)  # two processes have this node name
            if state.totals is not None and not another:
                self._accept(worker, dict(state.totals))
                if not worker.loss.aggregated:
                    missed = worker.loss.missed
                    worker.loss.explain(state.totals, heard_names=heard_names)
                    if worker.loss.missed > missed:
                        worker.unheard_at = snapshot.at
        states = [worker.state for worker in self._workers.values() if worker.state is not None]
        self.routes.update(binding for state in states for binding in state.bindings)

    def _accept(self, worker: Worker, totals: dict[str, int]) -> None:
        """Add up the growth of a worker's own counts of runs begun."""
        for name, count in totals.items():
            growth = max(0, count - worker.totals.get(name, 0)) if worker.totals is not None else 0
            self.accepted[self._name(name, worker.registered)] += growth
        worker.totals = totals

    def judge(self, now: float, *, connected_at: float | None, poll_interval: float) -> set[str]:
        """Decide which workers are up; return the names of those whose runs are lost. Forget workers long gone.

        A worker that is shutting down finishes its runs, and reports their ends (`celery.worker.consumer.events`).
        """
        lost = {hostname for hostname in self._dropped if hostname not in self._workers}
        self._dropped.clear()
        if connected_at is None:
            return lost
        self._bound_marks()
        for worker in list(self._workers.values()):
            worker.forget_old_marks(now, connected_at=connected_at)
            was_up = worker.up
            worker.up = worker.alive(
                now, connected_at=connected_at, solo_grace=self._solo_grace, poll_interval=poll_interval
            )
            if worker.up:
                worker.down_since = None
                continue
            if was_up or worker.down_since is None:
                worker.down_since = now
            if now - worker.down_since > self._retention:
                self._forget(worker)
                lost.add(worker.hostname)
            elif worker.offline_at is None or now - worker.last_seen > self._drain_time:
                lost.add(worker.hostname)
        return lost

    def _bound_marks(self) -> None:
        """Begin the accounts anew that take most memory, when all together take too much."""
        marks = {worker: worker.loss.marks for worker in self._workers.values() if worker.loss.marks > MAX_MARKS}
        if sum(marks.values()) > MOST_MARKS:
            for worker, count in marks.items():
                if count >= MOST_MARKS // len(marks):
                    worker.loss.restart()

    def idle(self) -> dict[str, float]:
        """Workers whose heartbeats say that they run nothing, and the time before which that held for `IDLE`."""
        return {
            worker.hostname: worker.last_heartbeat - IDLE
            for worker in self._workers.values()
            if worker.idle_since is not None
            and worker.last_heartbeat is not None
            and worker.last_heartbeat - worker.idle_since >= IDLE
        }
