"""``celerymeter audit show|verify``."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest

from celerymeter.control.audit.trail import Actor, open_trail
from celerymeter.control.store import DATABASE

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
