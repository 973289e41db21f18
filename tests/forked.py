"""Python programs as forks of a process that has already imported what they need.

A worker spends most of its start importing Celery, and the control API importing Flask; `make test` starts hundreds of
them. Each is a process of its own all the same, with its pid, session, arguments, environment and output.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from io import FileIO, TextIOWrapper
from multiprocessing.connection import wait
from pathlib import Path
from threading import Lock

from celerymeter.demo.processes import Child, Process

IMPORTED = (
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.concurrency.thread",
    "celery.events.state",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "kombu.transport.pyamqp",
    "kombu.transport.redis",
    "celerymeter.aggregate",
    "celerymeter.cli.control",
    "celerymeter.cli.exporter",
    "celerymeter.control.server",
    "celerymeter.exporter.service",
    "celerymeter.schedule",
    "celerymeter.stamp",
)
OTHER_MODULES = ("PYTHONPATH", "LD_PRELOAD")
"""For a process whose environment sets one of these the wrong modules are imported; it gets its own interpreter."""
GREEN = ("gevent", "eventlet")
"""So does one that patches the standard library before it imports anything else."""

_lock = Lock()
"""Two threads that ask for the status of one process at once would disturb each other."""
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(IMPORTED))


class ForkedProcess(Process):
    """``python -m MODULE ARGUMENT…``, usually without an interpreter of its own."""

    def _spawn(self) -> Child:
        if self._can_be_forked():
            return Fork(self.argv[2:], self._env, self._cwd or Path.cwd(), self.log.absolute())
        return super()._spawn()

    def _can_be_forked(self) -> bool:
        same_modules = all(self._env.get(name) == os.environ.get(name) for name in OTHER_MODULES)
        measured = "PYTEST_VERSION" not in os.environ  # by one of the tools, which use this module too
        return (
            self.argv[:2] == (sys.executable, "-m") and same_modules and {*GREEN}.isdisjoint(self.argv) and not measured
        )


class Fork:
    """A process that was forked, with the methods of `subprocess.Popen`."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> None:
        self._process = _forks.Process(target=_run, name="MainProcess", args=(argv, env, cwd, log), daemon=True)
        with _lock:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status of a process that has ended, or minus the number of the signal that ended it."""
        with _lock:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process ends; raises `subprocess.TimeoutExpired`."""
        wait([self._process.sentinel], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return status


def _run(argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> None:
    gc.freeze()  # looking for garbage in what was imported would take half of a worker's start
    os.setsid()
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))
    sys.argv[:] = argv
    sys.stdout = TextIOWrapper(FileIO(1, "w", closefd=False), line_buffering=True)
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends its processes without them
