"""Redis under Sentinel fails over while tasks run: exporter, worker and counts go on with the new master."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from tests.apps.worker_app import make_app
from tests.events.sentinel import SENTINEL_PASSWORD, SentinelCluster
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

OPTIONS = {"master_name": "shop", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
WORDS = [f"--transport-option={key}={json.dumps(value)}" for key, value in OPTIONS.items()]


def _kill(cluster: SentinelCluster) -> None:
    cluster.master.kill()


def _demote(cluster: SentinelCluster) -> None:
    with redis.Redis(port=cluster.port, password=SENTINEL_PASSWORD) as sentinel:
        sentinel.sentinel_failover("shop")


@pytest.mark.parametrize("fail_over", [_kill, pytest.param(_demote, marks=pytest.mark.slow)])
def test_a_failover_while_tasks_run(fail_over: Callable[[SentinelCluster], None], tmp_path: Path) -> None:
    """The old master dies, or lives on as a replica. Celery keeps events while it has no broker, so none is missed."""
    with (
        SentinelCluster(tmp_path / "redis") as cluster,
        ExporterProcess(tmp_path, cluster.url, options=WORDS) as exporter,
        start_worker(cluster.url, tmp_path, pool="threads", concurrency=4, transport_options=OPTIONS) as worker,
    ):
        exporter.up()

        def send(count: int, name: str, *arguments: float) -> None:
            app = make_app(cluster.url, transport_options=OPTIONS)
            for _ in range(count):
                app.send_task(name, arguments)
            app.close()

        def done() -> float:
            return exporter.scrape().sum("celery_task_succeeded_total")

        send(50, "tests.add", 1, 2)
        wait_until(lambda: done() == 50, what="50 tasks are counted")
        send(4, "tests.sleep", 10)
        wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 4, what="4 tasks run")
        with redis.Redis(port=cluster.port, password=SENTINEL_PASSWORD) as sentinel:
            before = sentinel.sentinel_get_master_addr_by_name("shop")
            fail_over(cluster)
            wait_until(
                lambda: sentinel.sentinel_get_master_addr_by_name("shop") != before, what="there is a new master"
            )
        wait_until(lambda: exporter.value("celerymeter_broker_reconnects_total") == 1, what="exporter is back")
        wait_until(lambda: exporter.value("celery_worker_up", hostname="w1@test") == 1, what="worker is heard")
        send(50, "tests.add", 1, 2)
        wait_until(lambda: done() >= 104, what="50 more are counted, and the ends of the 4")
        for collector in ("queues", "workers"):
            wait_until(lambda: exporter.value("celerymeter_poll_success", collector=collector) == 1)
        wait_until(lambda: exporter.value("celery_queue_length", queue_name="celery") == 0)
        page = exporter.scrape()
        worker.kill()
    assert page.sum("celery_task_in_progress") == 0
    started, missed = page.sum("celery_task_started_total"), page.sum("celerymeter_events_missed_total")
    assert (started, missed) == (104, 0)
    assert exporter.tail(1000).count("event stream lost") == 1
