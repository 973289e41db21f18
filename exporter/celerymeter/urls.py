"""URLs and addresses: what may be printed of a URL, and the parts of an address to listen on."""

from __future__ import annotations

import re
from urllib.parse import unquote

from celerymeter.errors import SettingsError

PLACEHOLDER = "PASSWORD"
"""The password of the examples in messages, which is shown."""
_NEXT_URL = re.compile(r";(?=[a-zA-Z][\w+.-]{0,30}://)")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&#;\s/@]{1,100})=([^&#;]+(?:;(?![^=&#;\s/@]{1,100}=)[^&#;]*)*)")
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|credential|api_?-?key|signature|^sig$|^auth", re.IGNORECASE)


def without_password(url: str) -> str:
    """Return a URL, or several with ``;`` between them, with passwords and secret values of the query masked.

    It takes the whole value for the URL, whatever signs it holds: where URLs stand in a text, use `mask_text`.
    """
    return ";".join(_without_userinfo(_PARAMETER.sub(_without_value, part)) for part in _NEXT_URL.split(url))


def mask_text(text: str) -> str:
    """Return a text with passwords of the URLs in it masked, each of which ends at white space."""
    return re.sub(r"\S+", lambda word: without_password(word[0]), text)


def _without_userinfo(url: str) -> str:
    """Mask a password, which may hold any sign: it ends at the last ``@``.

    It begins at the first ``:``, as a user name may hold an ``@`` (``me@corp.com``).
    """
    scheme, found, rest = url.partition("://")
    userinfo, at, host = rest.rpartition("@")
    user, colon, password = userinfo.partition(":")
    if not found or not at or not colon or password == PLACEHOLDER:
        return url
    return f"{scheme}://{user}:***@{host}"


def _without_value(found: re.Match[str]) -> str:
    """Mask the value of a parameter whose name sounds secret.

    An ``@`` stays: what is before the last one may be the end of a value as well as of a password before the host.
    """
    if found[2] == PLACEHOLDER or not _SECRET_NAME.search(unquote(found[1])):
        return found[0]
    return f"{found[1]}=***" + ("@" if "@" in found[2] else "")


def parse_listen(address: str, *, option: str = "--listen") -> tuple[str, int]:
    """Return host and port of ``host:port``, ``[::1]:port`` or ``:port`` (all interfaces: the host is empty)."""
    host, colon, port = address.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not bracketed):
        raise SettingsError(f"{option}: {address!r} must be host:port, such as 0.0.0.0:9808, [::]:9808 or :9808")
    return host.strip("[]"), int(port)
