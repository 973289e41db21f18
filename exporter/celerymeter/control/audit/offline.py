"""The trail of a state directory read and verified from a shell, without the control API."""

from __future__ import annotations

import getpass
import hmac
import json
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from celerymeter.control.audit.rows import GENESIS, SELECT, AuditRow, Head, from_db, sign
from celerymeter.control.audit.trail import KEY_FILE, SCHEMA, Actor, AuditQuery, kept_key, open_trail
from celerymeter.control.store import DATABASE, UNUSABLE, decode, explain
from celerymeter.control.tokens import Identity
from celerymeter.errors import SettingsError, StateError
from celerymeter.files import open_own

MAX_FINDINGS = 100
"""Findings that are listed: with a wrong key every row is one."""
MAX_TARGETS = 5
"""Targets that a line names."""
FOREIGN = "SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view') ORDER BY name LIMIT 1"
"""Finds what the API never makes: with it, others could have rows vanish as they are written."""
ALL = AuditQuery()


def read_rows(folder: Path, query: AuditQuery = ALL, *, last: int = -1) -> Iterator[AuditRow]:
    """Yield the rows of a state directory in order (the ``last`` so many), without writing to it.

    Raises `SettingsError` when there is no trail.
    """
    with _opened(folder) as connection:
        _check_table(connection)
        where, parameters = query.clause()
        chosen = f"SELECT row FROM audit WHERE {where} ORDER BY row DESC LIMIT ?"  # noqa: S608 - our own words
        for row in connection.execute(f"{SELECT} WHERE row IN ({chosen}) ORDER BY row", [*parameters, last]):
            yield from_db(row)


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    path = _database(folder)
    writable = os.access(folder, os.W_OK, effective_ids=True)
    # SQLite makes files beside a database to read it. Where it may not, as in a backup, nobody else writes either.
    mode = "mode=ro" if writable or _has_log(path) else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as connection:
            connection.row_factory, connection.text_factory = sqlite3.Row, decode
            yield connection
    except UNUSABLE as error:
        copy = "" if writable else f"; {folder} is read-only: copy it, with {DATABASE}-wal, and give the copy"
        raise StateError(f"the audit trail cannot be read: {explain(error)}{copy}") from error


