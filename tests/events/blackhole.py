"""A TCP proxy whose connections can be made to lead nowhere, as by a firewall that forgot them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress


class Blackhole:
    """Passes everything on to a port of this machine until `swallow`, and what is connected afterwards again."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._generation = 0
        self._sockets: list[socket.socket] = []
        self._listening = threading.Thread(target=self._serve)
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._listener.getsockname()[1])

    def swallow(self) -> None:
        """From now on the connections of this moment stay open, and nothing comes through them."""
        self._generation += 1

    def redirect(self, port: int) -> None:
        """From now on new connections lead to another port; those of this moment stay as they are."""
        self._target = port

    def _serve(self) -> None:
        with suppress(OSError):  # until the listener is closed
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets.append(server)
                self._run(self._pass, client, server, self._generation)
                self._run(self._pass, server, client, self._generation)

    def _pass(self, source: socket.socket, target: socket.socket, generation: int) -> None:
        with suppress(OSError):
            while data := source.recv(64 * 1024):
                if generation == self._generation:
                    target.sendall(data)
            if generation == self._generation:
                target.shutdown(socket.SHUT_WR)

    def _run(self, target: Callable[..., None], *words: object) -> None:
        thread = threading.Thread(target=target, args=words)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Blackhole:
        self._listening.start()
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            stack.callback(self._listener.close)
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listening.join(10)
            for one in self._sockets:
                stack.callback(one.close)
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
