"""Queues and workers on a real RabbitMQ."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from kombu.transport.native_delayed_delivery import (
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)
from tests.apps.worker_app import SETTINGS, make_app
from tests.scrape import ExporterProcess
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.errors import BrokerUnavailable, SettingsError
from celerymeter.model import BrokerMemory, QueueState
from celerymeter.polling.amqp_queues import AmqpQueuePoller, ListedQueue, Management, Node, broker_memory
from celerymeter.polling.reply_habits import PollTarget
from celerymeter.polling.workers import WorkerPoller
from celerymeter.remote_control import Command, RemoteControl
from celerymeter.settings import BrokerSettings, ExporterSettings

pytestmark = pytest.mark.integration

GUEST = ("guest", "guest")


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One RabbitMQ for this module."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        server.up()
        yield server


QUEUES = {"a-classic": "classic", "a-quorum": "quorum"}


@pytest.fixture
def filled(rabbitmq: RabbitMQ) -> Iterator[None]:
    """A queue of each type, with five messages of which a consumer holds two."""
    held: list[object] = []
    with make_app(rabbitmq.url).connection_for_write() as connection, connection.channel() as channel:
        channel.basic_qos(0, 2, False)
        for name, kind in QUEUES.items():
            channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-queue-type": kind})
            channel.exchange_declare(name, "direct", durable=True, auto_delete=False)
            channel.queue_bind(name, name, name)
            for _ in range(5):
                connection.Producer(channel).publish("x", routing_key=name)
            channel.basic_consume(name, callback=held.append, consumer_tag=name)
        while len(held) < 4:
            connection.drain_events(timeout=5)
        yield
        for name in QUEUES:
            channel.basic_cancel(name)
            channel.queue_delete(name)
            channel.exchange_delete(name)


def test_a_queue_whose_length_is_refused_is_never_missing_in_silence(rabbitmq: RabbitMQ, filled: None) -> None:
    """RabbitMQ 4.3 tells it only to those who have a permission on the queue; those before tell it to everybody."""
    api = f"http://127.0.0.1:{rabbitmq.management_port}/api"
    requests.put(f"{api}/users/nobody", json={"password": "s", "tags": ""}, auth=GUEST, timeout=30).raise_for_status()
    nothing = {"configure": "^$", "write": "^a-quorum$", "read": "^$"}
    requests.put(f"{api}/permissions/%2F/nobody", json=nothing, auth=GUEST, timeout=30).raise_for_status()
    url = rabbitmq.url.replace("guest:guest", "nobody:s")
    poller = AmqpQueuePoller(ExporterSettings(BrokerSettings(url=url)))
    snapshot = poller.poll({*QUEUES, "missing"}, now=0.0)
    poller.close()
    lengths = {state.name: state.length for state in snapshot.queues}
    assert lengths["a-quorum"] == 3
    assert ("a-classic" in lengths) == (snapshot.incomplete is None)
    assert "a-classic" in (snapshot.incomplete or lengths)


def settings(rabbitmq: RabbitMQ, management: str | None = None) -> ExporterSettings:
    """Settings with or without a management URL."""
    return ExporterSettings(BrokerSettings(url=rabbitmq.url), rabbitmq_management_url=management)


def management(rabbitmq: RabbitMQ, *, user: str = "guest") -> str:
    """The management URL, with the right password for the user guest alone."""
    return f"http://{user}:guest@127.0.0.1:{rabbitmq.management_port}"


def both_queues(unacked: int | None) -> tuple[QueueState, ...]:
    """The expected state of both queues."""
    return tuple(QueueState(name, 3, unacked=unacked, consumers=1) for name in QUEUES)


@pytest.mark.usefixtures("filled")
def test_ready_messages_and_consumers(rabbitmq: RabbitMQ) -> None:
    """Of classic and quorum queues; a queue that does not exist is no empty one."""
    poller = AmqpQueuePoller(settings(rabbitmq))
    snapshot = poller.poll(["missing", *QUEUES, "a-missing"], now=1.0)
    poller.close()
    assert snapshot.queues == both_queues(None)


@pytest.mark.usefixtures("filled")
def test_unacknowledged_messages_by_the_management_api(rabbitmq: RabbitMQ) -> None:
    """It also tells what queues there are; its statistics come with a delay of 5 s."""
    poller = AmqpQueuePoller(settings(rabbitmq, management(rabbitmq)))
    wait_until(lambda: poller.poll([], now=1.0).queues == both_queues(2), interval=0.3)
    poller.close()


@pytest.mark.usefixtures("filled")
def test_queues_of_others_are_not_polled(rabbitmq: RabbitMQ) -> None:
    """Delay levels, replies, dead letters, streams and other applications share the virtual host."""
    topic, dead = "shop-events", "shop-dead"
    with make_app(rabbitmq.url).connection_for_write() as connection, connection.channel() as channel:
        declare_native_delayed_delivery_exchanges_and_queues(connection, "classic")
        for exchange in (topic, dead, "other-app"):
            channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)

        def declare(queue: str, exchange: str = "", key: str = "", **arguments: str) -> None:
            options = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=options)
            if exchange:
                channel.queue_bind(queue, exchange, key or queue)

        declare("orders", topic, dead_letter_exchange=dead)
        declare("mail", topic, dead_letter_exchange="", dead_letter_routing_key="mail.dead")
        declare("mail.dead", topic)
        declare("orders.dead", dead)
        declare("invoices", "other-app")
        declare("billing", topic, "#")
        consumer = channel.basic_consume("billing")
        declare("mqtt-subscription-1", "amq.topic")
        declare("log", queue_type="stream")
        for _ in range(20):
            declare(str(uuid4()))
        api = Management(management(rabbitmq), broker_url=rabbitmq.url)
        wait_until(lambda: api.queues()["billing"].consumers == 1, interval=0.3)  # its statistics are 5 s late
        poller = AmqpQueuePoller(settings(rabbitmq, management(rabbitmq)))
        polls = [poller.poll(names, now=now) for names, now in ((["orders"], 1.0), ([], 99.0))]
        poller.close()
        channel.basic_cancel(consumer)
        for name in ("orders", "mail", "mail.dead", "orders.dead", "invoices", "billing", "mqtt-subscription-1", "log"):
            channel.queue_delete(name)
        for level in range(28):
            channel.queue_delete(level_name(level))
    found = [{state.name for state in snapshot.queues} for snapshot in polls]
    assert found == [{*QUEUES, "orders", "mail"}] * 2, "a name once learned stays while its queue is there"


@pytest.mark.usefixtures("filled")
def test_a_management_api_that_refuses_costs_its_own_metrics_only(rabbitmq: RabbitMQ) -> None:
    """The snapshot says so, without the password."""
    poller = AmqpQueuePoller(settings(rabbitmq, management(rabbitmq, user="nobody")))
    snapshot = poller.poll(QUEUES, now=1.0)
    poller.close()
    assert snapshot.queues == both_queues(None)
    assert snapshot.incomplete is not None
    assert "401" in snapshot.incomplete
    assert "guest" not in snapshot.incomplete


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("path", ["", "/", "/api", "/api/", "/api/queues", "/api/queues/%2F", "/%2F", "/#/queues"])
def test_the_management_url_that_people_paste(rabbitmq: RabbitMQ, path: str) -> None:
    """The server's, its API's and its web interface's all mean the same."""
    poller = AmqpQueuePoller(settings(rabbitmq, management(rabbitmq) + path))
    snapshot = poller.poll([], now=1.0)
    poller.close()
    assert {state.name for state in snapshot.queues} >= set(QUEUES)
    assert snapshot.incomplete is None


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("path", ["/other", "/api/api"])
def test_a_virtual_host_that_is_not_there_is_no_success(rabbitmq: RabbitMQ, path: str) -> None:
    """Unacknowledged messages were asked for and are not known."""
    poller = AmqpQueuePoller(settings(rabbitmq, management(rabbitmq) + path))
    snapshot = poller.poll(QUEUES, now=1.0)
    poller.close()
    assert snapshot.queues == both_queues(None)
    assert snapshot.incomplete is not None


