"""``/tasks/*``: batch revoke and its follow-up.

The same request with the same ``Idempotency-Key``, sent again within 24 h, gets the same answer and acts once.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from celerymeter.control.auth import current_actor, current_identity, require_role
from celerymeter.control.revocation import decide
from celerymeter.control.revocation.models import (
    MAX_IDS,
    Batch,
    BatchReply,
    RevokeRequest,
    Signal,
)
from celerymeter.control.revocation.service import ACTION, RevocationService, new_batch_id, revoke_request
from celerymeter.control.routing import Body, ControlBlueprint, Permission, answer, utc
from celerymeter.control.store import Store, Time
from celerymeter.control.tokens import Role
from celerymeter.errors import BrokerUnavailable, RequestRefused

PATH = "/tasks/batch"


class RevokeParameters(Body):
    """Parameters of a revoke; `terminate` needs the role admin."""

    terminate: bool = Field(default=False, description="End the process of a running task (prefork pools)")
    signal: Signal = "SIGTERM"
    reason: str = Field(default="", max_length=1000, description="Reason for the audit trail")
    dry_run: bool = Field(default=False, description="Only show what is known of each id; send nothing")


class BatchBody(Body):
    """The tasks, and what to do with them."""

    task_ids: list[str] = Field(min_length=1, max_length=MAX_IDS)
    operation: Literal["revoke"]
    parameters: RevokeParameters = RevokeParameters()


class BatchHeaders(BaseModel):
    """The headers that this operation reads."""

    model_config = ConfigDict(extra="ignore")

    idempotency_key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="A repeated request with the same key and body returns the stored answer for 24 h",
    )
    prefer: str | None = Field(
        default=None, alias="Prefer", description="`respond-async`: answer 202 as soon as the batch is stored"
    )


class BatchPath(BaseModel):
    """The batch of a path."""

    batch_id: str = Field(min_length=1, max_length=64)


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One use of an ``Idempotency-Key``: ``scope`` is subject and path, ``body`` a digest."""

    scope: str
    key: str
    body: str


@dataclass(frozen=True, slots=True)
class EarlierUse:
    """The answer to an earlier request with the key.

    Without ``status`` the program was killed before the answer; with it and without ``answer`` that was dropped.
    """

    batch: str
    status: Literal[200, 202] | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class _StoredUse:
    body: str
    at: Time
    earlier: EarlierUse


_STORED_USE: Final = TypeAdapter(_StoredUse)


