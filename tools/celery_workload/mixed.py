"""A small workload of our own: every kind of task and every kind of canvas, on any release of Celery."""

from __future__ import annotations

import os
import subprocess
import sys

import redis
from tests.apps.worker_app import BACKEND, BROKER
from tests.events.sentinel import SENTINEL_PASSWORD, SentinelCluster
from tools.celery_workload.cluster import Cluster, Result
from tools.celery_workload.mixed_sender import QUEUE, SLEEP
from tools.celery_workload.recorder import SentinelRecorder
from tools.celery_workload.releases import ROOT

from celerymeter.demo.processes import wait_until

RELEASES = ("5.7", "5.6", "5.5", "5.4", "5.3")
ROUNDS = 8
"""Each has 43 runs."""
TIMEOUT = 120.0


def run_mixed(cluster: Cluster, *, rounds: int = ROUNDS) -> Result:
    """Send the workload, wait for its end, and compare the counts; under Sentinel the master dies in the middle."""
    print(f"{cluster.title}: {rounds} rounds of a small workload", flush=True)
    with cluster:
        _start_worker(cluster)
        if cluster.sentinel is not None:
            _send(cluster, rounds=rounds)
            cluster.wait_until_quiet()
            _fail_over(cluster, cluster.sentinel)
        _send(cluster, rounds=rounds)
        return cluster.judge()


def _start_worker(cluster: Cluster) -> None:
    environment = {BROKER: cluster.broker_url, BACKEND: cluster.backend_url}
    options = ["--queues", f"{QUEUE},celery", "--include", "tools.celery_workload.notes"]
    cluster.start_worker("tests.apps.worker_app", options=options, environment=environment, folder=ROOT)


def _send(cluster: Cluster, *, rounds: int = 0, long_tasks: int = 0) -> None:
    environment = {**os.environ, **cluster.environment, BROKER: cluster.broker_url, BACKEND: cluster.backend_url}
    argv = [sys.executable, "-m", "tools.celery_workload.mixed_sender", str(rounds), str(long_tasks)]
    subprocess.run(argv, cwd=ROOT, env=environment, check=True)


def _fail_over(cluster: Cluster, servers: SentinelCluster) -> None:
    """Kill the master while tasks run, and wait until they have ended and everybody is at the new one.

    Before Celery 5.6 the pool of a prefork worker hears nothing of their ends any more; such a worker is started again.
    """
    running = 1 if cluster.pool == "solo" else 2
    starts, ends = _noted(cluster, "task-started"), _noted(cluster, "task-succeeded")
    _send(cluster, long_tasks=running)
    wait_until(lambda: _noted(cluster, "task-started") == starts + running, timeout=TIMEOUT, what="the long tasks run")
    with redis.Redis(port=servers.port, password=SENTINEL_PASSWORD) as sentinel:
        before = sentinel.sentinel_get_master_addr_by_name("shop")
        servers.master.kill()
        wait_until(
            lambda: sentinel.sentinel_get_master_addr_by_name("shop") != before,
            timeout=TIMEOUT,
            what="there is a new master",
        )
    recorder = cluster.recorder
    assert isinstance(recorder, SentinelRecorder)
    wait_until(lambda: recorder.connections == 2, timeout=TIMEOUT, what="the recorder is back")
    wait_until(
        lambda: cluster.exporter.value("celerymeter_broker_reconnects_total") == 1,
        timeout=TIMEOUT,
        what="the exporter is back",
    )
    try:
        wait_until(lambda: _noted(cluster, "task-succeeded") == ends + running, timeout=3 * SLEEP)
    except TimeoutError:
        cluster.title += ", started again"
        _start_worker(cluster)
    heard = len(recorder.events)
    wait_until(lambda: len(recorder.events) > heard + 1, timeout=TIMEOUT, what="the worker is heard")


def _noted(cluster: Cluster, kind: str) -> int:
    return sum(note["type"] == kind for note in cluster.notes())
