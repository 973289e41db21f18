"""gunicorn's threaded worker, changed so that no client holds a thread by what it does not send, nor keeps others out.

The loop reads the head of a request without a thread, and lingers without one; gunicorn would use a thread for both,
and accept nobody once all are in use. The worker also ends quickly, and repeats nothing of a bad request.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import selectors
import socket
import threading
import time
from collections import Counter, OrderedDict
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from celerymeter.control.errors import raw_problem
from celerymeter.rate_limit import network

MAX_HEAD = 32 * 1024
"""Bytes of a request's line and headers."""
LINGER = 2.0
"""Seconds for which a closed connection is still read, or its client might lose the answer (RFC 9112, 9.6)."""
DRAIN = 0.2
"""Seconds in which the rest of a body that nobody read must come, if its connection is to serve another request."""
LAST_HEADS = 1.0
"""Seconds that heads under way get after SIGTERM."""
WAITING_CONNECTIONS = 1000
"""Connections beside those that threads serve; of more the one that has waited longest is closed."""
MAX_PER_ADDRESS = 750
"""Connections of one address, all counted; of more the one of that address that has waited longest is closed."""
_READ = 16 * 1024
_CLIENT_ERRORS = {"LimitRequestLine": 414, "LimitRequestHeaders": 431}


class Connection(TConn):
    """A connection, with what has come of the head of its next request."""

    def __init__(self, *args: Any, opened: Counter[str]) -> None:
        """``opened`` counts the connections of each address."""
        super().__init__(*args)
        self.address = network(self.client[0]) if isinstance(self.client, tuple) else ""
        self._opened: Counter[str] | None = opened
        opened[self.address] += 1
        self.head = bytearray()
        self.data_ready = True  # a thread gets it with a whole head

    def receive(self) -> bool:
        """Read what has come; return False when the client is gone. Raises `BlockingIOError` for nothing."""
        data = self.sock.recv(_READ)
        self.head += data
        return bool(data)

    def close(self, graceful: bool = False) -> None:
        """Close it, and count it no more."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[self.address] -= 1
            if not opened[self.address]:
                del opened[self.address]
        super().close(graceful)

    @property
    def has_head(self) -> bool:
        """True when a request's line and headers are there."""
        return b"\r\n\r\n" in self.head


