"""What commands print on a terminal without Unicode, and to a disk that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celerymeter.escaping import in_ascii

from .conftest import Run

CELERYMETER = [sys.executable, "-m", "celerymeter"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_what_an_encoding_lacks_is_an_escape(encoding: str) -> None:
    """Or, where click takes UTF-8 instead of ASCII, the character itself; never a traceback."""
    program = (
        "import sys; from celerymeter.cli import output; output.prepare(); import click\n"
        "click.echo('\u79df'); sys.stdout.write('\u6236\U0001f600\\n'); sys.stderr.write('\u6236')"
    )
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=env, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert first in (b"\\u79df", "租".encode())
    assert (second, done.stderr) == (b"\\u6236\\ud83d\\ude00", b"\\u6236")


def test_every_command_has_it() -> None:
    """A message that quotes an option."""
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    words = ["exporter", "--poll-interval", "租"]
    done = subprocess.run([*CELERYMETER, *words], capture_output=True, env=env, check=False, timeout=60)
    assert b"'\\u79df' is not a duration" in done.stderr


def test_the_escapes_are_those_of_json() -> None:
    """Also for what is in Latin-1, and beyond 16 bits."""
    assert in_ascii("é租😀") == r"\u00e9\u79df\ud83d\ude00"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["check-config"]])
def test_a_full_disk_is_one_line(words: list[str], unbuffered: str) -> None:
    """The exit status is 1."""
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*CELERYMETER, *words], stdout=full, stderr=subprocess.PIPE, env=env, check=False, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr == b"celerymeter: cannot write: No space left on device\n"


def test_a_count_has_a_maximum(run: Run, tmp_path: Path) -> None:
    """Beyond that of SQLite it was an OverflowError."""
    outcome = run("audit", "show", "--state-dir", tmp_path, "--last", "9" * 20)
    assert outcome.status == 2
    assert "--last: '99999999999999999999' is not a whole number from 1 to 1000000000" in outcome.err


def test_a_demo_that_cannot_write_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what it could not write. Here a file is in the place of its folder."""
    monkeypatch.chdir(tmp_path)
    Path(".demo").touch()
    outcome = run("demo")
    assert outcome.status == 2
    assert f"cannot write {tmp_path}/.demo (" in outcome.err
