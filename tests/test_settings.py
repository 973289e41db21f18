"""Settings: addresses and what may be printed of a URL."""

from __future__ import annotations

import pytest

from celerymeter.errors import SettingsError
from celerymeter.settings import BrokerSettings
from celerymeter.urls import parse_listen, without_password


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0.0.0.0:9808", ("0.0.0.0", 9808)),
        ("[::]:9808", ("::", 9808)),
        ("[::1]:0", ("::1", 0)),
        (":9808", ("", 9808)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_an_address_has_a_host_and_a_port(address: str, expected: tuple[str, int]) -> None:
    """As other Prometheus exporters write it; an empty host is every interface."""
    assert parse_listen(address) == expected


@pytest.mark.parametrize("address", ["", "9808", "host", "host:", "host:x", "host:65536", "::1:9808", "host:-1", "h:٣"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """The error names the option."""
    with pytest.raises(SettingsError, match="--metrics-listen"):
        parse_listen(address, option="--metrics-listen")


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://:p@ss:/w@h:1/0", "redis://:***@h:1/0"),
        ("amqp://user:pw@h//", "amqp://user:***@h//"),
        ("sentinel://:a@h1:1;sentinel://:b@h2:2", "sentinel://:***@h1:1;sentinel://:***@h2:2"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("amqp://me@corp.com:pw@h//", "amqp://me@corp.com:***@h//"),
    ],
)
def test_a_url_is_printed_without_its_password(url: str, printed: str) -> None:
    """The user stays."""
    assert without_password(url) == printed


def test_settings_do_not_print_their_secrets() -> None:
    """Neither the URL nor the transport options are in the value's own text."""
    settings = BrokerSettings(url="redis://:hush@h/0", transport_options={"password": "hush"})
    assert "hush" not in f"{settings!r} {settings.safe_url}"


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("redis://h/0", "redis"),
        ("REDISS://h/0", "rediss"),
        ("redis+socket:///tmp/redis.sock", "redis"),
        ("unix:///tmp/redis.sock?db=1", "redis"),
        ("sentinel://a;sentinel://b", "sentinel"),
        ("redis+cluster://h", "redis+cluster"),
        ("redis://a;redis+cluster://b", "redis+cluster"),
        ("redis://:a;b+c@h/0", "redis"),
        ("none", "none"),
    ],
)
def test_the_transport_is_the_scheme_that_kombu_knows(url: str, transport: str) -> None:
    """Any other scheme stays whole, so that it is refused."""
    assert BrokerSettings(url=url).transport == transport
