"""gunicorn's threaded worker, changed to end quickly and to repeat nothing of a bad request."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from contextlib import suppress
from threading import Thread
from typing import Any

from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

_CLIENT_ERRORS = {"LimitRequestLine": (414, "URI Too Long"), "LimitRequestHeaders": (431, "Header Fields Too Large")}


class ControlWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves a `celerymeter.control.server.ControlServer`; after SIGTERM it first stops the background threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading: dict[Any, float] = {}
        """Connections that a thread serves, with the start (monotonic seconds); WebSockets are not among them."""

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
        Thread(target=self._end, name="end").start()

    def _end(self) -> None:
        """Stop the background threads, then stop waiting for requests that have only partly arrived."""
        self.app.stop()
        self._hang_up_before(math.inf)

    def murder_pending(self) -> None:
        """Give up requests that do not arrive in time, lest they hold a thread; the loop calls this every second."""
        super().murder_pending()
        self._hang_up_before(time.monotonic() - self.app.read_timeout)

    def _hang_up_before(self, limit: float) -> None:
        """Stop reading from connections served since before ``limit``; responses are still sent."""
        for connection, since in list(self._reading.items()):
            if since < limit:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RD)

    def handle(self, conn: Any) -> Any:
        """Serve a connection and close it in this thread: gunicorn lingers for up to 2 s, and would on its loop."""
        self._reading[conn] = time.monotonic()
        try:
            keep = super().handle(conn)
        finally:
            self._reading.pop(conn, None)
        if keep is False:
            util.close_graceful(conn.sock)
            conn.close = _already_closed
        return keep

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a request whose head has arrived; a WebSocket has no time limit from here on."""
        if req.path == self.app.feed_path:
            self._reading.pop(conn, None)
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002 - gunicorn's signature
        """Answer bytes that are not HTTP with a status: gunicorn would repeat them, and they may hold a token."""
        if type(exc).__module__.startswith("gunicorn."):
            status, reason = _CLIENT_ERRORS.get(type(exc).__name__, (400, "Bad Request"))
            self.log.debug("refused: %s", type(exc).__name__)
        else:
            status, reason = 500, "Internal Server Error"
            self.log.error("unexpected error while serving", exc_info=exc)
        try:
            util.write_error(client, status, reason, "")
        except OSError:
            self.log.debug("the client is gone")


def _already_closed(graceful: bool = False) -> None:
    """Stands in for a connection's ``close``."""


class ControlArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """The parent of one worker. Signals that would start another or restart it are ignored."""

    def _ignore(self) -> None:
        self.log.warning("signal ignored: restart the program instead")

    handle_hup = handle_ttin = handle_ttou = handle_usr2 = _ignore


class PlainLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log messages, sent to the handlers that `celerymeter.log` set up."""

    def setup(self, cfg: Any) -> None:
        """Set up no handlers and no access log."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True

    def reopen_files(self) -> None:
        """Do nothing: there are no files."""

    def close_on_exec(self) -> None:
        """Do nothing: there are no files."""
