"""One connection of a client: request after request, with a deadline for each step."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus

from celerymeter.httpd.protocol import Malformed, Request, Response, parse_head, render, text
from celerymeter.httpd.push import ReadBody

PIECE = 256 * 1024
"""Bytes of a page that are written at once: the event loop copies what waits to be sent."""
HANDSHAKE_TIMEOUT = 10.0
MAX_HEAD = 16 * 1024
FIRST_TIMEOUT = 10.0
"""Seconds for the first byte of a new connection; a scraper sends at once."""
IDLE_TIMEOUT = 150.0
"""Seconds between two requests: longer than scrape intervals, so that a scraper keeps its connection."""
HEAD_TIMEOUT = 10.0
BODY_TIMEOUT = 10.0
WRITE_TIMEOUT = 30.0
CLOSE_TIMEOUT = 5.0

Respond = Callable[[Request, ReadBody], Awaitable[Response]]
END_OF_HEAD = b"\r\n\r\n"


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
                await self._end()

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

    async def _end(self) -> None:
        """Close, and wait until that is done: over TLS the client has to answer. One that does not is cut off."""
        self.close()
        if self._writer is not None:
            self._idle = True
            self._wait(True)
            try:
                await asyncio.wait_for(self._writer.wait_closed(), CLOSE_TIMEOUT)
            finally:
                self._writer.transport.abort()

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