def _database(folder: Path) -> Path:
    """Return the path of the database; raises `SettingsError` where there is none."""
    path = folder / DATABASE
    try:
        os.close(open_own(path, flag="--state-dir"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"--state-dir {folder}: contains no {DATABASE}; give the state directory of the control API"
        ) from error
    return path


def _has_log(path: Path) -> bool:
    """Return whether rows may be in the log beside the database only."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _check_table(connection: sqlite3.Connection) -> None:
    """Raise `StateError` unless the table is stored, with our columns: any other may compute rows without end."""
    columns = "SELECT name, type, pk, hidden FROM pragma_table_xinfo('audit')"
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.execute(SCHEMA[0])
        ours = memory.execute(columns).fetchall()
    stored = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'audit' AND type = 'table'").fetchone()
    if stored is None or not stored["rootpage"] or [tuple(found) for found in connection.execute(columns)] != ours:
        raise StateError("the database has no table `audit` as celerymeter makes it: somebody has changed it")
    connection.execute("SELECT rowid FROM audit LIMIT 1")  # fails where the numbers of rows may be anything


def verify(state_dir: Path, *, key: bytes | None, head: str | None) -> Verification:
    """Verify the trail of a state directory; raises `SettingsError` where there is none, or for a bad head."""
    try:
        earlier = None if head is None else Head.parse(head)
    except ValueError as error:
        raise SettingsError("--head: not ROW:HMAC as in the log") from error
    with _opened(state_dir) as connection:
        key = key or _kept_key(state_dir)
        foreign = [
            ChainFinding(0, f"the {found['type']} {found['name']!r} was added to the database by somebody else")
            for found in connection.execute(FOREIGN)
        ]
    result = verify_rows(read_rows(state_dir), key=key, head=earlier)
    return replace(result, findings=(*foreign, *result.findings))


def _kept_key(folder: Path) -> bytes:
    """Return the key that a state directory keeps; raises `SettingsError` when it keeps none."""
    try:
        return kept_key(folder)
    except FileNotFoundError as error:
        raise SettingsError(f"{folder / KEY_FILE}: {error.strerror}; give --audit-key-file") from error


def as_line(row: AuditRow) -> str:
    """Format a row as one line, not escaped yet; of many targets the first few."""
    when = datetime.fromtimestamp(row.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    who = f"{row.sub or '-'}@{row.address or '-'}"
    parts = [f"{row.row:>6}", when, f"{row.kind:<10}", who, row.action, row.outcome, _targets(row.target)]
    parts += [f"reason={row.reason!r}"] if row.reason else []
    parts += [f"of={row.intent}"] if row.intent else []
    parts += [row.detail] if row.detail != "{}" else []
    return " ".join(part for part in parts if part)


def as_fields(row: AuditRow) -> dict[str, object]:
    """Return the members of the JSON object of a row."""
    return asdict(row) | {"target": json.loads(row.target), "detail": json.loads(row.detail), "mac": row.mac.hex()}


def _targets(target: str) -> str:
    names = json.loads(target)
    more = [f"… {len(names) - MAX_TARGETS} more"] if len(names) > MAX_TARGETS else []
    return ", ".join([*names[:MAX_TARGETS], *more])


def record_minted(identity: Identity, *, state_dir: Path, audit_key: bytes | None) -> None:
    """Record that a token was created, by which user and on which machine; the control API may be running.

    Raises `SettingsError` for a folder without a trail: in a new one, at a mistyped path, nobody would look for it.
    """
    _database(state_dir)
    with open_trail(state_dir, audit_key) as trail:
        detail = {"role": identity.role.label, "exp": identity.exp, "by": _user()}
        trail.token(Actor(identity.sub, identity.jti, "shell"), "token.mint", exp=identity.exp, detail=detail)


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return "unknown"


@dataclass(frozen=True, slots=True)
class ChainFinding:
    """Something wrong with the chain, near ``row``."""

    row: int
    message: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The number of rows, what is wrong with them, the end of the chain as it is now, and the end that was known."""

    rows: int
    findings: tuple[ChainFinding, ...]
    head: Head
    known: Head | None = None

    @property
    def unproven(self) -> str | None:
        """Say what of the end nothing proves: rows behind the last known head can be cut off without a trace."""
        if self.known is None and not self.rows:
            return (
                f"there are no rows, which proves nothing: in a copy, the last rows are missing unless {DATABASE}-wal "
                f"was copied with {DATABASE}. Give --head with the last audit_head of the log"
            )
        if self.known is None:
            return "the end is not proven: rows may have been cut off. Give --head with the last audit_head of the log"
        if self.known.row < self.head.row:
            return (
                f"the end is proven only up to row {self.known.row}: rows after row {self.head.row} may have been cut "
                "off. Give --head with the last audit_head of the log"
            )
        return None


def verify_rows(rows: Iterable[AuditRow], *, key: bytes, head: Head | None = None) -> Verification:
    """Verify the rows, given in order, and that an earlier ``head`` is among them.

    A chain that was pruned must hold the checkpoint that says so.
    """
    walk, count, last = _Walk(key), 0, Head(0, GENESIS.hex())
    findings: list[ChainFinding] = []
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last number is wanted
        last = Head(row.row, row.mac.hex())
        findings += walk.step(row)
        if head is not None and head.row == last.row and head.mac != last.mac:
            findings.append(ChainFinding(row.row, "is not the row that was the head"))
        del findings[MAX_FINDINGS:]
    findings += walk.end(head)
    return Verification(count, tuple(findings[:MAX_FINDINGS]), last, head)


class _Walk:
    """Walks along the chain and remembers what the next row must fit."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._first: AuditRow | None = None
        self._last_row, self._last_mac = 0, GENESIS
        self._pruned_through = 0

    def step(self, row: AuditRow) -> Iterator[ChainFinding]:
        begins_later = self._first is None and row.row > 1
        self._first = self._first or row
        if begins_later:
            self._note_checkpoint(row)
        elif row.row != self._last_row + 1:
            yield ChainFinding(row.row, f"row(s) {self._last_row + 1} to {row.row - 1} before it are missing")
        elif not self._fits(row, self._last_mac):
            yield ChainFinding(row.row, "was changed, or does not belong here")
        else:
            self._note_checkpoint(row)
        self._last_row, self._last_mac = row.row, row.mac

    def end(self, head: Head | None) -> Iterator[ChainFinding]:
        first = self._first.row if self._first else 1
        if first > 1 and self._pruned_through != first - 1:
            yield ChainFinding(first, f"row(s) 1 to {first - 1} are missing and no checkpoint accounts for them")
        if head is not None and head.row > self._last_row:
            yield ChainFinding(head.row, "the row that was the head is gone: the end was cut off")

    def _note_checkpoint(self, row: AuditRow) -> None:
        """Accept a checkpoint when the first row that is left fits the HMAC that it names."""
        if row.kind != "checkpoint" or self._first is None:
            return
        with suppress(ValueError, KeyError, TypeError):
            detail = json.loads(row.detail)
            if detail["through"] == self._first.row - 1 and self._fits(self._first, bytes.fromhex(detail["mac"])):
                self._pruned_through = self._first.row - 1

    def _fits(self, row: AuditRow, previous: bytes) -> bool:
        return hmac.compare_digest(sign(row, key=self._key, previous=previous).mac, row.mac)
