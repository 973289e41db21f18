"""A server that is far away: what is sent to it arrives later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import SHUT_RDWR, create_connection, socket
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from urllib.parse import urlsplit


@contextmanager
def far_away(url: str, *, delay: float) -> Iterator[str]:
    """The server's URL by a way on which each piece takes ``delay`` seconds there; the way back takes none."""
    parts = urlsplit(url)
    address = (str(parts.hostname), int(parts.port or 0))

    class Way(BaseRequestHandler):
        def handle(self) -> None:
            with create_connection(address) as there, suppress(OSError):
                back = Thread(target=_carry, args=(there, self.request, 0.0), daemon=True)
                back.start()
                _carry(self.request, there, delay)

    class Server(ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Way) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield parts._replace(netloc=f"127.0.0.1:{server.server_address[1]}").geturl()
        finally:
            server.shutdown()
            thread.join()


def _carry(source: socket, target: socket, delay: float) -> None:
    """Until one of them hangs up, then both."""
    with suppress(OSError):
        while piece := source.recv(65_536):
            time.sleep(delay)
            target.sendall(piece)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(SHUT_RDWR)
