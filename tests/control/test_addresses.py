"""Whose address a request comes from."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from celerymeter.control.auth import client_address
from celerymeter.rate_limit import network

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3", "10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["6.6.6.6", "unknown"], "10.0.0.1"),
        ("10.0.0.1", [" 198.51.100.1:4711 "], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        (None, ["198.51.100.1"], "unknown"),
        ("/run/socket", [], "unknown"),
    ],
)
def test_the_address_is_the_nearest_that_is_no_trusted_proxy(
    peer: str | None, forwarded: list[str], expected: str
) -> None:
    """Anybody can write something at the left of X-Forwarded-For: it is never believed."""
    assert client_address(peer, forwarded, TRUSTED) == expected


def test_an_ipv6_client_commands_a_whole_64() -> None:
    """So its /64 is what is counted; an IPv4 address counts as itself."""
    same = {network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9")}
    assert (same, network("192.0.2.1")) == ({"2001:db8:1:2::/64"}, "192.0.2.1")
