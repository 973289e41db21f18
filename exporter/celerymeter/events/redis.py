"""Reads events from Redis: redis-py connects and authenticates, the frames of the subscription are parsed here.

redis-py's own pub/sub loop costs more than all decoding, and kombu's costs more still. RESP2 and RESP3 differ in the
type of a frame (list, push) and in the reply to PING; both are read.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import hiredis
import redis

from celerymeter.broker import RedisBroker, RedisKeys, connect_redis
from celerymeter.connection_errors import describe
from celerymeter.errors import BrokerUnavailable
from celerymeter.events.decode import Decoder
from celerymeter.events.readahead import LIMIT, ReadAhead
from celerymeter.events.reader import EventSink, stay_subscribed
from celerymeter.settings import BrokerSettings

CONNECT_TIMEOUT = 3.0
HANDSHAKE_TIMEOUT = 5.0
LARGEST_FRAME = 64 * 1024 * 1024
"""Bytes that may come without completing a frame."""
MAX_DOUBLED = 4
"""So often the time between two looks for another server is doubled."""
REMEMBERED = 10_000
"""Messages among which one that came on two channels is recognized."""
TICK = 0.25
"""Longest wait for data, so that a stop is noticed."""

_INCOMPLETE = object()


_GLOB = re.compile(r"[*?\[\\]")
_RUN_ID = re.compile(rb"^run_id:(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds of silence on a subscription until it is pinged, and seconds after that until it is given up."""

    silence: float = 5.0
    reply: float = 5.0
    silences: int = 4
    """So many silences after each other, or with little in between, raise doubt whether this is still the broker."""


TIMEOUTS = Timeouts()


class RedisReader:
    """Reads events from Redis: over TCP, TLS or a unix socket, alone or under Sentinel."""

    def __init__(
        self, broker: BrokerSettings, sink: EventSink, *, timeouts: Timeouts = TIMEOUTS, read_ahead: int = LIMIT
    ) -> None:
        """``read_ahead`` is the number of bytes that may wait in memory to be decoded."""
        options = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": HANDSHAKE_TIMEOUT}
        self._settings = replace(broker, transport_options={**options, **broker.transport_options})
        self._exchange = str(broker.celery_settings.get("event_exchange", "celeryev"))
        self._sink = sink
        self._timeouts = timeouts
        self._read_ahead = read_ahead
        self._stop = threading.Event()
        self._broker: RedisBroker | None = None
        self._moves = 0
        """Times at which another server was found at the broker's address."""

    def run(self) -> None:
        """Read until `stop`."""
        stay_subscribed(self._subscribe, self._sink, self._stop)

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()

    def _subscribe(self) -> PubSub:
        """Connect as last time if that works; else look up where the broker is (the next URL of several).

        With Sentinel every connection asks for the master.
        """
        broker, self._broker = self._broker, None
        try:
            broker = broker or connect_redis(self._settings)
            subscription = self._open(broker)
        except redis.RedisError as error:
            raise BrokerUnavailable(f"{self._settings.safe_url}: {describe(error)}") from error
        self._broker = broker
        return subscription

    def _open(self, broker: RedisBroker) -> PubSub:
        patterns = _patterns(broker.keys, self._exchange)
        old = _patterns(broker.keys.old, self._exchange) if broker.keys.old is not None else []
        try:
            return self._subscribed(broker, [*patterns, *old])
        except SubscriptionRefused:
            if not old:
                raise
            return self._subscribed(broker, patterns)  # the account may have the right to the usual channels only

    def _has_moved(self, broker: RedisBroker, server: bytes | None) -> bool:
        moved = _is_elsewhere(broker, server)
        self._moves += moved
        return moved

    def _subscribed(self, broker: RedisBroker, patterns: Sequence[str]) -> PubSub:
        connection: Any = broker.client.connection_pool.make_connection()
        try:
            connection.connect()
            server = _run_id(connection)
            # Where every connection leads to another server, asking again and again would never end.
            timeouts = replace(self._timeouts, silences=self._timeouts.silences * 2 ** min(self._moves, MAX_DOUBLED))
            return PubSub(
                connection,
                patterns,
                timeouts,
                moved=lambda: self._has_moved(broker, server),
                read_ahead=self._read_ahead,
            )
        except BaseException:
            connection.disconnect()
            raise


def _run_id(connection: Any) -> bytes | None:
    """Return which server process this is; ``None`` where the account may not run INFO."""
    connection.send_command("INFO", "server")
    try:
        reply = connection.read_response()
    except redis.ResponseError:
        return None
    found = _RUN_ID.search(reply if isinstance(reply, bytes) else str(reply).encode())
    return None if found is None else found.group(1)


def _is_elsewhere(broker: RedisBroker, server: bytes | None) -> bool:
    """Return whether a new connection leads to another server: behind a proxy, the old one can stay open for ever."""
    if server is None:
        return False
    try:
        connection: Any = broker.client.connection_pool.make_connection()
        try:
            connection.connect()
            return _run_id(connection) not in (None, server)
        finally:
            connection.disconnect()
    except (redis.RedisError, OSError):
        return False


