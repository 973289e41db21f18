"""The exporter outlives its broker and whatever arrives on the channel."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial

import pytest
import redis
import requests
from celery import Celery
from tests.integration.exporter.conftest import StartExporter, StartWorker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = [pytest.mark.integration, pytest.mark.own_redis]


def test_it_starts_without_a_broker(redis_server: Redis, new_exporter: StartExporter) -> None:
    """The page is there, and says that the broker is not; readiness says why."""
    redis_server.stop()
    exporter = new_exporter(path="/-/healthy")
    assert exporter.value("celerymeter_broker_up") == 0
    assert requests.get(f"{exporter.url}/-/ready", timeout=1).status_code == 503
    redis_server.up()
    wait_until(lambda: exporter.value("celerymeter_broker_up") == 1)
    assert exporter.code("/-/ready") == 200


def test_the_page_is_there_while_the_broker_hangs(redis_server: Redis, new_exporter: StartExporter) -> None:
    """A Redis that takes connections and never answers, long enough to be noticed by reader and pollers."""
    exporter = new_exporter()
    redis_server.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: exporter.value("celerymeter_broker_up") == 0)
        for _ in range(20):
            assert requests.get(f"{exporter.url}/metrics", timeout=1).status_code == 200
    finally:
        redis_server.signal(signal.SIGCONT)
    wait_until(lambda: exporter.value("celerymeter_broker_up") == 1)


@pytest.mark.parametrize("away", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_broker_that_goes_and_comes_costs_no_counter(
    away: float, redis_server: Redis, producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Redis is stopped under load and started again: up goes 1, 0, 1, and counting goes on."""
    exporter = new_exporter()
    start = partial(new_worker, "w1@test", pool="threads", concurrency=4)
    worker = start()

    def supervised(condition: Callable[[], bool]) -> bool:
        """Start the worker again if Celery gave it up, which it does for a message that was being acknowledged."""
        nonlocal worker
        if not worker.running:
            worker = start()
        return condition()

    for _ in range(200):
        producer.send_task("tests.add", (1, 2))
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") >= 100)
    redis_server.stop()
    wait_until(lambda: exporter.value("celerymeter_broker_up") == 0)
    kept = exporter.scrape().sum("celery_task_succeeded_total")
    assert exporter.scrape().by("celery_worker_up", "hostname") == {}
    time.sleep(away)  # the outage itself
    redis_server.up()
    wait_until(lambda: exporter.value("celerymeter_broker_up") == 1)
    assert exporter.scrape().sum("celery_task_succeeded_total") >= kept
    wait_until(lambda: supervised(lambda: exporter.value("celery_worker_up", hostname="w1@test") == 1))
    before = exporter.scrape().sum("celery_task_succeeded_total")
    for _ in range(10):
        producer.send_task("tests.add", (1, 2))
    wait_until(lambda: supervised(lambda: exporter.scrape().sum("celery_task_succeeded_total") >= before + 10))
    assert exporter.value("celerymeter_broker_reconnects_total") == 1


def test_nonsense_on_the_channel_is_counted_and_skipped(redis_server: Redis, new_exporter: StartExporter) -> None:
    """One of each kind, and a good heartbeat afterwards."""
    exporter = new_exporter()
    client = redis.Redis(port=redis_server.port)
    nonsense = [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"body": 7}',
        b'{"body": "bm9uc2Vuc2U=", "properties": {}}',
        b"[" * 9999,
    ]
    for message in nonsense:
        client.publish("/0.celeryev/task.multi", message)
    wait_until(lambda: exporter.scrape().sum("celerymeter_events_invalid_total") == len(nonsense))
    assert exporter.code("/-/healthy") == 200
    assert exporter.value("celerymeter_broker_up") == 1


def test_sigterm_ends_it_within_five_seconds(new_exporter: StartExporter) -> None:
    """With exit status 0."""
    exporter = new_exporter()
    begun = time.monotonic()
    assert exporter.stop(timeout=60) == 0
    assert time.monotonic() - begun < 5
