"""One WebSocket on a pair of sockets: whole writes, time limits, closing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Thread

import pytest
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from celerymeter.control.feed.hub import FeedMessage, Mailbox
from celerymeter.control.feed.views import Session, Waker
from celerymeter.control.feed.websocket import BadHandshake, PeerGone, WebSocket
from celerymeter.demo.processes import wait_until

HANDSHAKE = [
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "keep-alive, Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Protocol", "celerymeter.v1, bearer.x"),
    ("Sec-WebSocket-Extensions", "permessage-deflate"),
]


@dataclass
class Pair:
    """The server's side, and a client that speaks frames."""

    server: WebSocket
    sock: socket.socket
    protocol: Connection
    greeting: bytes

    def events(self) -> list[Event]:
        """Return the events that have arrived by now, at least one."""
        data = self.sock.recv(1 << 20)
        self.protocol.receive_data(data or None)
        return list(self.protocol.events())

    def send(self, event: Event) -> None:
        """The client says something."""
        self.sock.sendall(self.protocol.send(event))


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connected pair."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    server = WebSocket(ours, HANDSHAKE, subprotocol="celerymeter.v1")
    yield Pair(server, theirs, Connection(ConnectionType.CLIENT), theirs.recv(4096))
    ours.close()
    theirs.close()


def test_the_handshake_is_answered_without_what_was_not_asked_for(pair: Pair) -> None:
    """RFC 6455's own example, the chosen protocol, and no compression."""
    assert pair.greeting.startswith(b"HTTP/1.1 101")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in pair.greeting
    assert b"celerymeter.v1\r\n" in pair.greeting
    assert b"bearer" not in pair.greeting
    assert b"deflate" not in pair.greeting


@pytest.mark.parametrize("missing", ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_what_is_no_handshake_is_refused_unanswered(missing: str) -> None:
    """Nothing is written, so that HTTP can answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(BadHandshake):
            WebSocket(ours, [header for header in HANDSHAKE if header[0] != missing], subprotocol=None)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_a_message_larger_than_the_buffers_arrives_whole(pair: Pair) -> None:
    """While the peer reads little by little."""
    text = "x" * 3_000_000
    writer = Thread(target=pair.server.send, args=(text,))
    writer.start()
    got = ""
    while len(got) < len(text):
        got += "".join(event.data for event in pair.events() if isinstance(event, TextMessage))
    writer.join()

    assert got == text


def test_a_peer_that_takes_nothing_is_shut_down() -> None:
    """After the write time-out, and not before."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = WebSocket(ours, HANDSHAKE, subprotocol=None, write_timeout=0.3)
        begun = time.monotonic()
        with pytest.raises(PeerGone):
            server.send("x" * 10_000_000)

        assert 0.25 < time.monotonic() - begun < 3


def test_a_hanging_write_ends_when_it_is_aborted(pair: Pair) -> None:
    """From another thread, at once."""
    ended: list[type[BaseException]] = []

    def write() -> None:
        try:
            pair.server.send("x" * 10_000_000)
        except PeerGone:
            ended.append(PeerGone)

    writer = Thread(target=write)
    writer.start()
    time.sleep(0.1)
    pair.server.abort()
    writer.join(2)

    assert ended == [PeerGone]


def test_pings_are_answered_and_messages_thrown_away(pair: Pair) -> None:
    """A peer may speak; nobody listens."""
    pair.send(TextMessage("hello"))
    pair.send(BytesMessage(b"\0" * 4000))
    pair.send(Ping(b"now"))
    pair.server.read()

    assert [event.payload for event in pair.events() if isinstance(event, Pong)] == [b"now"]


@pytest.mark.parametrize(
    ("junk", "code"),
    [(b"\x81\x05hello", 1002), (b"\xff\xff\xff\xff\xff\xff", 1002), (b"GET / HTTP/1.1\r\n\r\n", 1002)],
    ids=["unmasked", "reserved bits", "http"],
)
def test_what_is_no_frame_is_closed(pair: Pair, junk: bytes, code: int) -> None:
    """With the protocol's own code for it."""
    pair.sock.sendall(junk)
    with pytest.raises(PeerGone):
        pair.server.read()

    assert [event.code for event in pair.events() if isinstance(event, CloseConnection)] == [code]


def test_a_peers_close_is_answered(pair: Pair) -> None:
    """And ends it."""
    pair.send(CloseConnection(1000))
    with pytest.raises(PeerGone):
        pair.server.read()

    assert [event.code for event in pair.events() if isinstance(event, CloseConnection)] == [1000]


def test_a_close_reaches_a_peer_that_was_sending(pair: Pair) -> None:
    """Unread bytes must not reset the connection under the close frame; long reasons are cut."""
    pair.send(TextMessage("still here"))
    closer = Thread(target=pair.server.close, args=(4401, "é" * 200))
    closer.start()
    (event,) = pair.events()
    pair.sock.close()
    closer.join(3)

    assert isinstance(event, CloseConnection)
    assert event.code == 4401


class Running:
    """A session on a thread of its own."""

    def __init__(
        self, pair: Pair, *, expires_at: float | None = None, ping: float = 20, peer_timeout: float = 45
    ) -> None:
        self.waker = Waker()
        self.mailbox = Mailbox(wake=self.waker.wake, abort=pair.server.abort)
        session = Session(
            pair.server, self.mailbox, self.waker, expires_at=expires_at, ping_interval=ping, peer_timeout=peer_timeout
        )
        self.thread = Thread(target=session.run, args=([FeedMessage(1, "alert", "first")],))
        self.thread.start()

    def ended(self) -> bool:
        """Return whether the session is over."""
        self.thread.join(5)
        self.waker.close()
        return not self.thread.is_alive()


def texts(pair: Pair, count: int) -> list[str]:
    """So many messages."""
    got: list[str] = []
    while len(got) < count:
        got += [event.data for event in pair.events() if isinstance(event, TextMessage)]
    return got


def test_a_session_sends_what_comes_and_ends_with_its_peer(pair: Pair) -> None:
    """In order, at once, from any thread."""
    running = Running(pair)
    for n in range(3):
        running.mailbox.put(FeedMessage(n, "alert", str(n)))

    assert texts(pair, 4) == ["first", "0", "1", "2"]
    pair.sock.close()
    assert running.ended()


def test_a_session_ends_with_its_token(pair: Pair) -> None:
    """4401 when it expires."""
    running = Running(pair, expires_at=time.time() + 0.3)
    events: list[Event] = []
    while not any(isinstance(event, CloseConnection) for event in events):
        events += pair.events()
    pair.sock.close()

    assert [event.code for event in events if isinstance(event, CloseConnection)] == [4401]
    assert running.ended()


def test_a_silent_peer_is_pinged_and_given_up(pair: Pair) -> None:
    """A peer that is gone without a word holds no thread."""
    running = Running(pair, ping=0.2, peer_timeout=0.5)

    assert running.ended()
    assert any(isinstance(event, Ping) for event in pair.events())


def test_a_peer_that_answers_pings_stays(pair: Pair) -> None:
    """Beyond the limit for silence."""
    running = Running(pair, ping=0.1, peer_timeout=0.4)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        for event in pair.events():
            if isinstance(event, Ping):
                pair.send(event.response())

    assert running.thread.is_alive()
    running.mailbox.close()
    wait_until(lambda: any(isinstance(event, CloseConnection) for event in pair.events()))
    pair.sock.close()
    assert running.ended()
