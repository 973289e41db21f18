"""Every counter is exactly right on every broker that carries events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from tests.apps.worker_app import make_app
from tests.events.certificates import Certificates
from tests.events.sentinel import SENTINEL_PASSWORD, SentinelCluster
from tests.integration.exporter.expected import Expected, settle
from tests.scrape import ExporterProcess
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.demo.processes import free_port, wait_until
from celerymeter.demo.servers import Redis
from celerymeter.errors import ServerMissing, StartFailed

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Broker:
    """The URL and the options by which workers, producers and the exporter connect."""

    url: str
    transport_options: Mapping[str, Any] = field(default_factory=dict)


def rabbitmq(folder: Path, stack: ExitStack) -> Broker:
    """AMQP."""
    return Broker(stack.enter_context(RabbitMQ(folder)).up().url)


def redis_over_tls(folder: Path, stack: ExitStack) -> Broker:
    """A Redis that listens on TLS alone, with a certificate of an authority made for it."""
    made, port = Certificates(folder), free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(made.authority)]
    options += ["--tls-cert-file", str(made.certificate), "--tls-key-file", str(made.key)]
    server = stack.enter_context(Redis(folder, options=options))
    try:
        server.up()
    except StartFailed as error:
        if "TLS" in str(error):
            raise ServerMissing("this Redis was built without TLS") from error
        raise
    return Broker(f"rediss://localhost:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={made.authority}")


def redis_under_sentinel(folder: Path, stack: ExitStack) -> Broker:
    """A master, a replica and a Sentinel, all with passwords."""
    options = {"master_name": "shop", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
    return Broker(stack.enter_context(SentinelCluster(folder)).url, options)


@pytest.fixture(
    scope="module", params=[rabbitmq, redis_over_tls, redis_under_sentinel], ids=lambda start: start.__name__
)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Each kind of broker, for the module."""
    start: Callable[[Path, ExitStack], Broker] = request.param
    with ExitStack() as stack:
        yield start(tmp_path_factory.mktemp(start.__name__), stack)


@pytest.fixture
def exporter(broker: Broker, tmp_path: Path) -> Iterator[ExporterProcess]:
    """Configured as the workers are."""
    options = [f"--transport-option={key}={json.dumps(value)}" for key, value in _items(broker)]
    with ExporterProcess(tmp_path, broker.url, options=options) as started:
        yield started.up()


@pytest.fixture
def producer(broker: Broker) -> Iterator[Celery]:
    """The test's own application."""
    app = make_app(broker.url, transport_options=broker.transport_options)
    yield app
    app.close()


def _items(broker: Broker) -> list[tuple[str, Any]]:
    return list(broker.transport_options.items())


def test_a_mixed_workload_is_counted_to_the_task(
    broker: Broker, exporter: ExporterProcess, producer: Celery, tmp_path: Path
) -> None:
    """Successes, failures and retries, within and past the limit, over two queues."""
    queues, expected = ("mail", "bulk"), Expected()
    with start_worker(broker.url, tmp_path, concurrency=2, queues=queues, transport_options=broker.transport_options):
        for queue in queues * 5:
            producer.send_task("tests.add", (1, 2), queue=queue)
            expected.add("tests.add", queue, succeeded=1)
            producer.send_task("tests.fail", queue=queue)
            expected.add("tests.fail", queue, failed=1)
            producer.send_task("tests.retry", (2,), queue=queue)
            expected.add("tests.retry", queue, runs=3, retried=2, succeeded=1)
            producer.send_task("tests.retry", (9,), queue=queue)
            expected.add("tests.retry", queue, runs=4, retried=3, failed=1)
        page = settle(exporter, expected)
    assert set(page.by("celery_queue_length", "queue_name")) <= {(queue,) for queue in queues}
    assert page.sum("celery_task_in_progress") == 0
    for name in ("missed", "invalid", "duplicate"):
        assert page.sum(f"celerymeter_events_{name}_total") == 0


def test_waiting_tasks_are_counted_until_a_worker_takes_them(
    broker: Broker, exporter: ExporterProcess, producer: Celery, tmp_path: Path
) -> None:
    """By queue, on RabbitMQ without its management API; nothing is missed."""
    for queue, waiting in (("mail", 3), ("bulk", 1)):
        for _ in range(waiting):
            producer.send_task("tests.add", (1, 2), queue=queue)
    lengths = {("mail",): 3.0, ("bulk",): 1.0}
    wait_until(lambda: exporter.scrape().by("celery_queue_length", "queue_name") == lengths)
    with start_worker(broker.url, tmp_path, queues=("mail", "bulk"), transport_options=broker.transport_options):
        wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 4)
        wait_until(lambda: exporter.scrape().sum("celery_queue_length") == 0)
    assert exporter.scrape().sum("celerymeter_events_missed_total") == 0
