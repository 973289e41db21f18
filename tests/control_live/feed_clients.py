"""Many WebSocket clients at once, some of which never read."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import urlsplit

from tests.control.access import token
from websockets.asyncio.client import ClientConnection, connect

Meanwhile = Callable[[], None]


@dataclass
class UpdateTimes:
    """Times at which each client got the message of each interval, metrics or an error (monotonic seconds)."""

    updates: list[list[float]] = field(default_factory=list)

    def longest_gap(self) -> float:
        """Between two updates of one client."""
        return max(later - earlier for times in self.updates for earlier, later in pairwise(times))


async def run_clients(
    url: str, *, readers: int, deaf: int, seconds: float, meanwhile: Callable[[], None]
) -> UpdateTimes:
    """Keep all clients connected for so long while ``meanwhile`` runs in a thread; returns their times."""
    headers = {"Authorization": f"Bearer {token(ttl=seconds + 600)}"}
    sockets = [never_reading(url, headers) for _ in range(deaf)]
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(readers):
            connecting = connect(url, additional_headers=headers, compression=None, proxy=None, max_queue=None)
            clients.append(await stack.enter_async_context(connecting))
        until = time.monotonic() + seconds
        measuring = asyncio.create_task(asyncio.to_thread(meanwhile))
        seen = UpdateTimes(list(await asyncio.gather(*(_follow(client, until) for client in clients))))
        await measuring
    for sock in sockets:
        sock.close()
    return seen


async def _follow(client: ClientConnection, until: float) -> list[float]:
    times: list[float] = []
    while (left := until - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(client.recv(decode=False), left)
        except TimeoutError:
            break
        if message.startswith((b'{"message_type":"metrics_update"', b'{"message_type":"error"')):
            times.append(time.monotonic())
    return times


def never_reading(url: str, headers: dict[str, str]) -> socket.socket:
    """A client that does the handshake, has a small buffer, and never reads it."""
    parts = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((parts.hostname, parts.port))
    lines = [
        f"GET {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return sock
