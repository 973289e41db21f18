"""``celerymeter report --out``: where the report goes, and what is there already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from celerymeter.cli.report import _write

from .conftest import Run

CALL = (
    "import sys; from pathlib import Path; from celerymeter.cli.report import _write; _write(b'new', Path(sys.argv[1]))"
)


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    """Its reader gets the report."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    _write(b"report", pipe)
    reader.join(10)
    assert received == [b"report"]
    assert pipe.is_fifo()


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    """Also where a link leads to it, as /dev/stdout does."""
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    _write(b"report", link)
    assert link.is_symlink()
    assert link.is_char_device()


@pytest.mark.parametrize("before", [None, b"a longer report"])
def test_a_link_leads_to_the_file(tmp_path: Path, before: bytes | None) -> None:
    """Whether the file exists or not."""
    target, link = tmp_path / "january.html", tmp_path / "latest.html"
    if before is not None:
        target.write_bytes(before)
    link.symlink_to(target.name)
    _write(b"report", link)
    assert link.is_symlink()
    assert target.read_bytes() == b"report"


def test_a_dash_is_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """No file is called so."""
    monkeypatch.chdir(tmp_path)
    _write(b"report", Path("-"))
    assert capsysbinary.readouterr().out == b"report\n"
    assert not list(tmp_path.iterdir())


def test_stdout_by_another_name_keeps_what_the_shell_appends_to(tmp_path: Path) -> None:
    """`>> FILE` with a link such as /dev/stdout, which opened again would cut the file."""
    out, link = tmp_path / "all.txt", tmp_path / "stdout"
    out.write_bytes(b"old ")
    link.symlink_to("/proc/self/fd/1")
    with out.open("ab") as stdout:
        subprocess.run([sys.executable, "-c", CALL, str(link)], stdout=stdout, check=True, timeout=60)
    assert out.read_bytes() == b"old new"
    assert link.is_symlink()


def test_a_path_must_be_one(run: Run, tmp_path: Path) -> None:
    """An empty one, or one with NUL, is refused before Prometheus is asked."""
    assert "--out: must not be empty" in run("report", "--prometheus-url", "http://127.0.0.1:1", "--out", "").err
    config = tmp_path / "c.yml"
    for written, words in (('""', "must not be empty"), ('"a\\0b"', "must be a path")):
        config.write_text(f"prometheus_url: http://127.0.0.1:1\nout: {written}\n")
        outcome = run("report", "--config", config)
        assert (outcome.status, words in outcome.err) == (2, True), outcome.err
