"""A worker whose pool hangs looks alive, and its queue is empty: what `CeleryWorkerStuck` goes by."""

from __future__ import annotations

import os
import signal
import time

import pytest
from celery import Celery
from tests.integration.exporter.conftest import StartExporter, StartWorker
from tests.workers import pool_process

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration
HOST = {"hostname": "w1@test"}


def test_a_worker_whose_pool_hangs_holds_tasks_and_begins_none(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Its only pool process is stopped before it gets the tasks; once that goes on, all of them run."""
    exporter = new_exporter("--poll-interval", "1", "--inspect-interval", "1")
    child = pool_process(new_worker("w1@test"))
    producer.send_task("tests.add", (1, 2))
    wait_until(lambda: exporter.value("celery_worker_tasks_processed_total", **HOST) == 1)
    wait_until(lambda: exporter.value("celery_worker_tasks_active", **HOST) == 0)
    os.kill(child, signal.SIGSTOP)
    try:
        for _ in range(3):
            producer.send_task("tests.add", (1, 2))
        wait_until(lambda: exporter.value("celery_worker_tasks_reserved", **HOST) == 3)
        wait_until(lambda: exporter.value("celery_queue_length", queue_name="celery") == 0)
        seen = set()
        heartbeats = set()
        end = time.monotonic() + 8
        while time.monotonic() < end:
            page = exporter.scrape()
            heartbeats.add(page.get("celery_worker_last_heartbeat_timestamp_seconds", **HOST))
            names = ("celery_worker_up", *(f"celery_worker_tasks_{what}" for what in ("reserved", "active")))
            seen.add(tuple(page.get(name, **HOST) for name in (*names, "celery_worker_tasks_processed_total")))
            time.sleep(0.5)
    finally:
        os.kill(child, signal.SIGCONT)
    assert seen - {(1, None, 0, 1)} == {(1, 3, 0, 1)}  # a poll of a busy machine may bring no count
    assert len(heartbeats) > 2
    wait_until(lambda: exporter.value("celery_worker_tasks_processed_total", **HOST) == 4)
    wait_until(lambda: exporter.value("celery_worker_tasks_reserved", **HOST) == 0)
