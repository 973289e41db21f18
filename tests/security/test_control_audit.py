"""With write access to the audit trail's file, but not its key, nobody can silence it or shorten it unnoticed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.security.state_directory import tamper

from celerymeter.cli import main
from celerymeter.control.audit.offline import verify
from celerymeter.control.audit.trail import Actor, AuditQuery, AuditTrail
from celerymeter.control.audit.views import AuditPage
from celerymeter.control.store import DATABASE, Store
from celerymeter.errors import SettingsError, StateError

KEY = b"the key of these tests' trails, long enough"
ANN, EVE = Actor("ann", "token-1", "192.0.2.1"), Actor("eve", "token-2", "192.0.2.2")
COPY = "kind, at, action, intent, sub, jti, address, target, reason, outcome, detail, instance, mac FROM audit"


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[AuditTrail]:
    """The trail of a process, with four rows."""
    store = Store(tmp_path)
    trail = AuditTrail(store, key=KEY)
    for _ in range(4):
        trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    yield trail
    store.close()


SILENCERS = [
    "CREATE TRIGGER t BEFORE INSERT ON audit WHEN NEW.sub = 'eve' BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER t AFTER INSERT ON audit WHEN NEW.sub = 'eve' BEGIN DELETE FROM audit WHERE row = NEW.row; END",
    "CREATE TRIGGER t AFTER INSERT ON audit_probe BEGIN DELETE FROM audit WHERE sub = 'eve'; END",
    "CREATE TRIGGER t BEFORE INSERT ON tokens WHEN NEW.jti = 'token-2' BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER t AFTER INSERT ON audit_open BEGIN UPDATE audit SET sub = 'ann' WHERE sub = 'eve'; END",
    "CREATE VIEW v AS SELECT * FROM audit",
]


@pytest.mark.parametrize("silencer", SILENCERS)
def test_nothing_is_done_while_a_trigger_could_swallow_its_row(
    trail: AuditTrail, tmp_path: Path, silencer: str
) -> None:
    """Neither an act, nor a refusal, nor a token; `verify` and the next start name it."""
    tamper(tmp_path, silencer)
    done = []
    with pytest.raises(StateError, match="was added"), trail.act(EVE, "monitoring.stop"):
        done.append("it")
    with pytest.raises(StateError, match="was added"):
        trail.refusal(EVE, "authenticate", reasons={"missing": 1})
    with pytest.raises(StateError, match="was added"):
        trail.token(EVE, "token.first_use", exp=2e9, detail={})
    with pytest.raises(StateError, match="was added"):
        trail.probe()
    assert done == []
    assert "added to the database" in verify(tmp_path, key=KEY, head=None).findings[0].message
    with pytest.raises(SettingsError, match="did not make"):
        AuditTrail(trail._store, key=KEY)


@pytest.mark.parametrize(
    "clause",
    ["sub TEXT UNIQUE ON CONFLICT IGNORE", "sub TEXT", "sub TEXT NOT NULL ON CONFLICT IGNORE", "sub BLOB"],
)
def test_a_table_that_takes_rows_otherwise_is_noticed(trail: AuditTrail, tmp_path: Path, clause: str) -> None:
    """A conflict clause needs no trigger."""
    columns = ", ".join(column for column in COPY.removesuffix(" FROM audit").split(", ") if column != "sub")
    tamper(
        tmp_path,
        "ALTER TABLE audit RENAME TO old",
        f"CREATE TABLE audit (row INTEGER PRIMARY KEY, {clause}, {columns}, UNIQUE (action) ON CONFLICT IGNORE)",
        f"INSERT INTO audit (row, sub, {columns}) SELECT row, sub || row, {columns} FROM old WHERE row = 4",
    )
    with pytest.raises(StateError, match=r"'audit.*' was (changed|added|removed)"):
        trail.refusal(EVE, "authenticate", reasons={"missing": 1})


TAILS = {
    "the last row": ("DELETE FROM audit WHERE row = 4",),
    "several rows": ("DELETE FROM audit WHERE row > 2",),
    "all rows": ("DELETE FROM audit",),
    "the last row's HMAC": ("UPDATE audit SET mac = x'00' WHERE row = 4",),
    "an older copy of it": ("DELETE FROM audit WHERE row = 4", f"INSERT INTO audit SELECT 4, {COPY} WHERE row = 3"),
    "a row without the key": (f"INSERT INTO audit SELECT 5, {COPY} WHERE row = 4",),
    "a row far behind": (f"INSERT INTO audit SELECT 900, {COPY} WHERE row = 4",),
    "a tail that begins later": ("UPDATE audit SET row = row + 1 WHERE row = 4",),
}


@pytest.mark.parametrize("cut", TAILS.values(), ids=TAILS.keys())
def test_a_chain_that_was_cut_is_not_signed_on(trail: AuditTrail, tmp_path: Path, cut: tuple[str, ...]) -> None:
    """The process remembers its last row; between two logged heads nothing else could tell."""
    tamper(tmp_path, *cut)
    before = sqlite3.connect(tmp_path / DATABASE).execute("SELECT count(*) FROM audit").fetchone()
    for _ in range(2):
        with pytest.raises(StateError, match="is not written"):
            trail.refusal(EVE, "authenticate", reasons={"missing": 1})
    with pytest.raises(StateError, match="is not written"):
        trail.probe()
    assert sqlite3.connect(tmp_path / DATABASE).execute("SELECT count(*) FROM audit").fetchone() == before


NESTED = "replace(hex(zeroblob(5000)), '0', '[')"
VALUES = {
    "at": ["1e300", "-1e300", "9e999", "'x'", "x'00ff'", "253402300800"],
    "kind": ["x'ff'", "CAST(kind AS BLOB)", "char(27) || '[2J'"],
    "action": ["x'ff'", "CAST(x'ff' AS TEXT)", "char(10, 8238) || 'forged'", "hex(zeroblob(1000000))"],
    "intent": ["'x'", "x'00'", "1.5", "-5", "CAST(zeroblob(100) AS TEXT)"],
    "sub": ["x'ff'", "CAST(x'fffe' AS TEXT)", "char(0) || 'a'"],
    "target": ["'x'", "''", "'{}'", "'5'", "'null'", "'[1, 2]'", """'["a", {}]'""", "'[NaN]'", "x'ff'", NESTED],
    "reason": ["x'ff'", "char(13, 10) || 'forged'"],
    "outcome": ["x'ff'"],
    "detail": [
        "'x'",
        "'[]'",
        "'5'",
        """'{"a": NaN}'""",
        """'{"a": 1e999}'""",
        r"""'{"a": "\ud800"}'""",
        "x'ff'",
        NESTED,
    ],
    "mac": ["'x'", "7", "x''", "zeroblob(1000000)"],
}


@pytest.mark.parametrize(("column", "value"), [(column, value) for column in VALUES for value in VALUES[column]])
def test_a_row_of_any_values_hides_no_other(
    trail: AuditTrail, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, value: str
) -> None:
    """`audit show` ended with a stack trace at that row, and the API with an error, for as long as it was there."""
    tamper(tmp_path, f"UPDATE audit SET {column} = {value} WHERE row = 3")
    for options in ([], ["--json"]):
        assert main(["audit", "show", "--state-dir", str(tmp_path), *options]) == 0
        out = capsys.readouterr().out
        assert len(out.splitlines()) == 4
        assert out.replace("\n", "").isprintable()
        assert len(out) < 100_000
    assert verify(tmp_path, key=KEY, head=None).findings[0].row == 3
    assert trail.page(AuditQuery(target="of none"), 100) == []
    page = AuditPage(rows=trail.page(AuditQuery(), 100), next=None, head="")
    assert [row.row for row in page.rows] == [4, 3, 2, 1]
    assert len(page.model_dump_json()) < 100_000


NAMES = "kind, at, action, intent, sub, jti, address, target, reason, outcome, detail, instance, mac"
OLD = COPY.replace("audit", "old")
ENDLESS = f"WITH RECURSIVE n(row) AS (SELECT 1 UNION ALL SELECT row + 1 FROM n) SELECT n.row, {OLD}, n"
TABLES = {
    "a view without end": f"CREATE VIEW audit AS {ENDLESS}",
    "a virtual table": f"CREATE VIRTUAL TABLE audit USING fts5(row, {NAMES})",
    "a column that is computed": f"CREATE TABLE audit (row INTEGER PRIMARY KEY, {NAMES.replace('sub,', '')}, "
    "sub AS (hex(zeroblob(400000000))))",
    "numbers that are texts": f"CREATE TABLE audit (row TEXT PRIMARY KEY, {NAMES}) WITHOUT ROWID",
    "no table": "SELECT 1",
}


@pytest.mark.parametrize("command", ["show", "verify"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_another_table_in_its_place_is_not_read(
    trail: AuditTrail, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, command: str
) -> None:
    """It could have rows without end, or values of any length."""
    tamper(tmp_path, "ALTER TABLE audit RENAME TO old", table)
    if "INTEGER" not in table and "CREATE TABLE" in table:
        tamper(tmp_path, f"INSERT INTO audit (row, {NAMES}) SELECT 'x' || row, {OLD}")
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    options = ["--audit-key-file", str(tmp_path / "key")] if command == "verify" else []
    assert main(["audit", command, "--state-dir", str(tmp_path), *options]) == 1
    printed = capsys.readouterr().err
    assert "somebody has changed it" in printed
    assert len(printed.splitlines()) == 1


def test_a_command_beside_the_program_may_write(trail: AuditTrail, tmp_path: Path) -> None:
    """`celerymeter token` has the key: both go on with one chain."""
    other = AuditTrail(trail._store, key=KEY)
    for each in (other, trail, other, other, trail):
        each.refusal(ANN, "authenticate", reasons={"missing": 1})
    assert trail.prune(2e9) > 0
    trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    assert verify(tmp_path, key=KEY, head=None).findings == ()


def test_every_act_logs_the_head(trail: AuditTrail, caplog: pytest.LogCaptureFixture) -> None:
    """Both its begin and its end do: a log kept elsewhere proves both."""
    with caplog.at_level("INFO"), trail.act(ANN, "monitoring.start"):
        pass
    heads = [str(record.audit_head) for record in caplog.records if hasattr(record, "audit_head")]
    assert [head.partition(":")[0] for head in heads] == ["5", "6"]
    assert heads[-1] == str(trail.head())


def test_verify_says_when_the_end_is_not_proven(
    trail: AuditTrail, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a head, and with an earlier one; with the last one it says nothing."""
    early = str(trail.head())
    trail.refusal(ANN, "authenticate", reasons={"missing": 1})
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    common = ["audit", "verify", "--state-dir", str(tmp_path), "--audit-key-file", str(tmp_path / "key")]
    said = []
    for head in ([], ["--head", early], ["--head", str(trail.head())]):
        assert main([*common, *head]) == 0
        said.append(capsys.readouterr().out)
    assert "the end is not proven" in said[0]
    assert "proven only up to row 4" in said[1]
    assert "proven" not in said[2]
