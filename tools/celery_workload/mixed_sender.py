"""Sends rounds of every kind of task and every kind of canvas, then long tasks.

A process of its own, on the release under test.
"""

from __future__ import annotations

import json
import os
import sys

from celery import Celery, chain, chord, group
from tests.apps.worker_app import BACKEND, BROKER, OPTIONS, make_app

QUEUE = "mixed"
"""Celery sends a task of its own (`celery.accumulate`) to its default queue."""
SLEEP = 15.0
"""Seconds: all that run when a broker dies are connected again before they end."""
_REPLACEMENTS = ("task", "fail", "chain", "group", "chord", "itself")


def send_round(app: Celery) -> None:
    """One of each; all into the same queue."""
    add, send = app.tasks["tests.add"], app.send_task
    for name, arguments in (("tests.add", (1, 2)), ("tests.fail", ()), ("tests.retry", (2,)), ("tests.retry", (9,))):
        send(name, arguments, queue=QUEUE)
    send("tests.add", (1, 2), queue=QUEUE, countdown=1)
    send("tests.add", (1, 2), queue=QUEUE, expires=-1)
    for name in ("tests.reject", "tests.reject_once"):
        send(name, queue=QUEUE)
    for kind in _REPLACEMENTS:
        send("tests.replace", (kind, QUEUE, 3 if kind == "itself" else 1), queue=QUEUE)
    numbers = [add.si(1, 2).set(queue=QUEUE) for _ in range(3)]
    chain(*numbers, app=app).apply_async()
    group(numbers, app=app).apply_async()
    chord(numbers, app.tasks["tests.total"].s().set(queue=QUEUE), app=app).apply_async()


if __name__ == "__main__":
    options = json.loads(os.environ[OPTIONS])
    producer = make_app(os.environ[BROKER], transport_options=options, backend=os.environ[BACKEND])
    for _ in range(int(sys.argv[1])):
        send_round(producer)
    for _ in range(int(sys.argv[2])):
        producer.send_task("tests.sleep", (SLEEP,), queue=QUEUE)
    os._exit(0)  # a result calls its backend when it goes, which fails while the interpreter ends
