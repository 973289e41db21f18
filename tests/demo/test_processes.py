"""Child processes: started, waited for, stopped, with nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from celerymeter.demo.processes import BLOCK, Process, free_port, free_ports, wait_until
from celerymeter.errors import StartFailed

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def script(folder: Path, code: str) -> Process:
    """Return a Python child that runs ``code``."""
    return Process("script", [sys.executable, "-c", code], log=folder / "script.log")


def alive(pid: int) -> bool:
    """Return True if the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def grandchild(process: Process) -> int:
    """Return the pid that the child printed."""
    wait_until(process.tail, what="the pid of the grandchild")
    return int(process.tail())


def test_stop_ends_the_child_and_what_it_started(tmp_path: Path) -> None:
    """A stopped child leaves no grandchild."""
    with script(tmp_path, PARENT).start() as process:
        pid = grandchild(process)
        assert process.stop() == -signal.SIGTERM
        wait_until(lambda: not alive(pid), what="the end of the grandchild")


def test_the_orphans_of_a_child_that_was_killed_are_swept(tmp_path: Path) -> None:
    """After kill -9 of the child alone, stop still ends its group."""
    process = script(tmp_path, PARENT).start()
    pid = grandchild(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert alive(pid)
    process.stop()
    wait_until(lambda: not alive(pid), what="the end of the grandchild")


class GoneUnseen(Process):
    """Has a child that ended after the last look at it."""

    @property
    def running(self) -> bool:
        return True


@pytest.mark.parametrize("end", [Process.stop, Process.kill])
def test_a_child_that_ends_before_the_signal(tmp_path: Path, end: Callable[[Process], int]) -> None:
    """Nobody is there to be signalled: that is no error."""
    process = GoneUnseen("script", [sys.executable, "-c", ""], log=tmp_path / "script.log").start()
    process.wait(10)
    assert end(process) == 0


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """It gets SIGKILL after the timeout."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = script(tmp_path, code).start()
    wait_until(process.tail, what="the child's first line")
    assert process.stop(timeout=0.2) == -signal.SIGKILL


def test_a_child_that_ends_while_starting_is_quoted(tmp_path: Path) -> None:
    """The error ends with the child's last output."""
    with pytest.raises(StartFailed, match="script ended while starting:\ncannot go on"):
        script(tmp_path, "raise SystemExit('cannot go on')").start(ready=lambda: False)


def test_no_two_processes_are_given_the_same_port() -> None:
    """Each keeps its own before something listens on them; none may go to an outgoing connection."""
    code = "from celerymeter.demo.processes import free_ports; print(*free_ports(50), flush=True); input()"
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    given: list[int] = []
    for child in children:
        assert child.stdout is not None
        given += [int(port) for port in child.stdout.readline().split()]
    for child in children:  # until now each kept its ports
        child.communicate("\n")
    assert len(set(given)) == len(given) == 4 * 50
    assert max(given) < 32_768


def test_a_port_in_use_is_not_given() -> None:
    """Any program may listen on it; when all are taken the error says so."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen()
        turn = {port for _ in range(BLOCK) for port in free_ports(1)}  # all that this process has, one after the other
        assert listener.getsockname()[1] not in turn
        with pytest.raises(StartFailed, match=f"no {BLOCK} free ports"):
            free_ports(BLOCK)


def test_a_child_that_ended_is_not_ready(tmp_path: Path) -> None:
    """Although somebody else answers in its place."""
    process = script(tmp_path, "print('address already in use')")
    with pytest.raises(StartFailed, match="ended while starting:\naddress already in use"):
        process.start(ready=lambda: not process.running)
