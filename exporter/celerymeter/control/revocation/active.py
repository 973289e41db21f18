"""Active batches: those that are not settled yet, in memory, and the record of every change of theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.feed.hub import Hub
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.revocation.decide import acknowledged
from celerymeter.control.revocation.models import Acknowledgements, Batch, RevocationMessage, TaskResult, totals
from celerymeter.control.revocation.store import BatchStore

MAX_OPEN: Final = 10_000
"""Open ids that are held; beyond that the oldest are given up."""
MESSAGE_SIZE: Final = 100
"""Ids in one message of the feed."""


class ActiveBatch:
    """A batch that changes. ``early`` are changes by events before the act was ``decided``. Not thread-safe."""

    def __init__(self, batch: Batch, *, decided: bool = False) -> None:
        self._batch = batch
        self.results = {result.task_id: result for result in batch.results}
        self.decided = decided
        self.early: list[TaskResult] = []
        self.check_at = 0.0
        self.check_pause = 0.5

    @property
    def batch(self) -> Batch:
        """Return the batch as it stands."""
        return replace(self._batch, results=tuple(self.results.values()))

    @property
    def missing(self) -> frozenset[str]:
        """Return the workers that have not acknowledged all ids yet."""
        return self._batch.workers.missing

    def acted(self, workers: Acknowledgements) -> None:
        """Note that the act is over, and how the workers replied."""
        self._batch = replace(self._batch, workers=workers)
        self.decided = True

    def open(self) -> Iterator[TaskResult]:
        """Return the results that may still change."""
        return (result for result in self.results.values() if not result.settled)

    def change(self, results: Iterable[TaskResult]) -> list[TaskResult]:
        """Replace results that are not settled, and return those that differ from what was known."""
        changed = [
            result
            for result in results
            if not self.results[result.task_id].settled and result != self.results[result.task_id]
        ]
        self.results.update({result.task_id: result for result in changed})
        return changed

    def acknowledge(self, workers: Collection[str]) -> list[TaskResult]:
        """Note that these workers acknowledged every open id, and return what that changes."""
        before = self._batch.workers
        now = replace(
            before, acknowledged=before.acknowledged.union(workers), missing=before.missing.difference(workers)
        )
        return self._workers_are(now)

    def leave(self, worker: str) -> list[TaskResult]:
        """Note that a worker went offline, which gives its tasks back to the broker; return what that changes."""
        before = self._batch.workers
        return self._workers_are(replace(before, missing=before.missing - {worker}))

    def _workers_are(self, workers: Acknowledgements) -> list[TaskResult]:
        self._batch = replace(self._batch, workers=workers)
        if workers.missing:
            return []
        return self.change([acknowledged(each) for each in self.open() if each.status in ("partial", "pending")])


class ActiveBatches:
    """All active batches, by id and by task. Not thread-safe."""

    def __init__(self) -> None:
        self._batches: dict[str, ActiveBatch] = {}
        self._by_task: dict[str, set[str]] = defaultdict(set)

    def __iter__(self) -> Iterator[ActiveBatch]:
        """Return an iterator over a copy, the oldest batch first."""
        return iter(list(self._batches.values()))

    def __len__(self) -> int:
        return len(self._batches)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._by_task

    def add(self, active: ActiveBatch) -> None:
        """Follow a batch from now on."""
        batch_id = active.batch.id
        self._batches[batch_id] = active
        for result in active.open():
            self._by_task[result.task_id].add(batch_id)

    def get(self, batch_id: str) -> ActiveBatch | None:
        """Return an active batch."""
        return self._batches.get(batch_id)

    def of_task(self, task_id: str) -> list[ActiveBatch]:
        """Return the batches that contain a task."""
        return [self._batches[batch_id] for batch_id in self._by_task.get(task_id, ())]

    def open_ids(self) -> list[str]:
        """Return every open id once."""
        return list(dict.fromkeys(result.task_id for active in self for result in active.open()))

    def remove_settled(self) -> None:
        """Follow settled batches no longer."""
        for active in self:
            if active.decided and active.batch.settled:
                del self._batches[active.batch.id]
                for task_id in active.results:
                    self._by_task[task_id].discard(active.batch.id)
                    if not self._by_task[task_id]:
                        del self._by_task[task_id]

    def overdue(self, *, now: float, hold: float) -> Iterator[tuple[str, ActiveBatch, list[TaskResult]]]:
        """Yield what is to be given up, and why: ids held for too long, and the oldest of too many."""
        surplus = sum(1 for active in self for _ in active.open()) - MAX_OPEN
        for active in self:
            expired = active.batch.at + hold < now
            results = list(active.open())[: None if expired else max(surplus, 0)]
            surplus -= len(results)
            if results:
                yield "expired" if expired else "capacity", active, results


class Recorder:
    """Records changes: on disk, in the audit trail, in the counter and in the feed.

    Its methods raise `StateError`, and nothing is published then.
    """

    def __init__(self, store: BatchStore, audit: AuditTrail, *, hub: Hub, metrics: ControlMetrics) -> None:
        self.store = store
        self.audit = audit
        self._hub = hub
        self._metrics = metrics

    def decided(self, batch: Batch, changed: Sequence[TaskResult]) -> None:
        """Record the results of the act; its outcome row in the audit trail is written by the act."""
        self.store.update(batch, changed)
        self._publish(batch, changed)

    def changed(self, batch: Batch, changed: Sequence[TaskResult]) -> None:
        """Record what became known later."""
        if not changed:
            return
        self.store.update(batch, changed)
        by_status: dict[str, list[str]] = defaultdict(list)
        for result in changed:
            by_status[result.status].append(result.task_id)
        for status, task_ids in by_status.items():
            self.audit.event(batch.intent, status, detail={"batch_id": batch.id, "task_ids": task_ids})
        self._publish(batch, changed)

    def dropped(self, reason: str, count: int) -> None:
        """Count ids that are given up."""
        self._metrics.held_dropped.labels(reason).inc(count)

    def holding(self, count: int) -> None:
        """Export how many ids are open."""
        self._metrics.held.set(count)

    def _publish(self, batch: Batch, changed: Sequence[TaskResult]) -> None:
        for result in changed:
            self._metrics.revocations.labels(result.status).inc()
        counts = totals(batch.results)
        for start in range(0, len(changed), MESSAGE_SIZE):
            changes = list(changed[start : start + MESSAGE_SIZE])
            self._hub.publish(
                "revocation", RevocationMessage(batch_id=batch.id, settled=batch.settled, changes=changes, **counts)
            )
