"""Reaching the broker: what kombu understands of a URL, we understand the same way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from celerymeter.broker import RedisBroker, celery_app, connect_redis
from celerymeter.demo.servers import Redis
from celerymeter.errors import BrokerUnavailable, SettingsError
from celerymeter.settings import BrokerSettings, without_password

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
