"""RabbitMQ's native delayed delivery: a task that waits in the broker for its ETA has its queue all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.apps.worker_app import SETTINGS, make_app
from tests.scrape import ExporterProcess
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration


def quorum(name: str) -> dict[str, object]:
    """A queue on the topic exchange."""
    arguments = {"x-queue-type": "quorum"}
    return {"exchange": "shop", "exchange_type": "topic", "routing_key": name, "queue_arguments": arguments}


CONFIG = {"task_queues": {name: quorum(name) for name in ("orders", "mail")}, "task_default_queue_type": "quorum"}


def test_a_delayed_task_has_its_queue(tmp_path: Path) -> None:
    """By the bindings of the workers, retries included; the wait counts from the ETA; delay levels are no queues."""
    with RabbitMQ(tmp_path / "broker") as broker:
        broker.up()
        app = make_app(broker.url)
        app.conf.update(CONFIG)
        env = {SETTINGS: json.dumps(CONFIG)}
        management = f"http://guest:guest@127.0.0.1:{broker.management_port}/api/"
        options = ["--rabbitmq-management-url", management]
        with (
            start_worker(broker.url, tmp_path, queues=["orders", "mail"], env=env, pool="threads") as worker,
            ExporterProcess(tmp_path, broker.url, options=options) as exporter,
        ):
            exporter.up()
            wait_until(lambda: exporter.value("celery_queue_consumers", queue_name="orders") == 1)
            for queue, count in {"orders": 2, "mail": 1}.items():
                for _ in range(count):
                    app.tasks["tests.add"].apply_async((1, 2), queue=queue, countdown=3)
            app.tasks["tests.retry"].apply_async((1, 2), queue="orders")
            app.tasks["tests.add"].apply_async((1, 2), queue="mail", countdown=600)
            wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 4)
            wait_until(lambda: exporter.value("celery_delayed_tasks") == 1, what="one waits for ten minutes")
            page = exporter.scrape()
            worker.kill()
    assert page.by("celery_task_succeeded_total", "name", "queue_name") == {
        ("tests.add", "orders"): 2,
        ("tests.add", "mail"): 1,
        ("tests.retry", "orders"): 1,
    }
    assert page.by("celery_task_sent_total", "name", "queue_name") == {
        ("tests.add", "orders"): 2,
        ("tests.add", "mail"): 2,
        ("tests.retry", "orders"): 2,
    }
    assert page.sum("celery_task_wait_seconds_sum", queue_name="mail") < 2.5
    assert page.values("queue_name") <= {"orders", "mail", ""}
