"""A forked program is the program that a new interpreter would run."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.forked import IMPORTED, ForkedProcess

from celerymeter.demo.processes import Process

KINDS = pytest.mark.parametrize("kind", [Process, ForkedProcess])


@pytest.mark.parametrize("module", IMPORTED)
def test_what_is_imported_beforehand_is_there(module: str) -> None:
    """A fork server says nothing of a module that it cannot find."""
    assert find_spec(module)


@KINDS
def test_status_and_output_are_the_program_s(kind: type[Process], tmp_path: Path) -> None:
    """Of one that ends by itself, with a value from its environment."""
    argv = [sys.executable, "-m", "celerymeter", "exporter"]
    env = {"CELERYMETER_BROKER_URL": "gopher://somewhere"}
    program = kind("exporter", argv, log=tmp_path / "log", env=env, cwd=tmp_path).start()
    assert program.wait(60) == 2
    assert "gopher" in program.tail()


@KINDS
def test_a_program_is_the_head_of_its_session(kind: type[Process], tmp_path: Path) -> None:
    """So that its children end with it; its folder is the one that it was given."""
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "0"]
    program = kind("server", argv, log=tmp_path / "log", env={"PYTHONUNBUFFERED": "1"}, cwd=tmp_path)
    program.start(ready=lambda: "Serving" in program.tail())
    assert os.getsid(program.pid) == os.getpgid(program.pid) == program.pid
    assert Path(f"/proc/{program.pid}/cwd").resolve() == tmp_path
    assert program.kill() == -signal.SIGKILL
    assert not program.running
