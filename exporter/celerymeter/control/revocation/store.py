"""Batches and idempotency keys on disk, so that a restart loses nothing. Every method raises `StateError`."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from celerymeter.control.revocation.models import OPEN, Acknowledgements, Batch, RevokeRequest, TaskResult
from celerymeter.control.store import Store
from celerymeter.errors import RequestRefused

KEPT: Final = 1000
"""Batches that stay readable; open ones stay beyond that."""
_OPEN: Final = ", ".join(f"'{status}'" for status in sorted(OPEN))
_BATCHES_WITH_OPEN_TASKS: Final = f"SELECT batch FROM revoke_tasks WHERE status IN ({_OPEN})"  # noqa: S608 - our own statuses


class BatchStore:
    """The batches of a state directory."""

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
        row = (batch.id, batch.at, batch.intent, json.dumps(request), _workers(batch.workers))
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
        with self._store.write() as connection:
            connection.executemany(
                "UPDATE revoke_tasks SET status = ?, result = ? WHERE batch = ? AND task_id = ?", rows
            )
            connection.execute(
                "UPDATE revoke_batches SET workers = ? WHERE batch = ?", (_workers(batch.workers), batch.id)
            )

    def get(self, batch: str) -> Batch | None:
        """Return a batch as it stands."""
        rows = self._store.read("SELECT * FROM revoke_batches WHERE batch = ?", (batch,))
        return self._load(rows[0]) if rows else None

    def open_batches(self) -> list[Batch]:
        """Return the batches that are not settled, the oldest first."""
        query = f"SELECT * FROM revoke_batches WHERE batch IN ({_BATCHES_WITH_OPEN_TASKS}) ORDER BY at"  # noqa: S608 - as above
        return [self._load(row) for row in self._store.read(query)]

    def previously_terminated(self, task_ids: Sequence[str]) -> Mapping[str, TaskResult]:
        """Return the latest results of those that a batch terminated, or sent terminate to, and that did not run on."""
        found = self._store.read(
            "SELECT task_id, result FROM revoke_tasks JOIN revoke_batches USING (batch) "
            "WHERE status IN ('terminated', 'terminate_sent') AND task_id IN (SELECT value FROM json_each(?)) "
            "ORDER BY at",
            (json.dumps(list(task_ids)),),
        )
        return {row["task_id"]: TaskResult(**json.loads(row["result"])) for row in found}

    def _load(self, row: sqlite3.Row) -> Batch:
        tasks = self._store.read("SELECT result FROM revoke_tasks WHERE batch = ? ORDER BY place", (row["batch"],))
        results = tuple(TaskResult(**json.loads(task["result"])) for task in tasks)
        task_ids = tuple(result.task_id for result in results if result.status != "invalid")
        workers = json.loads(row["workers"])
        return Batch(
            id=row["batch"],
            at=row["at"],
            intent=row["intent"],
            request=RevokeRequest(task_ids, **json.loads(row["asked"])),
            results=results,
            workers=Acknowledgements(
                frozenset(workers["acknowledged"]), frozenset(workers["missing"]), workers["errors"]
            ),
        )


def _workers(workers: Acknowledgements) -> str:
    return json.dumps(
        {
            "acknowledged": sorted(workers.acknowledged),
            "missing": sorted(workers.missing),
            "errors": dict(workers.errors),
        }
    )


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One use of an ``Idempotency-Key``: ``scope`` is subject and path, ``body`` a digest."""

    scope: str
    key: str
    body: str


@dataclass(frozen=True, slots=True)
class EarlierUse:
    """What an earlier request with the key got: its answer, or only a batch when the program was killed before that."""

    batch: str
    status: int | None
    answer: str | None


class IdempotencyKeys:
    """The keys of the last 24 h: the same request sent again gets the same answer and acts once."""

    LIFETIME: Final = 86400.0
    TIMEOUT: Final = 10.0
    """Seconds after which a request without an answer counts as killed."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        store.declare(
            """CREATE TABLE IF NOT EXISTS revoke_keys (
                scope TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, batch TEXT NOT NULL, at REAL NOT NULL,
                status INTEGER, answer TEXT, PRIMARY KEY (scope, key)) WITHOUT ROWID"""
        )
        self._store = store
        self._clock = clock

    def begin(self, use: KeyUse, batch: str) -> EarlierUse | None:
        """Reserve the key for a new batch, or return its earlier use; raises `RequestRefused`."""
        now = self._clock()
        with self._store.write() as connection:
            connection.execute("DELETE FROM revoke_keys WHERE at < ?", (now - self.LIFETIME,))
            found = connection.execute(
                "SELECT * FROM revoke_keys WHERE scope = ? AND key = ?", (use.scope, use.key)
            ).fetchone()
            if found is None:
                row = (use.scope, use.key, use.body, batch, now)
                connection.execute("INSERT INTO revoke_keys VALUES (?, ?, ?, ?, ?, NULL, NULL)", row)
                return None
        if found["body"] != use.body:
            raise RequestRefused("invalid", "this Idempotency-Key was used with another body")
        if found["answer"] is None and now - found["at"] < self.TIMEOUT:
            raise RequestRefused("conflict", "the first request with this Idempotency-Key still runs", retry_after=2.0)
        return EarlierUse(found["batch"], found["status"], found["answer"])

    def finish(self, use: KeyUse, *, status: int, answer: str) -> None:
        """Store the answer."""
        with self._store.write() as connection:
            connection.execute(
                "UPDATE revoke_keys SET status = ?, answer = ? WHERE scope = ? AND key = ?",
                (status, answer, use.scope, use.key),
            )

    def release(self, use: KeyUse) -> None:
        """Allow the key to be used again, as nothing was done."""
        with self._store.write() as connection:
            connection.execute("DELETE FROM revoke_keys WHERE scope = ? AND key = ?", (use.scope, use.key))
