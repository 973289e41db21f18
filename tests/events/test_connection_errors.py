"""Every connection becomes useless one day: each cause is a real one, and its holder goes on with another."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
import redis
import requests
from tests.apps.worker_app import make_app
from tests.events.blackhole import Blackhole
from tests.events.running import Readers, app_of, emit_until_received
from tests.events.sinks import RecordingSink
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.connection_errors import TABLE, why_useless
from celerymeter.control.evidence.redis_queues import RedisQueues
from celerymeter.demo.processes import free_port, wait_until
from celerymeter.demo.servers import Redis, listens
from celerymeter.doctor.collect.broker import collect
from celerymeter.doctor.settings import DoctorSettings
from celerymeter.errors import BrokerUnavailable
from celerymeter.events import open_reader
from celerymeter.events.redis import RedisReader, Timeouts
from celerymeter.polling import open_queue_poller
from celerymeter.remote_control import Command, RemoteControl
from celerymeter.settings import BrokerSettings, ExporterSettings

W1 = "w1@test"


class Holders:
    """Everything that holds connections to a broker between two uses, the event stream apart."""

    def __init__(self, url: str) -> None:
        self.broker = BrokerSettings(url=url)
        self.control = RemoteControl(self.broker)
        self.queues = open_queue_poller(ExporterSettings(broker=self.broker))
        self.lists = RedisQueues(self.broker)

    def use(self) -> None:
        """Use each once; raises `BrokerUnavailable`."""
        self.control.ask([Command("ping")], silence=0.2)
        self.length()

    def length(self) -> int | None:
        """The length of the queue ``shop``."""
        snapshot = self.queues.poll(["shop"], now=time.time())
        return next((queue.length for queue in snapshot.queues if queue.name == "shop"), None)

    def failure(self) -> str:
        """Return the reason why the workers cannot be asked now."""
        with pytest.raises(BrokerUnavailable) as caught:
            self.control.ask([Command("ping")], silence=0.2)
        return str(caught.value)

    def diagnosis(self) -> str | None:
        """The kind of failure that the doctor sees."""
        failure = collect(DoctorSettings(self.broker, watch=0.1), progress=lambda _: None).failure
        return failure.kind if failure else None


@contextmanager
def holders(url: str) -> Iterator[Holders]:
    """Everything, connected and used once."""
    found = Holders(url)
    found.use()
    try:
        yield found
    finally:
        found.control.close()
        found.queues.close()


def await_replication(replica: Redis) -> None:
    """Wait until the replica has its master's data."""
    with redis.Redis(port=replica.port) as client:
        wait_until(lambda: client.info("replication").get("master_link_status") == "up", what="replication")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Redis, Redis, Blackhole]]:
    """Two Redis, the second a replica of the first, and the address at which clients find the master."""
    quickly = ["--repl-diskless-sync-delay", "0"]
    with Redis(tmp_path / "a", options=quickly) as first, Redis(tmp_path / "b", options=quickly) as second:
        first.up()
        second.up()
        with redis.Redis(port=second.port) as client:
            client.replicaof("127.0.0.1", str(first.port))
        await_replication(second)
        with Blackhole(first.port) as address:
            yield first, second, address


def fail_over(old: Redis, new: Redis, address: Blackhole, *, demote: bool = True) -> None:
    """As a proxy and an operator do it: connections to the old master stay open."""
    with redis.Redis(port=new.port) as client:
        client.replicaof("NO", "ONE")
    address.redirect(new.port)
    if demote:
        with redis.Redis(port=old.port) as client:
            client.replicaof("127.0.0.1", str(new.port))
        await_replication(old)


