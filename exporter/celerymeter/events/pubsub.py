"""One pub/sub subscription on one Redis connection.

redis-py connects and authenticates; its own pub/sub loop costs more than all decoding, so the frames are read here.
RESP2 and RESP3 differ in the type of a frame (list, push) and in the answer to PING; both are read.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event as Flag
from typing import Any

import hiredis

from celerymeter.errors import BrokerUnavailable
from celerymeter.events.decode import Decoder
from celerymeter.events.readahead import ReadAhead
from celerymeter.events.stream import EventSink

LARGEST_FRAME = 64 * 1024 * 1024
"""Bytes that may come without completing a frame."""
TICK = 0.25
"""Longest wait for data, so that a stop is noticed."""

_INCOMPLETE = object()


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: how long a subscription may be silent before we ask, and then without an answer before we give it up."""

    silence: float = 5.0
    answer: float = 5.0


PATIENCE = Patience()


class PubSub:
    """A confirmed subscription to patterns; takes the connection over. Raises `BrokerUnavailable`."""

    def __init__(
        self,
        connection: Any,
        patterns: Sequence[str],
        patience: Patience = PATIENCE,
        *,
        largest_frame: int = LARGEST_FRAME,
    ) -> None:
        """``connection`` is a connected `redis.connection.Connection` (whose methods are untyped)."""
        self._patience = patience
        self._largest_frame = largest_frame
        self._connection = connection
        self._socket: socket.socket = connection._sock  # kombu takes it the same way: there is no public one
        self._bytes = ReadAhead(self._socket)
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._unparsed = 0
        self._pinged: float | None = None
        self._early: list[bytes] = []
        self._confirm(patterns)

    def deliver(self, sink: EventSink, stop: Flag) -> None:
        """Hand events to ``sink`` until ``stop`` is set; what was read before a loss is delivered before it is told."""
        decode = Decoder(sink.rejected).messages
        if self._early:
            sink.events(decode(self._early), time.time())
        rested = False
        while not stop.is_set():
            if (taken := self._bytes.take()) is not None:
                at, chunk = taken
                if events := decode(_messages(self._frames(chunk))):
                    sink.events(events, at)
                rested = False
            elif self._bytes.ended is not None:
                raise BrokerUnavailable(self._bytes.ended)
            elif not rested:
                self._bytes.rest()
                rested = True
            else:
                self._check_liveness()
                self._bytes.wait(TICK)

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _confirm(self, patterns: Sequence[str]) -> None:
        """Subscribe, and wait until the server has confirmed every pattern."""
        self._send(_command("PSUBSCRIBE", *patterns))
        deadline = time.monotonic() + self._patience.answer
        missing = len(patterns)
        while missing > 0:
            frames = self._next_frames(deadline)
            self._early += _messages(frames)
            for frame in frames:
                if isinstance(frame, hiredis.ReplyError) and missing > 0:
                    raise BrokerUnavailable(f"PSUBSCRIBE was refused: {frame}")
                if isinstance(frame, list) and frame[:1] == [b"psubscribe"]:
                    missing -= 1

    def _next_frames(self, deadline: float) -> list[Any]:
        while (taken := self._bytes.take()) is None:
            if self._bytes.ended is not None:
                raise BrokerUnavailable(self._bytes.ended)
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"no answer to PSUBSCRIBE within {self._patience.answer:g} s")
            self._bytes.wait(0.1)
        return self._frames(taken[1])

    def _frames(self, chunk: memoryview) -> list[Any]:
        """The frames that end in this chunk (untyped: whatever the server sends)."""
        try:
            self._reader.feed(chunk)  # type: ignore[arg-type]  # its stub forgets buffers
            frames = list(iter(self._reader.gets, _INCOMPLETE))
        except hiredis.HiredisError as error:
            raise BrokerUnavailable("the server does not speak the Redis protocol") from error
        self._unparsed = 0 if frames else self._unparsed + len(chunk)
        if self._unparsed > self._largest_frame:
            raise BrokerUnavailable(f"a frame of more than {self._largest_frame} bytes")
        return frames

    def _check_liveness(self) -> None:
        """Ask after a silence, and give up on a connection that does not answer (stopped server, dead route)."""
        now = time.monotonic()
        silence = now - self._bytes.heard
        if silence < self._patience.silence:
            self._pinged = None
        elif self._pinged is None or self._pinged < self._bytes.heard:
            self._pinged = now
            self._send(_command("PING"))
        elif now - self._pinged >= self._patience.answer:
            raise BrokerUnavailable(f"silent for {silence:.0f} s, and no answer to PING")

    def _send(self, command: bytes) -> None:
        try:
            self._socket.send(command)
        except OSError as error:
            raise BrokerUnavailable(f"connection lost: {error.strerror or type(error).__name__}") from error


def _messages(frames: list[Any]) -> list[bytes]:
    """What was published, out of all that the server says on a subscription."""
    return [frame[3] for frame in frames if isinstance(frame, list) and len(frame) == 4 and frame[0] == b"pmessage"]


def _command(*words: str) -> bytes:
    """A command in the Redis protocol."""
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
