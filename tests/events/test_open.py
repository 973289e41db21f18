"""Choosing a reader: each transport gets the one that can read it, or a clear refusal."""

from __future__ import annotations

import pytest
from tests.events.sinks import RecordingSink

from celerymeter.errors import SettingsError, UnsupportedTransport
from celerymeter.events import open_reader
from celerymeter.events.redis import RedisReader
from celerymeter.settings import BrokerSettings


@pytest.mark.parametrize(
    "url",
    ["redis://h", "rediss://h/1", "redis+socket:///s", "unix:///s", "redis://a;redis://b"],
)
def test_redis_in_all_its_forms_gets_the_fast_reader(url: str) -> None:
    """Nothing is connected yet."""
    assert isinstance(open_reader(BrokerSettings(url=url), RecordingSink()), RedisReader)


@pytest.mark.parametrize("url", ["sqs://", "memory://", "filesystem://", "zookeeper://h", "sqla+sqlite:///x", "h:6379"])
def test_transports_without_events_are_refused(url: str) -> None:
    """In one line that names the transports that have events."""
    with pytest.raises(UnsupportedTransport, match=r"amqp, .*redis") as caught:
        open_reader(BrokerSettings(url=url), RecordingSink())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("redis://:hush@h:port/0", {}, "URL"),
        ("redis://:hush@h/zero", {}, "URL"),
        ("sentinel://h", {}, "master_name"),
        ("redis://h", {"fanout_prefix": "/{nonsense}."}, "fanout_prefix"),
        ("redis://h", {"fanout_prefix": 5}, "fanout_prefix"),
        ("redis://h", {"global_keyprefix": 5}, "global_keyprefix"),
    ],
)
def test_wrong_settings_are_refused_at_once(url: str, options: dict[str, object], named: str) -> None:
    """A setting that can never work is an error before anything runs, without the password."""
    with pytest.raises(SettingsError, match=named) as caught:
        open_reader(BrokerSettings(url=url, transport_options=options), RecordingSink())
    assert "hush" not in str(caught.value)
