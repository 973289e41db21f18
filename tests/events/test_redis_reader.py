"""The reader on a real Redis in all the ways in which a cluster may reach it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.events.messages import event, message
from tests.events.running import Readers, app_of, emit, emit_until_received
from tests.events.sinks import RecordingSink
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.events import open_reader
from celerymeter.events.redis import CONNECT_TIMEOUT, RedisReader
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis on TCP and a unix socket, with users."""
    folder = tmp_path_factory.mktemp("redis")
    options = ["--unixsocket", str(folder / "redis.sock")]
    users = ["default on nopass ~* &* +@all", "shop on >s3cret:/@ ~* &* +@all"]
    users += ["reader on >s3cret:/@ resetchannels &/0.celeryev/* -@all +psubscribe +ping"]
    options += [word for user in users for word in ("--user", *user.split())]
    with Redis(folder, options=options) as started:
        yield started.up()


def unix_path(server: Redis) -> str:
    return server.argv[server.argv.index("--unixsocket") + 1]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {}),
        ({"global_keyprefix": "shop:"}, {}),
        ({"global_keyprefix": "shop[1]*?\\:"}, {}),
        ({"fanout_prefix": False}, {}),
        ({"fanout_prefix": "/shop-{db}."}, {}),
        ({"fanout_patterns": False}, {}),
        ({"fanout_patterns": False, "fanout_prefix": False, "global_keyprefix": "a"}, {}),
        ({}, {"event_exchange": "shopev", "event_queue_prefix": "shopq"}),
        ({"socket_keepalive": True, "client_name": "meter", "health_check_interval": 0}, {}),
    ],
    ids=str,
)
def test_events_arrive_whatever_names_the_cluster_uses(
    server: Redis, readers: Readers, options: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Channel names follow the transport options and settings as kombu's do, here in database 3."""
    url = server.url.replace("/0", "/3")
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=url, transport_options=options, celery_settings=settings), sink))
    sink.await_connections()

    emit_until_received(app_of(url, settings=settings, **options), sink)

    assert not sink.rejections
    assert not sink.losses


def test_other_databases_and_exchanges_are_not_heard(server: Redis, readers: Readers) -> None:
    """Two clusters on one Redis stay apart."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()

    emit(app_of(server.url.replace("/0", "/4")))
    emit(app_of(server.url, settings={"event_exchange": "other"}))
    emit(app_of(server.url), "shop-closed")

    sink.await_events(1)
    assert [got.type for got in sink.received] == ["shop-closed"]


@pytest.mark.parametrize(
    "address",
    [
        "redis://shop:s3cret%3A%2F%40@127.0.0.1:{tcp}/0",
        "redis://reader:s3cret%3A%2F%40@127.0.0.1:{tcp}/0",
        "redis+socket://{path}",
        "unix://{path}",
        "redis+socket://shop:s3cret%3A%2F%40@{path}?virtual_host=0",
    ],
)
def test_every_way_to_reach_redis(server: Redis, readers: Readers, address: str) -> None:
    """Passwords, a user that may do nothing but subscribe, unix sockets: as in the workers' own URL."""
    sink = RecordingSink()
    url = address.format(tcp=server.port, path=unix_path(server))
    readers.start(open_reader(BrokerSettings(url=url), sink))
    sink.await_connections()

    emit_until_received(app_of(server.url), sink)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("redis://shop:wr0ng@127.0.0.1:{tcp}/0", "invalid username-password"),
        ("redis://reader:s3cret%3A%2F%40@127.0.0.1:{tcp}/1", "no permissions"),
        ("redis://127.0.0.1:1/0", "refused"),
        ("redis+socket:///nowhere/redis.sock", "No such file"),
    ],
)
def test_a_refusal_is_reported_without_the_password(server: Redis, readers: Readers, address: str, reason: str) -> None:
    """The reason names what is wrong in one line, and attempts go on."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=address.format(tcp=server.port)), sink))

    loss = sink.await_loss()

    assert reason.lower() in loss.lower()
    assert "\n" not in loss
    assert not any(secret in loss for secret in ("s3cret", "wr0ng"))
    assert not sink.connections


def test_what_is_no_event_is_counted_and_harms_nothing(server: Redis, readers: Readers) -> None:
    """Anybody can publish on a channel: each kind of rubbish is counted, and the stream goes on."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()
    client = redis.Redis(port=server.port)

    for rubbish in (
        b"",
        b"junk",
        b"{}",
        message(5),
        message(b"\x80\x04.", content_type="application/x-python-serialize"),
    ):
        client.publish("/0.celeryev/task.multi", rubbish)
    client.publish("/0.celeryev/", message([event(uuid="a"), event(uuid=...), event(uuid="b")]))

    sink.await_events(2)
    assert [got.uuid for got in sink.received] == ["a", "b"]
    assert sink.rejections == {"envelope": 3, "body": 1, "content_type": 1, "fields": 1}
    assert not sink.losses
    client.close()


