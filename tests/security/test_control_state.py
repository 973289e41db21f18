"""Whoever may write rows of the state directory gets clear errors: no stack trace, no endless wait."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from tests.security.process import peak_of
from tests.security.state_directory import TABLES, Api, filled, opened, tamper

from celerymeter.control import store as store_module
from celerymeter.control.audit.trail import MAX_ORPHANS
from celerymeter.control.store import DATABASE, MAX_READ, MAX_VALUE

COLUMNS: Final = [(table, column) for table in TABLES for column in TABLES[table]]
NESTED = "replace(hex(zeroblob(20000)), '0', '[')"
VALUES: Final = [
    *("NULL", "''", "'x'", "x'ff'", "x''", "CAST(x'fffe' AS TEXT)", "char(0, 27, 10, 8238) || '[2J'"),
    *("1e300", "-1e300", "9e999", "-5", "2.5", "9223372036854775807", "'null'", "'[]'", "'{}'", "'[1, {}]'"),
    *(r"""'{"a": "\ud800"}'""", "'NaN'", """'{"task_id": 5}'""", NESTED, "hex(zeroblob(2000000))"),
]
"""What any column may hold, whatever its type: SQLite takes everything everywhere."""
LARGEST: Final = "9223372036854775807"
"""After it there is no number for the next row."""
DOCUMENTS: Final = {"labels", "annotations", "intent", "asked", "workers", "result", "answer", "body"}
"""Columns of JSON, which get all values; of the others each gets a third, and the next one another third."""


def values_of(number: int, column: str) -> list[str]:
    """Return the values for a column, by its number in `COLUMNS`."""
    chosen = VALUES if column in DOCUMENTS else VALUES[number % 3 :: 3]
    return [value for value in chosen if column not in ("id", "number") or value != LARGEST]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API for all odd values, which are taken back after each."""
    made = filled(tmp_path_factory.mktemp("state"))
    yield made
    made.process.close()


def without_constraints(folder: Path, table: str, *statements: str) -> None:
    """Change the rows of a table as if it had no constraint, and give it back its own."""
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("PRAGMA writable_schema = ON")
        free = sql.replace(" NOT NULL", "")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (free, table))
        connection.execute("PRAGMA writable_schema = RESET")
        for statement in statements:
            with suppress(sqlite3.IntegrityError):
                connection.execute(statement)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
        connection.execute("PRAGMA writable_schema = RESET")


FIRST: Final = {
    "alerts": "name = 'a1'",
    "revoke_batches": "batch = 'b1'",
    "revoke_tasks": "batch = 'b1'",
    "revoke_keys": "key = 'k1'",
    "reports": "number = 1",
    "monitoring_ours": "hostname = 'w1@h'",
}
"""One of the two."""


def rows(folder: Path, table: str) -> list[tuple[Any, ...]]:
    """All rows of a table."""
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


def put_back(folder: Path, table: str, kept: list[tuple[Any, ...]]) -> None:
    """Give a table the rows that it had."""
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute(f"DELETE FROM {table}")
        connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(TABLES[table]))})", kept)


@pytest.mark.parametrize("number", range(len(COLUMNS)), ids=[".".join(one) for one in COLUMNS])
def test_a_row_of_any_values_breaks_nothing(api: Api, caplog: pytest.LogCaptureFixture, number: int) -> None:
    """`GET /alerts`, a revoke with the same key or the start failed with a stack trace, for all rows, for ever."""
    (table, column), folder = COLUMNS[number], api.process.folder
    kept = rows(folder, table)
    for value in values_of(number, column):
        statement = f"UPDATE OR IGNORE {table} SET {column} = {value} WHERE {FIRST.get(table, '1')}"
        without_constraints(folder, table, statement)
        found = api.statuses(table)
        assert set(found.values()) <= {200, 404, 409, 422, 503}, value
        first = ("/tasks/batch/b1", "key k1", *(path for path in found if api.reports[0] in path))
        others = {path: status for path, status in found.items() if path not in first}
        assert set(others.values()) == {200}, (value, others)
        put_back(folder, table, kept)
    assert "unexpected error" not in caplog.text


def test_a_start_on_rows_of_any_values(own: Api, caplog: pytest.LogCaptureFixture) -> None:
    """It follows the batches that it can read."""
    folder = own.process.folder
    kept = {table: rows(folder, table) for table in TABLES}
    for value in VALUES[::4]:
        for table, columns in TABLES.items():
            updates = [f"UPDATE OR IGNORE {table} SET {column} = {value}" for column in columns]
            without_constraints(folder, table, *updates)
        again = opened(folder)
        again.process.parts.followup.resume()
        again.process.run_threads()
        again.process.parts.maintenance.round()
        again.process.close()
        for table in TABLES:
            put_back(folder, table, kept[table])
    assert "unexpected error" not in caplog.text


