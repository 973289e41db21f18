"""One client of the feed, on the thread of its request: it greets, sends what comes, pings, and closes in time."""

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
from celerymeter.control.feed.websocket import Gone, WebSocket

PING_INTERVAL: Final = 20.0
SILENCE: Final = 45.0
"""Seconds without any byte from the peer after which it is given up: two pings are unanswered then."""
GOING_AWAY: Final = 1001
UNAUTHENTICATED: Final = 4401


class Bell:
    """Wakes a thread that waits on a socket."""

    def __init__(self) -> None:
        self._hearer, self._ringer = socket.socketpair()
        for end in (self._hearer, self._ringer):
            end.setblocking(False)

    def ring(self) -> None:
        """Wake it; any thread, any time."""
        with suppress(OSError):
            self._ringer.send(b"\0")

    def fileno(self) -> int:
        """To wait on."""
        return self._hearer.fileno()

    def hush(self) -> None:
        """Forget how often it rang."""
        with suppress(BlockingIOError):
            while self._hearer.recv(1024):
                pass

    def close(self) -> None:
        """Give both sockets back."""
        self._hearer.close()
        self._ringer.close()


@dataclass(frozen=True, slots=True)
class Session:
    """A client from its greeting to its end. ``expires_at`` is when its token does, by ``clock`` (UTC seconds)."""

    peer: WebSocket
    mailbox: Mailbox
    bell: Bell
    expires_at: float | None
    ping_interval: float = PING_INTERVAL
    silence: float = SILENCE
    clock: Callable[[], float] = time.time

    def run(self, *first: Iterable[FeedMessage]) -> None:
        """Send what comes ``first``, then the mailbox as it fills, until either side ends it."""
        with suppress(Gone):
            for message in chain.from_iterable(first):
                self.peer.send(message.text)
            self._follow()

    def _follow(self) -> None:
        poller = select.poll()
        poller.register(self.peer, select.POLLIN)
        poller.register(self.bell, select.POLLIN)
        pinged_at = time.monotonic()
        while not self._ended():
            poller.poll(1000 * self._patience(pinged_at))
            self.bell.hush()
            self.peer.read()
            self._send_waiting()
            if time.monotonic() - pinged_at >= self.ping_interval:
                pinged_at = time.monotonic()
                self.peer.ping()

    def _ended(self) -> bool:
        if self.expires_at is not None and self.clock() >= self.expires_at:
            self.peer.close(UNAUTHENTICATED, "the token has expired")
        elif self.mailbox.closing:
            self.peer.close(GOING_AWAY, "the server stops")
        elif time.monotonic() - self.peer.heard_at > self.silence:
            self.peer.abort()
        else:
            return False
        return True

    def _patience(self, pinged_at: float) -> float:
        """Seconds until something is to be done anyway."""
        until_ping = pinged_at + self.ping_interval - time.monotonic()
        until_expiry = self.ping_interval if self.expires_at is None else self.expires_at - self.clock()
        return max(0.0, min(until_ping, until_expiry))

    def _send_waiting(self) -> None:
        while not self.mailbox.closing and (message := self.mailbox.take()):
            self.peer.send(message.text)
