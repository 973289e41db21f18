"""The HTTP server of ``/metrics``: one thread with an event loop for all clients, and a deadline for each step.

At the cap of connections, of one address or of all, the one that waited for longest without a request is closed: so a
scraper always gets in, whatever others hold open. Neither http.server nor wsgiref bounds a slow client or many of
them, and a WSGI server is too much for four pages.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any

from celerymeter.errors import CelerymeterError, PortInUse, SettingsError
from celerymeter.httpd.connection import Connection
from celerymeter.httpd.pages import Pages
from celerymeter.httpd.protocol import text
from celerymeter.httpd.push import PushEndpoint
from celerymeter.httpd.web_config import BasicAuth, Certificates, WebConfig
from celerymeter.urls import parse_listen

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
MAX_PER_ADDRESS = 192
MAX_SENDING = 64 * 1024 * 1024
"""Bytes of pages that are being sent; the client that has read for longest is cut beyond them."""
CERTIFICATE_CHECK = 30.0
"""Seconds between two checks whether the certificate's files have changed."""
GRACE = 1.0
"""Seconds that responses under way have at `MetricsServer.stop`."""
BACKLOG = 128


class MetricsServer:
    """Serves ``/metrics``, ``/-/healthy``, ``/-/ready`` and ``/`` from `start` to `stop`.

    ``listen`` is an address, or a socket that listens already (a parent may have bound it before it forked).
    ``page`` returns the metrics in parts and is called in threads of its own, several at once; ``healthy`` and
    ``ready`` return at once: ``None``, or the reason that goes with a 503. ``option`` is the setting that errors name.
    """

    def __init__(
        self,
        listen: str | socket.socket,
        *,
        page: Callable[[], list[bytes]],
        healthy: Callable[[], str | None],
        ready: Callable[[], str | None],
        web_config: WebConfig | None = None,
        option: str = "--listen",
    ) -> None:
        config = web_config or WebConfig()
        self._listen = listen
        self._option = option
        self._certificates = Certificates(config.tls) if config.tls else None
        self._pages = Pages(
            page=page,
            healthy=healthy,
            ready=ready,
            auth=BasicAuth(config.users) if config.users else None,
            headers=config.headers,
            hosts=config.hosts,
        )
        self._connections: set[Connection] = set()
        self._address: tuple[str, int] | None = None
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] = lambda: None

    def accept_pushes(self, endpoint: PushEndpoint) -> None:
        """Serve ``POST /-/push`` too; to be called before `start`."""
        self._pages.push = endpoint

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port that it listens on, once started."""
        if self._address is None:
            raise CelerymeterError("the server was never started")
        return self._address

    @property
    def url(self) -> str:
        """Return the base URL, with a host that a browser on this machine can open."""
        host, port = self.address
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - shown, not bound
        shown = everywhere.get(host, f"[{host}]" if ":" in host else host)
        return f"{'https' if self._certificates else 'http'}://{shown}:{port}"

    @property
    def alive(self) -> bool:
        """Return whether the thread that serves still runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen; raises `PortInUse` or `SettingsError`."""
        listen = self._listen
        sock = bind(listen, option=self._option) if isinstance(listen, str) else listen
        host, port, *_ = sock.getsockname()
        self._address = (host, port)
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(sock, started), name="httpd", daemon=True)
        self._thread.start()
        started.wait()

    def stop(self) -> None:
        """Stop listening, let responses under way end, close all connections; returns within some seconds."""
        self._end()
        if self._thread is not None:
            self._thread.join(timeout=2 * GRACE + 1)

    def _run(self, sock: socket.socket, started: threading.Event) -> None:
        try:
            asyncio.run(self._main(sock, started))
        finally:
            started.set()
            sock.close()
            self._pages.close()

    async def _main(self, sock: socket.socket, started: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_error)
        end = asyncio.Event()
        self._end = lambda: loop.is_closed() or loop.call_soon_threadsafe(end.set)
        sock.setblocking(False)
        accepting = asyncio.create_task(self._accept_all(sock))
        started.set()
        while not await _is_set(end, within=CERTIFICATE_CHECK):
            if self._certificates:
                self._certificates.refresh()
        accepting.cancel()
        await self._drain()

    async def _drain(self) -> None:
        for connection in list(self._connections):
            connection.finish()
        deadline = asyncio.get_running_loop().time() + GRACE
        while self._connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        for connection in self._connections:
            connection.abort()

    async def _accept_all(self, sock: socket.socket) -> None:
        """Take connections, before any handshake: one that never speaks counts as well."""
        loop = asyncio.get_running_loop()
        tls = self._certificates.context if self._certificates else None
        while True:
            try:
                client, peer = await loop.sock_accept(sock)
            except OSError as error:  # no file descriptor is left, or the client has gone again
                log.warning("cannot accept a connection: %s", error.strerror)
                _close_longest_waiting(self._connections)
                await asyncio.sleep(0.1)
                continue
            connection = Connection(client, peer[0], respond=self._pages.respond, tls=tls, sending=self._bound_sending)
            served = self._has_room(connection.address)
            if served:
                self._connections.add(connection)
            connection.task = asyncio.create_task(connection.run(None if served else _TOO_MANY))
            connection.task.add_done_callback(partial(self._forget, connection))

    def _forget(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        connection.close()  # a task that was cancelled before its first step has not done it
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("connection ended", exc_info=error)

    def _has_room(self, address: str) -> bool:
        """Return whether one more client may come; another that waits may have to leave for it."""
        by_address: dict[str, list[Connection]] = defaultdict(list)
        for connection in self._connections:
            by_address[connection.address].append(connection)
        if len(by_address[address]) >= MAX_PER_ADDRESS:
            return self._close_one(by_address[address])
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        return self._close_one(max(by_address.values(), key=len)) or self._close_one(self._connections)

    def _close_one(self, among: Collection[Connection]) -> bool:
        victim = _close_longest_waiting(among)
        if victim is not None:
            self._connections.discard(victim)
        return victim is not None

    def _bound_sending(self) -> None:
        """Cut who reads most slowly when too much is held for slow readers."""
        reading = sorted((one for one in self._connections if one.body is not None), key=lambda one: one.since)
        for connection in reading[:-1]:
            if sum({id(one.body): len(one.body or b"") for one in reading}.values()) <= MAX_SENDING:
                return
            reading = reading[1:]
            connection.abort()


_TOO_MANY = text(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", Retry_After="5")


def _close_longest_waiting(among: Iterable[Connection]) -> Connection | None:
    victim = min((one for one in among if one.waits), key=lambda one: one.since, default=None)
    if victim is not None:
        victim.abort()
    return victim


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
        # not `strerror`, to which `create_server` adds the address once more
        raise SettingsError(f"{option}: cannot listen on {listen}: {os.strerror(error.errno or 0)}") from error


async def _is_set(event: asyncio.Event, *, within: float) -> bool:
    try:
        return await asyncio.wait_for(event.wait(), within)
    except asyncio.TimeoutError:
        return False


def _log_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of the event loop; a client that breaks a handshake or a connection is not worth one."""
    error = context.get("exception")
    level = logging.DEBUG if isinstance(error, (OSError, EOFError)) else logging.ERROR
    log.log(level, "%s", context.get("message"), exc_info=error)
