"""Whoever may change the state directory's tables, or a disk that breaks, gets clear errors: no stack trace."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import product
from pathlib import Path

import pytest
from tests.security.state_directory import TABLES, Api, opened, tamper

from celerymeter.control.audit.offline import read_rows
from celerymeter.control.store import DATABASE, Store
from celerymeter.errors import CelerymeterError, SettingsError, StateError

CHANGES = {
    "a trigger": "CREATE TRIGGER t BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END",
    "a trigger elsewhere": "CREATE TRIGGER t AFTER INSERT ON audit BEGIN DELETE FROM {table}; END",
    "a view": "CREATE VIEW v AS SELECT * FROM {table}",
    "an index that computes": "CREATE INDEX i ON {table} (hex(zeroblob(10000000)))",
    "an index that refuses": "CREATE UNIQUE INDEX i ON {table} (1) WHERE 0",
    "no table": "ALTER TABLE {table} RENAME TO old",
    "a column more": "ALTER TABLE {table} ADD COLUMN more",
    "a column that computes": "ALTER TABLE {table} ADD COLUMN more AS (hex(zeroblob(400000000)))",
}
PLACES = {
    "a view without end": "CREATE VIEW {table} AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    "SELECT old.* FROM n, old",
    "a table that ignores": "CREATE TABLE {table} ({names}, UNIQUE ({first}) ON CONFLICT IGNORE)",
    "a virtual table": "CREATE VIRTUAL TABLE {table} USING fts5({names})",
    "a table without types": "CREATE TABLE {table} ({names})",
}


@pytest.mark.parametrize(
    ("table", "change"),
    [pair for number, pair in enumerate(product(TABLES, (*CHANGES, *PLACES))) if number % 5 == 0],
)
def test_nothing_is_read_or_written_while_a_table_is_changed(own: Api, table: str, change: str) -> None:
    """An alert was answered 200 and swallowed; a view without end kept a thread for ever."""
    names = {"table": table, "names": ", ".join(TABLES[table]), "first": TABLES[table][0]}
    folder = own.process.folder
    if change in PLACES:
        tamper(folder, f"ALTER TABLE {table} RENAME TO old", PLACES[change].format(**names))
    else:
        tamper(folder, CHANGES[change].format(**names))
    found = own.statuses()
    assert set(found.values()) <= {503, 200}
    assert {found[path] for path in ("/alerts", "webhook", "key k1", "report", "/audit")} == {503}
    if change != "no table":  # a start makes it again
        with pytest.raises(CelerymeterError, match=r"--state-dir|state directory"):
            opened(folder)


def test_tables_of_others_are_left_alone(own: Api) -> None:
    """An operator may keep a copy in the same file."""
    tamper(own.process.folder, "CREATE TABLE copy AS SELECT * FROM alerts", "CREATE INDEX i ON copy (name)", "ANALYZE")
    assert set(own.statuses().values()) == {200}
    opened(own.process.folder).process.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_broken_disk_is_a_clear_error(own: Api, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever of the file is overwritten: the answers are right, or 503; a start names the directory."""
    chosen = random.Random(seed)
    folder = own.process.folder
    tamper(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
    with (folder / DATABASE).open("r+b") as file:
        size = file.seek(0, 2)
        for _ in range(chosen.choice((1, 3, 30))):
            file.seek(chosen.randrange(0 if seed % 3 else 4096, size))
            file.write(chosen.choice((b"\0" * 500, b"\xff" * 8, chosen.randbytes(200))))
    assert set(own.statuses().values()) <= {200, 404, 409, 422, 503}
    with suppress(CelerymeterError):
        opened(folder).process.close()
    assert "unexpected error" not in caplog.text
    assert json.loads(own.ask("GET", "/system/info").data)


def spoil(folder: Path, table: str, change: Callable[[bytes, int], bytes]) -> None:
    """Change the bytes of the database's file; ``change`` also gets the place of the table's first page."""
    file = folder / DATABASE
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    file.write_bytes(change(file.read_bytes(), (root - 1) * size))


def test_a_row_that_claims_gigabytes_is_a_clear_error(tmp_path: Path) -> None:
    """`sqlite3` raises MemoryError for it, which was an unexpected error."""
    with closing(Store(tmp_path)) as store:
        store.declare("CREATE TABLE IF NOT EXISTS t (a, b)")
        with store.write() as connection:
            connection.executemany("INSERT INTO t VALUES (?, ?)", [("x" * 200, "y" * 300), ("x" * 200, "z" * 100)])

        def lengthen(content: bytes, page: int) -> bytes:
            cell = page + int.from_bytes(content[page + 8 : page + 10], "big")
            claimed = b"\x8f\xff\xff\xff\x7f"  # 4 GiB
            return content[:cell] + claimed + content[cell + len(claimed) :]

        spoil(tmp_path, "t", lengthen)
        with pytest.raises(StateError, match="cannot be used: it needs more memory than there is"):
            store.read("SELECT * FROM t")
        with pytest.raises(StateError), store.write() as connection:
            connection.execute("DELETE FROM t WHERE b = 'y'")


def test_a_broken_name_is_a_clear_error(own: Api, caplog: pytest.LogCaptureFixture) -> None:
    """`sqlite3` decodes its errors: for one that quotes what is no UTF-8 it raises another."""
    folder = own.process.folder
    spoil(folder, "alerts", lambda content, _: content.replace(b"CREATE TABLE alerts", b"CREATE TABL\xff alerts"))
    assert {own.ask("GET", path).status_code for path in ("/alerts", "/audit", "/monitoring/reports")} == {503}
    assert "unexpected error" not in caplog.text
    assert r'malformed database schema (alerts) - near "TABL\xff": syntax error' in caplog.text
    with pytest.raises(SettingsError, match=r"cannot hold a database .*malformed database schema"):
        opened(folder)
    with pytest.raises(StateError, match=r"the audit trail cannot be read: .*malformed database schema"):
        list(read_rows(folder))


def test_a_changed_database_is_refused_at_the_start(own: Api) -> None:
    """In one line that names the option and what was found."""
    tamper(own.process.folder, CHANGES["a trigger"].format(table="alerts"))
    with pytest.raises(SettingsError, match=r"--state-dir .*: the trigger 't' was added"):
        opened(own.process.folder)