@pytest.mark.integration
def test_a_failover_behind_an_address_that_keeps_connections_open(
    pair: tuple[Redis, Redis, Blackhole], readers: Readers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """READONLY: the very next use of each connection reaches the new master, and the log says so once."""
    old, new, address = pair
    url = f"redis://127.0.0.1:{address.port}/0"
    sink = RecordingSink()
    with holders(url) as held:
        readers.start(open_reader(held.broker, sink))
        sink.await_connections()
        held.lists.find(["t1"], ["shop"])
        with start_worker(old.url, tmp_path, hostname="w0@test", pool="solo") as worker:
            assert held.control.ask([Command("stats")], expected=["w0@test"]).hostnames == {"w0@test"}
            worker.kill()
        fail_over(old, new, address)
        with start_worker(new.url, tmp_path, hostname=W1, pool="solo") as worker, caplog.at_level(logging.WARNING):
            assert held.control.ask([Command("stats")], expected=[W1]).hostnames == {W1}
            worker.kill()
        make_app(new.url).send_task("tests.add", (1, 2), queue="shop", task_id="t1")
        assert held.length() == 1
        assert held.lists.find(["t1"], ["shop"])["t1"].queue == "shop"
        assert held.diagnosis() is None
        emit_until_received(app_of(new.url), sink)
    renewed = [record.getMessage() for record in caplog.records if "new connection" in record.getMessage()]
    assert len(renewed) == 1
    assert "has become a replica" in renewed[0]


@pytest.mark.integration
def test_a_failover_while_workers_are_asked(pair: tuple[Redis, Redis, Blackhole], tmp_path: Path) -> None:
    """UNBLOCKED: Redis ends what waits for replies there, which killed workers (oss-aspen/8Knot 361)."""
    old, new, address = pair
    with holders(f"redis://127.0.0.1:{address.port}/0") as held, ThreadPoolExecutor(1) as pool:
        with start_worker(old.url, tmp_path, hostname="w0@test", pool="solo") as worker:
            assert held.control.ask([Command("ping")], expected=["w0@test"]).hostnames
            worker.kill()
        asked = pool.submit(held.control.ask, [Command("ping")], silence=5.0)
        with redis.Redis(port=old.port) as client:
            wait_until(lambda: client.info("clients")["blocked_clients"] == 1, what="it waits for replies")
        fail_over(old, new, address)
        assert asked.result(timeout=30).hostnames == frozenset()
        held.use()


@pytest.mark.integration
def test_a_master_that_was_left_alone_is_noticed_by_its_silence(
    pair: tuple[Redis, Redis, Blackhole], readers: Readers
) -> None:
    """Nobody demotes it, so it refuses nothing: the subscription is alive and nothing will ever come."""
    old, new, address = pair
    url, sink = f"redis://127.0.0.1:{address.port}/0", RecordingSink()
    with holders(url) as held:
        readers.start(RedisReader(held.broker, sink, timeouts=Timeouts(silence=0.2, reply=10, silences=2)))
        sink.await_connections()
        fail_over(old, new, address, demote=False)
        with redis.Redis(port=new.port) as client:
            client.rpush("shop", "one", "two")
        assert "another server" in sink.await_loss()
        assert held.length() == 2
        sink.await_connections(2)
        emit_until_received(app_of(new.url), sink)
    assert len(sink.losses) == 1


class Alternating(Blackhole):
    """An address whose connections lead to one server and another in turn, as a balancer's."""

    def __init__(self, *ports: int) -> None:
        self._ports = cycle(ports)
        super().__init__(ports[0])

    @property
    def _target(self) -> int:
        return next(self._ports)

    @_target.setter
    def _target(self, port: int) -> None:
        """The first one comes first anyway."""


@pytest.mark.integration
def test_an_address_of_several_servers_is_checked_less_and_less(
    redis_server: Redis, readers: Readers, tmp_path: Path
) -> None:
    """Every check finds another server than that of the subscription, and nothing is better afterwards."""
    sink = RecordingSink()
    with Redis(tmp_path / "other") as other, Alternating(redis_server.port, other.up().port) as address:
        broker = BrokerSettings(url=f"redis://127.0.0.1:{address.port}/0")
        readers.start(RedisReader(broker, sink, timeouts=Timeouts(silence=0.1, reply=10, silences=2)))
        wait_until(lambda: len(sink.losses) >= 3, what="three checks")
        first, second, third = (at for at, _ in sink.losses[:3])
        assert third - second > 1.5 * (second - first)


def _cut(client: redis.Redis) -> None:
    client.client_kill_filter(_type="normal", skipme=True)
    client.client_kill_filter(_type="pubsub")


def _change_password(client: redis.Redis) -> None:
    client.config_set("requirepass", "new")
    _cut(client)


def _take_no_clients(client: redis.Redis) -> None:
    client.config_set("maxclients", 1)
    _cut(client)


Change = Callable[[redis.Redis], object]
REDIS: dict[str, tuple[Change, Change, str]] = {
    "password": (_change_password, lambda client: client.config_set("requirepass", ""), "password"),
    "clients": (_take_no_clients, lambda client: client.config_set("maxclients", 10_000), "clients"),
    "memory": (
        lambda client: client.config_set("maxmemory", 1),
        lambda client: client.config_set("maxmemory", 0),
        "full",
    ),
    "replicas": (
        lambda client: client.config_set("min-replicas-to-write", 3),
        lambda client: client.config_set("min-replicas-to-write", 0),
        "full",
    ),
    "lost master": (
        lambda client: (client.config_set("replica-serve-stale-data", "no"), client.replicaof("127.0.0.1", "1")),
        lambda client: client.replicaof("NO", "ONE"),
        "replica",
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("fault", REDIS)
def test_what_redis_refuses_for_a_while(redis_server: Redis, readers: Readers, fault: str) -> None:
    """Each is said by its name, by the doctor too, and over as soon as its cause is."""
    cause, remedy, kind = REDIS[fault]
    meanings = {row.meaning for row in TABLE if row.kind == kind}
    sink = RecordingSink()
    with holders(redis_server.url) as held, redis.Redis(port=redis_server.port) as client:
        readers.start(open_reader(held.broker, sink))
        sink.await_connections()
        cause(client)
        try:
            assert any(meaning in held.failure() for meaning in meanings)
            assert held.diagnosis() == kind
        finally:
            remedy(client)
        held.use()
        emit_until_received(app_of(redis_server.url), sink)


@pytest.mark.integration
def test_a_redis_that_cannot_save(tmp_path: Path) -> None:
    """MISCONF: its folder is gone, so its background save fails, and it takes no writes."""
    folder = tmp_path / "redis"
    with Redis(folder) as server:
        server.up()
        with holders(server.url) as held, redis.Redis(port=server.port) as client:
            client.config_set("save", "1 1")
            shutil.rmtree(folder)
            client.set("any", "thing")
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="a failed save")
            assert "cannot save its data" in held.failure()
            assert held.diagnosis() == "full"
            client.config_set("stop-writes-on-bgsave-error", "no")
            held.use()


@pytest.mark.integration
def test_a_redis_that_is_loading(tmp_path: Path) -> None:
    """LOADING: after a restart, for as long as its data takes."""
    slowly = ["--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"]
    with Redis(tmp_path / "redis", options=["--dbfilename", "data.rdb", *slowly]) as server:
        server.up()
        with holders(server.url) as held:
            with redis.Redis(port=server.port) as client:
                client.mset({f"key-{number}": "x" * 100 for number in range(1000)})
                client.save()
            server.kill()
            server.start(ready=lambda: listens(server.port))
            assert "loading its data" in held.failure()
            with pytest.raises(BrokerUnavailable, match="loading its data"):
                held.length()
            assert held.diagnosis() == "loading"
            with redis.Redis(port=server.port) as client:
                wait_until(lambda: client.info("persistence")["loading"] == 0, what="all data are loaded")
            held.use()


@pytest.mark.integration
def test_a_redis_cluster_that_is_down(tmp_path: Path) -> None:
    """CLUSTERDOWN: no node serves the slots of our keys."""
    cluster = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    with Redis(tmp_path / "redis", options=cluster) as server:
        server.up()
        held = Holders(server.url)
        assert "Redis Cluster does not serve our keys" in held.failure()
        with pytest.raises(BrokerUnavailable, match="Redis Cluster"):
            held.length()
        assert held.diagnosis() == "cluster"
        with redis.Redis(port=server.port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
        assert held.length() == 0


GUEST = ("guest", "guest")


class Broker(RabbitMQ):
    """A RabbitMQ that does what its operators do."""

    def api(self, method: str, path: str, *, auth: tuple[str, str] = GUEST, **body: str) -> requests.Response:
        """One request to the management API."""
        url = f"http://127.0.0.1:{self.management_port}/api/{path}"
        response = requests.request(method, url, auth=auth, json=body or None, timeout=30)
        response.raise_for_status()
        return response

    def close_connections(self) -> None:
        """Close them all with 320, as before maintenance."""
        self._control("close_all_connections", "--vhost", "/", "maintenance")

    def limit_memory(self, share: str) -> None:
        """Set the share of the memory from which on publishers are blocked."""
        self._control("set_vm_memory_high_watermark", share)

    def _control(self, *words: str) -> None:
        script = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")  # the one on PATH becomes another user
        command = [str(script) if script.exists() else "rabbitmqctl", "-n", f"t{self.port}@localhost"]
        subprocess.run([*command, *words], env=self.environment, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for this module."""
    with Broker(tmp_path_factory.mktemp("rabbitmq")) as server:
        server.up()
        wait_until(lambda: listens(server.management_port), what="the management API")
        with make_app(server.url).connection_for_write() as connection, connection.channel() as channel:
            channel.queue_declare("shop", durable=True, auto_delete=False)
        yield server


@pytest.mark.integration
def test_connections_that_rabbitmq_closes(rabbitmq: Broker, readers: Readers) -> None:
    """320 CONNECTION_FORCED on each: the next use opens another."""
    sink = RecordingSink()
    with holders(rabbitmq.url) as held:
        readers.start(open_reader(held.broker, sink))
        sink.await_connections()
        rabbitmq.close_connections()
        assert "CONNECTION_FORCED" in sink.await_loss()
        held.use()
        assert held.length() == 0
        sink.await_connections(2)
        emit_until_received(app_of(rabbitmq.url), sink)


@pytest.mark.integration
def test_an_event_queue_that_somebody_deletes(rabbitmq: Broker, readers: Readers) -> None:
    """The broker cancels the consumer, and the channel goes on in silence."""
    sink = RecordingSink()
    readers.start(open_reader(BrokerSettings(url=rabbitmq.url), sink))
    sink.await_connections()
    names = [queue["name"] for queue in rabbitmq.api("GET", "queues").json()]
    for name in names:
        if name.startswith("celeryev.celerymeter."):
            rabbitmq.api("DELETE", f"queues/%2F/{name}")
    sink.await_connections(2)
    emit_until_received(app_of(rabbitmq.url), sink)


@pytest.mark.integration
def test_a_memory_alarm_of_rabbitmq(rabbitmq: Broker) -> None:
    """A connection that has published is not read from any more: at once an error, not workers that do not reply."""
    with holders(rabbitmq.url) as held:
        rabbitmq.limit_memory("0.00001")
        try:
            began = time.monotonic()
            assert "short of memory" in held.failure()
            with pytest.raises(BrokerUnavailable, match="short of memory"):
                held.control.ask([Command("ping")], silence=0.2, once=True)
            assert time.monotonic() - began < 5, "the time-outs are 10 s"
            assert held.length() == 0
            assert held.diagnosis() == "blocked"
        finally:
            rabbitmq.limit_memory("0.4")
        wait_until(lambda: held.control.ask([Command("ping")], silence=0.2) is not None)
        held.use()


@pytest.mark.integration
def test_other_credentials_at_rabbitmq(rabbitmq: Broker) -> None:
    """The open connections go on; once they are closed the password is refused, until it is right again."""
    with holders(rabbitmq.url) as held:
        rabbitmq.api("PUT", "users/guest", password="new", tags="administrator")
        new = ("guest", "new")
        try:
            assert held.length() == 0
            rabbitmq.close_connections()
            assert "refuses user or password" in held.failure()
            assert held.diagnosis() == "password"
        finally:
            rabbitmq.api("PUT", "users/guest", auth=new, password="guest", tags="administrator")
        held.use()


@pytest.mark.integration
def test_permissions_that_rabbitmq_takes_away(rabbitmq: Broker) -> None:
    """The broker closes the channel; the connection is given up with it."""
    with holders(rabbitmq.url) as held:
        rabbitmq.api("PUT", "permissions/%2F/guest", configure="^$", write="^$", read="^$")
        try:
            assert "refuses this user" in held.failure()
            assert held.diagnosis() == "forbidden"
        finally:
            rabbitmq.api("PUT", "permissions/%2F/guest", configure=".*", write=".*", read=".*")
        held.use()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"), "replica"),
        (redis.ResponseError("READONLY You can't write against a read only replica. script: 12ab"), "replica"),
        (redis.ResponseError("BUSY Redis is busy running a script."), "loading"),
        (redis.exceptions.MovedError("3999 127.0.0.1:6381"), "cluster"),
        (redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), None),
        (redis.ResponseError("ERR unknown command 'OOMPH'"), None),
        (ConnectionResetError("Connection reset by peer"), None),
    ],
)
def test_some_errors_are_known_by_their_text_alone(error: Exception, kind: str | None) -> None:
    """Inside scripts and with older clients there is no class for it; a wrong command is not in the table."""
    row = why_useless(error)
    assert (row.kind if row else None) == kind
