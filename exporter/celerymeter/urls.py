"""URLs and addresses: what may be printed of a URL, and the parts of an address to listen on."""

from __future__ import annotations

import re

from celerymeter.errors import SettingsError

_PASSWORD = re.compile(r"(?<=://)([^:/@;\s]*):[^;\s]*@")


def without_password(url: str) -> str:
    """Return the URL with its password masked, and those of every part of a ``;``-separated list."""
    return _PASSWORD.sub(r"\1:***@", url)


def parse_listen(address: str, *, option: str = "--listen") -> tuple[str, int]:
    """Return host and port of ``host:port``, ``[::1]:port`` or ``:port`` (all interfaces: the host is empty)."""
    host, colon, port = address.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not bracketed):
        raise SettingsError(f"{option}: {address!r} must be host:port, such as 0.0.0.0:9808, [::]:9808 or :9808")
    return host.strip("[]"), int(port)
