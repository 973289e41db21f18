"""URLs and addresses: what may be printed of a URL, and the parts of an address to listen on."""

from __future__ import annotations

import re
from urllib.parse import unquote

from celerymeter.errors import SettingsError

_NEXT_URL = re.compile(r";(?=[a-zA-Z][\w+.-]{0,30}://)")
_USER = re.compile(r"[^:/@;?#]*")
_PARAMETER = re.compile(r"(?<=[?&;])([^=&#;\s/@]{1,100})=([^&#;\s\"']+)")
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|credential|api_?-?key|signature|^sig$|^auth", re.IGNORECASE)


def without_password(url: str) -> str:
    """Return the URL, or a text with URLs, with passwords masked, and values of the query whose name sounds secret."""
    if "://" in url:
        url = re.sub(r"\S+", lambda word: ";".join(map(_without_userinfo, _NEXT_URL.split(word[0]))), url)
    return _PARAMETER.sub(_without_value, url)


def _without_userinfo(url: str) -> str:
    """Mask a password, which may hold any sign: it ends at the last ``@``."""
    scheme, found, rest = url.partition("://")
    userinfo, at, host = rest.rpartition("@")
    user = _USER.match(userinfo)
    if not found or not at or user is None or userinfo[user.end() : user.end() + 1] != ":":
        return url
    return f"{scheme}://{user[0]}:***@{host}"


def _without_value(found: re.Match[str]) -> str:
    return f"{found[1]}=***" if _SECRET_NAME.search(unquote(found[1])) else found[0]


def parse_listen(address: str, *, option: str = "--listen") -> tuple[str, int]:
    """Return host and port of ``host:port``, ``[::1]:port`` or ``:port`` (all interfaces: the host is empty)."""
    host, colon, port = address.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not bracketed):
        raise SettingsError(f"{option}: {address!r} must be host:port, such as 0.0.0.0:9808, [::]:9808 or :9808")
    return host.strip("[]"), int(port)
