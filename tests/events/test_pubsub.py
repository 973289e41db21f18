"""The subscription's own protocol, against a scripted server on a socket pair."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.events.messages import event, message
from tests.events.sinks import RecordingSink

from celerymeter.demo.processes import wait_until
from celerymeter.errors import BrokerUnavailable
from celerymeter.events.redis import PubSub, Timeouts

PATTERN = "/0.celeryev/*"
RESP2, RESP3 = b"*", b">"


class FakeConnection:
    """The part of redis-py's connection that is used, on one end of a socket pair."""

    def __init__(self) -> None:
        self._sock, self.server = socket.socketpair()
        self.server.settimeout(5)

    def disconnect(self) -> None:
        """Close our end."""
        self._sock.close()


@pytest.fixture
def connection() -> Iterator[FakeConnection]:
    """A connection whose other end the test plays."""
    fake = FakeConnection()
    yield fake
    fake.disconnect()
    fake.server.close()


def frame(*words: bytes | int, kind: bytes = RESP2) -> bytes:
    """An array or push frame."""
    parts = [b":%d\r\n" % word if isinstance(word, int) else b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return kind + b"%d\r\n" % len(words) + b"".join(parts)


def confirmation(kind: bytes = RESP2) -> bytes:
    return frame(b"psubscribe", PATTERN.encode(), 1, kind=kind)


def publication(uuid: str, kind: bytes = RESP2) -> bytes:
    return frame(b"pmessage", PATTERN.encode(), b"/0.celeryev/x", message(event(uuid=uuid)), kind=kind)


def deliver(connection: FakeConnection, *sent: bytes, timeouts: Timeouts | None = None) -> tuple[RecordingSink, str]:
    """Return what a sink got until the subscription ended, and the reason; the server closes after what it sent."""
    for data in sent:
        connection.server.sendall(data)
    connection.server.shutdown(socket.SHUT_WR)
    sink = RecordingSink()
    with pytest.raises(BrokerUnavailable) as ended:
        PubSub(connection, [PATTERN], timeouts or Timeouts()).deliver(sink, threading.Event())
    return sink, str(ended.value)


@pytest.mark.parametrize("kind", [RESP2, RESP3], ids=["RESP2", "RESP3"])
def test_both_protocol_versions_are_read(connection: FakeConnection, kind: bytes) -> None:
    """Arrays of RESP2 and push frames of RESP3, also in the same packet as the confirmation."""
    sink, reason = deliver(
        connection, confirmation(kind) + publication("a", kind) + publication("b", kind), publication("c", kind)
    )
    assert [got.uuid for got in sink.received] == ["a", "b", "c"]
    assert reason == "the server closed the connection"


def test_frames_may_come_in_any_pieces(connection: FakeConnection) -> None:
    """A frame is put together from any number of reads."""
    stream = confirmation() + publication("a") + publication("b")
    sink, _ = deliver(connection, *(stream[i : i + 23] for i in range(0, len(stream), 23)))
    assert [got.uuid for got in sink.received] == ["a", "b"]


def test_other_frames_are_passed_over(connection: FakeConnection) -> None:
    """Answers to PING, errors, and whatever else a server pushes: not messages, not a reason to leave."""
    others = b"+PONG\r\n" + frame(b"pong", b"") + b"-NOPERM no ping\r\n:5\r\n$-1\r\n*0\r\n*-1\r\n"
    others += frame(b"message", b"c", b"x") + frame(b"a", b"b", b"c", b"d") + b">2\r\n+MOVING\r\n:1\r\n_\r\n#t\r\n"
    sink, reason = deliver(connection, b"+PONG\r\n*0\r\n" + confirmation() + others + publication("a") + others)
    assert [got.uuid for got in sink.received] == ["a"]
    assert not sink.rejections
    assert reason == "the server closed the connection"


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$x\r\n", b"\0\0\0"])
def test_garbage_ends_the_subscription(connection: FakeConnection, garbage: bytes) -> None:
    """A peer that does not speak Redis' protocol is left; what came before counts."""
    sink, reason = deliver(connection, confirmation() + publication("a"), garbage)
    assert "Redis protocol" in reason
    assert len(sink.received) <= 1


def test_a_refused_subscription_is_reported(connection: FakeConnection) -> None:
    """In the server's words."""
    connection.server.sendall(b"-NOPERM this user has no permissions to access one of the channels\r\n")
    with pytest.raises(BrokerUnavailable, match="no permissions"):
        PubSub(connection, [PATTERN], Timeouts())


def test_a_confirmation_that_does_not_come_is_not_awaited_for_ever(connection: FakeConnection) -> None:
    """A server that takes the command and says nothing."""
    with pytest.raises(BrokerUnavailable, match="no reply to PSUBSCRIBE"):
        PubSub(connection, [PATTERN], Timeouts(reply=0.2))


def test_silence_is_asked_about_and_an_answer_is_enough(connection: FakeConnection) -> None:
    """PING goes out after the silence; while answers come the subscription stays, without one it ends."""
    connection.server.sendall(confirmation())
    subscription = PubSub(connection, [PATTERN], Timeouts(silence=0.1, reply=3))
    assert b"PSUBSCRIBE" in connection.server.recv(1000)
    reasons: list[str] = []

    def run() -> None:
        try:
            subscription.deliver(RecordingSink(), threading.Event())
        except BrokerUnavailable as error:
            reasons.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(3):
        assert connection.server.recv(1000) == b"*1\r\n$4\r\nPING\r\n"
        connection.server.sendall(frame(b"pong", b""))
    wait_until(lambda: reasons, what="giving up")
    thread.join()

    assert "no reply to PING" in reasons[0]


def test_a_frame_without_end_is_not_hoarded(connection: FakeConnection) -> None:
    """A length of half a gigabyte does not make us keep half a gigabyte."""
    connection.server.sendall(confirmation() + b"*4\r\n$8\r\npmessage\r\n$536870912\r\n")
    subscription = PubSub(connection, [PATTERN], Timeouts(), largest_frame=1_000_000)
    reasons: list[str] = []

    def run() -> None:
        with pytest.raises(BrokerUnavailable) as ended:
            subscription.deliver(RecordingSink(), threading.Event())
        reasons.append(str(ended.value))

    thread = threading.Thread(target=run)
    thread.start()
    connection.server.settimeout(0.5)
    while not reasons:
        with suppress(TimeoutError):  # once nobody reads any more
            connection.server.sendall(b"x" * 50_000)
    thread.join()

    assert "a frame of more than" in reasons[0]
