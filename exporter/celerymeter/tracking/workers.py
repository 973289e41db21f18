"""Workers: who is alive, judged by receipt time; what their heartbeats and `inspect` replies say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from celerymeter.model import Event, WorkersSnapshot, WorkerState
from celerymeter.tracking.clocks import ClockOffsets
from celerymeter.tracking.loss import MAX_MARKS, LossMeter

MISSED_HEARTBEATS = 3
DEFAULT_FREQ = 2.0
RECONNECT_GRACE = 30.0
NO_BEAT = 60.0
"""Seconds without a heartbeat after which what was started is no longer kept to be held against one."""
IDLE = 5.0
"""Seconds of heartbeats without any active task, after which events of ends are not on their way any more."""
MAX_ASKED = 3
"""A new worker is asked out of turn so often; one that is too busy to answer waits for the next poll."""
TAKEOVERS = 3
TAKEOVER_MEMORY = 60.0
"""This many changes of process under one node name within so many seconds are two processes, not a restart."""


class Worker:
    """One worker, by its full node name. Times are receipt times by our clock."""

    __slots__ = (
        "active",
        "asked",
        "down_since",
        "first_seen",
        "freq",
        "hostname",
        "idle_since",
        "inspected_at",
        "last_heartbeat",
        "last_seen",
        "load1",
        "loss",
        "offline_at",
        "offset",
        "pid",
        "processed",
        "processed_total",
        "queues_stale",
        "state",
        "takeovers",
        "totals",
        "up",
        "version",
    )

    def __init__(self, hostname: str, at: float) -> None:
        self.hostname = hostname
        self.first_seen = self.last_seen = at
        self.last_heartbeat: float | None = None
        self.freq = DEFAULT_FREQ
        self.pid = 0
        self.active: int | None = None
        self.idle_since: float | None = None
        """The first of the heartbeats that all said that nothing runs."""
        self.processed: int | None = None
        self.processed_total = 0
        self.load1: float | None = None
        self.version = ""
        self.offline_at: float | None = None
        self.offset: float | None = None
        """Seconds to add to the worker's clock to have ours."""
        self.up = True
        self.down_since: float | None = None
        self.state: WorkerState | None = None
        self.inspected_at: float | None = None
        self.queues_stale = True
        self.asked = 0
        """Polls sent since the worker was last seen to be new."""
        self.totals: dict[str, int] | None = None
        self.loss = LossMeter()
        self.takeovers: list[float] = []

    @property
    def wanted(self) -> bool:
        """Whether a poll should not wait: the worker is new, or some of its events are missing."""
        new = self.queues_stale and self.asked < MAX_ASKED
        return self.up and self.offline_at is None and (new or self.loss.has_question)

    @property
    def duplicate(self) -> bool:
        """Whether two processes send under this node name."""
        return len(self.takeovers) >= TAKEOVERS

    @property
    def pool(self) -> str:
        """The pool's name (``prefork``, ``solo`` …), or the empty string while unknown."""
        return (self.state.pool or "") if self.state is not None else ""