@pytest.mark.usefixtures("filled")
def test_memory_and_its_alarm(rabbitmq: RabbitMQ) -> None:
    """By the management API, and only with it; a memory alarm blocks whatever publishes."""
    with_api, without = (AmqpQueuePoller(settings(rabbitmq, url)) for url in (management(rabbitmq), None))
    # the broker reports numbers some seconds after its start
    wait_until(lambda: with_api.poll([], now=1.0).memory.used is not None, interval=0.5)
    calm = with_api.poll([], now=1.0).memory
    assert without.poll(QUEUES, now=1.0).memory == BrokerMemory()
    rabbitmq.control("set_vm_memory_high_watermark", "0.00001")
    wait_until(lambda: with_api.poll([], now=1.0).memory.blocked is True, interval=0.5)
    full = with_api.poll([], now=1.0).memory
    rabbitmq.control("set_vm_memory_high_watermark", "0.4")
    wait_until(lambda: with_api.poll([], now=1.0).memory.blocked is False, interval=0.5)
    with_api.close()
    without.close()
    assert calm.used is not None
    assert calm.limit is not None
    assert calm.used < calm.limit
    assert (calm.blocked, calm.evicted) == (False, None)
    assert full.used is not None
    assert full.limit is not None
    assert full.used > full.limit


