"""Bytes off a socket, read ahead of their use.

Redis drops a subscriber that lets 32 MB wait (``client-output-buffer-limit pubsub``), and a burst brings that in a
tenth of a second: so the socket is emptied into memory before anything is decoded, and again after every chunk.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import deque

CHUNK = 32 * 1024
"""Bytes a read; hiredis parses larger buffers more slowly."""
LIMIT = 256 * 1024 * 1024
"""Bytes that may wait here; beyond them the server has to wait, and may drop us."""
_BURST = 128 * 1024


class ReadAhead:
    """The chunks that a socket brought and nobody took yet, each with the time of its reading (UTC seconds)."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self.ended: str | None = None
        """Why nothing more will come."""
        self.heard = time.monotonic()
        """When the peer last sent something."""
        self._socket = sock
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._waiting = 0
        self._since_empty = 0

    def take(self) -> tuple[float, bytes] | None:
        """Empty the socket into memory, then give the oldest chunk; ``None`` when there is none."""
        self._fill()
        if not self._chunks:
            self._since_empty = 0
            return None
        taken = self._chunks.popleft()
        self._waiting -= len(taken[1])
        return taken

    def wait(self, seconds: float) -> None:
        """Return once the socket has something, or after this long."""
        self._readable.poll(seconds * 1000)

    def _fill(self) -> None:
        while self._waiting < LIMIT and self.ended is None:
            try:
                chunk = self._socket.recv(CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except OSError as error:
                self.ended = f"connection lost: {error.strerror or type(error).__name__}{self._blame()}"
                return
            if not chunk:
                self.ended = f"the server closed the connection{self._blame()}"
                return
            self.heard = time.monotonic()
            self._waiting += len(chunk)
            self._since_empty += len(chunk)
            self._chunks.append((time.time(), chunk))

    def _blame(self) -> str:
        """Redis does not say why it drops a subscriber; amid a burst it was the output limit."""
        return " amid a burst (client-output-buffer-limit pubsub?)" if self._since_empty >= _BURST else ""
