"""The listening socket: IPv4, IPv6 or both, and errors that name the option."""

from __future__ import annotations

import errno
import socket

from celerymeter.errors import PortInUse, SettingsError
from celerymeter.urls import parse_listen

BACKLOG = 128


def bind(listen: str, *, option: str) -> socket.socket:
    """Listen on ``host:port``; ``[::]`` and an empty host take IPv4 as well. Raises `PortInUse` or `SettingsError`."""
    host, port = parse_listen(listen, option=option)
    dual = host in {"", "::"} and socket.has_dualstack_ipv6()
    try:
        if dual:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        family, _, _, _, address = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]  # noqa: S104 - asked for by an empty host
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except socket.gaierror as error:
        raise SettingsError(f"{option}: no host {host!r} to listen on") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} is taken on {host or 'this machine'}; choose another with {option}"
            ) from error
        raise SettingsError(f"{option}: cannot listen on {listen}: {error.strerror}") from error