class IdempotencyKeys:
    """The keys of the last 24 h. Every method raises `StateError`."""

    LIFETIME: Final = 86400.0
    TIMEOUT: Final = 10.0
    """Seconds after which a request without an answer counts as killed."""
    SWEEP: Final = 60.0
    """Seconds between two looks for keys that are too old."""
    MAX_KEYS: Final = 100_000
    MAX_ANSWERS: Final = 32 * 1024 * 1024
    """Bytes of all answers; of more the oldest are dropped. Their keys stay, so that nothing is done twice."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        store.declare(
            """CREATE TABLE IF NOT EXISTS revoke_keys (
                scope TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, batch TEXT NOT NULL, at REAL NOT NULL,
                status INTEGER, answer TEXT, PRIMARY KEY (scope, key)) WITHOUT ROWID"""
        )
        self._store = store
        self._clock = clock
        self._swept = 0.0
        self._keys = self._bytes = 0

    def begin(self, use: KeyUse, batch: str) -> EarlierUse | None:
        """Reserve the key for a new batch, or return its earlier use; raises `RequestRefused`."""
        now = self._clock()
        with self._store.write() as connection:
            self._sweep(connection, now)
            found = connection.execute(
                "SELECT * FROM revoke_keys WHERE scope = ? AND key = ?", (use.scope, use.key)
            ).fetchone()
            if found is None and self._keys >= self.MAX_KEYS:
                raise RequestRefused("too_many_requests", "too many keys within 24 h", retry_after=3600.0)
            if found is None:
                self._keys += 1
                row = (use.scope, use.key, use.body, batch, now)
                connection.execute("INSERT INTO revoke_keys VALUES (?, ?, ?, ?, ?, NULL, NULL)", row)
                return None
        [stored] = self._store.convert_whole("revoke_keys", _stored_use, [found])
        if stored.body != use.body:
            raise RequestRefused("invalid", "this Idempotency-Key was used with another body")
        if stored.earlier.status is None and now - stored.at < self.TIMEOUT:
            raise RequestRefused(
                "conflict", "the first request with this Idempotency-Key is still running", retry_after=2.0
            )
        return stored.earlier

    def finish(self, use: KeyUse, *, status: int, answer: str) -> None:
        """Store the answer."""
        with self._store.write() as connection:
            connection.execute(
                "UPDATE revoke_keys SET status = ?, answer = ? WHERE scope = ? AND key = ?",
                (status, answer, use.scope, use.key),
            )
            self._bytes += len(answer.encode())
            if self._bytes > self.MAX_ANSWERS:
                self._drop_answers(connection)

    def release(self, use: KeyUse) -> None:
        """Allow the key to be used again, as nothing was done."""
        with self._store.write() as connection:
            connection.execute("DELETE FROM revoke_keys WHERE scope = ? AND key = ?", (use.scope, use.key))
            self._count(connection)

    def _sweep(self, connection: sqlite3.Connection, now: float) -> None:
        if abs(now - self._swept) >= self.SWEEP:
            self._swept = now
            connection.execute("DELETE FROM revoke_keys WHERE at < ?", (now - self.LIFETIME,))
            self._count(connection)

    def _count(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT COUNT(*), TOTAL(LENGTH(CAST(answer AS BLOB))) FROM revoke_keys").fetchone()
        self._keys, self._bytes = row[0], int(row[1])

    def _drop_answers(self, connection: sqlite3.Connection) -> None:
        """Drop the oldest answers until a quarter of the budget is free."""
        rows = connection.execute(
            "SELECT scope, key, LENGTH(CAST(answer AS BLOB)) AS size FROM revoke_keys"
            " WHERE answer IS NOT NULL ORDER BY at LIMIT ?",
            (self.MAX_KEYS,),
        ).fetchall()
        surplus = self._bytes - 3 * self.MAX_ANSWERS // 4
        for row in rows:
            if surplus <= 0:
                break
            connection.execute("UPDATE revoke_keys SET answer = NULL WHERE scope = ? AND key = ?", tuple(row)[:2])
            surplus -= row["size"]
        self._count(connection)


def _stored_use(row: sqlite3.Row) -> _StoredUse:
    earlier = {name: row[name] for name in ("batch", "status", "answer")}
    return _STORED_USE.validate_python({"body": row["body"], "at": row["at"], "earlier": earlier})


@dataclass(frozen=True, slots=True)
class _Batches:
    """Revokes for the views and answers for them, with each ``Idempotency-Key`` once."""

    service: RevocationService
    keys: IdempotencyKeys
    base_path: str

    def revoke(self, wanted: RevokeRequest, batch_id: str, *, wait: bool) -> Response:
        batch = self.service.revoke(wanted, current_actor(), batch_id=batch_id, wait=wait)
        return self.answer(batch, status=200 if wait else 202)

    def revoke_once(self, wanted: RevokeRequest, key: str, *, wait: bool) -> Response:
        use, batch_id = _key_use(key), new_batch_id()
        if (earlier := self.keys.begin(use, batch_id)) is not None:
            if earlier.answer is not None:
                return _replayed(Response(earlier.answer, earlier.status, content_type="application/json"))
            if (batch := self.service.find(earlier.batch)) is not None:
                return _replayed(self.answer(batch))
            if earlier.status is not None:
                raise RequestRefused("conflict", "this Idempotency-Key was used; its answer is no longer kept")
            self.keys.release(use)  # the program was killed before that batch was written
            self.keys.begin(use, batch_id)
        try:
            response = self.revoke(wanted, batch_id, wait=wait)
        except (RequestRefused, BrokerUnavailable):
            if self.service.find(batch_id) is None:
                self.keys.release(use)
            raise
        self.keys.finish(use, status=response.status_code, answer=response.get_data(as_text=True))
        return response

    def answer(self, batch: Batch, *, status: int = 200) -> Response:
        dry_run = not batch.id
        settled = dry_run or decide.is_settled(batch.results)
        counts = decide.by_status(batch.results)
        reply = BatchReply(
            batch_id=batch.id or None,
            total=len(batch.results),
            **decide.totals(batch.results),
            merged=batch.request.merged,
            summary=", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing to do",
            results=batch.results,
            workers=batch.workers.shortened(),
            missing_workers=len(batch.workers.missing),
            dry_run=dry_run,
            settled=settled,
            follow_up=None if settled else f"{self.base_path}{PATH}/{batch.id}",
            look_up=f"{self.base_path}/tasks/{{task_id}}",
            timestamp=utc(batch.at),
        )
        return answer(reply, status)


def blueprint(*, service: RevocationService, keys: IdempotencyKeys, base_path: str) -> ControlBlueprint:
    """Return both operations."""
    bp = ControlBlueprint("tasks")
    batches = _Batches(service, keys, base_path)

    @bp.post(
        PATH,
        permission=Permission.OPERATOR,
        responses={200: BatchReply, 202: BatchReply},
        errors=(409, 503, 504),
        audited=ACTION,
    )
    def revoke_tasks(body: BatchBody, header: BatchHeaders) -> Response:
        """Revoke up to 1,000 tasks and return a proven result for each.

        Answers within 4 s. What is not settled by then is followed (`follow_up`), and sent again to workers that
        restart or join. 504 means that no worker answered, for example because they have not reconnected to a broker
        that was restarted: the problem has the `batch_id`, and the revoke is sent again until they answer.
        """
        wanted = revoke_request(body.task_ids, **body.parameters.model_dump())
        if wanted.terminate:
            require_role(Role.ADMIN, "terminate")
        if wanted.dry_run:
            return batches.answer(service.preview(wanted))
        wait = "respond-async" not in (header.prefer or "")
        if header.idempotency_key is None:
            return batches.revoke(wanted, new_batch_id(), wait=wait)
        return batches.revoke_once(wanted, header.idempotency_key, wait=wait)

    @bp.get(f"{PATH}/<batch_id>", permission=Permission.OPERATOR, responses={200: BatchReply}, errors=(404, 503))
    def read_batch(path: BatchPath) -> Response:
        """Show the current results of a batch."""
        batch = service.find(path.batch_id)
        if batch is None:
            raise RequestRefused("not_found", "no batch has this id")
        return batches.answer(batch)

    return bp


def _key_use(key: str) -> KeyUse:
    body = json.dumps(request.get_json(), sort_keys=True).encode()
    return KeyUse(f"{current_identity().sub} {request.path}", key, hashlib.sha256(body).hexdigest())


def _replayed(response: Response) -> Response:
    response.headers["Idempotency-Replayed"] = "true"
    return response
