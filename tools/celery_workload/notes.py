"""Imported by a worker under test: writes down each event of a run where Celery sends it, with the name that it knows.

An event of a run other than `task-received` names no task, so a reader of the stream has to find the name. Here no
finding is needed: the request that sends the event is of one task. Each line of ``$CELERYMETER_NOTES`` is one event.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from typing import Any

from celery.signals import task_received
from celery.worker.request import Request

PATH = "CELERYMETER_NOTES"
_runs = itertools.count(1)
_send_event = Request.send_event


def write(request: Any, kind: str, **fields: object) -> None:
    """Append one line; ``run`` is the same for all events of one request."""
    if not hasattr(request, "_noted_run"):
        request._noted_run = f"{os.getpid()}-{next(_runs)}"
    note = {
        "run": request._noted_run,
        "type": kind,
        "uuid": request.id,
        "name": request.type,
        "queue": request.delivery_info.get("routing_key"),
        "requeue": fields.get("requeue"),
        "at": time.time(),
    }
    sink = os.open(os.environ[PATH], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(sink, json.dumps(note).encode() + b"\n")
    os.close(sink)


def send_event(request: Any, type: str, **fields: Any) -> None:  # as Celery names it
    """`Request.send_event`, noted; before 5.7 it sends nothing of a run that began on an earlier connection."""
    if request._eventer and request.task.send_events:
        write(request, type, **fields)
    _send_event(request, type, **fields)


if PATH in os.environ:
    Request.send_event = send_event
    # The event is sent right after the signal (`celery.worker.strategy`).
    task_received.connect(lambda request, **_: write(request, "task-received"), weak=False)
