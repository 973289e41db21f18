"""Users reported faults of other monitors under Redis Sentinel: clusters side by side, queues with priorities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.apps.worker_app import make_app
from tests.events.sentinel import SENTINEL_PASSWORD, SentinelCluster
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration

OPTIONS = {"master_name": "shop", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[SentinelCluster]:
    """Of this test."""
    with SentinelCluster(tmp_path / "redis") as servers:
        yield servers


def exporter(folder: Path, url: str, **options: object) -> ExporterProcess:
    """An exporter that has the options of the workers."""
    words = [f"--transport-option={key}={json.dumps(value)}" for key, value in {**OPTIONS, **options}.items()]
    return ExporterProcess(folder, url, options=words)


def test_two_clusters_in_two_databases_are_kept_apart(servers: SentinelCluster, tmp_path: Path) -> None:
    """Their events share one server, and their workers one name; kombu 1987 mixed them up."""
    ours, theirs = servers.url, f"{servers.url[:-1]}3"
    apps = {url: make_app(url, transport_options=OPTIONS) for url in (ours, theirs)}
    with (
        exporter(tmp_path, ours) as meter,
        start_worker(ours, tmp_path, queues=["mail"], pool="threads", transport_options=OPTIONS) as one,
        start_worker(theirs, tmp_path, queues=["bulk"], pool="threads", transport_options=OPTIONS) as other,
    ):
        meter.up()
        for number in range(10):
            apps[theirs].send_task("tests.fail", queue="bulk")
            apps[theirs].send_task("tests.add", (1, 2), queue="nobody")
            if number % 2:
                apps[ours].send_task("tests.add", (1, 2), queue="mail")
        wait_until(lambda: meter.scrape().sum("celery_task_succeeded_total") == 5)
        wait_until(lambda: meter.value("celery_queue_consumers", queue_name="mail") == 1)
        wait_until(lambda: "succeeded" in one.tail(1000) and other.tail(1000).count("ValueError('on purpose')") >= 10)
        page = meter.scrape()
        one.kill()
        other.kill()
    for app in apps.values():
        app.close()
    assert page.by("celery_task_sent_total", "name", "queue_name") == {("tests.add", "mail"): 5}
    assert page.sum("celery_task_failed_total") == 0
    assert page.values("queue_name") == {"mail"}
    assert page.sum("celerymeter_worker_duplicate") == 0


def test_queues_with_priorities_have_one_name_and_all_their_messages(servers: SentinelCluster, tmp_path: Path) -> None:
    """kombu has a list for each step, of which only the first has the queue's name (flower 439)."""
    steps: dict[str, object] = {"priority_steps": [0, 2, 7], "sep": ":", "queue_order_strategy": "priority"}
    app = make_app(servers.url, transport_options={**OPTIONS, **steps})
    with exporter(tmp_path, servers.url, **steps) as meter:
        meter.up()
        for priority in range(10):
            app.send_task("tests.add", (1, 2), queue="mail", priority=priority)
        wait_until(lambda: meter.value("celery_queue_length", queue_name="mail") == 10)
        options = {**OPTIONS, **steps}
        with start_worker(servers.url, tmp_path, queues=["mail"], pool="threads", transport_options=options) as worker:
            wait_until(lambda: meter.scrape().sum("celery_task_succeeded_total") == 10)
            wait_until(lambda: meter.value("celery_queue_length", queue_name="mail") == 0)
            page = meter.scrape()
            worker.kill()
    app.close()
    assert page.by("celery_task_started_total", "name", "queue_name") == {("tests.add", "mail"): 10}
    assert page.values("queue_name") == {"mail"}
