"""The HTTP server of ``/metrics``: one thread with an event loop for all clients, and a deadline for each step.

Neither http.server nor wsgiref bounds a slow client or many of them, and a WSGI server is too much for four pages.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from celerymeter.errors import CelerymeterError, PortInUse, SettingsError
from celerymeter.httpd.pages import Pages
from celerymeter.httpd.protocol import Malformed, Request, Response, parse_head, render, text
from celerymeter.httpd.web_config import BasicAuth, Certificates, WebConfig
from celerymeter.urls import parse_listen

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
HANDSHAKE_TIMEOUT = 10.0
CERTIFICATE_CHECK = 30.0
"""Seconds between two checks whether the certificate's files have changed."""
GRACE = 1.0
"""Seconds that responses under way have at `MetricsServer.stop`."""
BACKLOG = 128
MAX_HEAD = 16 * 1024
FIRST_TIMEOUT = 10.0
"""Seconds for the first byte of a new connection; a scraper sends at once."""
IDLE_TIMEOUT = 150.0
"""Seconds between two requests: longer than scrape intervals, so that a scraper keeps its connection."""
HEAD_TIMEOUT = 10.0
WRITE_TIMEOUT = 30.0

Respond = Callable[[Request], Awaitable[Response]]
END_OF_HEAD = b"\r\n\r\n"


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
        self._pages = Pages(
            page=page,
            healthy=healthy,
            ready=ready,
            auth=BasicAuth(config.users) if config.users else None,
            headers=config.headers,
        )
        self._connections: set[Connection] = set()
        self._address: tuple[str, int] | None = None
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] = lambda: None

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
        connection = Connection(reader, writer, self._pages.respond)
        if len(self._connections) >= MAX_CONNECTIONS:
            await connection.refuse(text(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", Retry_After="5"))
            return
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class Connection:
    """Serves one client until it leaves, is too slow or `finish` is called; never raises for what a client sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, respond: Respond) -> None:
        self._reader = reader
        self._writer = writer
        self._respond = respond
        self._idle = True
        self._finishing = False
        # `drain` returns when all is sent. Not 0: asyncio's TLS transport stops for good at an empty buffer then.
        writer.transport.set_write_buffer_limits(high=1, low=0)

    async def run(self) -> None:
        """Serve until the end of the connection."""
        timeout = FIRST_TIMEOUT
        with suppress(asyncio.TimeoutError, OSError, asyncio.IncompleteReadError):
            while not self._finishing and await self._one(timeout):
                timeout = IDLE_TIMEOUT
        self._writer.close()

    def finish(self) -> None:
        """End the connection: at once when idle, else after the response that is under way."""
        self._finishing = True
        if self._idle:
            self._writer.transport.abort()

    def abort(self) -> None:
        """End the connection now."""
        self._writer.transport.abort()

    async def refuse(self, response: Response) -> None:
        """Send one response, whatever the client asks, and end the connection."""
        with suppress(asyncio.TimeoutError, OSError):
            await self._send(render(response, keep_alive=False))
        self._writer.close()

    async def _one(self, timeout: float) -> bool:
        """Serve one request; returns true when another may follow."""
        try:
            request = await self._read(timeout)
        except Malformed as error:
            await self.refuse(text(error.status))
            return False
        if request is None:
            return False
        response = await self._respond(request)
        keep = request.keep_alive and not self._finishing
        await self._send(render(response, keep_alive=keep, body=request.method != "HEAD"))
        return keep

    async def _read(self, timeout: float) -> Request | None:
        self._idle = True
        first = await asyncio.wait_for(self._reader.read(1), timeout)
        self._idle = False
        if not first:
            return None
        try:
            rest = await asyncio.wait_for(self._reader.readuntil(END_OF_HEAD), HEAD_TIMEOUT)
        except asyncio.TimeoutError as error:
            raise Malformed(HTTPStatus.REQUEST_TIMEOUT) from error
        except asyncio.LimitOverrunError as error:
            raise Malformed(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from error
        return parse_head(first + rest)

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await asyncio.wait_for(self._writer.drain(), WRITE_TIMEOUT)
        except asyncio.TimeoutError:
            self._writer.transport.abort()
            raise


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
