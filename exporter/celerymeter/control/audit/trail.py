"""The audit trail: rows are appended to the chain, each in one transaction; and the key of the chain."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from celerymeter.control.audit.rows import (
    COLUMNS,
    GENESIS,
    INSERT,
    SELECT,
    TEXTS,
    AuditRow,
    Head,
    Kind,
    bounded,
    checkpoint,
    from_db,
    mac_from_db,
    sign,
    time_from_db,
)
from celerymeter.control.keys import check_strength
from celerymeter.control.routing import Instant, Query
from celerymeter.control.store import BUSY_TIMEOUT, Store, read_own_secret, write_secret_once
from celerymeter.errors import CelerymeterError, RequestRefused, SettingsError, StateError

log = logging.getLogger(__name__)

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS audit (
        row INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, action TEXT NOT NULL, intent INTEGER,
        sub TEXT NOT NULL, jti TEXT NOT NULL, address TEXT NOT NULL, target TEXT NOT NULL, reason TEXT NOT NULL,
        outcome TEXT NOT NULL, detail TEXT NOT NULL, instance TEXT NOT NULL, mac BLOB NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS audit_intent ON audit (intent) WHERE intent IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS audit_at ON audit (at)",
    "CREATE TABLE IF NOT EXISTS audit_open (intent INTEGER PRIMARY KEY, instance TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS audit_probe (id INTEGER PRIMARY KEY, at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS tokens (jti TEXT PRIMARY KEY, exp REAL NOT NULL)",
)
KEY_FILE = "audit.key"
KEY_BYTES = 32
MAX_ROW = 2**63 - 1
_Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_RowNumber = Annotated[int, Field(ge=1, le=MAX_ROW)]
MAX_ORPHANS: Final = 1000
"""Intents of earlier processes that get their outcome in one transaction; the next ones a minute later."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller of an act: a token's subject and id, and the address that it came from."""

    sub: str
    jti: str = ""
    address: str = ""


MAX_PAGE: Final = 4 * 1024 * 1024
"""Bytes of the rows of one page."""
_SIZE = " + ".join(f"coalesce(LENGTH({name}), 0)" for name in TEXTS)


@dataclass(slots=True)
class Act:
    """An act under way; the block that does it sets the outcome."""

    intent: int
    outcome: str = "ok"
    detail: Mapping[str, object] | None = None


class AuditQuery(Query):
    """Rows to read; every condition that is given must hold."""

    since: Instant | None = Field(default=None, description="Only rows written at this time or later")
    until: Instant | None = Field(default=None, description="Only rows written before this time")
    sub: _Text | None = Field(default=None, description="Subject")
    jti: _Text | None = Field(default=None, description="Token id")
    action: _Text | None = None
    kind: Kind | None = None
    outcome: _Text | None = None
    intent: _RowNumber | None = Field(default=None, description="Only this intent and its outcomes")
    target: _Text | None = Field(default=None, description="A task id, worker or other target")
    before: _RowNumber | None = Field(
        default=None, description="Only rows before this one: `next` of the previous page"
    )
    limit: Annotated[int, Field(ge=1, le=500)] = 100

    def clause(self) -> tuple[str, list[object]]:
        """Return the condition in SQL, and its parameters."""
        conditions = {
            "at >= ?": self.since and self.since.timestamp(),
            "at < ?": self.until and self.until.timestamp(),
            "sub = ?": self.sub,
            "jti = ?": self.jti,
            "action = ?": self.action,
            "kind = ?": self.kind,
            "outcome = ?": self.outcome,
            "? IN (intent, row)": self.intent,
            "json_valid(target) AND EXISTS (SELECT 1 FROM json_each(target) WHERE value = ?)": self.target,
            "row < ?": self.before,
        }
        asked = {condition: value for condition, value in conditions.items() if value is not None}
        return " AND ".join(asked) or "1", list(asked.values())


