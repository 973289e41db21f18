"""Publishing prepared messages, flat out or at a pace, at almost no cost of our own."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from tools.bench.wire import commands


class Publisher:
    """A bare connection to Redis that wants no replies while it publishes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)

    def flat_out(self, messages: Sequence[tuple[bytes, bytes]]) -> float:
        """Publish everything as fast as Redis takes it; seconds until Redis has handled the last."""
        pieces = list(commands(messages))
        self._say(b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n")
        began = time.monotonic()
        for piece in pieces:
            self._say(piece)
        self._settle()
        return time.monotonic() - began

    def paced(self, messages: Sequence[tuple[bytes, bytes]], seconds: float, steps_per_second: int = 50) -> None:
        """Spread the messages evenly over this time."""
        steps = int(seconds * steps_per_second)
        pieces = [
            b"".join(commands(messages[i * len(messages) // steps : (i + 1) * len(messages) // steps]))
            for i in range(steps)
        ]
        self._say(b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n")
        began = time.monotonic()
        for number, piece in enumerate(pieces, 1):
            self._say(piece)
            time.sleep(max(0.0, began + number / steps_per_second - time.monotonic()))
        self._settle()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _settle(self) -> None:
        """Wait until Redis has handled all that was said."""
        self._say(b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n")
        self._socket.recv(100)
