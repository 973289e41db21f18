"""A real worker in a warm shutdown: what it runs is in progress until it ends, and its end is counted."""

from __future__ import annotations

import json
import signal

import pytest
from celery import Celery
from tests.apps.worker_app import SETTINGS
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
    wait_until(lambda: exporter.value("celery_task_succeeded_total", **task) == 1)
    page = exporter.scrape()
    assert page.get("celery_task_in_progress", **task) == 0
    assert page.get("celery_task_shutdown_lost_total", **task) == 0
    # a start is reported a few milliseconds late, and an end may wait for a worker that shuts down
    assert 11.5 <= (page.get("celery_task_busy_seconds_total", **task) or 0) < 20


def test_a_task_that_outlives_the_grace_period_is_counted_and_logged(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """As Kubernetes does it: SIGTERM, and SIGKILL when the grace period is over. The task runs again elsewhere."""
    exporter = new_exporter("--drain-time", "2s")
    worker = new_worker("w1@test", queues=("mail",))
    producer.send_task("tests.sleep", (600,), queue="mail")
    task = {"name": "tests.sleep", "queue_name": "mail"}
    wait_until(lambda: exporter.value("celery_task_in_progress", **task) == 1)
    worker.signal(signal.SIGTERM)
    wait_until(lambda: exporter.value("celery_worker_shutdown", hostname="w1@test") == 1)
    worker.kill()
    wait_until(lambda: exporter.value("celery_task_shutdown_lost_total", **task) == 1)
    assert exporter.value("celery_task_in_progress", **task) == 0
    said = "w1@test shut down before 1 runs of tests.sleep (queue mail) had ended"
    wait_until(lambda: exporter.tail(1000).count(said) == 1, what="one log line")


def test_messages_that_a_draining_worker_had_prefetched(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """It ends what it runs and gives the rest back, or runs that too (threads; celery 10180): all of it counts once."""
    exporter = new_exporter()
    options = ["--prefetch-multiplier", "4"]
    worker = new_worker("w1@test", concurrency=2, queues=("mail",), pool="threads", options=options)
    for _ in range(8):
        producer.send_task("tests.sleep", (3,), queue="mail")
    task = {"name": "tests.sleep", "queue_name": "mail"}
    wait_until(lambda: exporter.value("celery_task_in_progress", **task) == 2)
    worker.signal(signal.SIGTERM)
    wait_until(lambda: exporter.value("celery_worker_shutdown", hostname="w1@test") == 1)
    new_worker("w2@test", concurrency=4, queues=("mail",), pool="threads")
    wait_until(lambda: exporter.value("celery_task_succeeded_total", **task) == 8)
    page = exporter.scrape()
    assert page.get("celery_task_started_total", **task) == 8
    assert page.get("celery_task_in_progress", **task) == 0
    for name in ("celery_task_shutdown_lost_total", "celery_task_redelivered_total"):
        assert page.get(name, **task) == 0


def test_a_soft_shutdown_cuts_off_what_takes_longer(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """`worker_soft_shutdown_timeout` and SIGQUIT, to which people remap SIGTERM (celery 6244 and 9213)."""
    exporter = new_exporter()
    env = {SETTINGS: json.dumps({"task_acks_late": True, "worker_soft_shutdown_timeout": 5})}
    worker = new_worker("w1@test", concurrency=2, queues=("mail",), env=env)
    producer.send_task("tests.sleep", (5,), queue="mail")
    producer.send_task("tests.sleep", (20,), queue="mail")
    task = {"name": "tests.sleep", "queue_name": "mail"}
    wait_until(lambda: exporter.value("celery_task_in_progress", **task) == 2)
    worker.signal(signal.SIGQUIT)
    wait_until(lambda: exporter.value("celery_worker_shutdown", hostname="w1@test") == 1)
    wait_until(lambda: exporter.value("celery_task_in_progress", **task) == 0)
    assert exporter.value("celery_task_succeeded_total", **task) == 1
    new_worker("w2@test", concurrency=2, queues=("mail",), env=env)
    wait_until(lambda: exporter.value("celery_task_succeeded_total", **task) == 2)
    wait_until(lambda: exporter.value("celery_task_redelivered_total", **task) == 1)
    page = exporter.scrape()
    assert page.get("celery_task_started_total", **task) == 3
    assert page.get("celery_task_in_progress", **task) == 0
