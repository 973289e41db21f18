"""The listener: one thread with an event loop for all clients."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from celerymeter.errors import CelerymeterError
from celerymeter.httpd.application import Application
from celerymeter.httpd.auth import BasicAuth
from celerymeter.httpd.connection import MAX_HEAD, Connection
from celerymeter.httpd.listener import bind
from celerymeter.httpd.pages import Pages
from celerymeter.httpd.protocol import text
from celerymeter.httpd.tls import Certificates
from celerymeter.httpd.webconfig import WebConfig

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
HANDSHAKE_TIMEOUT = 10.0
CERTIFICATE_CHECK = 30.0
"""Seconds between two looks whether the certificate's files have changed."""
GRACE = 1.0
"""Seconds that answers under way have at `MetricsServer.stop`."""


class MetricsServer:
    """Serves ``/metrics``, ``/-/healthy``, ``/-/ready`` and ``/`` from `start` to `stop`.

    ``listen`` is an address, or a socket that listens already (a parent may have bound it before it forked).
    ``page`` is called in threads of its own, several at once; ``healthy`` and ``ready`` return at once: ``None``, or
    the reason that goes with a 503. ``option`` is the setting that errors name.
    """

    def __init__(
        self,
        listen: str | socket.socket,
        *,
        page: Callable[[], bytes],
        healthy: Callable[[], str | None],
        ready: Callable[[], str | None],
        web_config: WebConfig | None = None,
        option: str = "--listen",
    ) -> None:
        config = web_config or WebConfig()
        self._listen = listen
        self._option = option
        self._certificates = Certificates(config.tls) if config.tls else None
        self._application = Application(
            Pages(page, healthy, ready),
            auth=BasicAuth(config.users) if config.users else None,
            headers=config.headers,
        )
        self._connections: set[Connection] = set()
        self._address: tuple[str, int] | None = None
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] = lambda: None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on, once started."""
        if self._address is None:
            raise CelerymeterError("the server was never started")
        return self._address

    @property
    def url(self) -> str:
        """Base URL, with a host that a browser on this machine can open."""
        host, port = self.address
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - shown, not bound
        shown = everywhere.get(host, f"[{host}]" if ":" in host else host)
        return f"{'https' if self._certificates else 'http'}://{shown}:{port}"

    @property
    def alive(self) -> bool:
        """Whether the thread that serves still runs."""
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
        """Stop listening, let answers under way end, close all connections; returns within some seconds."""
        self._end()
        if self._thread is not None:
            self._thread.join(timeout=2 * GRACE + 1)

    def _run(self, sock: socket.socket, started: threading.Event) -> None:
        try:
            asyncio.run(self._main(sock, started))
        finally:
            started.set()
            sock.close()
            self._application.close()

    async def _main(self, sock: socket.socket, started: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_trouble)
        end = asyncio.Event()
        self._end = lambda: loop.is_closed() or loop.call_soon_threadsafe(end.set)
        server = await asyncio.start_server(
            self._accept,
            sock=sock,
            limit=MAX_HEAD,
            ssl=self._certificates.context if self._certificates else None,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT if self._certificates else None,
        )
        started.set()
        while not await _is_set(end, within=CERTIFICATE_CHECK):
            if self._certificates:
                self._certificates.refresh()
        server.close()
        await self._drain()

    async def _drain(self) -> None:
        for connection in list(self._connections):
            connection.finish()
        deadline = asyncio.get_running_loop().time() + GRACE
        while self._connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        for connection in self._connections:
            connection.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, self._application.answer)
        if len(self._connections) >= MAX_CONNECTIONS:
            await connection.refuse(text(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", Retry_After="5"))
            return
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


async def _is_set(event: asyncio.Event, *, within: float) -> bool:
    try:
        return await asyncio.wait_for(event.wait(), within)
    except asyncio.TimeoutError:
        return False


def _log_trouble(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Clients that break a handshake or a connection are no errors of ours."""
    error = context.get("exception")
    level = logging.DEBUG if isinstance(error, (OSError, EOFError)) else logging.ERROR
    log.log(level, "%s", context.get("message"), exc_info=error)
