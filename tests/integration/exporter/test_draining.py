"""A real worker in a warm shutdown: what it runs is in progress until it ends, and its end is counted."""

from __future__ import annotations

import signal

import pytest
from celery import Celery
from tests.integration.exporter.conftest import StartExporter, StartWorker

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_shutdown_keeps_runs_in_progress(
    pool: str, producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """The worker is down and has said so; its task ends after that."""
    exporter = new_exporter()
    worker = new_worker("w1@test", concurrency=2, queues=("mail",), pool=pool)
    producer.send_task("tests.sleep", (12,), queue="mail")
    task = {"name": "tests.sleep", "queue_name": "mail"}
    wait_until(lambda: exporter.value("celery_task_in_progress", **task) == 1)
    worker.signal(signal.SIGTERM)
    wait_until(lambda: exporter.value("celery_worker_shutdown", hostname="w1@test") == 1)
    page = exporter.scrape()
    running, succeeded = page.get("celery_task_in_progress", **task), page.get("celery_task_succeeded_total", **task)
    assert (running or 0) + (succeeded or 0) == 1
    wait_until(lambda: exporter.value("celery_task_succeeded_total", **task) == 1, timeout=30)
    page = exporter.scrape()
    assert page.get("celery_task_in_progress", **task) == 0
    assert page.get("celery_task_shutdown_lost_total", **task) == 0
    # a start is reported a few milliseconds late, and an end may wait for a worker that shuts down
    assert 11.5 <= (page.get("celery_task_busy_seconds_total", **task) or 0) < 20
