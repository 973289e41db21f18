"""The tables of the state directory's database, and the check that they are as they were declared."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Final

MAX_OBJECTS: Final = 1000
"""Tables, indexes and others that a database may have."""


class Schema:
    """The tables and indexes that were declared, and the check that the database has exactly these."""

    _QUERY: Final = "SELECT type, name, tbl_name, sql, rootpage != 0 AS stored FROM sqlite_schema"

    def __init__(self) -> None:
        self._declared: dict[str, tuple[object, ...]] = {}
        self._right: list[tuple[object, ...]] | None = None
        """The rows that were checked last and found right: all others are checked again."""

    def declare(self, statements: Iterable[str], columns: Mapping[str, str]) -> None:
        """Take what `create` would make of these."""
        with closing(sqlite3.connect(":memory:")) as memory:
            create(memory, statements, columns)
            self._declared.update({row[1]: _normal(row) for row in memory.execute(self._QUERY)})
        self._right = None

    def fault(self, connection: sqlite3.Connection) -> str | None:
        """Say what is wrong with the database; ``None`` if nothing is."""
        found = [tuple(row) for row in connection.execute(f"{self._QUERY} LIMIT {MAX_OBJECTS}")]
        if found == self._right:
            return None
        fault = self._find_fault(found)
        if fault is None:
            self._right = found
        return fault

    def _find_fault(self, found: Sequence[tuple[object, ...]]) -> str | None:
        missing = dict(self._declared)
        for row in found:
            kind, name, table, _, _ = row
            if kind in ("table", "index") and table not in self._declared and name not in self._declared:
                continue  # of another module, or nobody's: no statement of ours touches it
            if name not in self._declared:
                return f"the {kind} {name!r} was added"
            if _normal(row) != missing.pop(str(name), None):
                return f"the {kind} {name!r} was changed"
        return f"the table or index {min(missing)!r} was removed" if missing else None


def _normal(row: Sequence[object]) -> tuple[object, ...]:
    """Return an object of a schema without the white space that its statement had in our source."""
    kind, name, table, sql, stored = row
    words = " ".join(sql.split()) if isinstance(sql, str) else ""
    return kind, name, table, re.sub(r" ?([(),]) ?", r"\1", words), stored


def create(connection: sqlite3.Connection, statements: Iterable[str], columns: Mapping[str, str]) -> None:
    """Run the statements that create tables and indexes, and add columns that came later, by table."""
    for statement in statements:
        connection.execute(statement)
    for table, column in columns.items():
        names = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
        if column.split()[0] not in names:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