class WorkerTable:
    """Every worker, at most ``limit``; the rest is folded and counted.

    ``lost`` and ``renamed`` processes are reported by the return values, so that their runs can be given back.
    """

    def __init__(
        self,
        *,
        limit: int,
        retention: float,
        solo_grace: float,
        folded: Counter[str],
        name: Callable[[str], str],
    ) -> None:
        """``name`` caps task names."""
        self.accepted: Counter[str] = Counter()
        self.other_seen: float | None = None
        self._limit = limit
        self._retention = retention
        self._solo_grace = solo_grace
        self._folded = folded
        self._name = name
        self._workers: dict[str, Worker] = {}
        self.get: Callable[[str], Worker | None] = self._workers.get
        """A known worker, by its node name."""
        self._offsets = ClockOffsets(limit=limit)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    def sight(self, hostname: str, at: float) -> Worker | None:
        """Any sign of life; ``None`` when the worker is beyond the cap."""
        worker = self._workers.get(hostname)
        if worker is None:
            if len(self._workers) >= self._limit:
                self._folded["hostname"] += 1
                self.other_seen = at
                return None
            worker = self._workers[hostname] = Worker(hostname, at)
        worker.last_seen = at
        return worker

    def ask(self) -> None:
        """All workers are being asked."""
        for worker in self._workers.values():
            worker.asked += 1
            worker.loss.ask()

    def event(self, event: Event, at: float) -> bool:
        """A worker event arrived; whether the worker is a new process under its name."""
        worker = self.sight(event.hostname, at)
        if worker is None:
            return False
        worker.offset = self._offsets.observe(event.hostname, timestamp=event.timestamp, at=at)
        if event.type == "worker-offline":
            worker.offline_at = at
            return False
        renewed = self._renewed(worker, event, at)
        worker.offline_at = None
        worker.freq = event.freq or worker.freq
        worker.active = event.active if event.active is not None else worker.active
        worker.version = event.sw_ver or worker.version
        worker.load1 = event.loadavg[0] if event.loadavg else worker.load1
        if event.type == "worker-heartbeat":
            worker.last_heartbeat = at
        if event.active != 0 or renewed:
            worker.idle_since = None
        elif worker.idle_since is None:
            worker.idle_since = at
        if event.processed is not None:
            self._process(worker, event)
        return renewed

    def _renewed(self, worker: Worker, event: Event, at: float) -> bool:
        """A new pid, or counts that begin again (in containers the pid is always 1)."""
        before, known = worker.processed, worker.pid
        fell = before is not None and event.processed is not None and event.processed < before
        renewed = (known not in (0, event.pid)) or fell
        worker.pid = event.pid
        if event.type == "worker-online":
            worker.queues_stale = worker.queues_stale or renewed
        if renewed:
            worker.takeovers = [*worker.takeovers, at][-10:]
            worker.queues_stale = True
            worker.asked = 0
            worker.totals = None
            worker.loss.restart()
            worker.processed = None
        if worker.processed is None and event.type == "worker-online" and event.processed == 0:
            worker.processed = 0
            worker.totals = {}
        return renewed

    def _process(self, worker: Worker, event: Event) -> None:
        processed = event.processed or 0
        if worker.processed is not None:
            worker.processed_total += max(0, processed - worker.processed)
        worker.processed = processed
        worker.loss.heartbeat(processed=processed, clock=event.clock)

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

    def inspected(self, snapshot: WorkersSnapshot, *, heard_names: set[str]) -> None:
        """Take the replies of one poll; a reply is a sign of life."""
        for hostname, state in snapshot.workers.items():
            worker = self._workers.get(hostname) or self.sight(hostname, snapshot.at)
            if worker is None:
                continue
            worker.last_seen = max(worker.last_seen, snapshot.at)
            worker.state, worker.inspected_at = state, snapshot.at
            worker.queues_stale = state.queues is None
            if state.totals is not None:
                self._take_totals(worker, dict(state.totals), heard_names)

    def _take_totals(self, worker: Worker, totals: dict[str, int], heard_names: set[str]) -> None:
        for name, count in totals.items():
            growth = max(0, count - worker.totals.get(name, 0)) if worker.totals is not None else 0
            self.accepted[self._name(name)] += growth
        worker.totals = totals
        worker.loss.explain(totals, heard_names=heard_names)

    def judge(self, now: float, *, connected_at: float | None, poll_interval: float) -> set[str]:
        """Decide who is up; returns the names of those who are not. Forgets those long gone."""
        down: set[str] = set()
        if connected_at is None:
            return down
        for worker in list(self._workers.values()):
            if worker.takeovers:
                worker.takeovers = [mark for mark in worker.takeovers if 0 <= now - mark < TAKEOVER_MEMORY]
            if (
                worker.loss.marks > MAX_MARKS
                and now - max(connected_at, worker.last_heartbeat or worker.first_seen) > NO_BEAT
            ):
                worker.loss.restart()
            was, worker.up = worker.up, self._alive(worker, now, connected_at=connected_at, poll_interval=poll_interval)
            if worker.up:
                worker.down_since = None
                continue
            down.add(worker.hostname)
            if was or worker.down_since is None:
                worker.down_since = now
            if now - worker.down_since > self._retention:
                del self._workers[worker.hostname]
        return down

    def idle(self) -> dict[str, float]:
        """Workers whose heartbeats say that they run nothing, and the time before which that held for `IDLE`."""
        return {
            worker.hostname: worker.last_heartbeat - IDLE
            for worker in self._workers.values()
            if worker.idle_since is not None
            and worker.last_heartbeat is not None
            and worker.last_heartbeat - worker.idle_since >= IDLE
        }

    def _alive(self, worker: Worker, now: float, *, connected_at: float, poll_interval: float) -> bool:
        patience = MISSED_HEARTBEATS * worker.freq
        if worker.offline_at is not None and now - worker.offline_at > worker.freq:
            return False
        if now - connected_at < max(patience, RECONNECT_GRACE) and worker.last_seen < connected_at:
            return worker.up
        if now - worker.last_seen <= patience:
            return True
        if worker.pool == "solo" and now - worker.last_seen <= self._solo_grace:
            return True
        answers = worker.last_heartbeat is None and worker.inspected_at is not None
        return answers and now - (worker.inspected_at or now) <= 2 * poll_interval + patience
