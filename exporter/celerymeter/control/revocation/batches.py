"""Batches: the active ones (not settled yet) in memory, all on disk, and the record of every change."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Final

from pydantic import TypeAdapter

from celerymeter.control.audit.trail import AuditTrail
from celerymeter.control.evidence.models import Termination
from celerymeter.control.feed.hub import Hub
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.revocation import decide
from celerymeter.control.revocation.models import (
    MAX_IDS,
    OPEN,
    Acknowledgements,
    Batch,
    RevocationMessage,
    RevokeRequest,
    TaskResult,
)
from celerymeter.control.store import Store
from celerymeter.errors import StateError

MAX_OPEN: Final = 10_000
"""Open ids that are held; beyond that the oldest are given up."""
MESSAGE_SIZE: Final = 100
"""Ids in one message of the feed."""
KEPT: Final = 1000
"""Batches that stay readable; open ones stay beyond that."""
_WORKERS: Final = TypeAdapter(Acknowledgements)
_RESULT: Final = TypeAdapter(TaskResult)
_REQUEST: Final = TypeAdapter(RevokeRequest)
_BATCH: Final = TypeAdapter(Batch)
_OPEN: Final = ", ".join(f"'{status}'" for status in sorted(OPEN))
_BATCHES_WITH_OPEN_TASKS: Final = f"SELECT batch FROM revoke_tasks WHERE status IN ({_OPEN})"  # noqa: S608 - our own statuses


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
        """Return the current batch."""
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
        return (result for result in self.results.values() if result.status in OPEN)

    def change(self, results: Iterable[TaskResult]) -> list[TaskResult]:
        """Replace results that are not settled, and return those that differ from what was known."""
        changed = [
            result
            for result in results
            if self.results[result.task_id].status in OPEN and result != self.results[result.task_id]
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
        # An error stays: a worker said that it did not take the flag, and only an event can say more.
        if workers.missing:
            return []
        return self.change([decide.acknowledged(each) for each in self.open() if each.status in ("partial", "pending")])


class ActiveBatches:
    """All active batches, by id and by task. Not thread-safe."""

    def __init__(self) -> None:
        self._batches: dict[str, ActiveBatch] = {}
        # Looked up for every task that ends anywhere in the cluster.
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
            if active.decided and decide.is_settled(active.results.values()):
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


class BatchStore:
    """The batches of a state directory, so that a restart loses nothing. Every method raises `StateError`."""

    def __init__(self, store: Store) -> None:
        store.declare(
            """CREATE TABLE IF NOT EXISTS revoke_batches (
                batch TEXT PRIMARY KEY, at REAL NOT NULL, intent INTEGER NOT NULL, asked TEXT NOT NULL,
                workers TEXT NOT NULL)""",
            """CREATE TABLE IF NOT EXISTS revoke_tasks (
                batch TEXT NOT NULL, place INTEGER NOT NULL, task_id TEXT NOT NULL, status TEXT NOT NULL,
                result TEXT NOT NULL, PRIMARY KEY (batch, task_id)) WITHOUT ROWID""",
            "CREATE INDEX IF NOT EXISTS revoke_tasks_status ON revoke_tasks (status)",
        )
        self._store = store

    def add(self, batch: Batch) -> None:
        """Write a new batch, and delete the oldest settled ones beyond `KEPT`."""
        request = {name: getattr(batch.request, name) for name in ("merged", "terminate", "signal", "reason")}
        row = (batch.id, batch.at, batch.intent, json.dumps(request), _WORKERS.dump_json(batch.workers).decode())
        tasks = [
            (batch.id, place, result.task_id, result.status, json.dumps(asdict(result)))
            for place, result in enumerate(batch.results)
        ]
        with self._store.write() as connection:
            connection.execute("INSERT INTO revoke_batches VALUES (?, ?, ?, ?, ?)", row)
            connection.executemany("INSERT INTO revoke_tasks VALUES (?, ?, ?, ?, ?)", tasks)
            old = connection.execute(
                "SELECT batch FROM (SELECT batch FROM revoke_batches ORDER BY at DESC LIMIT -1 OFFSET ?) "  # noqa: S608 - as above
                f"WHERE batch NOT IN ({_BATCHES_WITH_OPEN_TASKS})",
                (KEPT,),
            ).fetchall()
            connection.executemany("DELETE FROM revoke_tasks WHERE batch = ?", old)
            connection.executemany("DELETE FROM revoke_batches WHERE batch = ?", old)

    def update(self, batch: Batch, changed: Iterable[TaskResult]) -> None:
        """Write what changed of a batch: these results, and its workers."""
        rows = [(result.status, json.dumps(asdict(result)), batch.id, result.task_id) for result in changed]
        workers = _WORKERS.dump_json(batch.workers).decode()
        with self._store.write() as connection:
            connection.executemany(
                "UPDATE revoke_tasks SET status = ?, result = ? WHERE batch = ? AND task_id = ?", rows
            )
            connection.execute("UPDATE revoke_batches SET workers = ? WHERE batch = ?", (workers, batch.id))

    def get(self, batch: str) -> Batch | None:
        """Return the current state of a batch."""
        query = "SELECT batch FROM revoke_batches WHERE batch = ?"
        found = self._store.load_whole("revoke_batches", self._load, query, (batch,))
        return found[0] if found else None

    def open_batches(self) -> list[Batch]:
        """Return the batches that are not settled, the oldest first."""
        query = f"SELECT batch FROM revoke_batches WHERE batch IN ({_BATCHES_WITH_OPEN_TASKS}) ORDER BY at LIMIT ?"  # noqa: S608 - as above
        return self._store.load("revoke_batches", self._load, query, (MAX_OPEN,))

    def previously_terminated(self, task_ids: Sequence[str]) -> Mapping[str, Termination]:
        """Return the latest terminate of the ids that a batch terminated, or sent it to, and that did not run on."""
        results = self._store.load(
            "revoke_tasks",
            _result,
            "SELECT task_id, status, result FROM revoke_tasks JOIN revoke_batches USING (batch) "
            "WHERE status IN ('terminated', 'terminate_sent') AND task_id IN (SELECT value FROM json_each(?)) "
            "ORDER BY at",
            (json.dumps(list(task_ids)),),
        )
        return {each.task_id: Termination(each.pid, died=each.status == "terminated") for each in results}

    def _load(self, found: sqlite3.Row) -> Batch:
        row, tasks = self._read(found["batch"])
        if len(tasks) > MAX_IDS:
            raise ValueError("no batch has so many ids")
        results = tuple(map(_result, tasks))
        task_ids = tuple(result.task_id for result in results if result.status != "invalid")
        fields = {
            "id": row["batch"],
            "at": row["at"],
            "intent": row["intent"],
            "request": _REQUEST.validate_python({**json.loads(row["asked"]), "task_ids": task_ids}),
            "results": results,
            "workers": _WORKERS.validate_json(row["workers"]),
        }
        return _BATCH.validate_python(fields)

    def _read(self, batch: str) -> tuple[sqlite3.Row, list[sqlite3.Row]]:
        """Return the rows of a batch; raises `ValueError` where they are too large, so that others are found."""
        query = "SELECT task_id, status, result FROM revoke_tasks WHERE batch = ? ORDER BY place LIMIT ?"
        try:
            [row] = self._store.read("SELECT * FROM revoke_batches WHERE batch = ?", (batch,))
            return row, self._store.read(query, (batch, MAX_IDS + 1))
        except StateError as error:
            raise ValueError(str(error)) from error


def _result(row: sqlite3.Row) -> TaskResult:
    result = _RESULT.validate_json(row["result"])
    if (result.task_id, result.status) != (row["task_id"], row["status"]):
        raise ValueError("the columns say something else")
    return result


class Recorder:
    """Records changes: on disk, in the audit trail, in the counter and in the feed.

    Its methods raise `StateError`, and nothing is published then.
    """

    def __init__(self, store: BatchStore, audit: AuditTrail, *, hub: Hub, metrics: ControlMetrics) -> None:
        self.store = store
        self.audit = audit
        self._hub = hub
        self.metrics = metrics

    def decided(self, batch: Batch, changed: Sequence[TaskResult]) -> None:
        """Record the results of the act; its outcome row in the audit trail is written by the act."""
        self.store.update(batch, changed)
        self._publish(batch, changed)

    def changed(self, batch: Batch, changed: Sequence[TaskResult]) -> None:
        """Record what became known later."""
        if not changed:
            return
        # The disk first: what is published must survive a restart.
        self.store.update(batch, changed)
        by_status: dict[str, list[str]] = defaultdict(list)
        for result in changed:
            by_status[result.status].append(result.task_id)
        for status, task_ids in by_status.items():
            self.audit.event(batch.intent, status, detail={"batch_id": batch.id, "task_ids": task_ids})
        self._publish(batch, changed)

    def _publish(self, batch: Batch, changed: Sequence[TaskResult]) -> None:
        for result in changed:
            self.metrics.revocations.labels(result.status).inc()
        counts, settled = decide.totals(batch.results), decide.is_settled(batch.results)
        for start in range(0, len(changed), MESSAGE_SIZE):
            changes = list(changed[start : start + MESSAGE_SIZE])
            self._hub.publish(
                "revocation",
                RevocationMessage(batch_id=batch.id, settled=settled, changes=changes, **counts),
            )
