"""Reaching the broker: what kombu understands of a URL, we understand the same way."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.events.certificates import Certificates

from celerymeter.broker import HeldConnection, RedisBroker, celery_app, connect_redis
from celerymeter.demo.processes import free_port
from celerymeter.demo.servers import Redis, listens
from celerymeter.errors import BrokerUnavailable, SettingsError
from celerymeter.settings import BrokerSettings
from celerymeter.urls import without_password

NOTHING_LISTENS = "redis://:hush@127.0.0.1:1/0"


def renamed(url: str, **options: object) -> RedisBroker:
    """A connection to ``url`` with these transport options."""
    return connect_redis(BrokerSettings(url=url, transport_options=options))


@pytest.mark.integration
def test_names_follow_the_transport_options(shared_redis: Redis) -> None:
    """Database, prefix, separator and steps end up in the names, as kombu writes them."""
    url = shared_redis.url.replace("/0", "/3")

    keys = renamed(url, global_keyprefix="shop:", sep="~", priority_steps=[0, 5], unacked_key="held").keys

    assert keys.queue("mail") == ("shop:mail", "shop:mail~5")
    assert keys.bindings("*") == "shop:_kombu.binding.*"
    assert keys.topic("celeryev", "*") == "shop:/3.celeryev/*"
    assert (keys.unacked, keys.unacked_index) == ("shop:held", "shop:unacked_index")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "topic"),
    [({"fanout_patterns": False}, "/0.celeryev"), ({"fanout_prefix": False}, "celeryev/x"), ({}, "/0.celeryev/x")],
)
def test_pub_sub_names_follow_the_fanout_options(shared_redis: Redis, options: dict[str, object], topic: str) -> None:
    """Without patterns a channel has no routing key; without prefix no database."""
    assert renamed(shared_redis.url, **options).keys.topic("celeryev", "x") == topic


@pytest.mark.integration
def test_the_next_of_several_urls_is_tried(shared_redis: Redis) -> None:
    """A dead first URL does not hide a living second."""
    assert renamed(f"{NOTHING_LISTENS};{shared_redis.url}").client.ping()


def reached(broker: BrokerSettings) -> RedisBroker:
    """The broker, reached directly and through kombu."""
    held = HeldConnection(broker)
    assert held.use(lambda connection: connection.default_channel.client.ping())
    held.close()
    return connect_redis(broker)


@pytest.mark.integration
def test_a_unix_socket(tmp_path: Path) -> None:
    """The database is an argument there, the path being the socket's."""
    path = tmp_path / "redis.sock"
    with Redis(tmp_path / "redis", options=["--unixsocket", str(path)]) as server:
        server.up()
        assert reached(BrokerSettings(url=f"redis+socket://{path}?virtual_host=2")).keys.db == 2


@pytest.mark.integration
@pytest.mark.parametrize("by", ["url", "settings"])
def test_tls(tmp_path: Path, by: str) -> None:
    """With an authority of one's own, named in the URL or in the cluster's ``broker_use_ssl``."""
    files, port = Certificates(tmp_path), free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key)]
    with Redis(tmp_path / "redis", options=[*tls, "--tls-ca-cert-file", str(files.authority)]) as server:
        server.start(ready=lambda: server.ready() and listens(port))
        mine = {"ssl_ca_certs": files.authority, "ssl_certfile": files.certificate, "ssl_keyfile": files.key}
        words = {name: str(path) for name, path in mine.items()}
        url = f"rediss://localhost:{port}/0"
        if by == "url":
            broker = BrokerSettings(url=f"{url}?{urlencode({**words, 'ssl_cert_reqs': 'required'})}")
        else:
            broker = BrokerSettings(url=url, celery_settings={"broker_use_ssl": {**words, "ssl_cert_reqs": 2}})
        assert reached(broker).client.ping()
        with pytest.raises(BrokerUnavailable, match="certificate"):
            connect_redis(BrokerSettings(url=f"{url}?ssl_cert_reqs=required"))


@pytest.mark.integration
def test_connections_that_were_dropped_take_no_memory(shared_redis: Redis) -> None:
    """Each poll makes one if no worker replies. Their buffers are in cycles, which nothing else frees for hours."""
    held = HeldConnection(BrokerSettings(url=shared_redis.url))
    channels: list[weakref.ref[Any]] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            held.use(lambda connection: channels.append(weakref.ref(connection.default_channel)))
            held.close()
    finally:
        gc.enable()
    assert sum(channel() is not None for channel in channels) <= 1


@pytest.mark.integration
def test_a_wrong_password_is_unavailable_without_the_password(shared_redis: Redis) -> None:
    """A refused password may be a matter of time (rotation), so it is worth trying again."""
    shared_redis_url = shared_redis.url.replace("127.0.0.1", "nobody:hush@127.0.0.1")
    with pytest.raises(BrokerUnavailable) as caught:
        renamed(shared_redis_url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("connect", "error"),
    [
        (lambda: renamed(NOTHING_LISTENS), BrokerUnavailable),
        (lambda: renamed("redis://:hu/sh@127.0.0.1:1/0"), SettingsError),
        (lambda: renamed("redis://:hush@127.0.0.1:1/no-number"), SettingsError),
        (lambda: renamed("sentinel://:hush@127.0.0.1:1"), SettingsError),
        (lambda: renamed("rediss://:hush@127.0.0.1:1/0?ssl_cert_reqs=perhaps"), SettingsError),
    ],
)
def test_errors_are_ours_and_hold_no_secret(connect: Callable[[], RedisBroker], error: type[Exception]) -> None:
    """Whatever is wrong with a URL is said in one line without its password."""
    with pytest.raises(error) as caught:
        connect()
    assert not any(part in str(caught.value) for part in ("hush", "hu/sh", "\n"))


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://:a@b/c@host:1/0", "redis://:***@host:1/0"),
        ("sentinel://u:a@h1:1;sentinel://u:b@h2:2", "sentinel://u:***@h1:1;sentinel://u:***@h2:2"),
        ("amqp://host:5672//", "amqp://host:5672//"),
    ],
)
def test_a_printed_url_shows_no_password(url: str, printed: str) -> None:
    """Also a password that should have been percent-encoded stays hidden."""
    assert without_password(url) == printed


def test_the_app_speaks_json_whatever_the_cluster_set() -> None:
    """Nothing that a broker delivers is ever unpickled."""
    app = celery_app(BrokerSettings(url="memory://", celery_settings={"accept_content": ["pickle"]}))
    assert app.conf.accept_content == ["json"]
    assert app.control.mailbox.accept == ["json"]
