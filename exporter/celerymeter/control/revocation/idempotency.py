"""``Idempotency-Key``: the same request, sent again within 24 h, gets the same answer and acts once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from celerymeter.control.store import Store
from celerymeter.errors import RequestRefused


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
    """The keys of the last 24 h. Every method raises `StateError`."""

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
