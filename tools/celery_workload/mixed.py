"""A small workload of our own: every kind of task and every kind of canvas, on any release of Celery."""

from __future__ import annotations

import gc

from celery import Celery, chain, chord, group
from tests.apps.worker_app import BACKEND, BROKER, make_app
from tools.celery_workload.cluster import Cluster, Result
from tools.celery_workload.releases import ROOT

RELEASES = ("5.7", "5.6", "5.5", "5.4", "5.3")
ROUNDS = 8
"""Each has 42 runs of 19 tasks."""
QUEUE = "mixed"
"""Celery sends a task of its own (`celery.accumulate`) to its default queue."""
_REPLACEMENTS = ("task", "fail", "chain", "group", "chord", "itself")


def run_mixed(cluster: Cluster, *, rounds: int = ROUNDS) -> Result:
    """Send the workload, wait for its end, and compare the counts."""
    print(f"{cluster.title}: {rounds} rounds of a small workload", flush=True)
    with cluster:
        environment = {BROKER: cluster.broker_url, BACKEND: cluster.backend_url}
        options = ["--queues", f"{QUEUE},celery", "--include", "tools.celery_workload.notes"]
        cluster.start_worker("tests.apps.worker_app", options=options, environment=environment, folder=ROOT)
        app = make_app(cluster.broker_url, backend=cluster.backend_url)
        app.conf.task_default_queue = QUEUE
        for _ in range(rounds):
            _send_round(app)
        gc.collect()  # results call their backend when they go
        app.close()
        return cluster.judge()


def _send_round(app: Celery) -> None:
    """One of each; all into the same queue."""
    add = app.tasks["tests.add"]
    send = app.send_task
    for name, arguments in (("tests.add", (1, 2)), ("tests.fail", ()), ("tests.retry", (2,)), ("tests.retry", (9,))):
        send(name, arguments, queue=QUEUE)
    send("tests.add", (1, 2), queue=QUEUE, countdown=1)
    send("tests.add", (1, 2), queue=QUEUE, expires=-1)
    for requeue in (False, True):
        send("tests.reject_once" if requeue else "tests.reject", queue=QUEUE)
    for kind in _REPLACEMENTS:
        send("tests.replace", (kind, QUEUE, 3 if kind == "itself" else 1), queue=QUEUE)
    numbers = [add.si(1, 2).set(queue=QUEUE) for _ in range(3)]
    chain(*numbers, app=app).apply_async()
    group(numbers, app=app).apply_async()
    chord(numbers, app.tasks["tests.total"].s().set(queue=QUEUE), app=app).apply_async()
