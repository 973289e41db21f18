"""The doctor at a real RabbitMQ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.apps.worker_app import make_app
from tests.scrape import ExporterProcess
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.demo.processes import free_port, wait_until

from .examining import examine

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server.up()


def test_rabbitmq(rabbitmq: RabbitMQ) -> None:
    """Right, a wrong password, an unknown virtual host."""
    host = f"127.0.0.1:{rabbitmq.port}"
    assert list(examine(rabbitmq.url)[1]) == ["no-workers"]
    assert list(examine(f"amqp://guest:hush@{host}//")[1]) == ["broker-password"]
    assert list(examine(f"amqp://guest:guest@{host}/none")[1]) == ["broker-forbidden"]
    assert list(examine(f"amqp://guest:guest@127.0.0.1:{free_port()}//")[1]) == ["broker-refused"]


def test_workers_in_another_virtual_host(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """A monitor with another URL than its workers shows nothing, and no reason (flower 151): here it is named."""
    rabbitmq.control("add_vhost", "shop")
    rabbitmq.control("set_permissions", "-p", "shop", "guest", ".*", ".*", ".*")
    shop = rabbitmq.url.removesuffix("/") + "shop"
    with start_worker(shop, tmp_path):
        status, found, output = examine(rabbitmq.url)
        assert (status, list(found)) == (1, ["no-workers"])
        assert "compare database number, virtual host" in output
        assert "no-workers" not in examine(shop, watch=3.0)[1]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, {"no-management-url"}),
        ("", set()),
        ("/api/", set()),
        ("/no-such-vhost", {"no-management-url", "polls-failing"}),
    ],
)
def test_an_exporter_with_and_without_the_management_api(
    rabbitmq: RabbitMQ, tmp_path: Path, path: str | None, expected: set[str]
) -> None:
    """No URL is a hint; the right one and the one that people paste are well; one that fails is a fault."""
    url = f"http://guest:guest@127.0.0.1:{rabbitmq.management_port}{path}"
    options = () if path is None else ("--rabbitmq-management-url", url)
    with (
        start_worker(rabbitmq.url, tmp_path),
        ExporterProcess(tmp_path, rabbitmq.url, options=options) as exporter,
    ):
        exporter.up()
        wait_until(lambda: exporter.value("celery_queue_length", queue_name="celery") is not None)
        status, found, _ = examine(rabbitmq.url, exporter_url=exporter.url)
    assert found.keys() & {"no-management-url", "polls-failing"} == expected
    assert status == ("polls-failing" in expected)


def test_queues_that_monitors_left_behind(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """Celery's own receiver, with its queue declared and never consumed, gets all events for ever (celery 269)."""
    url = f"http://guest:guest@127.0.0.1:{rabbitmq.management_port}"
    app = make_app(rabbitmq.url)
    app.conf.event_queue_expires = app.conf.event_queue_ttl = None
    with start_worker(rabbitmq.url, tmp_path), app.connection_for_read() as connection, connection.channel() as channel:
        left, read = (app.events.Receiver(channel).queue(channel) for _ in range(2))
        left.declare()
        read.declare()
        read.consume("reader", callback=id, no_ack=True)

        def found() -> dict[str, str]:
            return examine(rabbitmq.url, rabbitmq_management_url=url)[1]

        wait_until(lambda: "orphaned-queues" in found(), what="the statistics of RabbitMQ")
        assert f"{left.name} (" in found()["orphaned-queues"]
        assert read.name not in found()["orphaned-queues"]
        _, _, output = examine(rabbitmq.url, rabbitmq_management_url=url)
        [command] = re.findall(r"rabbitmqctl -p VHOST delete_queue (\S+?)[\"\s]", output)
        rabbitmq.control("-p", "/", "delete_queue", command)
        wait_until(lambda: "orphaned-queues" not in found(), what="the queue is gone")


def test_a_management_api_that_refuses_is_a_fault(rabbitmq: RabbitMQ) -> None:
    """And no reason not to look at the rest; without a password in the line."""
    url = f"http://guest:hush@127.0.0.1:{rabbitmq.management_port}"
    status, found, output = examine(rabbitmq.url, rabbitmq_management_url=url)
    assert (status, set(found)) == (1, {"queues-incomplete", "no-workers"})
    assert "401" in found["queues-incomplete"]
    assert "hush" not in output