class AuditTrail:
    """Appends to the trail and reads it. Every method raises `StateError` when the disk fails.

    It signs nothing more once the table no longer ends as this process saw it end, or does not take a row: somebody
    who may write the file, and has not the key, is at work.
    """

    def __init__(self, store: Store, *, key: bytes, clock: Callable[[], float] = time.time) -> None:
        store.declare(*SCHEMA)
        self.instance = token_hex(8)
        """The id of this process, as rows have it."""
        self._store = store
        self._key = key
        self._clock = clock
        self._write_lock = Lock()
        self._last = self._appended = Head(0, GENESIS.hex())
        """The end of the chain when this process last wrote; another (`celerymeter token`) may have written since."""
        self._check_key()
        self._last = self.head()

    @contextmanager
    def act(self, actor: Actor, action: str, *, target: Sequence[str] = (), reason: str = "") -> Iterator[Act]:
        """Write an intent row before the block and an outcome row after it, however it ends."""
        act = Act(self.begin(actor, action, target=target, reason=reason))
        try:
            yield act
        except BaseException as error:
            outcome = "refused" if isinstance(error, RequestRefused) else "failed"
            self.finish(act.intent, outcome, detail={"error": _name(error)})
            raise
        self.finish(act.intent, act.outcome, detail=act.detail)

    def begin(self, actor: Actor, action: str, *, target: Sequence[str] = (), reason: str = "") -> int:
        """Write an intent and return its row: for acts that outlive a request. End them by `finish`."""
        intent = replace(self._row("intent", action, actor), target=json.dumps(list(target)), reason=reason)
        with self._writing() as connection:
            row = self._append(connection, intent)
            connection.execute("INSERT INTO audit_open VALUES (?, ?)", (row.row, self.instance))
        self._log_head(f"{action} by {actor.sub}: begun")
        return row.row

    def finish(self, intent: int, outcome: str, *, detail: Mapping[str, object] | None = None) -> None:
        """Write the outcome of an intent."""
        with self._writing() as connection:
            action = self._follow(connection, "outcome", intent, outcome=outcome, detail=detail).action
            connection.execute("DELETE FROM audit_open WHERE intent = ?", (intent,))
        self._log_head(f"{action}: {outcome}")

    def event(self, intent: int, outcome: str, *, detail: Mapping[str, object] | None = None) -> None:
        """Write something that became known after the outcome (a task that ran anyway)."""
        with self._writing() as connection:
            self._follow(connection, "event", intent, outcome=outcome, detail=detail)

    def refusal(self, actor: Actor, action: str, *, reasons: Mapping[str, int]) -> None:
        """Write that an actor was refused; ``reasons`` counts by reason."""
        with self._writing() as connection:
            self._append(connection, self._row("refusal", action, actor, outcome="refused", detail=reasons))

    def token(self, actor: Actor, action: str, *, exp: float, detail: Mapping[str, object]) -> bool:
        """Write that a token was minted, or seen for the first time; False when its id is known already."""
        with self._writing() as connection:
            new = connection.execute("INSERT OR IGNORE INTO tokens VALUES (?, ?)", (actor.jti, exp)).rowcount
            if new:
                self._append(connection, self._row("token", action, actor, outcome="ok", detail=detail))
            return bool(new)

    def mark_orphans(self) -> int:
        """Write the outcome ``unknown`` for open intents of an earlier process, and return how many there were.

        Only the process that holds the state directory may do so: it knows that the earlier one has ended.
        """
        why = {"error": "the program ended between the intent and its outcome"}
        with self._writing() as connection:
            query = "SELECT intent FROM audit_open WHERE instance IS NOT ? LIMIT ?"
            found = connection.execute(query, (self.instance, MAX_ORPHANS)).fetchall()
            orphans = [row["intent"] for row in found]
            for intent in orphans:
                self._follow(connection, "outcome", intent, outcome="unknown", detail=why)
            connection.executemany("DELETE FROM audit_open WHERE intent = ?", [(intent,) for intent in orphans])
        return len(orphans)

    def prune(self, before: float) -> int:
        """Delete the rows up to the first one written at or after ``before`` (UTC seconds), behind a checkpoint.

        Returns how many went.
        """
        with self._writing() as connection:
            kept = connection.execute("SELECT row FROM audit WHERE at >= ? ORDER BY row LIMIT 1", (before,)).fetchone()
            query = f"{SELECT} WHERE ? IS NULL OR row < ? ORDER BY row DESC LIMIT 1"
            through = connection.execute(query, [kept and kept["row"]] * 2).fetchone()
            if through is None:
                return 0
            self._append(connection, checkpoint(at=self._clock(), through=from_db(through)))
            connection.execute("DELETE FROM tokens WHERE exp < ?", (before,))
            return connection.execute("DELETE FROM audit WHERE row <= ?", (through["row"],)).rowcount

    def probe(self) -> None:
        """Write a row without meaning, to find out whether the disk accepts writes and the chain can be continued."""
        with self._writing() as connection:
            self._continued(connection)
            connection.execute("INSERT OR REPLACE INTO audit_probe VALUES (1, ?)", (self._clock(),))

    def page(self, query: AuditQuery, limit: int) -> list[AuditRow]:
        """Return at most ``limit`` rows, the newest first: fewer where they would have more than `MAX_PAGE` bytes."""
        where, parameters = query.clause()
        selected = f"WHERE {where} ORDER BY row DESC LIMIT ?"
        sizes = self._store.read(f"SELECT {_SIZE} AS size FROM audit {selected}", [*parameters, limit])  # noqa: S608 - our own words
        totals = accumulate(row["size"] for row in sizes)
        fitting = max(1, sum(total <= MAX_PAGE for total in totals))
        return [from_db(row) for row in self._store.read(f"{SELECT} {selected}", [*parameters, min(limit, fitting)])]

    def is_more(self, query: AuditQuery, last: AuditRow) -> bool:
        """Return whether the query finds older rows than this one."""
        where, parameters = query.clause()
        return bool(self._store.read(f"{SELECT} WHERE {where} AND row < ? LIMIT 1", [*parameters, last.row]))

    def oldest(self) -> float | None:
        """Return the time of the first row (UTC seconds); None while there is none."""
        rows = self._store.read(f"SELECT {bounded('at')} FROM audit ORDER BY row LIMIT 1")  # noqa: S608 - our own words
        return time_from_db(rows[0]["at"]) if rows else None

    def head(self) -> Head:
        """Return the end of the chain; row 0 while there is none."""
        rows = self._store.read(f"SELECT row, {bounded('mac')} FROM audit ORDER BY row DESC LIMIT 1")  # noqa: S608 - our own words
        return Head(rows[0]["row"], mac_from_db(rows[0]["mac"]).hex()) if rows else Head(0, GENESIS.hex())

    def _follow(
        self,
        connection: sqlite3.Connection,
        kind: Kind,
        intent: int,
        *,
        outcome: str,
        detail: Mapping[str, object] | None = None,
    ) -> AuditRow:
        begun = connection.execute(f"{SELECT} WHERE row = ?", (intent,)).fetchone()
        actor = Actor(begun["sub"], begun["jti"], begun["address"]) if begun else Actor("")
        row = self._row(kind, begun["action"] if begun else "", actor, outcome=outcome, detail=detail)
        return self._append(connection, replace(row, intent=intent))

    def _row(
        self,
        kind: Kind,
        action: str,
        actor: Actor,
        *,
        outcome: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> AuditRow:
        return AuditRow(
            row=0,  # numbered when it is appended
            at=self._clock(),
            kind=kind,
            action=action,
            sub=actor.sub,
            jti=actor.jti,
            address=actor.address,
            outcome=outcome,
            detail=json.dumps(dict(detail or {}), default=str),
            instance=self.instance,
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction on the trail; what it appends is the known end of the chain once it is on disk."""
        if not self._write_lock.acquire(timeout=BUSY_TIMEOUT):
            raise StateError("the audit trail is busy")
        try:
            self._appended = self._last
            with self._store.write() as connection:
                yield connection
            self._last = self._appended
        finally:
            self._write_lock.release()

    def _append(self, connection: sqlite3.Connection, row: AuditRow) -> AuditRow:
        number, previous = self._continued(connection)
        signed = sign(replace(row, row=number + 1), key=self._key, previous=previous)
        connection.execute(INSERT, [getattr(signed, name) for name in COLUMNS])
        # A trigger is not the only way to have a row ignored: so can a table with conflict clauses of its own.
        stored = connection.execute("SELECT mac FROM audit WHERE row = ?", (signed.row,)).fetchone()
        if stored is None or stored["mac"] != signed.mac:
            raise StateError("the audit trail did not take a row: its table was changed")
        self._appended = Head(signed.row, signed.mac.hex())
        return signed

    def _continued(self, connection: sqlite3.Connection) -> tuple[int, bytes]:
        """Return number and HMAC of the last row; raises `StateError` unless it continues what this process knows."""
        number, previous = self._appended.row, bytes.fromhex(self._appended.mac)
        rows = connection.execute(f"{SELECT} WHERE row >= ? ORDER BY row", (number,))
        if number and ((last := rows.fetchone()) is None or (last["row"], last["mac"]) != (number, previous)):
            raise StateError(f"the audit trail is not written: row {number}, its end, was removed or changed")
        for row in map(from_db, rows):
            if row.row != number + 1 or sign(row, key=self._key, previous=previous).mac != row.mac:
                raise StateError(f"the audit trail is not written: row {row.row} is not signed with its key")
            number, previous = row.row, row.mac
        return number, previous

    def _log_head(self, what: str) -> None:
        """Log the end of the chain: those who keep the log elsewhere can prove later that nothing was cut off."""
        log.info("audit: %s", what, extra={"audit_head": str(self._last)})

    def _check_key(self) -> None:
        rows = [from_db(row) for row in self._store.read(f"{SELECT} ORDER BY row DESC LIMIT 2")]
        if not rows:
            return
        previous = rows[1].mac if len(rows) > 1 else GENESIS if rows[0].row == 1 else None
        if previous is not None and sign(rows[0], key=self._key, previous=previous).mac != rows[0].mac:
            raise SettingsError(
                f"the audit trail's last row ({rows[0].row}) was not written with this key: give the right "
                "--audit-key-file, check with `celerymeter audit verify`, or choose another --state-dir"
            )


def _name(error: BaseException) -> str:
    if isinstance(error, RequestRefused):
        return error.code
    return type(error).__name__ if isinstance(error, CelerymeterError) else "internal"


def audit_key(store: Store, given: bytes | None) -> bytes:
    """Return the key of the chain: the given one, or one that is made in the state directory at the first start."""
    if given is not None:
        return check_strength(given, at_least=KEY_BYTES, option="--audit-key-file")
    path = store.folder / KEY_FILE
    if not path.exists() and _has_rows(store):
        raise SettingsError(f"{path} is missing, and the audit trail cannot be continued without it: restore it")
    write_secret_once(path, token_hex(KEY_BYTES).encode())
    return kept_key(store.folder)


def kept_key(folder: Path) -> bytes:
    """Return the key that a state directory keeps; raises `SettingsError`, or `FileNotFoundError` for none."""
    return check_strength(read_own_secret(folder / KEY_FILE), at_least=KEY_BYTES, option=str(folder / KEY_FILE))


def _has_rows(store: Store) -> bool:
    try:
        return bool(store.read("SELECT 1 FROM audit LIMIT 1"))
    except StateError:
        return False


@contextmanager
def open_trail(state_dir: Path, key: bytes | None) -> Iterator[AuditTrail]:
    """Open the trail of a state directory for the length of the block; raises `SettingsError`."""
    store = Store(state_dir)
    try:
        yield AuditTrail(store, key=audit_key(store, key))
    finally:
        store.close()
