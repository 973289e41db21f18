"""The broker's password changes while connections are open: the new one is read from the URL's file."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import redis
from tests.scrape import ExporterProcess
from tests.servers import RabbitMQ
from tools.bench.wire import envelope

from celerymeter.broker import HeldConnection, newest
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.errors import BrokerUnavailable
from celerymeter.settings import BrokerSettings

OLD, NEW = "0ld-secret", "n3w-secret"


def write(path: Path, url: str) -> None:
    """Replace the file at once, as Kubernetes does."""
    draft = path.with_suffix(".draft")
    draft.write_text(f"{url}\n")
    draft.chmod(0o600)
    draft.replace(path)


def guarded(server: Redis, password: str) -> str:
    """The broker URL with a password."""
    return server.url.replace("127.0.0.1", f":{password}@127.0.0.1")


def change(server: Redis) -> None:
    """Redis takes the new password only, and everybody has to log in again."""
    with redis.Redis(port=server.port, password=OLD) as client:
        client.config_set("requirepass", NEW)
        for kind in ("pubsub", "normal"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@pytest.mark.integration
@pytest.mark.parametrize("first", ["server", "file"])
def test_the_exporter_goes_on_with_the_new_password(first: str, tmp_path: Path) -> None:
    """The file may be there before Redis changes, or too late."""
    file = tmp_path / "broker_url"
    with Redis(tmp_path / "redis", options=["--requirepass", OLD]) as server:
        write(file, guarded(server.up(), OLD))
        exporter = ExporterProcess(tmp_path, "", options=["--broker-url-file", str(file)])
        exporter.argv = tuple(word for word in exporter.argv if word not in ("--broker-url", ""))
        with exporter:
            exporter.up()
            wait_until(lambda: exporter.value("celerymeter_poll_success", collector="queues") == 1)
            if first == "file":
                write(file, guarded(server, NEW))
            change(server)
            if first == "server":
                wait_until(
                    lambda: "refuses user or password" in exporter.tail(1000), what="NOAUTH or WRONGPASS is said"
                )
                assert exporter.value("celerymeter_broker_up") == 0
                write(file, guarded(server, NEW))
            wait_until(lambda: exporter.value("celerymeter_broker_up") == 1, what="events are read again")
            for collector in ("queues", "workers"):
                wait_until(lambda: exporter.value("celerymeter_poll_success", collector=collector) == 1)
            beat = {"type": "worker-heartbeat", "hostname": "w1@h", "timestamp": 1e9, "clock": 1, "freq": 2.0}
            with redis.Redis(port=server.port, password=NEW) as client:
                client.publish("/0.celeryev/worker.heartbeat", envelope(beat, "worker.heartbeat", {}))
            wait_until(lambda: exporter.value("celerymeter_events_total", event="worker-heartbeat") == 1)
        said = exporter.log.read_text()
    assert OLD not in said
    assert NEW not in said


@pytest.mark.integration
def test_a_held_connection_to_rabbitmq_is_replaced_by_one_with_the_new_password(tmp_path: Path) -> None:
    """As remote control and the control API hold one."""
    file = tmp_path / "broker_url"
    with RabbitMQ(tmp_path / "rabbitmq") as server:
        server.up().control("add_user", "shop", OLD)
        server.control("set_permissions", "shop", ".*", ".*", ".*")
        url = server.url.replace("guest:guest", f"shop:{OLD}")
        write(file, url)
        held = HeldConnection(BrokerSettings(url=url, url_file=file))
        held.use(lambda connection: connection.default_channel)
        server.control("change_password", "shop", NEW)
        server.control("close_all_connections", "the password was changed")
        with pytest.raises(BrokerUnavailable, match="refuses user or password"):
            held.use(lambda connection: connection.channel())
        write(file, url.replace(OLD, NEW))
        assert held.use(lambda connection: connection.channel().is_open)
        held.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "is empty"), ("no url: hush", "not a URL"), ("amqp://u:hush@h//", "another kind of broker")],
)
def test_a_file_of_no_use_changes_nothing(
    content: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The URL stays, and the log says why, without the password."""
    file = tmp_path / "broker_url"
    write(file, content)
    before = BrokerSettings(url="redis://:old@h/0", url_file=file)
    with caplog.at_level(logging.WARNING):
        assert newest(before) is before
    assert reason in caplog.text
    assert "hush" not in caplog.text


def test_a_pipe_is_not_read_again(tmp_path: Path) -> None:
    """Nobody writes into it any more, so reading it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    before = BrokerSettings(url="redis://:old@h/0", url_file=tmp_path / "pipe")
    assert newest(before) is before