def _patterns(keys: RedisKeys, exchange: str) -> list[str]:
    """Return the exchange's channels, one for each routing key (or a single one without `fanout_patterns`)."""
    name = _GLOB.sub(r"\\\g<0>", keys.topic(exchange))
    return [f"{name}/*" if keys.fanout_patterns else name]


class SubscriptionRefused(BrokerUnavailable):
    """The account has no right to a channel."""


class PubSub:
    """A confirmed subscription to patterns; takes the connection over. Raises `BrokerUnavailable`."""

    def __init__(
        self,
        connection: Any,
        patterns: Sequence[str],
        timeouts: Timeouts = TIMEOUTS,
        *,
        largest_frame: int = LARGEST_FRAME,
        moved: Callable[[], bool] = lambda: False,
        read_ahead: int = LIMIT,
    ) -> None:
        """``connection`` is a connected `redis.connection.Connection` (whose methods are untyped).

        ``moved`` tells whether the broker is at another server by now; it is asked only in silence.
        """
        self._timeouts = timeouts
        self._largest_frame = largest_frame
        self._connection = connection
        self._socket: socket.socket = connection._sock  # kombu takes it the same way: there is no public one
        self._bytes = ReadAhead(self._socket, limit=read_ahead)
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._unparsed = 0
        self._pinged: float | None = None
        self._moved = moved
        self._silences = 0
        self._once = _Once() if len(patterns) > 1 else None
        self._early: list[bytes] = []
        self._confirm(patterns)

    def deliver(self, sink: EventSink, stop: threading.Event) -> None:
        """Hand events to ``sink`` until ``stop`` is set; what came before a loss is delivered before it is raised."""
        decode = Decoder(sink.rejected).messages
        if self._early:
            sink.events(decode(self._published(self._early)), time.time())
        rested = False
        while not stop.is_set():
            checked = time.time()
            if (taken := self._bytes.take()) is not None:
                at, chunk = taken
                sink.events(decode(self._published(_messages(self._frames(chunk)))), at)
                rested = False
            elif self._bytes.ended is not None:
                raise BrokerUnavailable(self._bytes.ended)
            elif not rested:
                self._bytes.rest()
                rested = True
            else:
                sink.events([], checked)
                self._check_liveness()
                self._bytes.wait(TICK)

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _published(self, messages: list[bytes]) -> list[bytes]:
        return messages if self._once is None else self._once.only_new(messages)

    def _confirm(self, patterns: Sequence[str]) -> None:
        """Subscribe, and wait until the server has confirmed every pattern."""
        self._send(_command("PSUBSCRIBE", *patterns))
        deadline = time.monotonic() + self._timeouts.reply
        missing = len(patterns)
        while missing > 0:
            frames = self._next_frames(deadline)
            self._early += _messages(frames)
            for frame in frames:
                if isinstance(frame, hiredis.ReplyError) and missing > 0:
                    raise SubscriptionRefused(f"PSUBSCRIBE was refused: {frame}")
                if isinstance(frame, list) and frame[:1] == [b"psubscribe"]:
                    missing -= 1

    def _next_frames(self, deadline: float) -> list[Any]:
        while (taken := self._bytes.take()) is None:
            if self._bytes.ended is not None:
                raise BrokerUnavailable(self._bytes.ended)
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"no reply to PSUBSCRIBE within {self._timeouts.reply:g} s")
            self._bytes.wait(0.1)
        return self._frames(taken[1])

    def _frames(self, chunk: memoryview) -> list[Any]:
        """Return the frames that end in this chunk (untyped: whatever the server sends)."""
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
        """Send PING after a silence, and give up a connection without a reply (stopped server, dead route)."""
        now = time.monotonic()
        silence = now - self._bytes.heard
        if silence < self._timeouts.silence:
            self._pinged = None
        elif self._pinged is None or self._pinged < self._bytes.heard:
            self._pinged = now
            self._silences += 1
            if self._silences % self._timeouts.silences == 0 and self._moved():
                raise BrokerUnavailable("another server answers at the broker's address by now")
            self._send(_command("PING"))
        elif now - self._pinged >= self._timeouts.reply:
            raise BrokerUnavailable(f"silent for {silence:.0f} s, and no reply to PING")

    def _send(self, command: bytes) -> None:
        try:
            self._socket.send(command)
        except OSError as error:
            raise BrokerUnavailable(f"connection lost: {error.strerror or type(error).__name__}") from error


class _Once:
    """Lets each message pass once: with `sentinel_fanout_compat` kombu publishes it on both of its channels.

    No two messages are equal, for each has its own delivery tag.
    """

    def __init__(self) -> None:
        self._recent: deque[int] = deque()
        self._known: set[int] = set()

    def only_new(self, messages: list[bytes]) -> list[bytes]:
        new = []
        for message in messages:
            key = hash(message)
            if key not in self._known:
                new.append(message)
                self._known.add(key)
                self._recent.append(key)
        while len(self._recent) > REMEMBERED:
            self._known.discard(self._recent.popleft())
        return new


def _messages(frames: list[Any]) -> list[bytes]:
    """Return what was published, out of everything that the server sends on a subscription."""
    return [frame[3] for frame in frames if isinstance(frame, list) and len(frame) == 4 and frame[0] == b"pmessage"]


def _command(*words: str) -> bytes:
    """Return a command in the Redis protocol."""
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
