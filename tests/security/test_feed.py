"""Frames that no client sends, and clients that only take room: the feed closes them at once, and everybody else's
requests are answered meanwhile."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from socket import create_connection, socket

import pytest
import requests
from tests.control.access import token
from tests.control.serving import Control

from celerymeter.control.tokens import Role

pytestmark = pytest.mark.integration

KEY = base64.b64encode(b"k" * 16).decode()
SPARE = 40
"""More threads than the API has for what is no feed."""


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """An API whose feed needs a token, and takes a few clients."""
    with Control(tmp_path_factory.mktemp("control"), ("--feed-max-clients", "3")) as server:
        yield server.up()


def handshake(control: Control, *, query: str = "", headers: str = "") -> socket:
    """Open a WebSocket, without waiting for the answer."""
    sock = create_connection(control.address, timeout=30)
    sock.sendall(
        f"GET /celery-admin/monitoring/ws{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n".encode()
    )
    return sock


@contextmanager
def opened(control: Control) -> Iterator[socket]:
    """A client of the feed."""
    with closing(handshake(control, query=f"?access_token={token(Role.VIEWER)}")) as sock:
        received = b""
        while b"connection_established" not in received:
            received += (chunk := sock.recv(65536))
            assert chunk, received
        yield sock


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, mask: bool = True, length: int = -1
) -> bytes:
    """A frame, which need not have the length that it announces."""
    size, masked = length if length >= 0 else len(payload), 0x80 if mask else 0
    head = bytes([fin << 7 | reserved << 4 | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 65536:
        head += bytes([masked | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", size)
    return head + (b"\0\0\0\0" if mask else b"") + payload


def closing_code(sock: socket) -> int | None:
    """Return the code of the last frame that came, once the connection has ended."""
    received = b""
    try:
        while chunk := sock.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    at = received.rfind(b"\x88")
    return None if at < 0 or len(received) < at + 4 else int(struct.unpack("!H", received[at + 2 : at + 4])[0])


FRAMES: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "not masked": (frame(1, b"x", mask=False), (1002,)),
    "a long ping": (frame(9, b"x" * 126), (1002,)),
    "half a ping": (frame(9, b"x", fin=False), (1002,)),
    "a reserved bit": (frame(1, b"x", reserved=1), (1002,)),
    "compressed, without agreement": (frame(1, b"x", reserved=4), (1002,)),
    "an unknown kind": (frame(3, b"x"), (1002,)),
    "an unknown control": (frame(11, b"x"), (1002,)),
    "a continuation of nothing": (frame(0, b"x"), (1002,)),
    "a length with its highest bit": (frame(2, b"x", length=2**63), (1002,)),
    "a length that is too long for it": (b"\x81\xfe\x00\x01\0\0\0\0x", (1002,)),
    "a megabyte": (frame(1, b"x" * 1_000_000), (1009,)),
    "a megabyte of an endless one": (frame(2, b"x" * 1_000_000, length=2**62), (1009,)),
    "a message in many fragments": (frame(1, b"x", fin=False) + frame(0, b"x", fin=False) * 5000, (1008, 1009)),
    "fragments of nothing": (frame(1, fin=False) + frame(0, fin=False) * 5000, (1008,)),
    "pings": (frame(9) * 5000, (1008,)),
    "pongs": (frame(10) * 5000, (1008,)),
    "a message in a message": (frame(1, b"x", fin=False) + frame(1, b"x"), (1002,)),
    "no UTF-8": (frame(1, b"\xff"), (1007,)),
    "half a close": (frame(8, b"x"), (1002,)),
    "a close that nobody may send": (frame(8, struct.pack("!H", 1005)), (1002,)),
    "a close without UTF-8": (frame(8, struct.pack("!H", 1000) + b"\xff"), (1007,)),
    "HTTP": (b"GET /celery-admin/audit HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", (1002,)),
}


@pytest.mark.parametrize(("data", "codes"), FRAMES.values(), ids=FRAMES.keys())
def test_a_client_that_sends_nonsense_is_closed(control: Control, data: bytes, codes: tuple[int, ...]) -> None:
    """With a code that says why."""
    with opened(control) as sock:
        with suppress(OSError):
            sock.sendall(data)
        assert closing_code(sock) in (*codes, None) if len(data) > 100_000 else closing_code(sock) in codes
    assert requests.get(control.info, timeout=30).status_code == 200
    assert "nexpected" not in control.log.read_text()


REFUSED = {
    "no token": {},
    "a wrong token": {"query": "?access_token=x"},
    "a wrong protocol": {"headers": "Sec-WebSocket-Protocol: celerymeter.v1, bearer.x\r\n"},
    "a wrong header": {"headers": "Authorization: Bearer x\r\n"},
}


@pytest.mark.parametrize("how", REFUSED.values(), ids=REFUSED.keys())
def test_those_who_are_refused_hold_no_thread(control: Control, how: dict[str, str]) -> None:
    """Each held one for a second: forty a second, and nobody else was answered."""
    with ExitStack() as held:
        for number in range(5 * SPARE):
            forwarded = f"X-Forwarded-For: 203.0.113.{number}\r\n"
            held.enter_context(closing(handshake(control, **{**how, "headers": how.get("headers", "") + forwarded})))
        began = time.monotonic()
        assert requests.get(control.info, timeout=30).status_code == 200
        assert time.monotonic() - began < 2.0


def test_those_who_find_it_full_hold_no_thread(control: Control) -> None:
    """They are asked to come later."""
    right = f"?access_token={token(Role.VIEWER)}"
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(opened(control))
        refused = [held.enter_context(closing(handshake(control, query=right))) for _ in range(3 * SPARE)]
        began = time.monotonic()
        assert requests.get(control.info, timeout=30).status_code == 200
        assert time.monotonic() - began < 2.0
        assert closing_code(refused[0]) == 1013
