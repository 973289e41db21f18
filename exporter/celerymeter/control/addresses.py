"""Whose address a request comes from, when proxies may stand between."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from celerymeter.control.settings import Network

UNKNOWN = "unknown"


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address nearest to us that is no trusted proxy.

    ``forwarded_for`` is ``X-Forwarded-For`` from left to right. Each proxy appended whom it heard from, so the list is
    read from its right end for as long as the speaker is trusted: what a stranger wrote at its left is never reached.
    """
    address = _parsed(peer or "")
    if address is None:
        return UNKNOWN
    for entry in reversed(forwarded_for):
        if not any(address in network for network in trusted):
            break
        before = _parsed(entry)
        if before is None:
            break
        address = before
    return str(address)


def throttle_key(address: str) -> str:
    """What is counted as one address: an IPv6 client commands a whole /64."""
    parsed = _parsed(address)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64" if isinstance(parsed, IPv6Address) else address


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """An address with or without a port or brackets; an IPv4 address mapped into IPv6 counts as itself."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
