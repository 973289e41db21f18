"""``celerymeter token``."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from celerymeter.cli.token import command
from celerymeter.control.audit.offline import read_rows
from celerymeter.control.audit.trail import open_trail
from celerymeter.control.settings import JwtSettings
from celerymeter.control.tokens import Keyring, Role

from .conftest import Run

SECRET = "a secret of enough bytes for a token"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with the API's secret."""
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


def test_the_last_line_is_a_token_that_the_api_accepts(run: Run, secret: Path) -> None:
    """The line holds nothing else, so that a shell can use it."""
    outcome = run("token", "--jwt-secret-file", secret, "--role", "operator", "--ttl", "2h", "--subject", "ann")
    who = Keyring(JwtSettings(secrets=(SECRET.encode(),))).verify(outcome.out.splitlines()[-1])
    assert (outcome.status, who.sub, who.role) == (0, "ann", Role.OPERATOR)
    assert 7100 < who.exp - time.time() <= 7200


def test_issuer_and_audience_are_in_the_token(run: Run, secret: Path) -> None:
    """An API that requires them accepts it."""
    words = ("--subject", "ann", "--jwt-issuer", "us", "--jwt-audience", "it")
    token = run("token", "--jwt-secret-file", secret, *words).out.splitlines()[-1]
    settings = JwtSettings(secrets=(SECRET.encode(),), issuer="us", audience="it")
    assert Keyring(settings).verify(token).role == Role.VIEWER


def test_of_two_secrets_the_first_one_signs(run: Run, secret: Path, tmp_path: Path) -> None:
    """The second one still verifies older tokens."""
    older = tmp_path / "older"
    older.write_text("older" * 8)
    token = run("token", "--jwt-secret-file", secret, "--jwt-secret-file", older, "--subject", "ann").out.split()[-1]
    assert Keyring(JwtSettings(secrets=(SECRET.encode(),))).verify(token).sub == "ann"


def test_a_minted_token_is_in_the_audit_trail(run: Run, secret: Path, tmp_path: Path) -> None:
    """The row does not hold the token itself."""
    with open_trail(tmp_path / "state", None):
        pass
    outcome = run("token", "--jwt-secret-file", secret, "--subject", "ann", "--state-dir", tmp_path / "state")
    (row,) = read_rows(tmp_path / "state")
    assert (row.action, row.sub, row.address) == ("token.mint", "ann", "shell")
    assert outcome.out.split()[-1] not in str(row)


def test_a_mistyped_state_directory_is_refused(run: Run, secret: Path, tmp_path: Path) -> None:
    """Else the token would be in a new trail there, and the API's trail would know nothing of it."""
    for folder in (tmp_path / "nodir", tmp_path):
        outcome = run("token", "--jwt-secret-file", secret, "--subject", "ann", "--state-dir", folder)
        assert (outcome.status, outcome.out) == (2, "")
        assert f"--state-dir {folder}: contains no state.db; give the state directory" in outcome.err
    assert [each.name for each in tmp_path.iterdir()] == [secret.name]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--subject", "ann"], "--jwt-secret-file: missing"),
        (["--jwt-secret", "short", "--subject", "ann"], "at least 32 bytes"),
        (["--jwt-secret", SECRET], "--subject: missing"),
        (["--jwt-secret", SECRET, "--subject", "a\nb"], "sub must have 1 to 255 visible characters"),
        (["--jwt-secret", SECRET, "--subject", "ann", "--role", "root"], "--role: 'root' is not one of"),
        (["--jwt-secret", SECRET, "--subject", "ann", "--ttl", "0"], "--ttl: '0' is not a duration from 1s to 366d"),
    ],
)
def test_a_wrong_value_is_one_line(run: Run, words: list[str], says: str) -> None:
    """No token is printed."""
    outcome = run("token", *words)
    assert (outcome.status, outcome.out, says in outcome.err) == (2, "", True), outcome.err


def test_the_command_has_help() -> None:
    """Subject, role and validity are options."""
    assert {"subject", "role", "ttl", "state_dir"} <= {option.name for option in command.options()}
