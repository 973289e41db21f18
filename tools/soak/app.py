"""The tests' Celery application, whose workers also write down every step of every task, as Celery's signals report it.

Each worker process has a file in the folder of ``CELERYMETER_SOAK_TRUTH``, and a line there for each step: UTC seconds,
the step, the task's name. Pool processes write to the file of their worker. No step of it depends on events.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery.signals import task_postrun, task_prerun, task_received, task_revoked, worker_init
from tests.apps.worker_app import app
from tools.soak.truth import FOLDER

__all__ = ["app"]

ENDS = {"SUCCESS": "succeeded", "FAILURE": "failed", "REJECTED": "failed", "RETRY": "retried", "IGNORED": "ignored"}
"""Steps by the state that Celery gives to `task_postrun`."""
_files: list[int] = []
"""The file of this worker; inherited by its pool."""
_revoked_ids: set[str] = set()


def _write(step: str, name: str) -> None:
    os.write(_files[0], f"{time.time():.3f} {step} {name}\n".encode())  # one write to the end: lines never mix


def _open(sender: Any, **_: Any) -> None:
    path = Path(os.environ[FOLDER], f"{sender.hostname}-{os.getpid()}")
    _files[:] = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)]


def _received(request: Any, **_: Any) -> None:
    _write("received", request.type)


def _started(task: Any, **_: Any) -> None:
    _write("started", task.name)


def _ended(task: Any, state: str, retval: Any, **_: Any) -> None:
    _write(ENDS[state], task.name)
    if ENDS[state] == "failed":
        _write(f"raised:{type(retval).__name__}", task.name)


def _revoked(sender: Any, request: Any, expired: bool, **_: Any) -> None:
    if request.id not in _revoked_ids:  # it may be delivered again, and is revoked once
        _revoked_ids.add(request.id)
        _write("expired" if expired else "revoked", sender.name)


worker_init.connect(_open, weak=False)
task_received.connect(_received, weak=False)
task_prerun.connect(_started, weak=False)
task_postrun.connect(_ended, weak=False)
task_revoked.connect(_revoked, weak=False)
