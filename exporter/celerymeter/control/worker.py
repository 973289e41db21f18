"""gunicorn's threaded worker, taught to end quickly and to tell strangers nothing."""

from __future__ import annotations

from typing import Any

from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

_CLIENT_ERRORS = {"LimitRequestLine": (414, "URI Too Long"), "LimitRequestHeaders": (431, "Header Fields Too Large")}


class ControlWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves `celerymeter.control.server.ControlServer`; told to end, it stops that one's background first."""

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM: no new connections, and an end to the sockets of the feed, which would keep this worker waiting.

        In the loop and not here, since a signal may find any lock held.
        """
        super().handle_exit(sig, frame)
        self.method_queue.defer(self.app.begin_stop)

    def run(self) -> None:
        """Serve; whatever ends that, the background ends too."""
        try:
            super().run()
        finally:
            self.app.stop()

    def handle(self, conn: Any) -> Any:
        """Serve a connection and close it in this thread: gunicorn lingers for up to 2 s, and would on its loop."""
        keep = super().handle(conn)
        if keep is False:
            util.close_graceful(conn.sock)
            conn.close = _already_closed
        return keep

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002 - gunicorn's signature
        """Answer what is no HTTP with its status alone: gunicorn would repeat the bytes, which may hold a token."""
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
    """The parent of one worker. Signals that would make it two, or start over, are ignored."""

    def _ignore(self) -> None:
        self.log.warning("signal ignored: restart the program instead")

    handle_hup = handle_ttin = handle_ttou = handle_usr2 = _ignore


class PlainLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own words go where all others go: to the handlers that `celerymeter.log` set up."""

    def setup(self, cfg: Any) -> None:
        """No handlers of its own, no access log."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True

    def reopen_files(self) -> None:
        """There are none."""

    def close_on_exec(self) -> None:
        """There is nothing to close."""
