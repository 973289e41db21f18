"""``Idempotency-Key``: the same request, sent again within a day, gets the same answer and acts once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from celerymeter.control.store import Store
from celerymeter.errors import RequestRefused

KEPT_FOR: Final = 86400.0
UNDER_WAY: Final = 10.0
"""Seconds that a request may be under way; one that gave no answer by then was killed."""
SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS revoke_keys (
        scope TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, batch TEXT NOT NULL, at REAL NOT NULL,
        status INTEGER, answer TEXT, PRIMARY KEY (scope, key)) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One use of a key; ``scope`` is subject and path, ``body`` a digest."""

    scope: str
    key: str
    body: str


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier request with this key got: its answer, or only the batch that it began before it was killed."""

    batch: str
    status: int | None
    answer: str | None


class Keys:
    """The keys of a state directory; every method raises `StateError` when the disk does not do its part."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        store.declare(*SCHEMA)
        self._store = store
        self._clock = clock

    def begin(self, asked: Asked, batch: str) -> Earlier | None:
        """Note that this batch is begun under the key, or give what was; raises `RequestRefused`."""
        now = self._clock()
        with self._store.write() as connection:
            connection.execute("DELETE FROM revoke_keys WHERE at < ?", (now - KEPT_FOR,))
            found = connection.execute(
                "SELECT * FROM revoke_keys WHERE scope = ? AND key = ?", (asked.scope, asked.key)
            ).fetchone()
            if found is None:
                row = (asked.scope, asked.key, asked.body, batch, now)
                connection.execute("INSERT INTO revoke_keys VALUES (?, ?, ?, ?, ?, NULL, NULL)", row)
                return None
        if found["body"] != asked.body:
            raise RequestRefused("invalid", "this Idempotency-Key was used with another body")
        if found["answer"] is None and now - found["at"] < UNDER_WAY:
            raise RequestRefused("conflict", "the first request with this Idempotency-Key still runs", retry_after=2.0)
        return Earlier(found["batch"], found["status"], found["answer"])

    def finish(self, asked: Asked, *, status: int, answer: str) -> None:
        """Keep the answer."""
        with self._store.write() as connection:
            connection.execute(
                "UPDATE revoke_keys SET status = ?, answer = ? WHERE scope = ? AND key = ?",
                (status, answer, asked.scope, asked.key),
            )

    def forget(self, asked: Asked) -> None:
        """Nothing was done: the key may be used again."""
        with self._store.write() as connection:
            connection.execute("DELETE FROM revoke_keys WHERE scope = ? AND key = ?", (asked.scope, asked.key))
