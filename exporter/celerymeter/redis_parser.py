"""Redis' protocol, read with a limit: of a value that is too long only the beginning is kept in memory.

Redis cannot be asked for the length of a list's item before it is taken, and clients of redis-py read values of any
length, up to 512 MB. Their parser in C cannot leave anything out; the one in Python can.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import redis
from redis._parsers.resp3 import _RESP3Parser
from redis._parsers.socket import SocketBuffer

PIECE = 64 * 1024
"""Bytes that are kept of a value that is too long; so many of the rest are read and dropped at once."""


def limit_values(pool: Any, longest: int) -> None:
    """Have the connections of a pool cut values of more than so many bytes; closes those that do not yet."""
    if "parser_class" not in pool.connection_kwargs:
        pool.connection_kwargs["parser_class"] = partial(LimitedParser, longest=longest)
        pool.disconnect()
        pool.reset()


def ask_limited(client: redis.Redis, commands: Iterable[Sequence[str | bytes | int]], *, longest: int) -> Iterator[Any]:
    """Yield the reply to each command as Redis sends it, with values of more bytes cut; errors are yielded too."""
    pool = client.connection_pool  # which would count the connections that it makes, and then refuse to make more
    options = {**pool.connection_kwargs, "parser_class": partial(LimitedParser, longest=longest)}
    connection: Any = pool.connection_class(**options)
    try:
        connection.connect()
        for command in commands:
            connection.send_command(*command)
            try:
                yield connection.read_response()
            except redis.ResponseError as error:
                yield error
    finally:
        connection.disconnect()


class LimitedParser(_RESP3Parser):
    """Reads replies in both versions of the protocol (RESP2, RESP3), and cuts the values in them.

    A reply with a value that is cut has as long as the socket's time-out: what is left out has to be received too.
    """

    def __init__(self, socket_read_size: int, *, longest: int) -> None:
        super().__init__(socket_read_size)  # type: ignore[no-untyped-call]  # redis-py's
        self._longest = longest

    def on_connect(self, connection: Any) -> None:
        """Read from this connection."""
        super().on_connect(connection)  # type: ignore[no-untyped-call]  # redis-py's
        self._buffer = _Values(self._sock, self.socket_read_size, connection.socket_timeout, self._longest)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Return the next reply."""
        if isinstance(self._buffer, _Values):
            self._buffer.begun = time.monotonic()
        return super().read_response(*args, **kwargs)


class _Values(SocketBuffer):
    """The bytes that came and are not parsed yet."""

    def __init__(self, sock: Any, read_size: int, timeout: float | None, longest: int) -> None:
        super().__init__(sock, read_size, timeout)  # type: ignore[arg-type]  # None is for ever
        self._longest = longest
        self.begun = 0.0

    def read(self, length: int, *args: Any, **kwargs: Any) -> Any:
        """Return a value, or its beginning; None for a length of -1, by which RESP2 says that there is none."""
        if length < 0:
            return None
        if length <= min(PIECE, self._longest):
            return super().read(length, *args, **kwargs)
        wanted = length if length <= self._longest else min(PIECE, self._longest)
        kept = bytearray()
        while len(kept) < wanted:
            kept += self._take(wanted - len(kept))
        rest = length - wanted + len(b"\r\n")
        while rest:
            rest -= len(self._take(min(rest, PIECE)))
            if rest and self.socket_timeout is not None and time.monotonic() - self.begun > self.socket_timeout:
                raise redis.TimeoutError(f"a value of {length} bytes, which did not come in time")
        return bytes(kept)

    def _take(self, most: int) -> bytes:
        """Return some of the bytes that come next, and keep none of them here."""
        taken = self._buffer.read(most)
        if not taken:
            self._buffer.seek(0)
            self._buffer.truncate()
            self._read_from_socket()
            taken = self._buffer.read(most)
        return taken
