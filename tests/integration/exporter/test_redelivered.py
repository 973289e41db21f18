"""Runs that happen twice, and runs that end without a result, on a real cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from celery import Celery
from tests.apps.worker_app import BACKEND, SETTINGS
from tests.integration.exporter.conftest import StartExporter, StartWorker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration


def test_a_task_that_outlasts_the_visibility_timeout_is_redelivered(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Acknowledged late, it is given to a worker again while the first still runs it."""
    exporter = new_exporter()
    # kombu looks for such messages every 100 s by default; the exporter itself never delivers them again
    sweep = {"visibility_timeout": 2, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    for hostname in ("w1@test", "w2@test"):
        new_worker(hostname, queues=("mail",), transport_options=sweep)
    producer.send_task("tests.sleep_late", (30,), queue="mail")
    task = {"name": "tests.sleep_late", "queue_name": "mail"}
    wait_until(lambda: (exporter.value("celery_task_redelivered_total", **task) or 0) >= 1)
    assert (exporter.value("celery_task_started_total", **task) or 0) >= 2


def test_runs_whose_result_cannot_be_stored_end_without_one(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter, tmp_path: Path
) -> None:
    """The result backend is stopped: the worker sends no event of their end."""
    exporter = new_exporter("--poll-interval", "1")
    once = {"result_backend_transport_options": {"retry_policy": {"max_retries": 0}}}
    with Redis(tmp_path / "backend") as backend:
        backend.up()
        environment = {BACKEND: backend.url, SETTINGS: json.dumps(once)}
        new_worker("w1@test", concurrency=2, queues=("mail",), env=environment)
        backend.stop()
    for _ in range(6):
        producer.send_task("tests.add", (1, 2), queue="mail")
    task = {"name": "tests.add", "queue_name": "mail"}
    wait_until(lambda: exporter.value("celery_task_ended_without_result_total", **task) == 6)
    page = exporter.scrape()
    assert page.get("celery_task_started_total", **task) == 6
    assert page.get("celery_task_succeeded_total", **task) == 0
    assert page.get("celery_task_in_progress", **task) == 0
