"""Whoever may write the state directory, or a disk that breaks, gets clear errors: no stack trace, no endless wait."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
from flask.testing import FlaskClient
from tests.control.access import bearer, control_settings
from tests.reports import samples
from tests.revocation.process import ControlProcess
from tests.security.process import peak_of
from werkzeug.test import TestResponse

from celerymeter.control import store as store_module
from celerymeter.control.app import create_app
from celerymeter.control.audit.trail import MAX_ORPHANS
from celerymeter.control.reports import ReportRunner, ReportStore
from celerymeter.control.settings import RequestLimits
from celerymeter.control.store import DATABASE, MAX_READ, MAX_VALUE
from celerymeter.control.tokens import Role
from celerymeter.errors import CelerymeterError, SettingsError
from celerymeter.reports.report import Report
from celerymeter.reports.request import ReportRequest

LAST = ("severity", "labels", "annotations")
REPORT = "/monitoring/reports/performance"
TOKEN = "alertmanager's own token, of enough bytes for anybody"
TABLES: Final = {
    "alerts": [
        "id",
        "fingerprint",
        "status",
        "starts_at",
        "ends_at",
        "received_at",
        "name",
        "severity",
        "labels",
        "annotations",
    ],
    "revoke_batches": ["batch", "at", "intent", "asked", "workers"],
    "revoke_tasks": ["batch", "place", "task_id", "status", "result"],
    "revoke_keys": ["scope", "key", "body", "batch", "at", "status", "answer"],
    "reports": ["number", "id", "asked_at", "begins", "ends", "task", "queue", "problem", "body", "sub"],
    "monitoring": ["id", "events", "feed_on", "since"],
    "monitoring_ours": ["hostname", "at"],
    "audit_open": ["intent", "instance"],
    "audit_probe": ["id", "at"],
    "tokens": ["jti", "exp"],
}
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


@dataclass
class Api:
    """The API on a state directory, with two of everything that is kept."""

    process: ControlProcess
    client: FlaskClient
    reports: list[str]
    number: int = 0
    token: dict[str, str] = field(default_factory=lambda: bearer(Role.ADMIN))

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> TestResponse:
        """Send a request; no answer is an unexpected error, and none takes long."""
        begun = time.monotonic()
        sent = {**self.token, **headers}
        reply = self.client.open(f"/celery-admin{path}", method=method, json=body, headers=sent)
        assert reply.status_code != 500, path
        assert time.monotonic() - begun < 30, path
        return reply

    def alert(self, name: str) -> TestResponse:
        """Post an alert as Alertmanager does."""
        alert = {"labels": {"alertname": name}, "status": "firing", "startsAt": "2026-01-01T00:00:00Z"}
        return self.ask("POST", "/alerts/webhook", {"alerts": [alert]}, Authorization=f"Bearer {TOKEN}")

    def revoke(self, key: str) -> TestResponse:
        """Revoke a task once for each key."""
        body = {"task_ids": [f"task-{key}"], "operation": "revoke"}
        return self.ask("POST", "/tasks/batch", body, **{"Idempotency-Key": key})

    def statuses(self, table: str = "") -> dict[str, int]:
        """Ask for all that a table has (or for everything), and have something new kept; return the statuses."""
        self.number += 1
        asked = {"alerts": self._alerts, "revoke": self._revokes, "reports": self._reports, "other": self._others}
        chosen = [ask for name, ask in asked.items() if table.startswith(name)]
        chosen = chosen or ([self._others] if table else list(asked.values()))
        found = {path: status for ask in chosen for path, status in ask().items()}
        self.process.parts.maintenance.round()
        return found

    def _alerts(self) -> dict[str, int]:
        posted = self.alert(f"new {self.number}").status_code
        return {"webhook": posted, "/alerts": self.ask("GET", "/alerts").status_code}

    def _revokes(self) -> dict[str, int]:
        found = {f"/tasks/batch/{one}": self.ask("GET", f"/tasks/batch/{one}").status_code for one in ("b1", "b2")}
        return found | {f"key {key}": self.revoke(key).status_code for key in ("k1", "k2", f"new {self.number}")}

    def _reports(self) -> dict[str, int]:
        made = self.ask("POST", REPORT, {"start": "-1h", "end": "now"}).status_code
        paths = ["", *(f"/{one}{form}" for one in self.reports for form in ("", ".html", ".csv", ".md"))]
        found = {path: self.ask("GET", f"/monitoring/reports{path}").status_code for path in paths}
        return {"report": made, **found}

    def _others(self) -> dict[str, int]:
        found = {path: self.ask("GET", path).status_code for path in ("/audit", "/system/status")}
        return {**found, "monitoring": self.ask("POST", "/monitoring/stop").status_code}

    def unusable(self) -> float:
        """Return the number of alerts that were found and left out."""
        return self.process.sample("celerymeter_control_unreadable_rows_total", table="alerts") or 0.0


def make(request: ReportRequest, *, report_id: str) -> Report:
    """Make a report of nothing."""
    return samples.report(report_id=report_id, filters=request.filters)


def opened(folder: Path) -> Api:
    """Start the API on a folder."""
    limits = RequestLimits(requests_per_minute=1e9, auth_failures_per_minute=1e9)
    settings = replace(control_settings(), webhook_token=TOKEN.encode(), limits=limits)
    process = ControlProcess(folder, settings)
    runner = ReportRunner(make, ReportStore(process.parts.store), timeout=60)
    parts = replace(process.parts, reports=runner)
    return Api(process, create_app(settings, parts).test_client(), [])


def filled(folder: Path) -> Api:
    """Start the API on a new folder, and have two of everything kept."""
    api = opened(folder)
    for number in (1, 2):
        assert api.alert(f"a{number}").status_code == 200
        assert api.revoke(f"k{number}").status_code == 200
        made = api.ask("POST", REPORT, {"start": "-1h", "end": "now"}).get_json()
        api.reports.append(made["report_id"])
        api.process.begin(f"open-{number}", batch=f"b{number}")
        tamper(folder, f"INSERT OR REPLACE INTO monitoring_ours VALUES ('w{number}@h', {time.time()})")
    assert set(api.statuses().values()) == {200}
    api.process.remote.silent = False
    return api


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API for all odd values, which are taken back after each."""
    made = filled(tmp_path_factory.mktemp("state"))
    yield made
    made.process.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Api]:
    """An API whose database may be spoiled."""
    made = filled(tmp_path)
    yield made
    with suppress(sqlite3.Error):
        made.process.close()


def tamper(folder: Path, *statements: str) -> None:
    """Change the file, as somebody can who may write it."""
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


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
    [pair for number, pair in enumerate(product(TABLES, (*CHANGES, *PLACES))) if number % 5 in (0, 2)],
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
    assert set(own.statuses().values()) <= {200, 404, 409, 503}
    with suppress(CelerymeterError):
        opened(folder).process.close()
    assert "unexpected error" not in caplog.text
    assert json.loads(own.ask("GET", "/system/info").data)


def test_a_changed_database_is_refused_at_the_start(own: Api) -> None:
    """In one line that names the option and what was found."""
    tamper(own.process.folder, CHANGES["a trigger"].format(table="alerts"))
    with pytest.raises(SettingsError, match=r"--state-dir .*: the trigger 't' was added"):
        opened(own.process.folder)
