"""Serves one client of the feed on the thread of its request: sends messages, pings, and closes in time."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final

from celerymeter.control.feed.hub import FeedMessage, Mailbox
from celerymeter.control.feed.websocket import PeerGone, WebSocket

PING_INTERVAL: Final = 20.0
PEER_TIMEOUT: Final = 45.0
"""Seconds without any byte from the peer after which it is given up: two pings are unanswered then."""
GOING_AWAY: Final = 1001
UNAUTHENTICATED: Final = 4401


class Waker:
    """Wakes a thread that waits on a socket."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)

    def wake(self) -> None:
        """Wake the thread; may be called from any thread, at any time."""
        with suppress(OSError):
            self._writer.send(b"\0")

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._reader.fileno()

    def clear(self) -> None:
        """Forget all calls of `wake` so far."""
        with suppress(BlockingIOError):
            while self._reader.recv(1024):
                pass

    def close(self) -> None:
        """Close both sockets."""
        self._reader.close()
        self._writer.close()


@dataclass(frozen=True, slots=True)
class Session:
    """A client from its first message to its end; its token expires at ``expires_at`` (UTC seconds, by ``clock``)."""

    peer: WebSocket
    mailbox: Mailbox
    waker: Waker
    expires_at: float | None
    ping_interval: float = PING_INTERVAL
    peer_timeout: float = PEER_TIMEOUT
    clock: Callable[[], float] = time.time

    def run(self, *first: Iterable[FeedMessage]) -> None:
        """Send the messages in ``first``, then those of the mailbox as it fills, until either side closes."""
        with suppress(PeerGone):
            for message in chain.from_iterable(first):
                self.peer.send(message.text)
            self._follow()

    def _follow(self) -> None:
        poller = select.poll()
        poller.register(self.peer, select.POLLIN)
        poller.register(self.waker, select.POLLIN)
        pinged_at = time.monotonic()
        while not self._ended():
            poller.poll(1000 * self._poll_timeout(pinged_at))
            # Cleared before the mailbox is read: a message that comes in between wakes the next poll.
            self.waker.clear()
            self.peer.read()
            while not self.mailbox.closing and (message := self.mailbox.take()):
                self.peer.send(message.text)
            if time.monotonic() - pinged_at >= self.ping_interval:
                pinged_at = time.monotonic()
                self.peer.ping()

    def _ended(self) -> bool:
        if self.expires_at is not None and self.clock() >= self.expires_at:
            self.peer.close(UNAUTHENTICATED, "the token has expired")
        elif self.mailbox.closing:
            self.peer.close(GOING_AWAY, "the server stops")
        elif time.monotonic() - self.peer.last_received > self.peer_timeout:
            self.peer.abort()  # nobody is there to read a close frame
        else:
            return False
        return True

    def _poll_timeout(self, pinged_at: float) -> float:
        """Return the seconds until the next ping, or until the token expires."""
        until_ping = pinged_at + self.ping_interval - time.monotonic()
        until_expiry = self.ping_interval if self.expires_at is None else self.expires_at - self.clock()
        return max(0.0, min(until_ping, until_expiry))
