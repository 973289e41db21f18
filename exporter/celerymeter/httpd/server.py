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
import ssl
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any

from celerymeter.errors import CelerymeterError, PortInUse, SettingsError
from celerymeter.httpd.pages import Pages
from celerymeter.httpd.protocol import Malformed, Request, Response, parse_head, render, text
from celerymeter.httpd.push import PushEndpoint, ReadBody
from celerymeter.httpd.web_config import BasicAuth, Certificates, WebConfig
from celerymeter.urls import parse_listen

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
MAX_PER_ADDRESS = 192
MAX_SENDING = 64 * 1024 * 1024
"""Bytes of pages that are being sent; the client that has read for longest is cut beyond them."""
PIECE = 256 * 1024
"""Bytes of a page that are written at once: the event loop copies what waits to be sent."""
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
BODY_TIMEOUT = 10.0
WRITE_TIMEOUT = 30.0

Respond = Callable[[Request, ReadBody], Awaitable[Response]]
END_OF_HEAD = b"\r\n\r\n"


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


class Connection:
    """Serves one client until it leaves, is too slow or `finish` is called; never raises for what a client sends."""

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        *,
        respond: Respond,
        tls: ssl.SSLContext | None,
        sending: Callable[[], object],
    ) -> None:
        """``sending`` is called before a body is sent."""
        self.address = address
        self.task: asyncio.Task[None] | None = None
        self.waits = True
        """True while the client owes us a request, or the rest of one."""
        self.since = asyncio.get_running_loop().time()
        """Time of the last change of ``waits``."""
        self.body: bytes | None = None
        """The body that is being sent."""
        self._sock = sock
        self._tls = tls
        self._respond = respond
        self._sending = sending
        self._idle = True
        self._finishing = False
        self._reader = asyncio.StreamReader(limit=MAX_HEAD)
        self._writer: asyncio.StreamWriter | None = None

    async def run(self, refusal: Response | None = None) -> None:
        """Serve until the end of the connection, or send one response, whatever the client asks."""
        with suppress(asyncio.TimeoutError, OSError, asyncio.IncompleteReadError):
            try:
                await self._shake_hands()
                if refusal is not None:
                    await self._send(refusal, keep_alive=False)
                    return
                timeout = FIRST_TIMEOUT
                while not self._finishing and await self._one(timeout):
                    timeout = IDLE_TIMEOUT
            finally:
                self.close()

    async def _shake_hands(self) -> None:
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(self._reader)
        timeout = HANDSHAKE_TIMEOUT if self._tls else None
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, self._sock, ssl=self._tls, ssl_handshake_timeout=timeout
        )
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        # `drain` returns when all is sent. Not 0: asyncio's TLS transport stops for good at an empty buffer then.
        self._writer.transport.set_write_buffer_limits(high=1, low=0)

    def close(self) -> None:
        """Close the connection once what was written is sent."""
        if self._writer is not None:
            self._writer.close()
        else:
            self._sock.close()

    def finish(self) -> None:
        """End the connection: at once when idle, else after the response that is under way."""
        self._finishing = True
        if self._idle:
            self.abort()

    def abort(self) -> None:
        """End the connection now."""
        if self._writer is not None:
            self._writer.transport.abort()
        if self.task is not None:
            self.task.cancel()

    def _wait(self, waits: bool) -> None:
        self.waits, self.since = waits, asyncio.get_running_loop().time()

    async def _one(self, timeout: float) -> bool:
        """Serve one request; returns true when another may follow."""
        try:
            request = await self._read(timeout)
        except Malformed as error:
            await self._send(text(error.status), keep_alive=False)
            return False
        if request is None:
            return False
        unread = request.has_body

        async def read(size: int) -> bytes:
            nonlocal unread
            self._wait(True)
            body = await asyncio.wait_for(self._reader.readexactly(size), BODY_TIMEOUT)
            self._wait(False)
            unread = False
            return body

        self._wait(False)
        response = await self._respond(request, read)
        keep = request.keep_alive and not unread and not self._finishing
        self._wait(False)
        await self._send(response, keep_alive=keep, body=request.method != "HEAD")
        self._wait(True)
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
        return replace(parse_head(first + rest), address=self.address)

    async def _send(self, response: Response, *, keep_alive: bool, body: bool = True) -> None:
        try:
            await asyncio.wait_for(self._write(response, keep_alive=keep_alive, body=body), WRITE_TIMEOUT)
        except asyncio.TimeoutError:
            self.abort()
            raise

    async def _write(self, response: Response, *, keep_alive: bool, body: bool) -> None:
        """Write piece by piece, so that a page is in memory once, for however many clients."""
        writer = self._writer
        if writer is None:
            return
        content = response.body if body else b""
        head = render(response, keep_alive=keep_alive, body=False)
        writer.write(head + content[:PIECE])
        self.body = content
        try:
            self._sending()
            await writer.drain()
            for start in range(PIECE, len(content), PIECE):
                writer.write(content[start : start + PIECE])
                await writer.drain()
        finally:
            self.body = None


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
