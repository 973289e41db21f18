"""A small workload of our own: every kind of task and every kind of canvas, on any release of Celery."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.apps.worker_app import BACKEND, BROKER
from tools.celery_workload.cluster import Cluster, Result
from tools.celery_workload.mixed_sender import QUEUE
from tools.celery_workload.releases import ROOT

RELEASES = ("5.7", "5.6", "5.5", "5.4", "5.3")
ROUNDS = 8
"""Each has 43 runs."""


def run_mixed(cluster: Cluster, *, rounds: int = ROUNDS) -> Result:
    """Send the workload, wait for its end, and compare the counts."""
    print(f"{cluster.title}: {rounds} rounds of a small workload", flush=True)
    with cluster:
        environment = {BROKER: cluster.broker_url, BACKEND: cluster.backend_url}
        options = ["--queues", f"{QUEUE},celery", "--include", "tools.celery_workload.notes"]
        cluster.start_worker("tests.apps.worker_app", options=options, environment=environment, folder=ROOT)
        argv = [sys.executable, "-m", "tools.celery_workload.mixed_sender", str(rounds)]
        environment.update(cluster.release.environment)
        subprocess.run(argv, cwd=ROOT, env={**os.environ, **environment}, check=True)
        return cluster.judge()
