"""Bytes off a socket, read ahead of their use.

Redis drops a subscriber that lets 32 MB wait (``client-output-buffer-limit pubsub``), and a burst brings that in a
tenth of a second: so the socket is emptied into memory before anything is decoded, and again after every chunk.
Page faults are the most expensive part of that: memory comes in blocks that are mapped at once and used again.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable

CHUNK = 32 * 1024
"""Bytes that are taken at once; hiredis parses larger buffers more slowly."""
BLOCK = 1024 * 1024
LIMIT = 256 * 1024 * 1024
"""Bytes that may wait here; beyond them the server has to wait, and may drop us."""
MAX_MEMORY = 192 * 1024 * 1024
"""Bytes of this whole process at which no more may wait than `LEAST`: a page needs some memory beside."""
LEAST = 8 * 1024 * 1024
"""Bytes that may wait whatever else takes memory."""
LARGEST_READ = 256 * 1024
REST = 0.1
"""Seconds between two looks at a busy stream; longer ones save less and blur the times of receipt."""
SHORT_REST = 0.025
BUSY = 16 * 1024
"""Bytes a look, from which on a stream is busy: some hundred events a second."""
ENOUGH = 128 * 1024
"""Bytes that end a rest at once: a burst must not wait."""
_BURST = 128 * 1024
_PAGE = mmap.PAGESIZE
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)  # which is Linux' own


def process_memory() -> int:
    """Return the bytes that this process has in memory; 0 where there is no ``/proc`` (only Linux has it)."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return 0
    try:
        return int(os.read(statm, 100).split()[1]) * _PAGE
    finally:
        os.close(statm)


class ReadAhead:
    """Buffers what was read from a socket and not yet taken, with the times of reading (UTC seconds)."""

    def __init__(self, sock: socket.socket, *, limit: int = LIMIT, memory: Callable[[], int] = process_memory) -> None:
        """``memory`` returns what the process takes in all, which is asked once for each block."""
        sock.settimeout(0)
        self.ended: str | None = None
        """The reason why nothing more will come."""
        self.heard = time.monotonic()
        """Time at which the peer last sent something."""
        self._socket = sock
        self._in_records = isinstance(sock, ssl.SSLSocket)
        """TLS gives a record a read; from TCP a short read says that there is no more."""
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._blocks = deque([_Block()])
        self._spare: _Block | None = None
        self._most_blocks = max(1, limit // BLOCK)
        self._memory = memory
        self._since_empty = 0
        self._last_look = 0

    def take(self) -> tuple[float, memoryview] | None:
        """Empty the socket into memory, then return the oldest chunk; it is valid until the next call."""
        self._fill()
        block = self._blocks[0]
        if block.taken == block.filled and len(self._blocks) > 1:
            self._spare = self._blocks.popleft()
            self._spare.clear()
            block = self._blocks[0]
        if block.taken < block.filled:
            return block.take()
        block.clear()
        self._last_look, self._since_empty = self._since_empty, 0
        return None

    def wait(self, seconds: float) -> None:
        """Return once the socket has something, or after this long."""
        self._readable.poll(seconds * 1000)

    @property
    def pace(self) -> float:
        """Return how long the next rest may be, in seconds."""
        return REST if self._last_look >= BUSY else SHORT_REST

    def rest(self) -> None:
        """Let some bytes gather, so that a steady stream comes in batches: waking up costs more than decoding."""
        if self._socket.family == socket.AF_UNIX:  # which knows no low-water mark
            time.sleep(self.pace / 2)
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, ENOUGH)
        self._readable.poll(self.pace * 1000)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _fill(self) -> None:
        """Read until the socket is empty or has ended, or memory is full."""
        while self.ended is None and (block := self._with_room()) is not None:
            room = min(BLOCK - block.filled, LARGEST_READ)
            read = self._read(block.view[block.filled : block.filled + room])
            if read:
                block.add(read)
            if read < room and (not read or not self._in_records):
                return

    def _with_room(self) -> _Block | None:
        if self._blocks[-1].filled == BLOCK:
            if self._is_full():
                return None
            block, self._spare = self._spare or _Block(), None
            self._blocks.append(block)
        return self._blocks[-1]

    def _is_full(self) -> bool:
        blocks = len(self._blocks)
        return blocks >= self._most_blocks or (blocks * BLOCK >= LEAST and self._memory() > MAX_MEMORY)

    def _read(self, into: memoryview) -> int:
        """Return how many bytes came; none when the socket is empty or has ended."""
        try:
            read = self._socket.recv_into(into)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            self.ended = f"connection lost: {error.strerror or type(error).__name__}{self._blame()}"
            return 0
        if read:
            self.heard = time.monotonic()
            self._since_empty += read
        else:
            self.ended = f"the server closed the connection{self._blame()}"
        return read

    def _blame(self) -> str:
        """Return a likely reason: Redis does not say why it drops a subscriber; in a burst it was the output limit."""
        return " amid a burst (client-output-buffer-limit pubsub?)" if self._since_empty >= _BURST else ""


class _Block:
    """Memory that is filled from its beginning and taken in the same order."""

    def __init__(self) -> None:
        self.view = memoryview(mmap.mmap(-1, BLOCK, flags=_FLAGS))
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.filled = self.taken = 0
        self._reads: deque[tuple[int, float]] = deque()

    def add(self, read: int) -> None:
        """Note that so many bytes were read just now."""
        self.filled += read
        self._reads.append((self.filled, time.time()))

    def take(self) -> tuple[float, memoryview]:
        """Return the next chunk of one read."""
        end, at = self._reads[0]
        begin, self.taken = self.taken, min(end, self.taken + CHUNK)
        if self.taken == end:
            self._reads.popleft()
        return at, self.view[begin : self.taken]
