"""``celerymeter audit show|verify``."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celerymeter.control.audit.offline import verify
from celerymeter.control.audit.trail import Actor, kept_key, open_trail
from celerymeter.control.store import DATABASE
from celerymeter.errors import CelerymeterError

from .conftest import Run


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with one action and two refusals in its trail."""
    with open_trail(tmp_path, None) as trail:
        with trail.act(Actor("ann", "t1", "192.0.2.1"), "tasks.revoke", target=["a", "b"], reason="too\nmany") as act:
            act.detail = {"terminated": 1}
        for address in ("192.0.2.2", "192.0.2.3"):
            trail.refusal(Actor("", "", address), "authenticate", reasons={"missing": 1})
    return tmp_path


def test_show_prints_the_last_rows(run: Run, state: Path) -> None:
    """Oldest first, one line each, whatever they contain."""
    lines = run("audit", "show", "--state-dir", state, "--last", "3").out.splitlines()
    assert [line.split()[0] for line in lines] == ["2", "3", "4"]
    whole = run("audit", "show", "--state-dir", state).out.splitlines()
    assert "ann@192.0.2.1 tasks.revoke a, b reason='too\\nmany'" in whole[0]


def test_show_filters(run: Run, state: Path) -> None:
    """Subject and action choose the rows."""
    outcome = run("audit", "show", "--state-dir", state, "--sub", "ann", "--action", "tasks.revoke", "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(row["kind"], row["target"], row["detail"]) for row in rows] == [
        ("intent", ["a", "b"], {}),
        ("outcome", [], {"terminated": 1}),
    ]


def test_verify_finds_nothing_in_an_untouched_trail(run: Run, state: Path) -> None:
    """It prints the head, which a later call accepts."""
    outcome = run("audit", "verify", "--state-dir", state)
    head = outcome.out.split()[-1]
    assert (outcome.status, re.fullmatch(r"4:[0-9a-f]{64}", head) is not None) == (0, True)
    assert run("audit", "verify", "--state-dir", state, "--head", head).status == 0


def test_verify_exits_1_for_a_finding(run: Run, state: Path) -> None:
    """A row that was removed from the end is found with an earlier head."""
    head = run("audit", "verify", "--state-dir", state).out.split()[-1]
    with sqlite3.connect(state / DATABASE) as connection:
        connection.execute("DELETE FROM audit WHERE row = 4")
    connection.close()
    assert run("audit", "verify", "--state-dir", state).status == 0
    outcome = run("audit", "verify", "--state-dir", state, "--head", head)
    assert (outcome.status, "row 4: the row that was the head is gone" in outcome.out) == (1, True)


def test_verify_takes_the_operators_key(run: Run, state: Path, tmp_path: Path) -> None:
    """With another key every row is a finding, with the original key none is."""
    (tmp_path / "another").write_text("another key of enough bytes for a trail")
    another = run("audit", "verify", "--state-dir", state, "--audit-key-file", tmp_path / "another")
    kept = run("audit", "verify", "--state-dir", state, "--audit-key-file", state / "audit.key")
    assert (another.status, another.out.count("was changed"), kept.status) == (1, 4, 0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show"], "--state-dir: missing"),
        (["show", "--state-dir", "/nonexistent"], "--state-dir /nonexistent: contains no state.db"),
        (["verify", "--state-dir", "/nonexistent"], "--state-dir /nonexistent: contains no state.db"),
    ],
)
def test_a_wrong_value_is_one_line(run: Run, words: list[str], says: str) -> None:
    """Exit status 2."""
    outcome = run("audit", *words)
    assert (outcome.status, says in outcome.err, outcome.err.count("\n")) == (2, True, 1), outcome.err


def test_a_trail_without_its_key_says_what_to_give(run: Run, state: Path) -> None:
    """The key may be kept elsewhere."""
    (state / "audit.key").unlink()
    outcome = run("audit", "verify", "--state-dir", state)
    assert (outcome.status, "give --audit-key-file" in outcome.err) == (2, True)


def test_a_head_with_a_typing_error_is_refused(run: Run, state: Path) -> None:
    """It is a wrong setting, not a finding."""
    outcome = run("audit", "verify", "--state-dir", state, "--head", "4:abc")
    assert (outcome.status, "--head: not ROW:HMAC" in outcome.err) == (2, True)


def test_an_empty_trail_proves_nothing(run: Run, tmp_path: Path) -> None:
    """It may be a copy of a database whose rows are still in the log beside it."""
    with open_trail(tmp_path, None):
        pass
    outcome = run("audit", "verify", "--state-dir", tmp_path)
    assert outcome.status == 0
    assert "the last rows are missing unless state.db-wal was copied with state.db" in outcome.out


@pytest.fixture
def backup(state: Path) -> Iterator[Path]:
    """A copy of the database in a folder that its reader, who is not root, cannot write."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shutil.copy(state / DATABASE, folder)
        (folder / DATABASE).chmod(0o644)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def as_nobody(call: Callable[[], object]) -> str:
    """Return the result of a call, or its error, as text; of a user who is not root."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            return as_nobody(call)
        finally:
            os.seteuid(0)
    try:
        return str(call())
    except CelerymeterError as error:
        return str(error)


def test_a_read_only_backup_is_verified(backup: Path, state: Path) -> None:
    """Without a file beside it."""
    key = kept_key(state)
    assert as_nobody(lambda: verify(backup, key=key, head=None).rows) == "4"
    assert [each.name for each in backup.iterdir()] == [DATABASE]


def test_a_read_only_backup_with_a_log_is_to_be_copied(backup: Path, state: Path) -> None:
    """The log has rows, and cannot be read without a file beside it."""
    key = kept_key(state)
    log = backup / f"{DATABASE}-wal"
    backup.chmod(0o755)
    log.write_bytes(b"\x37\x7f\x06\x82" + bytes(60))
    log.chmod(0o644)
    backup.chmod(0o555)
    assert "is read-only: copy it, with state.db-wal" in as_nobody(lambda: verify(backup, key=key, head=None))