class ControlWorker(ThreadWorker):
    """The worker for a `ControlServer`; after SIGTERM it first stops the background threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading: dict[Connection, float] = {}
        """Connections that a thread serves, with the start (monotonic seconds); WebSockets are not among them."""
        self._waiting: OrderedDict[Connection, float] = OrderedDict()
        """Connections whose head has not arrived, with the time at which they are given up."""
        self._lingering: OrderedDict[Connection, float] = OrderedDict()
        self._opened: Counter[str] = Counter()

    # In the loop

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection and wait for its head; close another one where there are too many."""
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                return
            raise
        self.nr_conns += 1
        conn = Connection(self.cfg, sock, address, listener.getsockname(), opened=self._opened)
        self._await_head(conn)
        if self._opened[conn.address] > MAX_PER_ADDRESS and conn.address:
            self._close_oldest(conn.address)
        elif self.nr_conns >= self.worker_connections:
            self._close_oldest()

    def on_client_socket_readable(self, conn: Connection, client: object) -> None:
        """Wait for the whole head of the next request."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_head(conn)

    def finish_request(self, conn: Connection, fs: Any) -> None:
        """Wait for the next request of a connection, or close it."""
        if fs.cancelled() or fs.exception() is not None or not fs.result():
            self._linger(conn)
        elif early := conn.parser.unreader.take_buffered():
            conn.head += early  # the client did not wait for the answer
            conn.sock.setblocking(False)
            self._await_head(conn)
        else:
            super().finish_request(conn, fs)

    def murder_pending(self) -> None:
        """Give up what does not arrive in time; the loop calls this every second."""
        super().murder_pending()
        now = time.monotonic()
        for connections in (self._waiting, self._lingering):
            for conn in [conn for conn, deadline in connections.items() if deadline <= now]:
                self._drop(conn)
        self._hang_up_before(now - self.app.read_timeout)

    def _await_head(self, conn: Connection) -> None:
        self._waiting[conn] = time.monotonic() + self.app.read_timeout
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_head, conn))
        self._dispatch(conn)

    def _on_head(self, conn: Connection, _: object) -> None:
        try:
            if not conn.receive():
                self._drop(conn)
                return
        except BlockingIOError:
            return
        except OSError:
            self._drop(conn)
            return
        self._dispatch(conn)

    def _dispatch(self, conn: Connection) -> None:
        """Give a connection whose head is there to a thread; refuse one whose head is too long."""
        if conn.has_head:
            self._forget(conn)
            self.enqueue_req(conn)
        elif len(conn.head) > MAX_HEAD:
            self._forget(conn)
            with suppress(OSError):
                conn.sock.sendall(raw_problem(431 if b"\r\n" in conn.head else 414))
            self._linger(conn)

    def _linger(self, conn: Connection) -> None:
        """Say that no more comes, and read for a while what the client still sends."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_rest, conn))
        except (OSError, ValueError):
            self._end_of(conn)
            return
        self._lingering[conn] = time.monotonic() + LINGER

    def _on_rest(self, conn: Connection, _: object) -> None:
        try:
            if conn.sock.recv(_READ):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(conn)

    def _close_oldest(self, address: str | None = None) -> None:
        """Close the connection that has waited longest, of all or of one address."""
        for connections in (self._lingering, self._waiting):
            oldest = next((conn for conn in connections if address in (None, conn.address)), None)
            if oldest is not None:
                self._drop(oldest)
                return
        kept = next((conn for conn in self.keepalived_conns if address in (None, conn.address)), None)
        if kept is not None:
            self.keepalived_conns.remove(kept)
            self.keepalived_conns.appendleft(kept)
            kept.timeout = -math.inf
            self.murder_keepalived()

    def _drop(self, conn: Connection) -> None:
        self._forget(conn)
        self._end_of(conn)

    def _forget(self, conn: Connection) -> None:
        self._waiting.pop(conn, None)
        self._lingering.pop(conn, None)
        with suppress(KeyError, ValueError, OSError):
            self.poller.unregister(conn.sock)

    def _end_of(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()

    # In a thread

    def handle(self, conn: Connection) -> Any:
        """Serve a request whose head is there."""
        self._reading[conn] = time.monotonic()
        try:
            conn.init()
            conn.parser.unreader.unread(bytes(conn.head))
            conn.head.clear()
            return super().handle(conn)
        finally:
            self._reading.pop(conn, None)

    def handle_request(self, req: Any, conn: Connection) -> Any:
        """Serve a request whose head has arrived; a WebSocket has no time limit from here on."""
        if req.path == self.app.feed_path:
            self._reading.pop(conn, None)
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: Connection, keepalive: Any) -> bool:
        return bool(keepalive and conn.parser.finish_body(deadline=time.monotonic() + DRAIN))

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002 - gunicorn's signature
        """Answer bytes that are not HTTP with a status: gunicorn would repeat them, and they may hold a token."""
        if type(exc).__module__.startswith("gunicorn."):
            status = _CLIENT_ERRORS.get(type(exc).__name__, 400)
            self.log.debug("refused: %s", type(exc).__name__)
        else:
            status = 500
            self.log.error("unexpected error while serving", exc_info=exc)
        try:
            client.sendall(raw_problem(status))
        except OSError:
            self.log.debug("the client is gone")

    # At the end

    def handle_exit(self, sig: int, frame: object) -> None:
        """Accept no new connections after SIGTERM, then `_end` from the loop: the signal may find a lock held."""
        super().handle_exit(sig, frame)
        self.method_queue.defer(self._begin_end)

    def run(self) -> None:
        """Serve; when that ends for any reason, stop the background threads.

        After SIGTERM the process ends here: the interpreter would first wait for threads that a client holds, and then
        clean up objects, for up to seconds on a busy machine.
        """
        try:
            super().run()
        finally:
            self._end()
        logging.shutdown()
        os._exit(0)

    def _begin_end(self) -> None:
        soon = time.monotonic() + LAST_HEADS
        self._waiting.update({conn: min(deadline, soon) for conn, deadline in self._waiting.items()})
        threading.Thread(target=self._end, name="end").start()

    def _end(self) -> None:
        """Stop the background threads, then stop waiting for requests that have only partly arrived."""
        self.app.stop()
        self._hang_up_before(math.inf)

    def _hang_up_before(self, limit: float) -> None:
        """Stop reading from connections served since before ``limit``; responses are still sent."""
        for connection, since in list(self._reading.items()):
            if since < limit:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RD)
