"""The reader on a real RabbitMQ."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from tests.events.messages import event
from tests.events.running import Readers, app_of, emit, emit_until_received
from tests.events.sinks import RecordingSink
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.events import open_reader
from celerymeter.events.amqp import HEARTBEAT, KombuReader
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One RabbitMQ for the module; a test that stops it starts it again."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as started:
        yield started.up()


def ask(server: RabbitMQ, path: str) -> Any:
    """Return an answer of the management API."""
    url = f"http://127.0.0.1:{server.management_port}/api/{path}"
    return requests.get(url, auth=("guest", "guest"), timeout=30).json()


def close_connections(server: RabbitMQ) -> int:
    """Close all that the management API knows (it learns of new ones late); how many."""
    connections = ask(server, "connections")
    for connection in connections:
        url = f"http://127.0.0.1:{server.management_port}/api/connections/{connection['name']}"
        requests.delete(url, auth=("guest", "guest"), timeout=30)
    return len(connections)


def event_queues(server: RabbitMQ, prefix: str = "celeryev") -> list[dict[str, Any]]:
    """The queues of readers."""
    return [queue for queue in ask(server, "queues") if queue["name"].startswith(f"{prefix}.celerymeter.")]


def test_events_arrive_with_their_fields(server: RabbitMQ, readers: Readers) -> None:
    """From Celery's own dispatcher, by name of the exchange that the cluster chose."""
    settings = {"event_exchange": "shopev", "event_queue_prefix": "shopq"}
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url, celery_settings=settings), sink))
    sink.await_connections()

    emit(app_of(server.url, settings=settings), "task-received", uuid="a", name="shop.pay", retries=0)

    sink.await_events(1)
    got = sink.received[0]
    assert (got.type, got.hostname, got.uuid, got.name) == ("task-received", "w1@host1", "a", "shop.pay")
    assert event_queues(server, "shopq")


def test_the_queue_is_bounded_and_goes_with_its_reader(server: RabbitMQ) -> None:
    """Time to live and expiry are the settings'; a reader that is stopped leaves nothing behind."""
    sink = RecordingSink()
    with Readers() as running:
        broker = BrokerSettings(url=server.url, event_queue_ttl=12, event_queue_expires=34)
        running.start(open_reader(broker, sink))
        sink.await_connections()
        [queue] = event_queues(server)
        assert queue["arguments"].items() >= {"x-message-ttl": 12_000, "x-expires": 34_000}.items()
        assert queue["durable"]
    assert event_queues(server) == []


def test_what_is_no_json_is_counted_and_never_opened(server: RabbitMQ, readers: Readers) -> None:
    """Content types other than JSON are rejected, and the stream goes on."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()
    app = app_of(server.url)
    bodies = [
        (b"\x80\x04.", "application/x-python-serialize", "binary"),
        (b"junk", "application/json", "utf-8"),
        (b"{}", "application/json", "utf-8"),
        (json.dumps(event()).encode("utf-16"), "application/json", "utf-16"),
        (json.dumps([event(uuid="a"), event(uuid=...)]).encode(), "application/json", "utf-8"),
    ]

    with app.connection_for_write() as connection:
        for body, kind, charset in bodies:
            properties = {"exchange": "celeryev", "routing_key": "x", "content_type": kind, "content_encoding": charset}
            connection.Producer(serializer=None).publish(body, **properties)

    sink.await_events(1)
    assert [got.uuid for got in sink.received] == ["a"]
    assert sink.rejections == {"content_type": 1, "body": 1, "encoding": 1, "fields": 2}


def test_real_workers_are_heard(server: RabbitMQ, readers: Readers, tmp_path: Any) -> None:
    """Every event of every run of two tasks on a prefork worker."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()

    with start_worker(server.url, tmp_path):
        app = app_of(server.url)
        for number in range(20):
            app.send_task("tests.add", (number, 1))
            app.send_task("tests.fail")
        wait_until(lambda: sink.types()["task-succeeded"] + sink.types()["task-failed"] >= 40)

    expected = {"task-sent": 40, "task-received": 40, "task-started": 40, "task-succeeded": 20, "task-failed": 20}
    assert {kind: count for kind, count in sink.types().items() if kind in expected} == expected
    assert not sink.rejections


def test_a_connection_that_the_server_closes_is_renewed_without_loss(server: RabbitMQ, readers: Readers) -> None:
    """The queue stays while we are away, and so do the events in it."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()
    app = app_of(server.url)
    emit_until_received(app, sink)

    wait_until(lambda: close_connections(server) and sink.losses, what="the reader's connection is closed")
    emit(app, *["shop-closed"] * 5)
    sink.await_connections(2)

    wait_until(lambda: sink.types()["shop-closed"] == 5, what="events that were sent meanwhile")
    assert "CONNECTION_FORCED" in sink.losses[0][1]


@pytest.mark.parametrize(
    ("heartbeat", "within"),
    [(1.0, 60.0), pytest.param(HEARTBEAT, 15.0, marks=pytest.mark.slow)],
    ids=["quick", "as shipped"],
)
def test_a_deaf_server_is_noticed_by_its_heartbeats(
    server: RabbitMQ, readers: Readers, heartbeat: float, within: float
) -> None:
    """A stopped RabbitMQ keeps its connections open and says nothing."""
    sink = RecordingSink()
    readers.start(KombuReader(BrokerSettings(url=server.url), sink, heartbeat=heartbeat))
    sink.await_connections()

    server.signal(signal.SIGSTOP, group=True)
    loss = sink.await_loss(timeout=within)
    server.signal(signal.SIGCONT, group=True)
    sink.await_connections(2)

    assert "heartbeats" in loss
    emit_until_received(app_of(server.url), sink)


def test_a_queue_that_was_deleted_is_declared_again(server: RabbitMQ, readers: Readers) -> None:
    """By an operator who cleans up."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()
    wait_until(lambda: event_queues(server), what="the management API knows the queue")

    for queue in event_queues(server):
        url = f"http://127.0.0.1:{server.management_port}/api/queues/%2F/{queue['name']}"
        requests.delete(url, auth=("guest", "guest"), timeout=30)
    sink.await_connections(2)

    emit_until_received(app_of(server.url), sink)


@pytest.mark.parametrize("fault", ["wrong password", "nobody listens"])
def test_a_refusal_is_reported_without_the_password(server: RabbitMQ, readers: Readers, fault: str) -> None:
    """And attempts go on."""
    url = server.url.replace("guest:guest", "guest:hush")
    if fault == "nobody listens":
        url = url.replace(str(server.port), "1")
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=url), sink))

    loss = sink.await_loss()

    assert "hush" not in loss
    assert not sink.connections


@pytest.mark.slow
def test_a_restart_of_the_broker_is_survived(server: RabbitMQ, readers: Readers) -> None:
    """Stopped and started again."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()

    server.stop()
    sink.await_loss()
    server.up()
    sink.await_connections(2)

    emit_until_received(app_of(server.url), sink)


def test_a_silent_stream_says_until_when_it_was_read(server: RabbitMQ, readers: Readers) -> None:
    """So that nobody takes what is still unread for missing."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()
    begun = time.time()
    wait_until(lambda: sink.read_until >= begun)
    assert sink.read_until <= time.time()
    assert sink.received == []
