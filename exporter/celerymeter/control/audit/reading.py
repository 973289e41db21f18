"""Reading the trail: by filter and page, or all of it in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from celerymeter.control.audit.chain import COLUMNS, Kind, Row
from celerymeter.control.audit.trail import from_db
from celerymeter.control.store import DATABASE, Store
from celerymeter.errors import SettingsError, StateError

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM audit"  # noqa: S608 - our own column names


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows: None lets all through. ``since`` and ``until`` are UTC seconds; ``before`` is a row, for paging."""

    since: float | None = None
    until: float | None = None
    sub: str | None = None
    jti: str | None = None
    action: str | None = None
    kind: Kind | None = None
    outcome: str | None = None
    intent: int | None = None
    target: str | None = None
    before: int | None = None

    def clause(self) -> tuple[str, list[object]]:
        """The condition in SQL, and its parameters."""
        conditions = {
            "at >= ?": self.since,
            "at < ?": self.until,
            "sub = ?": self.sub,
            "jti = ?": self.jti,
            "action = ?": self.action,
            "kind = ?": self.kind,
            "outcome = ?": self.outcome,
            "? IN (intent, row)": self.intent,
            "EXISTS (SELECT 1 FROM json_each(target) WHERE value = ?)": self.target,
            "row < ?": self.before,
        }
        asked = {condition: value for condition, value in conditions.items() if value is not None}
        return " AND ".join(asked) or "1", list(asked.values())


ALL = Filter()


def page(store: Store, which: Filter, limit: int) -> list[Row]:
    """At most ``limit`` rows, the newest first."""
    where, parameters = which.clause()
    found = store.read(f"{_SELECT} WHERE {where} ORDER BY row DESC LIMIT ?", [*parameters, limit])
    return [from_db(row) for row in found]


def everything(folder: Path, which: Filter = ALL, *, last: int = -1) -> Iterator[Row]:
    """The rows of a state directory in order (the ``last`` so many), without writing to it.

    Raises `SettingsError` when there is no trail.
    """
    path = folder / DATABASE
    if not path.exists():
        raise SettingsError(f"--state-dir {folder}: holds no {DATABASE}")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            where, parameters = which.clause()
            chosen = f"SELECT row FROM audit WHERE {where} ORDER BY row DESC LIMIT ?"  # noqa: S608 - our own words
            for row in connection.execute(f"{_SELECT} WHERE row IN ({chosen}) ORDER BY row", [*parameters, last]):
                yield from_db(row)
    except sqlite3.Error as error:
        raise StateError(f"the audit trail cannot be read: {error}") from error
