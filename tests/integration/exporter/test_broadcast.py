"""Broadcasts on real brokers: every worker runs the task, under the name of its exchange."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kombu.common import Broadcast
from tests.apps.worker_app import BROADCAST, make_app
from tests.scrape import ExporterProcess
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration

HOSTS = ("w1@test", "w2@test")


@pytest.fixture(params=[Redis, RabbitMQ])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a server of this test."""
    with ExitStack() as stack:
        yield stack.enter_context(request.param(tmp_path / "broker")).up().url


@pytest.mark.parametrize("aggregate", [None, {}], ids=["events", "aggregate"])
def test_every_worker_runs_it_and_none_a_second_time(
    broker_url: str, tmp_path: Path, aggregate: dict[str, object] | None
) -> None:
    """Sent by two processes, whose queues have names of their own."""
    with ExitStack() as stack:
        exporter = stack.enter_context(ExporterProcess(tmp_path, broker_url)).up()
        for hostname in HOSTS:
            worker = start_worker(
                broker_url,
                tmp_path,
                hostname=hostname,
                pool="threads",
                queues=("celery", "reloads"),
                env={BROADCAST: "reloads"},
                aggregate=aggregate,
            )
            stack.callback(worker.kill)
        wait_until(lambda: exporter.value("celery_queue_consumers", queue_name="celery") == 2)
        for _ in range(2):
            app = make_app(broker_url)
            app.conf.task_queues = [Broadcast("reloads")]
            with app.connection_for_write() as connection:
                app.amqp.queues["reloads"](connection).declare()
                for _ in range(3):
                    app.tasks["tests.add"].apply_async((1, 2), queue="reloads", connection=connection)
            app.tasks["tests.add"].apply_async((1, 2), queue="celery")
            app.close()
        wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 14)
        # what seems to run a second time counts after 2 s, and a later poll shows that they have passed
        last = exporter.value("celerymeter_poll_last_success_timestamp_seconds", collector="workers") or 0.0
        wait_until(
            lambda: (
                (exporter.value("celerymeter_poll_last_success_timestamp_seconds", collector="workers") or 0.0)
                > last + 4
            )
        )
        page = exporter.scrape()
    assert page.by("celery_task_sent_total", "queue_name") == {("reloads",): 6, ("celery",): 2}
    assert page.by("celery_task_started_total", "queue_name") == {("reloads",): 12, ("celery",): 2}
    assert page.by("celery_task_succeeded_total", "queue_name") == {("reloads",): 12, ("celery",): 2}
    assert page.sum("celery_task_redelivered_total") == 0
    assert page.sum("celery_task_in_progress") == 0
    assert page.values("queue_name") == {"reloads", "celery"}
    assert not page.by("celery_queue_length", "queue_name")