def test_what_cannot_be_used_is_counted_and_logged(own: Api, caplog: pytest.LogCaptureFixture) -> None:
    """And the others are shown."""
    tamper(own.process.folder, "UPDATE alerts SET labels = 'x' WHERE name = 'a1'")
    before = own.unusable()
    assert [one["name"] for one in own.ask("GET", "/alerts").get_json()["alerts"]] == ["new 1", "a2"]
    assert own.unusable() == before + 1
    assert "1 row(s) of alerts in the state directory cannot be used" in caplog.text


@pytest.mark.parametrize("number", ["1e308", "-1e308", "-1", "0", "9223372036854775807", "null", '"x"'])
def test_a_report_of_any_numbers_is_shown_or_refused(own: Api, number: str) -> None:
    """A row of a report may be JSON of the right form and yet make no sense."""
    with closing(sqlite3.connect(own.process.folder / DATABASE, isolation_level=None)) as connection:
        (body,) = connection.execute("SELECT body FROM reports WHERE number = 1").fetchone()
        changed = re.sub(rb"(?<=[:\\[,])-?[0-9.e+]+(?=[,}\\]])", number.encode(), body)
        connection.execute("UPDATE reports SET body = ? WHERE number = 1", (changed,))
    found = own.statuses("reports")
    assert set(found.values()) <= {200, 503}
    assert {status for path, status in found.items() if own.reports[0] not in path} == {200}


COPY = "fingerprint, 'firing', starts_at, n + 1.0, received_at, name, severity"


def test_rows_without_number_end_a_query_in_time(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand states of one alert are compared with each other: minutes for one answer."""
    monkeypatch.setattr(store_module, "TIMEOUT", 1.0)
    count = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 100000)"
    columns = "fingerprint, status, starts_at, ends_at, received_at, name, severity, labels, annotations"
    tamper(
        own.process.folder,
        f"INSERT INTO alerts ({columns}) {count} SELECT {COPY}, labels, annotations FROM alerts, n WHERE name = 'a1'",
    )
    begun = time.monotonic()
    assert own.ask("GET", "/alerts").status_code == 503
    assert time.monotonic() - begun < 10
    assert own.ask("GET", "/monitoring/reports").status_code == 200


@pytest.mark.parametrize("size", [MAX_VALUE - 1_000_000, MAX_VALUE + 1_000_000])
def test_huge_values_take_bounded_memory(own: Api, size: int) -> None:
    """Forty alerts of 15 MB were 600 MB and more for one answer."""
    columns = "fingerprint, status, starts_at, ends_at, received_at, name, severity, labels, annotations"
    text = f"""'{{"a": "' || replace(hex(zeroblob({size // 2})), '0', 'x') || '"}}'"""
    count = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 8)"
    insert = (
        f"INSERT INTO alerts ({columns}) {count} SELECT fingerprint || n, 'firing', starts_at, 0, received_at, name"
    )
    tamper(own.process.folder, f"{insert}, severity, {text}, annotations FROM alerts, n WHERE name = 'a1'")
    reply, peak = peak_of(lambda: own.ask("GET", "/alerts"))
    assert reply.status_code == 503
    assert peak < 3 * MAX_READ / 1e6
    assert own.alert("another").status_code == 200


def test_one_odd_number_makes_no_other_alert_go(own: Api) -> None:
    """All below the highest id by 10,000 went with the next alert."""
    tamper(own.process.folder, f"UPDATE alerts SET id = {2**62} WHERE name = 'a1'")
    assert own.alert("next").status_code == 200
    names = [alert["name"] for alert in own.ask("GET", "/alerts").get_json()["alerts"]]
    assert names == ["next", "a1", "new 1", "a2"]


def test_intents_of_anybody_are_ended_in_steps(own: Api) -> None:
    """Also those of a process without a name."""
    count = "WITH RECURSIVE n(n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM n LIMIT 2500)"
    tamper(own.process.folder, "DELETE FROM audit_open")
    without_constraints(own.process.folder, "audit_open", f"INSERT INTO audit_open {count} SELECT n, NULL FROM n")
    trail = own.process.parts.audit
    assert [trail.mark_orphans() for _ in range(4)] == [MAX_ORPHANS, MAX_ORPHANS, 500, 0]
