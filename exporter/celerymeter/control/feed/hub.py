"""Who gets which message of the feed: one sequence, a short memory for those who come back, a mailbox for each client.

Nothing here waits or writes to a socket: publishing costs the same whatever the clients do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from threading import Lock

from prometheus_client import Counter, Gauge

from celerymeter.control.feed.messages import Envelope, MessageType

MAILBOX = 32
RING = 512
RING_CHARACTERS = 4_000_000
GOODBYE = 1.2
"""Seconds that clients get to say goodbye when the server stops."""
_UPDATES = frozenset({"metrics_update", "dashboard_data", "error"})
"""Kinds of which a later one makes an earlier one worthless."""


@dataclass(frozen=True, slots=True)
class FeedMessage:
    """A message as it is sent."""

    seq: int
    kind: MessageType
    text: str


class FeedFull(Exception):
    """As many clients as are allowed are connected."""


class Mailbox:
    """What one client has yet to be sent. Bounded: when it is full the oldest update goes, and only then an alert."""

    def __init__(self, *, wake: Callable[[], None], abort: Callable[[], None]) -> None:
        self._waiting: deque[FeedMessage] = deque()
        self._wake = wake
        self._lock = Lock()
        self.abort = abort
        self.closing = False

    def put(self, message: FeedMessage) -> bool:
        """Add a message; True when an older one had to go for it."""
        with self._lock:
            full = len(self._waiting) >= MAILBOX
            if full:
                del self._waiting[_expendable(self._waiting)]
            self._waiting.append(message)
        self._wake()
        return full

    def take(self) -> FeedMessage | None:
        """The oldest message, or None."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """The server stops: the client is to say goodbye."""
        self.closing = True
        self._wake()


def _expendable(waiting: deque[FeedMessage]) -> int:
    return next((place for place, message in enumerate(waiting) if message.kind in _UPDATES), 0)


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a client that comes back is sent first. ``complete``: nothing that it missed is forgotten already."""

    messages: tuple[FeedMessage, ...] = ()
    complete: bool = True


class Ring:
    """The last messages, bounded in number and in characters. Not thread-safe."""

    def __init__(self, *, most: int = RING, characters: int = RING_CHARACTERS) -> None:
        self._most = most
        self._characters = characters
        self._messages: deque[FeedMessage] = deque()
        self._size = 0

    def add(self, message: FeedMessage) -> None:
        """Remember one, and forget the oldest for it."""
        self._messages.append(message)
        self._size += len(message.text)
        while len(self._messages) > self._most or self._size > self._characters:
            self._size -= len(self._messages.popleft().text)

    def since(self, seq: int, *, newest: int) -> Resumption:
        """What came after ``seq``; ``newest`` is the last number that was given."""
        oldest = self._messages[0].seq if self._messages else newest + 1
        missed = tuple(message for message in self._messages if message.seq > seq)
        return Resumption(missed, complete=oldest - 1 <= seq <= newest)


class Hub:
    """The feed's clients and its memory; thread-safe."""

    def __init__(
        self, *, max_clients: int, clients: Gauge, dropped: Counter, clock: Callable[[], float] = time.time
    ) -> None:
        self._max_clients = max_clients
        self._clients = clients
        self._dropped = dropped
        self._clock = clock
        self._lock = Lock()
        self._mailboxes: set[Mailbox] = set()
        self._ring = Ring()
        self._seq = int(clock() * 1000)
        self._stopped = False

    @property
    def client_count(self) -> int:
        """How many clients are connected."""
        return len(self._mailboxes)

    def publish(self, kind: MessageType, data: object) -> None:
        """Send a message to every client."""
        with self._lock:
            self._seq += 1
            message = self._message(kind, data)
            self._ring.add(message)
            lost = sum(mailbox.put(message) for mailbox in self._mailboxes)
        self._dropped.inc(lost)

    def private(self, kind: MessageType, data: object) -> FeedMessage:
        """A message for one client: it bears the newest number and is not remembered."""
        return self._message(kind, data)

    def join(
        self, *, wake: Callable[[], None], abort: Callable[[], None], since: int | None = None
    ) -> tuple[Mailbox, Resumption]:
        """A mailbox, and what came after ``since``; from here on nothing is missed. Raises `FeedFull`.

        ``wake`` tells the client's thread to look at its mailbox, ``abort`` ends it also when it hangs in a write.
        """
        with self._lock:
            if len(self._mailboxes) >= self._max_clients or self._stopped:
                raise FeedFull
            mailbox = Mailbox(wake=wake, abort=abort)
            self._mailboxes.add(mailbox)
            self._clients.set(len(self._mailboxes))
            return mailbox, Resumption() if since is None else self._ring.since(since, newest=self._seq)

    def leave(self, mailbox: Mailbox) -> None:
        """Forget a client."""
        with self._lock:
            self._mailboxes.discard(mailbox)
            self._clients.set(len(self._mailboxes))

    def start(self) -> None:
        """Nothing to begin: clients bring their own threads."""

    def stop(self) -> None:
        """Let every client say goodbye, take no more, and shut down those that hang."""
        with self._lock:
            self._stopped = True
            mailboxes = tuple(self._mailboxes)
        for mailbox in mailboxes:
            mailbox.close()
        deadline = time.monotonic() + GOODBYE
        while self._mailboxes and time.monotonic() < deadline:
            time.sleep(0.02)
        for mailbox in mailboxes:
            mailbox.abort()

    def _message(self, kind: MessageType, data: object) -> FeedMessage:
        now = datetime.fromtimestamp(self._clock(), timezone.utc)
        envelope = Envelope(message_type=kind, timestamp=now, seq=self._seq, data=data)
        return FeedMessage(seq=self._seq, kind=kind, text=envelope.model_dump_json())
