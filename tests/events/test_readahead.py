"""Reading ahead: everything that a socket brings is kept in order, within bounds."""

from __future__ import annotations

import mmap
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from tests.events.certificates import Certificates

from celerymeter.demo.processes import wait_until
from celerymeter.events.readahead import (
    BLOCK,
    BUSY,
    CHUNK,
    ENOUGH,
    LEAST,
    LIMIT,
    MAX_MEMORY,
    REST,
    SHORT_REST,
    ReadAhead,
    process_memory,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def tcp() -> Iterator[Pair]:
    """Our end and the peer's of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with ours, peer:
        yield ours, peer


@pytest.fixture
def tls(tcp: Pair, tmp_path: Path) -> Iterator[Pair]:
    """The same with TLS."""
    certificates = Certificates(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates.certificate, certificates.key)
    accepted: list[ssl.SSLSocket] = []
    shaking = threading.Thread(target=lambda: accepted.append(server.wrap_socket(tcp[1], server_side=True)))
    shaking.start()
    client = ssl.create_default_context(cafile=str(certificates.authority))
    with client.wrap_socket(tcp[0], server_hostname="localhost") as ours:
        shaking.join()
        with accepted[0] as peer:
            yield ours, peer


def numbered(size: int) -> bytes:
    """Bytes of which no piece can be exchanged for another unnoticed."""
    return b"".join(b"%07d\n" % number for number in range(size // 8))


def send(peer: socket.socket, data: bytes) -> threading.Thread:
    """Send in a thread, then go away."""

    def run() -> None:
        peer.sendall(data)
        peer.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def drain(ahead: ReadAhead) -> tuple[bytes, list[float], int]:
    """All bytes until the end, the times of their reading, and the size of the largest chunk."""
    data, times, largest = bytearray(), [], 0
    while True:
        if (taken := ahead.take()) is not None:
            data += taken[1]
            times.append(taken[0])
            largest = max(largest, len(taken[1]))
        elif ahead.ended is not None:
            return bytes(data), times, largest
        else:
            ahead.wait(1)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_everything_comes_in_order(kind: str, request: pytest.FixtureRequest) -> None:
    """Several blocks full, in chunks of bounded size, each with the time of its reading."""
    ours, peer = request.getfixturevalue(kind)
    sent = numbered(5 * BLOCK + 12_344)
    sending = send(peer, sent)

    got, times, largest = drain(ReadAhead(ours))
    sending.join()

    assert got == sent
    assert largest <= CHUNK
    assert all(earlier <= later for earlier, later in pairwise(times))


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_one_look_takes_all_that_is_there(kind: str, request: pytest.FixtureRequest) -> None:
    """Data that the peer sent before it went away is in memory after the first chunk, in TLS too, record by record."""
    ours, peer = request.getfixturevalue(kind)
    sent = numbered(64_000)  # less than the first window, more than a record
    peer.sendall(sent)
    peer.close()
    time.sleep(0.2)  # until it has arrived
    ahead = ReadAhead(ours)

    first = ahead.take()
    assert first is not None
    begun = bytes(first[1])
    ours.close()
    rest, _, _ = drain(ahead)

    assert begun + rest == sent


@pytest.mark.parametrize(
    ("limit", "memory"), [(2 * BLOCK, 0), (LIMIT, MAX_MEMORY + 1)], ids=["of its own", "of the whole process"]
)
def test_memory_is_bounded(tcp: Pair, limit: int, memory: int) -> None:
    """At the limit nothing more is read, and the peer has to wait; afterwards nothing is missing."""
    ours, peer = tcp
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    sent = numbered(LEAST + 12 * BLOCK)
    sending = send(peer, sent)
    ahead = ReadAhead(ours, limit=limit, memory=lambda: memory)

    first = ahead.take()
    while first is None:
        ahead.wait(1)
        first = ahead.take()
    begun = bytes(first[1])
    sending.join(0.5)
    assert sending.is_alive()
    rest, _, _ = drain(ahead)
    sending.join()

    assert begun + rest == sent


def test_the_memory_of_the_process_is_known() -> None:
    """It grows with what is kept."""
    before = process_memory()
    with mmap.mmap(-1, 20_000_000) as kept:
        for _ in range(20):
            kept.write(b"x" * 1_000_000)
        assert process_memory() - before > 15_000_000


def empty(ahead: ReadAhead, *, of: int) -> None:
    """Take so many bytes, then find that there are no more."""
    while of > 0:
        ahead.wait(1)
        while (taken := ahead.take()) is not None:
            of -= len(taken[1])


@pytest.mark.parametrize(("size", "pace"), [(10, SHORT_REST), (2 * BUSY, REST)])
def test_rests_are_longer_where_they_save_more(tcp: Pair, size: int, pace: float) -> None:
    """In a busy stream; in a quiet one the times of receipt matter more."""
    ours, peer = tcp
    ahead = ReadAhead(ours)
    peer.sendall(b"x" * size)

    empty(ahead, of=size)

    assert ahead.pace == pace


def test_a_burst_ends_a_rest(tcp: Pair) -> None:
    """At once, so that Redis need not keep it for us."""
    ours, peer = tcp
    ahead = ReadAhead(ours)

    def rested() -> float:
        peer.sendall(b"x" * 2 * BUSY)
        empty(ahead, of=2 * BUSY)
        sending = send(peer, b"x" * 2 * ENOUGH)
        began = time.monotonic()
        ahead.rest()
        took = time.monotonic() - began
        empty(ahead, of=2 * ENOUGH)
        sending.join()
        return took

    wait_until(lambda: rested() < REST, what="a rest that was cut short")


def test_a_reset_is_reported(tcp: Pair) -> None:
    """A connection that is torn down has a reason."""
    ours, peer = tcp
    ahead = ReadAhead(ours)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()

    with suppress(TimeoutError):
        drain(ahead)

    assert ahead.ended == "connection lost: Connection reset by peer"