def test_of_several_nodes_the_one_nearest_to_its_limit_counts() -> None:
    """One that is down has no numbers; an alarm of any blocks all."""
    nodes = [Node(500, 1000, False, False), Node(300, 400, False, True), Node()]
    assert broker_memory(nodes, []) == BrokerMemory(used=300, limit=400, blocked=True, orphaned=0)
    assert broker_memory([], []) == BrokerMemory(orphaned=0)


class JustStarted(BaseHTTPRequestHandler):
    """Answers as RabbitMQ 3.10 does for some seconds after its start: an object without any field is ``[]``."""

    def do_GET(self) -> None:
        """Two nodes, of which one has no numbers yet."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'[[], {"mem_used": 1, "mem_limit": 4, "mem_alarm": false, "disk_free_alarm": false}]')

    def log_message(self, format: str, *args: object) -> None:
        """Be silent."""


def test_a_node_without_numbers_costs_no_other() -> None:
    """Seen right after the start of a server."""
    with HTTPServer(("127.0.0.1", 0), JustStarted) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        management = Management(f"http://127.0.0.1:{server.server_port}", broker_url="amqp://localhost//")
        assert management.nodes() == [Node(1, 4, False, False)]


def test_queues_of_events_and_replies_are_no_tasks() -> None:
    """Their bytes count where nobody reads them, as far as the broker tells."""
    sizes = {"celeryev.a": 11, "b.reply.celery.pidbox": 5, "celery": 1000, "celeryev.c": None}
    listed = [ListedQueue(name, messages=1, message_bytes=size, consumers=0) for name, size in sizes.items()]
    read = ListedQueue("celeryev.d", messages=1, message_bytes=7, consumers=1)
    assert broker_memory([], [*listed, read]).orphaned == 16


@pytest.mark.parametrize("url", ["http://u:hush@host:15672/a/b/c", "http:///api", "http://u:hush@host/?vhost=a"])
def test_a_management_url_that_cannot_be_right_is_refused_at_the_start(url: str) -> None:
    """In one line that names the option and hides the password."""
    with pytest.raises(SettingsError, match="--rabbitmq-management-url") as caught:
        AmqpQueuePoller(ExporterSettings(BrokerSettings(url="amqp://host//"), rabbitmq_management_url=url))
    assert "hush" not in str(caught.value)


def test_a_broker_that_is_away(rabbitmq: RabbitMQ) -> None:
    """Nothing listens at this port; the password is not repeated."""
    away = replace(settings(rabbitmq), broker=BrokerSettings(url="amqp://guest:hush@127.0.0.1:1//"))
    with pytest.raises(BrokerUnavailable) as caught:
        AmqpQueuePoller(away).poll(["b"], now=1.0)
    assert "hush" not in str(caught.value)


def test_workers_answer_over_rabbitmq_and_no_queue_is_left(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """Reply queues are gone after the poll."""
    api = f"http://127.0.0.1:{rabbitmq.management_port}/api/queues?columns=name"
    workers = WorkerPoller(settings(rabbitmq))
    with start_worker(rabbitmq.url, tmp_path, concurrency=2) as worker:
        for _ in range(3):
            state = workers.poll(now=1.0, live=[PollTarget("w1@test", 1)]).workers["w1@test"]
        worker.kill()
    assert (state.slots, state.queues, state.scheduled) == (2, ("celery",), 0)
    names = [one["name"] for one in requests.get(api, auth=GUEST, timeout=30).json()]
    assert not [name for name in names if "reply" in name]
    workers.close()


def test_a_command_to_some_workers_reaches_no_other(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """One that accepts no JSON would log an error for each."""
    settings = {SETTINGS: json.dumps({"task_serializer": "pickle", "accept_content": ["pickle"]}), "C_FORCE_ROOT": "1"}
    control = RemoteControl(BrokerSettings(url=rabbitmq.url))
    with (
        start_worker(rabbitmq.url, tmp_path, hostname="w1@test", pool="solo") as well,
        start_worker(rabbitmq.url, tmp_path, hostname="w2@test", pool="solo", env=settings) as other,
    ):
        for _ in range(3):
            assert control.ask([Command("ping", destination=["w1@test"])], expected=["w1@test"]).hostnames
        assert other.tail(1000).count("CRITICAL") == 0
        control.ask([Command("ping")], expected=["w1@test"])
        wait_until(lambda: other.tail(1000).count("CRITICAL") == 1, what="a command to all is one error")
        control.close()
        well.kill()
        other.kill()


def test_queues_without_workers_are_known_after_a_restart(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """Scaled to zero, and the exporter moved to another node (danihodovic/celery-exporter pull request 260)."""
    (tmp_path / "state").mkdir(mode=0o700)
    options = ("--state-file", str(tmp_path / "state" / "state.json"))
    app, length = make_app(rabbitmq.url), {"queue_name": "orders"}
    with app.connection_for_write() as connection, connection.channel() as channel:
        channel.queue_declare("orders", durable=True, auto_delete=False)
        with ExporterProcess(tmp_path, rabbitmq.url, options=options, name="first") as exporter:
            exporter.up()
            for _ in range(3):
                app.send_task("tests.add", (1, 2), queue="orders")
            wait_until(lambda: exporter.value("celery_queue_length", **length) == 3)
            exporter.stop()
        with ExporterProcess(tmp_path, rabbitmq.url, name="without") as exporter:
            exporter.up()
            wait_until(lambda: exporter.value("celerymeter_poll_success", collector="queues") == 1)
            assert exporter.value("celery_queue_length", **length) is None
        with ExporterProcess(tmp_path, rabbitmq.url, options=options, name="second") as exporter:
            exporter.up()
            wait_until(lambda: exporter.value("celery_queue_length", **length) == 3)
            channel.queue_delete("orders")
            wait_until(lambda: exporter.value("celery_queue_length", **length) is None)
            exporter.stop()
    assert json.loads((tmp_path / "state" / "state.json").read_text())["sections"]["queues"] == []
    app.close()
