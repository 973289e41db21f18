"""All workers: which of them are known, up, worth a wait; how their number stays bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from heapq import nlargest, nsmallest
from itertools import islice

from celerymeter import escaping
from celerymeter.model import WorkersSnapshot
from celerymeter.routing import QueueRoutes
from celerymeter.tracking.loss import MAX_MARKS
from celerymeter.tracking.series import TaskSeriesTable
from celerymeter.tracking.worker import RememberedWorker, Worker

IDLE = 5.0
"""Seconds of heartbeats without any active task, after which events of ends are not on their way any more."""
FULL = 0.5
"""Seconds until the table looks again for workers to drop, if it has found few."""
NAME_BYTES = 64
"""Bytes of its name that each worker may have on average: a page repeats it some 20 times."""
MIN_NAME_BYTES = 16 * 1024
MAX_UNPROVEN = 500
"""Workers without evidence that a poll waits for."""
MOST_MARKS = 500_000
"""Starts of all workers together that may wait for heartbeats."""


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
            if state.uptime is not None and not another:
                worker.take_uptime(state.uptime, snapshot.at)
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
