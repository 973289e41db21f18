"""The server's side of one WebSocket on the socket of a WSGI request; one thread owns it.

wsproto speaks the protocol, this module moves the bytes: whole writes with a time limit, and a close that reaches the
peer. What the peer sends is read (so that pings and closes are answered) and thrown away.
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
"""Bytes of a message from the peer; we expect none."""
SEND_BUFFER: Final = 128 * 1024
"""What the kernel may hold of unread updates for one peer."""
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_READ: Final = 16 * 1024


class BadHandshake(Exception):
    """The request is not a WebSocket's."""


class Gone(Exception):
    """The peer is gone, or does not take what it is sent; the socket has been shut down."""


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
        self._received = 0
        self.heard_at = time.monotonic()
        try:
            self._protocol.initiate_upgrade_connection([(n.encode(), v.encode()) for n, v in headers], "/")
            (request,) = self._protocol.events()
        except (RemoteProtocolError, UnicodeEncodeError, ValueError) as error:
            raise BadHandshake("not a WebSocket handshake") from error
        if not isinstance(request, Request):
            raise BadHandshake("not a WebSocket handshake")
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._write(self._protocol.send(AcceptConnection(subprotocol=subprotocol)))

    def fileno(self) -> int:
        """To wait on."""
        return self._sock.fileno()

    def send(self, text: str) -> None:
        """Send one text message, whole; raises `Gone` when the peer does not take it within 10 s."""
        self._write(self._made(TextMessage(data=text)))

    def ping(self) -> None:
        """Ask for a sign of life; `heard_at` (monotonic seconds) tells when there was one."""
        self._write(self._made(Ping()))

    def read(self) -> None:
        """Take what has arrived and answer what must be answered; raises `Gone` when the peer has closed."""
        while True:
            try:
                data = self._sock.recv(_READ)
            except _WOULD_BLOCK:
                return
            except OSError as error:
                raise self._gone() from error
            if not data:
                raise self._gone()
            self.heard_at = time.monotonic()
            self._feed(data)

    def close(self, code: int, reason: str = "") -> None:
        """Say why, and let the peer take it: closing with unread bytes would reset the connection under the frame."""
        if self._closed:
            return
        with suppress(Gone):
            self._write(self._made(CloseConnection(code=code, reason=reason)), timeout=CLOSE_TIMEOUT)
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            self._drain(time.monotonic() + CLOSE_TIMEOUT)
        self.abort()

    def abort(self) -> None:
        """Shut the socket down; whoever reads or writes it wakes up."""
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
            raise Gone from error

    def _handle(self, event: Event) -> None:
        if isinstance(event, Ping):
            self._write(self._made(event.response()))
        elif isinstance(event, CloseConnection):
            self._write(self._made(event.response()), timeout=CLOSE_TIMEOUT)
            raise self._gone()
        elif isinstance(event, Message):
            self._received += len(event.data)
            if self._received > MAX_MESSAGE:
                self.close(1009)
                raise Gone
            self._received = 0 if event.message_finished else self._received

    def _made(self, event: Event) -> bytes:
        try:
            return self._protocol.send(event)
        except LocalProtocolError as error:
            raise self._gone() from error

    def _write(self, data: bytes, *, timeout: float | None = None) -> None:
        """Write everything; the system's own `send` may take less than it is given."""
        deadline = time.monotonic() + (timeout or self._write_timeout)
        rest = memoryview(data)
        while rest:
            if self._closed:
                raise Gone
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

    def _gone(self) -> Gone:
        self.abort()
        return Gone()


def wait_for(sock: socket.socket, what: int, seconds: float) -> bool:
    """Whether the socket becomes ready within ``seconds``; poll, as select knows no descriptor above 1,023."""
    if seconds <= 0:
        return False
    poller = select.poll()
    poller.register(sock, what)
    return bool(poller.poll(seconds * 1000))
