"""Child processes of the demo and the tests: started, waited for, stopped."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from random import sample
from types import TracebackType
from typing import Protocol, TypeVar

from celerymeter.errors import StartFailed

P = TypeVar("P", bound="Process")
START_TIMEOUT = 180.0
"""Seconds for what takes 5 on an idle machine: a busy one took over 60. A child that ends is noticed at once."""
STOP_TIMEOUT = 10.0
BLOCK = 100
"""Ports that a process keeps for itself."""


def free_port() -> int:
    """Return a TCP port on loopback that nothing listens on now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different free ports, which no other process is given too before something listens on them."""
    found = list(islice(filter(is_free, islice(_own_ports(), BLOCK - 1)), count))
    if len(found) < count:
        raise StartFailed(f"no {count} free ports on loopback among the {BLOCK - 1} that this process took")
    return found


@cache
def _own_ports() -> Iterator[int]:
    """Return the ports of a block in turn; a socket bound to its first port keeps other processes out.

    All are below those that Linux gives to outgoing connections (``ip_local_port_range``, ip(7)).
    """
    for first in sample(range(10_000, 32_700, BLOCK), 227):
        guard = socket.socket()
        try:
            guard.bind(("127.0.0.1", first))
        except OSError:
            guard.close()
            continue
        atexit.register(guard.close)
        return cycle(range(first + 1, first + BLOCK))
    raise StartFailed("no free ports on loopback: every block of them from 10000 to 32699 is taken")


def is_free(port: int) -> bool:
    """Return True if this process could listen on the loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not keep a port
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
        return False


def wait_until(
    condition: Callable[[], object], *, timeout: float = START_TIMEOUT, interval: float | None = None, what: str = ""
) -> None:
    """Wait until ``condition()`` is true; raises `TimeoutError` after ``timeout`` seconds.

    Without an ``interval`` it looks often at first and up to four times a second later, since looking has a cost too.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > timeout:
            raise TimeoutError(f"not within {timeout:g} s: {what or condition!r}")
        time.sleep(interval or min(max(0.05, waited / 10), 0.25))


class Child(Protocol):
    """A process that was started, such as a `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit status once the process has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process ends; raises `subprocess.TimeoutExpired`."""


class Process:
    """A child process in a process group of its own, with its output in a file."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._popen: Child | None = None
        self._swept = True

    @property
    def pid(self) -> int:
        """The pid of the child."""
        if self._popen is None:
            raise StartFailed(f"{self.name} was never started")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """True while the child runs."""
        return self._popen is not None and self._popen.poll() is None

    def start(self: P, *, ready: Callable[[], object] | None = None, timeout: float = START_TIMEOUT) -> P:
        """Start the child and wait for ``ready``; a child that ends first raises `StartFailed`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._popen = self._spawn()
        self._swept = False
        if ready is not None:
            self.wait_ready(ready, timeout=timeout)
        return self

    def _spawn(self) -> Child:
        with self.log.open("ab") as sink:
            return subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    def wait_ready(self, ready: Callable[[], object], *, timeout: float = START_TIMEOUT) -> None:
        """Wait until ``ready()``; raises `StartFailed` if the child ends first or is not ready in time.

        A child that ended is not ready, even if something answers on its port.
        """
        deadline = time.monotonic() + timeout
        while not (ready() and self.running):
            if not self.running:
                raise StartFailed(f"{self.name} ended while starting:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise StartFailed(f"{self.name} was not ready within {timeout:g} s:\n{self.tail()}")
            time.sleep(0.05)

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the child, or to its whole group (a prefork worker and its pool), if it still runs."""
        if self.running:
            with suppress(ProcessLookupError):  # it may end just now
                (os.killpg if group else os.kill)(self.pid, number)

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """Stop the child with SIGTERM, after ``timeout`` with SIGKILL, and return its exit status.

        What the child leaves behind in its process group, such as the pool of a worker that died, is killed too.
        """
        if self._popen is None:
            return 0
        self.signal(signal.SIGCONT, group=True)
        self.signal(signal.SIGTERM)
        try:
            status = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._sweep()
        return status

    def kill(self) -> int:
        """Kill the child and its group with SIGKILL."""
        if self._popen is None:
            return 0
        self.signal(signal.SIGKILL, group=True)
        status = self._popen.wait(STOP_TIMEOUT)
        self._sweep()
        return status

    def _sweep(self) -> None:
        """Kill what is left of the group, only once for each start: later the pid may belong to another process."""
        if not self._swept:
            self._swept = True
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    @property
    def status(self) -> int | None:
        """The exit status of a child that has ended, or minus the number of the signal that ended it."""
        return None if self._popen is None else self._popen.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the child ends by itself, and return its exit status."""
        return 0 if self._popen is None else self._popen.wait(timeout)

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the child's output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
