"""The server's side of one WebSocket on the socket of a WSGI request; one thread owns it.

wsproto does the protocol. We write the bytes ourselves since no library fits: simple-websocket ignores short writes,
sends its pings without a lock and has no write timeout, and websockets' servers read the request themselves, which the
WSGI server has done already. What the peer sends is read, so that pings and closes are answered, and then ignored.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Message, Ping, Request, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

WRITE_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a closed peer gets to take the close frame."""
MAX_MESSAGE: Final = 4096
"""Bytes of a message from the peer; none is expected."""
SEND_BUFFER: Final = 128 * 1024
"""Bytes that the kernel may hold for a peer that does not read them; its own default grows to megabytes a client."""
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_READ: Final = 16 * 1024
READS: Final = 4
MAX_FRAMES: Final = 100
"""Frames of a peer in a second; it has no reason to send more than an answer to a ping now and then."""


class BadHandshake(Exception):
    """The request is not a WebSocket handshake."""


class PeerGone(Exception):
    """The peer is gone, or does not read what it is sent; the socket has been shut down."""


class WebSocket:
    """An accepted WebSocket. `abort` may be called from any thread, everything else from the owner's."""

    def __init__(
        self,
        sock: socket.socket,
        headers: Iterable[tuple[str, str]],
        *,
        subprotocol: str | None,
        write_timeout: float = WRITE_TIMEOUT,
    ) -> None:
        """Answer the handshake; raises `BadHandshake` before anything is sent."""
        self._sock = sock
        self._write_timeout = write_timeout
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._closed = False
        self._message_bytes = 0
        self._frames = 0
        self.last_received = self._counted_since = time.monotonic()
        try:
            self._protocol.initiate_upgrade_connection([(n.encode(), v.encode()) for n, v in headers], "/")
            (request,) = self._protocol.events()
        except (RemoteProtocolError, UnicodeEncodeError, ValueError) as error:
            raise BadHandshake("not a WebSocket handshake") from error
        if not isinstance(request, Request):
            raise BadHandshake("not a WebSocket handshake")
        # Only a non-blocking socket lets a write of many segments keep one deadline.
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._write(self._protocol.send(AcceptConnection(subprotocol=subprotocol)))

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._sock.fileno()

    def send(self, text: str) -> None:
        """Send one text message, whole; raises `PeerGone` when the peer does not read it within 10 s."""
        self._write(self._frame(TextMessage(data=text)))

    def ping(self) -> None:
        """Ask the peer to answer; any byte from it updates `last_received` (monotonic seconds)."""
        self._write(self._frame(Ping()))

    def read(self) -> None:
        """Read some of what has arrived and answer pings; raises `PeerGone` when the peer has closed.

        Not all of it: a peer that sends without pause must not keep its thread from looking at the clock.
        """
        for _ in range(READS):
            try:
                data = self._sock.recv(_READ)
            except _WOULD_BLOCK:
                return
            except OSError as error:
                raise self._gone() from error
            if not data:
                raise self._gone()
            self.last_received = time.monotonic()
            self._feed(data)

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame and wait until the peer has closed too, for at most a second.

        Closing the socket at once, with bytes of the peer unread, would reset the connection before the frame arrives.
        """
        if self._closed:
            return
        with suppress(PeerGone):
            self._write(self._frame(CloseConnection(code=code, reason=reason)), timeout=CLOSE_TIMEOUT)
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            self._drain(time.monotonic() + CLOSE_TIMEOUT)
        self.abort()

    def refuse(self, code: int, reason: str) -> None:
        """Send a close frame and wait for nothing: the server reads on for a while, without a thread."""
        with suppress(PeerGone):
            self._write(self._frame(CloseConnection(code=code, reason=reason)), timeout=CLOSE_TIMEOUT)
        self._closed = True

    def abort(self) -> None:
        """Shut the socket down, which wakes a thread that reads or writes it."""
        self._closed = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _feed(self, data: bytes) -> None:
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                self._handle(event)
        except RemoteProtocolError as error:
            self.close(1002)
            raise PeerGone from error

    def _count(self) -> None:
        """Close the connection of a peer that sends too much."""
        if self.last_received - self._counted_since > 1.0:
            self._frames, self._counted_since = 0, self.last_received
        self._frames += 1
        if self._frames > MAX_FRAMES:
            self.close(1008, "too many messages")
            raise PeerGone

    def _handle(self, event: Event) -> None:
        self._count()
        if isinstance(event, Ping):
            self._write(self._frame(event.response()))
        elif isinstance(event, CloseConnection):
            self._write(self._frame(event.response()), timeout=CLOSE_TIMEOUT)
            raise self._gone()
        elif isinstance(event, Message):
            # A message may come in any number of fragments, so their sum is limited.
            self._message_bytes += len(event.data)
            if self._message_bytes > MAX_MESSAGE:
                self.close(1009)
                raise PeerGone
            self._message_bytes = 0 if event.message_finished else self._message_bytes

    def _frame(self, event: Event) -> bytes:
        try:
            return self._protocol.send(event)
        except LocalProtocolError as error:
            raise self._gone() from error

    def _write(self, data: bytes, *, timeout: float | None = None) -> None:
        """Write everything; `socket.send` may write less than it is given."""
        deadline = time.monotonic() + (timeout or self._write_timeout)
        rest = memoryview(data)
        while rest:
            if self._closed:
                raise PeerGone
            try:
                rest = rest[self._sock.send(rest) :]
            except _WOULD_BLOCK:
                if not wait_for(self._sock, select.POLLOUT, deadline - time.monotonic()):
                    raise self._gone() from None
            except OSError as error:
                raise self._gone() from error

    def _drain(self, deadline: float) -> None:
        """Read until the peer has closed too."""
        with suppress(OSError):
            while wait_for(self._sock, select.POLLIN, deadline - time.monotonic()):
                if not self._sock.recv(_READ):
                    return

    def _gone(self) -> PeerGone:
        self.abort()
        return PeerGone()


def wait_for(sock: socket.socket, what: int, seconds: float) -> bool:
    """Return whether the socket becomes ready within ``seconds``; `select.select` fails above descriptor 1,023."""
    if seconds <= 0:
        return False
    poller = select.poll()
    poller.register(sock, what)
    return bool(poller.poll(seconds * 1000))