def test_messages_of_any_size_come_whole(server: Redis, readers: Readers) -> None:
    """Frames are put together again, however the network cut them."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()
    client = redis.Redis(port=server.port)

    for size in (1, 30_000, 33_000, 1_000_000, 3_000_000, 10):
        client.publish("/0.celeryev/task.multi", message([event(uuid=str(size), args="x" * size)]))

    sink.await_events(6)
    assert [got.uuid for got in sink.received] == ["1", "30000", "33000", "1000000", "3000000", "10"]
    client.close()


def test_a_burst_is_read_completely_and_in_order(server: Redis, readers: Readers) -> None:
    """20,000 events in one pipeline, faster than they can be decoded, under Redis' default limits."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()
    client = redis.Redis(port=server.port)
    pipeline = client.pipeline(transaction=False)
    for number in range(10_000):
        pipeline.publish("/0.celeryev/task.multi", message([event(uuid=f"{number}a"), event(uuid=f"{number}b")]))
    pipeline.execute()

    sink.await_events(20_000)

    assert [got.uuid for got in sink.received] == [f"{number}{half}" for number in range(10_000) for half in "ab"]
    assert not sink.losses
    client.close()


def test_real_workers_are_heard(server: Redis, readers: Readers, tmp_path: Path) -> None:
    """Every event of every run on a prefork worker, and its heartbeats."""
    url = server.url.replace("/0", "/5")
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=url), sink))
    sink.await_connections()

    with start_worker(url, tmp_path, concurrency=2):
        app = app_of(url)
        for number in range(20):
            app.send_task("tests.add", (number, 1))
            app.send_task("tests.fail")
        wait_until(lambda: sink.types()["task-succeeded"] + sink.types()["task-failed"] >= 40)

    expected = {"task-sent": 40, "task-received": 40, "task-started": 40, "task-succeeded": 20, "task-failed": 20}
    assert {kind: count for kind, count in sink.types().items() if kind in expected} == expected
    assert sink.types()["worker-online"] == 1
    assert not sink.rejections


def test_receipt_is_when_the_bytes_were_read(server: Redis, readers: Readers) -> None:
    """`at` is between sending and delivery, to within the pause that batches a stream."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=server.url), sink))
    sink.await_connections()

    before = time.time()
    emit(app_of(server.url))
    sink.await_events(1)

    assert before <= sink.receipts[0] <= time.time()


def test_stop_ends_the_reader_at_once(server: Redis, readers: Readers, tmp_path: Path) -> None:
    """While subscribed, while it waits to try again, and while a connection attempt hangs."""
    for url in (server.url, "redis://127.0.0.1:1/0", "redis://192.0.2.1:6379/0"):
        sink = RecordingSink()
        reader = RedisReader(BrokerSettings(url=url), sink)
        with Readers() as running:
            running.start(reader)
            time.sleep(0.3)  # into the state that the URL stands for
            began = time.monotonic()
        assert time.monotonic() - began < CONNECT_TIMEOUT, url


def test_a_silent_stream_says_until_when_it_was_read(server: Redis, readers: Readers) -> None:
    """So that nobody takes what is still unread for missing."""
    sink = RecordingSink()
    readers.start(RedisReader(BrokerSettings(url=server.url), sink))
    sink.await_connections()
    begun = time.time()
    wait_until(lambda: sink.read_until >= begun)
    assert sink.read_until <= time.time()
    assert sink.received == []
