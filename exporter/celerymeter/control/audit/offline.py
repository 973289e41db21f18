"""The trail of a state directory read and verified from a shell, without the control API."""

from __future__ import annotations

import getpass
import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from celerymeter.control.audit import chain
from celerymeter.control.audit.chain import AuditRow, Head, Verification
from celerymeter.control.audit.trail import KEY_FILE, SELECT, Actor, AuditQuery, from_db, open_trail
from celerymeter.control.store import DATABASE
from celerymeter.control.tokens import Identity
from celerymeter.errors import SettingsError, StateError

MAX_TARGETS = 5
"""Targets that a line names."""
ALL = AuditQuery()


def read_rows(folder: Path, query: AuditQuery = ALL, *, last: int = -1) -> Iterator[AuditRow]:
    """Yield the rows of a state directory in order (the ``last`` so many), without writing to it.

    Raises `SettingsError` when there is no trail.
    """
    path = folder / DATABASE
    if not path.exists():
        raise SettingsError(f"--state-dir {folder}: holds no {DATABASE}")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            where, parameters = query.clause()
            chosen = f"SELECT row FROM audit WHERE {where} ORDER BY row DESC LIMIT ?"  # noqa: S608 - our own words
            for row in connection.execute(f"{SELECT} WHERE row IN ({chosen}) ORDER BY row", [*parameters, last]):
                yield from_db(row)
    except sqlite3.Error as error:
        raise StateError(f"the audit trail cannot be read: {error}") from error


def verify(state_dir: Path, *, key: bytes | None, head: str | None) -> Verification:
    """Verify the trail of a state directory; raises `SettingsError` where there is none, or for a bad head."""
    try:
        earlier = None if head is None else Head.parse(head)
    except ValueError as error:
        raise SettingsError("--head: not ROW:HMAC as in the log") from error
    return chain.verify(read_rows(state_dir), key=key or _kept_key(state_dir), head=earlier)


def _kept_key(folder: Path) -> bytes:
    """Return the key that a state directory keeps; raises `SettingsError` when it keeps none."""
    try:
        return (folder / KEY_FILE).read_bytes()
    except OSError as error:
        raise SettingsError(f"{folder / KEY_FILE}: {error.strerror}; give --audit-key-file") from error


def as_line(row: AuditRow) -> str:
    """Format a row as one line; of many targets the first few."""
    when = datetime.fromtimestamp(row.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    who = f"{row.sub or '-'}@{row.address or '-'}"
    parts = [f"{row.row:>6}", when, f"{row.kind:<10}", who, row.action, row.outcome, _targets(row.target)]
    parts += [f"reason={row.reason!r}"] if row.reason else []
    parts += [f"of={row.intent}"] if row.intent else []
    parts += [row.detail] if row.detail != "{}" else []
    return _printable(" ".join(part for part in parts if part))


def as_json(row: AuditRow) -> str:
    """Format a row as one JSON object."""
    fields = asdict(row) | {"target": json.loads(row.target), "detail": json.loads(row.detail), "mac": row.mac.hex()}
    return json.dumps(fields, ensure_ascii=False)


def _printable(text: str) -> str:
    """Escape what others wrote, which must not move the reader's cursor."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _targets(target: str) -> str:
    names = json.loads(target)
    more = [f"… {len(names) - MAX_TARGETS} more"] if len(names) > MAX_TARGETS else []
    return ", ".join([*names[:MAX_TARGETS], *more])


def record_minted(identity: Identity, *, state_dir: Path, audit_key: bytes | None) -> None:
    """Write that a token was minted, and by whom on which machine; the control API may be running."""
    with open_trail(state_dir, audit_key) as trail:
        detail = {"role": identity.role.label, "exp": identity.exp, "by": _user()}
        trail.token(Actor(identity.sub, identity.jti, "shell"), "token.mint", exp=identity.exp, detail=detail)


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return "unknown"
