"""One client's connection: requests in, answers out, with a deadline for each step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus

from celerymeter.httpd.protocol import Malformed, Request, Response, parse_head, render, text

MAX_HEAD = 16 * 1024
FIRST_TIMEOUT = 10.0
"""Seconds for the first byte of a new connection; a scraper sends at once."""
IDLE_TIMEOUT = 150.0
"""Seconds between two requests: longer than scrape intervals, so that a scraper keeps its connection."""
HEAD_TIMEOUT = 10.0
WRITE_TIMEOUT = 30.0

Answer = Callable[[Request], Awaitable[Response]]
END_OF_HEAD = b"\r\n\r\n"


class Connection:
    """Answers one client until it leaves, dawdles or `finish` is called; never raises for what it sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
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
        """End the connection: at once when idle, else after the answer that is under way."""
        self._finishing = True
        if self._idle:
            self._writer.transport.abort()

    def abort(self) -> None:
        """End the connection now."""
        self._writer.transport.abort()

    async def refuse(self, response: Response) -> None:
        """Send one answer, whatever the client asks, and end the connection."""
        with suppress(asyncio.TimeoutError, OSError):
            await self._send(render(response, keep_alive=False))
        self._writer.close()

    async def _one(self, timeout: float) -> bool:
        """Serve one request; true when another may follow."""
        try:
            request = await self._read(timeout)
        except Malformed as error:
            await self.refuse(text(error.status))
            return False
        if request is None:
            return False
        response = await self._answer(request)
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
