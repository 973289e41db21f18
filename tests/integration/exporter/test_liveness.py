"""Workers that start, stop, die and reconnect are told apart."""

from __future__ import annotations

import time

import pytest
import redis
from celery import Celery
from tests.integration.exporter.conftest import StartExporter, StartWorker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration


def test_a_killed_worker_is_down_within_ten_seconds_and_leaves_after_the_retention(
    new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """One was there before the exporter, one came after; both on one host, both known by their node names."""
    before = new_worker("before@test")
    exporter = new_exporter("--worker-retention", "8s")
    new_worker("after@test")
    for hostname in ("before@test", "after@test"):
        wait_until(lambda: exporter.value("celery_worker_up", hostname=hostname) == 1, what=hostname)
    before.kill()
    killed = time.monotonic()
    wait_until(lambda: exporter.value("celery_worker_up", hostname="before@test") == 0, timeout=10)
    assert exporter.value("celery_worker_up", hostname="after@test") == 1
    assert exporter.value("celery_worker_shutdown", hostname="before@test") == 0
    assert time.monotonic() - killed > 4
    wait_until(lambda: exporter.value("celery_worker_up", hostname="before@test") is None, timeout=12)


def test_a_scale_in_is_a_shutdown_and_a_restart_is_up_again(
    new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """SIGTERM lets the worker say goodbye."""
    exporter = new_exporter()
    worker = new_worker("w1@test")
    wait_until(lambda: exporter.value("celery_worker_up", hostname="w1@test") == 1)
    worker.stop()
    wait_until(lambda: exporter.value("celery_worker_shutdown", hostname="w1@test") == 1, timeout=10)
    assert exporter.value("celery_worker_up", hostname="w1@test") == 0
    new_worker("w1@test")
    wait_until(lambda: exporter.value("celery_worker_up", hostname="w1@test") == 1)
    assert exporter.value("celery_worker_shutdown", hostname="w1@test") == 0
    assert exporter.value("celerymeter_worker_duplicate", hostname="w1@test") == 0


def test_a_busy_solo_worker_stays_up(producer: Celery, new_worker: StartWorker, new_exporter: StartExporter) -> None:
    """It sends nothing at all for as long as its task runs."""
    exporter = new_exporter()
    new_worker("solo@test", pool="solo", concurrency=None)
    wait_until(lambda: exporter.value("celery_worker_pool_size", hostname="solo@test") == 1)
    producer.send_task("tests.sleep", (10,))
    seen = set()
    end = time.monotonic() + 9
    while time.monotonic() < end:
        seen.add(exporter.value("celery_worker_up", hostname="solo@test"))
        time.sleep(0.5)
    assert seen == {1.0}
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 1)
    assert exporter.scrape().sum("celerymeter_events_missed_total") == 0


def test_a_reconnect_of_a_worker_is_neither_down_nor_a_restart(
    redis_server: Redis, producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Every connection to the broker is cut, ours as well."""
    exporter = new_exporter()
    new_worker("w1@test")
    for _ in range(20):
        producer.send_task("tests.add", (1, 2))
    wait_until(lambda: exporter.value("celery_worker_tasks_processed_total", hostname="w1@test") == 20)
    for kind in ("pubsub", "normal"):
        redis.Redis(port=redis_server.port).client_kill_filter(_type=kind, skipme=True)
    seen = set()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        seen.add(exporter.value("celery_worker_up", hostname="w1@test"))
        time.sleep(0.25)
    assert 0.0 not in seen
    for _ in range(5):
        producer.send_task("tests.add", (1, 2))
    wait_until(lambda: exporter.value("celery_worker_tasks_processed_total", hostname="w1@test") == 25)
    assert exporter.value("celerymeter_worker_duplicate", hostname="w1@test") == 0
    assert exporter.scrape().sum("celerymeter_events_missed_total") == 0
