"""The messages of the feed, and the hub: one sequence, a short history for clients that reconnect, a mailbox for each.

Nothing here waits for a client or writes to a socket, so publishing costs the same whatever the clients do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from threading import Lock
from typing import Literal

from prometheus_client import Counter, Gauge
from pydantic import BaseModel

from celerymeter.control.cluster.models import RealtimeMetrics
from celerymeter.errors import AmbiguousCluster, CelerymeterError, RequestRefused

MessageType = Literal["connection_established", "dashboard_data", "metrics_update", "alert", "revocation", "error"]

MAILBOX_SIZE = 32
HISTORY_SIZE = 512
HISTORY_CHARACTERS = 4_000_000
CLOSE_TIME = 1.2
"""Seconds that clients get to close their WebSockets when the server stops."""
_REPLACEABLE = frozenset({"metrics_update", "dashboard_data", "error"})
"""Messages that a later one of the kind makes worthless."""


class Envelope(BaseModel):
    """A message of the feed. ``seq`` grows by one with each published message, also over restarts: it begins at the
    time of the start, in milliseconds. A client that reconnects with ``?since=<seq>`` is sent what it missed.
    """

    message_type: MessageType
    timestamp: datetime
    seq: int
    data: object


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first message of a WebSocket. ``running``: whether updates will come. ``complete``: with ``?since=``, whether
    all missed messages are still known.
    """

    client_count: int
    interval_seconds: float
    running: bool
    complete: bool
    message: str = "connected to celerymeter"


@dataclass(frozen=True, slots=True)
class MetricsUpdate:
    """The message of every interval."""

    metrics: RealtimeMetrics


@dataclass(frozen=True, slots=True)
class FeedError:
    """Sent in place of metrics that cannot be known; ``code`` as in HTTP errors, or ``monitoring_stopped``."""

    code: str
    detail: str


MONITORING_STOPPED = FeedError("monitoring_stopped", "updates were stopped; POST /monitoring/start resumes them")


def feed_error(error: CelerymeterError | None) -> FeedError:
    """Return an error in the words of the HTTP error for it, which repeat no text of an exception."""
    if isinstance(error, RequestRefused):
        return FeedError(error.code, str(error))
    if isinstance(error, AmbiguousCluster):
        return FeedError("invalid", str(error))
    return FeedError("prometheus_unavailable", "Prometheus is unavailable now")


@dataclass(frozen=True, slots=True)
class FeedMessage:
    """A message as it is sent to clients."""

    seq: int
    kind: MessageType
    text: str


class FeedFull(Exception):
    """As many clients as are allowed are connected."""


class Mailbox:
    """Messages that one client has yet to be sent. Bounded: a full one drops its oldest update, and only then an alert.

    ``wake`` makes the client's thread look at its mailbox; ``abort`` ends the client also when it hangs in a write.
    """

    def __init__(self, *, wake: Callable[[], None], abort: Callable[[], None]) -> None:
        self._waiting: deque[FeedMessage] = deque()
        self._wake = wake
        self._lock = Lock()
        self.abort = abort
        self.closing = False

    def put(self, message: FeedMessage) -> bool:
        """Add a message; returns True when an older one was dropped for it."""
        with self._lock:
            full = len(self._waiting) >= MAILBOX_SIZE
            if full:
                updates = (place for place, old in enumerate(self._waiting) if old.kind in _REPLACEABLE)
                del self._waiting[next(updates, 0)]
            self._waiting.append(message)
        self._wake()
        return full

    def take(self) -> FeedMessage | None:
        """Remove and return the oldest message."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Make the client close its WebSocket, because the server stops."""
        self.closing = True
        self._wake()


@dataclass(frozen=True, slots=True)
class Missed:
    """The messages that a client missed while it was away. ``complete``: none of them was forgotten already."""

    messages: tuple[FeedMessage, ...] = ()
    complete: bool = True


class MessageHistory:
    """The last messages, bounded in number and in characters. Not thread-safe."""

    def __init__(self, *, size: int = HISTORY_SIZE, characters: int = HISTORY_CHARACTERS) -> None:
        self._max_messages = size
        self._characters = characters
        self._messages: deque[FeedMessage] = deque()
        self._size = 0

    def add(self, message: FeedMessage) -> None:
        """Add a message, and forget the oldest ones for it."""
        self._messages.append(message)
        self._size += len(message.text)
        while len(self._messages) > self._max_messages or self._size > self._characters:
            self._size -= len(self._messages.popleft().text)

    def since(self, seq: int, *, newest: int) -> Missed:
        """Return the messages after ``seq``; ``newest`` is the number of the last message."""
        oldest = self._messages[0].seq if self._messages else newest + 1
        missed = tuple(message for message in self._messages if message.seq > seq)
        return Missed(missed, complete=oldest - 1 <= seq <= newest)


class Hub:
    """The feed's clients and its history; thread-safe."""

    def __init__(
        self, *, max_clients: int, clients: Gauge, dropped: Counter, clock: Callable[[], float] = time.time
    ) -> None:
        self._max_clients = max_clients
        self._clients = clients
        self._dropped = dropped
        self._clock = clock
        self._lock = Lock()
        self._mailboxes: set[Mailbox] = set()
        self._history = MessageHistory()
        # The start in milliseconds, so that numbers grow over restarts without being stored.
        self._seq = int(clock() * 1000)
        self._stopped = False

    @property
    def client_count(self) -> int:
        """Return the number of connected clients."""
        return len(self._mailboxes)

    def publish(self, kind: MessageType, data: object) -> None:
        """Send a message to every client; ``data`` is a model or a dataclass."""
        with self._lock:
            self._seq += 1
            message = self._message(kind, data)
            self._history.add(message)
            dropped = sum(mailbox.put(message) for mailbox in self._mailboxes)
        self._dropped.inc(dropped)

    def private(self, kind: MessageType, data: object) -> FeedMessage:
        """Return a message for one client: it has the newest number and is not in the history."""
        return self._message(kind, data)

    def join(
        self, *, wake: Callable[[], None], abort: Callable[[], None], since: int | None = None
    ) -> tuple[Mailbox, Missed]:
        """Return a new client's mailbox, and the messages after ``since``. Raises `FeedFull`."""
        with self._lock:
            if len(self._mailboxes) >= self._max_clients or self._stopped:
                raise FeedFull
            mailbox = Mailbox(wake=wake, abort=abort)
            self._mailboxes.add(mailbox)
            self._clients.set(len(self._mailboxes))
            return mailbox, Missed() if since is None else self._history.since(since, newest=self._seq)

    def leave(self, mailbox: Mailbox) -> None:
        """Remove a client."""
        with self._lock:
            self._mailboxes.discard(mailbox)
            self._clients.set(len(self._mailboxes))

    def start(self) -> None:
        """Do nothing: each client is served by the thread of its request."""

    def stop(self) -> None:
        """Accept no more clients, let all close their WebSockets, and abort those that hang."""
        with self._lock:
            self._stopped = True
            mailboxes = tuple(self._mailboxes)
        for mailbox in mailboxes:
            mailbox.close()
        deadline = time.monotonic() + CLOSE_TIME
        while self._mailboxes and time.monotonic() < deadline:
            time.sleep(0.02)  # each client's own thread calls `leave`
        for mailbox in mailboxes:
            mailbox.abort()

    def _message(self, kind: MessageType, data: object) -> FeedMessage:
        now = datetime.fromtimestamp(self._clock(), timezone.utc)
        envelope = Envelope(message_type=kind, timestamp=now, seq=self._seq, data=data)
        return FeedMessage(seq=self._seq, kind=kind, text=envelope.model_dump_json())
