"""Batches on disk: what replicas of one state directory share, and what a restart goes on with."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from celerymeter.control.revocation.models import OPEN, Acknowledgements, Batch, Order, Result
from celerymeter.control.store import Store

LEASE: Final = 10.0
"""Seconds after which a batch whose owner is silent is somebody else's."""
KEPT: Final = 1000
"""Batches that stay readable; one that is open stays beyond that."""
SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS revoke_batches (
        batch TEXT PRIMARY KEY, at REAL NOT NULL, intent INTEGER NOT NULL, asked TEXT NOT NULL, workers TEXT NOT NULL,
        owner TEXT NOT NULL, lease REAL NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS revoke_tasks (
        batch TEXT NOT NULL, place INTEGER NOT NULL, task_id TEXT NOT NULL, status TEXT NOT NULL, result TEXT NOT NULL,
        PRIMARY KEY (batch, task_id)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS revoke_tasks_status ON revoke_tasks (status)",
)
_OPEN: Final = ", ".join(f"'{status}'" for status in sorted(OPEN))
_TOLD: Final = (
    "SELECT task_id, result FROM revoke_tasks JOIN revoke_batches USING (batch) "
    "WHERE status IN ('terminated', 'terminate_sent') AND task_id IN (SELECT value FROM json_each(?)) ORDER BY at"
)
_UPDATE: Final = "UPDATE revoke_tasks SET status = ?, result = ? WHERE batch = ? AND task_id = ?"


@dataclass(frozen=True, slots=True)
class Claimed:
    """Batches that are ours from now on, and ids of those that were and are another's."""

    taken: tuple[Batch, ...]
    lost: frozenset[str]


class Batches:
    """The batches of a state directory; every method raises `StateError` when the disk does not do its part."""

    def __init__(self, store: Store, *, owner: str, clock: Callable[[], float] = time.time) -> None:
        store.declare(*SCHEMA)
        self._store = store
        self._owner = owner
        self._clock = clock

    def add(self, batch: Batch) -> None:
        """Keep a new one, as ours; the oldest go."""
        asked = json.dumps(_asked(batch.order))
        row = (batch.id, batch.at, batch.intent, asked, _workers(batch.workers), self._owner, self._clock() + LEASE)
        tasks = [
            (batch.id, place, result.task_id, result.status, _result(result))
            for place, result in enumerate(batch.results)
        ]
        with self._store.write() as connection:
            connection.execute("INSERT INTO revoke_batches VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            connection.executemany("INSERT INTO revoke_tasks VALUES (?, ?, ?, ?, ?)", tasks)
            _prune(connection)

    def update(self, batch: str, results: Iterable[Result], *, workers: Acknowledgements | None = None) -> None:
        """Write what changed."""
        changed = [(result.status, _result(result), batch, result.task_id) for result in results]
        with self._store.write() as connection:
            connection.executemany(_UPDATE, changed)
            if workers is not None:
                connection.execute("UPDATE revoke_batches SET workers = ? WHERE batch = ?", (_workers(workers), batch))

    def get(self, batch: str) -> Batch | None:
        """A batch as it stands."""
        rows = self._store.read("SELECT * FROM revoke_batches WHERE batch = ?", (batch,))
        return self._load(rows[0]) if rows else None

    def told_to_die(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        """What the latest batches know of those that they told to die, and that have not run on to their end."""
        found = self._store.read(_TOLD, (json.dumps(list(task_ids)),)) if task_ids else []
        return {row["task_id"]: Result(**json.loads(row["result"])) for row in found}

    def claim(self, mine: Collection[str]) -> Claimed:
        """Renew our leases, and take over the open batches that nobody owns any more."""
        now = self._clock()
        with self._store.write() as connection:
            others = connection.execute("SELECT batch FROM revoke_batches WHERE owner != ?", (self._owner,)).fetchall()
            renewed = [(now + LEASE, batch, self._owner) for batch in mine]
            connection.executemany("UPDATE revoke_batches SET lease = ? WHERE batch = ? AND owner = ?", renewed)
            orphans = connection.execute(
                f"SELECT * FROM revoke_batches WHERE lease < ? AND batch IN "  # noqa: S608 - our own statuses
                f"(SELECT batch FROM revoke_tasks WHERE status IN ({_OPEN}))",
                (now,),
            ).fetchall()
            taken = [(self._owner, now + LEASE, row["batch"]) for row in orphans]
            connection.executemany("UPDATE revoke_batches SET owner = ?, lease = ? WHERE batch = ?", taken)
        lost = {row["batch"] for row in others}.intersection(mine) - {row["batch"] for row in orphans}
        return Claimed(tuple(self._load(row) for row in orphans), frozenset(lost))

    def release(self, mine: Iterable[str]) -> None:
        """Another may take them at once."""
        with self._store.write() as connection:
            given = [(batch, self._owner) for batch in mine]
            connection.executemany("UPDATE revoke_batches SET lease = 0 WHERE batch = ? AND owner = ?", given)

    def _load(self, row: sqlite3.Row) -> Batch:
        found = self._store.read("SELECT result FROM revoke_tasks WHERE batch = ? ORDER BY place", (row["batch"],))
        results = tuple(Result(**json.loads(task["result"])) for task in found)
        asked, workers = json.loads(row["asked"]), json.loads(row["workers"])
        return Batch(
            id=row["batch"],
            at=row["at"],
            intent=row["intent"],
            order=Order(task_ids=tuple(result.task_id for result in results if result.status != "invalid"), **asked),
            results=results,
            workers=Acknowledgements(
                frozenset(workers["expected"]), frozenset(workers["acknowledged"]), workers["errors"]
            ),
        )


def _asked(order: Order) -> dict[str, object]:
    return {"merged": order.merged, "terminate": order.terminate, "signal": order.signal, "reason": order.reason}


def _workers(workers: Acknowledgements) -> str:
    return json.dumps(
        {
            "expected": sorted(workers.expected),
            "acknowledged": sorted(workers.acknowledged),
            "errors": dict(workers.errors),
        }
    )


def _result(result: Result) -> str:
    return json.dumps(asdict(result))


def _prune(connection: sqlite3.Connection) -> None:
    old = [
        (row["batch"],)
        for row in connection.execute(
            f"SELECT batch FROM (SELECT batch FROM revoke_batches ORDER BY at DESC LIMIT -1 OFFSET ?) "  # noqa: S608 - our own statuses
            f"WHERE batch NOT IN (SELECT batch FROM revoke_tasks WHERE status IN ({_OPEN}))",
            (KEPT,),
        ).fetchall()
    ]
    connection.executemany("DELETE FROM revoke_tasks WHERE batch = ?", old)
    connection.executemany("DELETE FROM revoke_batches WHERE batch = ?", old)
