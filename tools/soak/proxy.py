"""A TCP proxy before Redis that drops published events at random, and nothing else."""

from __future__ import annotations

import asyncio
import random
import threading
from types import TracebackType

from celerymeter.demo.processes import free_port

EVENTS = b"celeryev/"
NOWHERE = b"droppedx/"
"""A channel of the same length that nobody reads: so Redis itself answers, in its turn, and clients notice nothing."""
CHUNK = 1 << 16


def commands(buffer: bytes) -> tuple[list[list[bytes]], bytes]:
    """Return the complete commands of a client's bytes (RESP arrays of bulk strings), and what is left over."""
    found = []
    while (one := _command(buffer)) is not None:
        words, end = one
        found.append(words)
        buffer = buffer[end:]
    return found, buffer


def _command(buffer: bytes) -> tuple[list[bytes], int] | None:
    count, at = _number(buffer, 0, b"*")
    words: list[bytes] = []
    while at > 0 and len(words) < count:
        length, start = _number(buffer, at, b"$")
        if start == 0 or len(buffer) < start + length + 2:
            return None
        words.append(buffer[start : start + length])
        at = start + length + 2
    return (words, at) if at else None


def _number(buffer: bytes, at: int, kind: bytes) -> tuple[int, int]:
    """The number of a line and where the line ends, 0 for one that is not complete."""
    end = buffer.find(b"\r\n", at)
    if end < 0:
        return 0, 0
    if buffer[at : at + 1] != kind:
        raise ValueError(f"no RESP array of bulk strings: {buffer[at:end]!r}")
    return int(buffer[at + 1 : end]), end + 2


def encoded(words: list[bytes]) -> bytes:
    """Return a command as it goes to the server."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class DroppingProxy:
    """Listens from enter to exit; ``share`` of the events that pass are dropped, which may be changed at any time."""

    def __init__(self, target: int) -> None:
        """``target`` is a port on this machine."""
        self.port = free_port()
        self.share = 0.0
        self.dropped = self.passed = 0
        self._target = target
        self._dice = random.Random(self.port)
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="proxy")

    @property
    def url(self) -> str:
        """The broker URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> DroppingProxy:
        self._thread.start()
        self._listens.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._listens.set()
        await self._stop.wait()
        server.close()  # connections end with the loop

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.create_task(self._pass_commands(reader, server_writer)),
            asyncio.create_task(_pass(server_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (writer, server_writer):
                end.close()

    async def _pass_commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rest = b""
        try:
            while chunk := await reader.read(CHUNK):
                found, rest = commands(rest + chunk)
                writer.writelines([encoded(self._perhaps_dropped(words)) for words in found])
                await writer.drain()
        except OSError:
            pass

    def _perhaps_dropped(self, words: list[bytes]) -> list[bytes]:
        if words[0].upper() != b"PUBLISH" or EVENTS not in words[1]:
            return words
        if self._dice.random() >= self.share:
            self.passed += 1
            return words
        self.dropped += 1
        return [words[0], words[1].replace(EVENTS, NOWHERE), *words[2:]]


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
