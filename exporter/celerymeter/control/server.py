"""The server: binds two sockets, then runs gunicorn with one worker process of many threads.

Its worker is changed to end quickly, and to repeat nothing of a bad request.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from flask import Flask
from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker
from prometheus_client import disable_created_metrics

from celerymeter.control.app import create_app
from celerymeter.control.parts import Background, Parts, build, check
from celerymeter.control.routing import FEED_PATH
from celerymeter.control.settings import ControlSettings
from celerymeter.control.store import locked
from celerymeter.httpd.server import bind

log = logging.getLogger(__name__)

SPARE_THREADS = 32
"""Threads beside those that the feed's clients occupy, for all other requests."""
_CLIENT_ERRORS = {"LimitRequestLine": (414, "URI Too Long"), "LimitRequestHeaders": (431, "Header Fields Too Large")}
GRACE = 4
"""Seconds that running requests have after SIGTERM; then the worker is killed."""


def run(settings: ControlSettings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status; raises `SettingsError` or `PortInUse` at once."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # two lines of prometheus-client without types
    with state_folder(settings) as folder, locked(folder):
        check(settings, folder)
        api = bind(settings.listen, option="--listen")
        metrics = bind(settings.metrics_listen, option="--metrics-listen")
        log.info(
            "listening on %s, metrics on %s",
            url_of(api) + settings.base_path,
            url_of(metrics) + "/metrics",
            extra={"address": address_of(api), "metrics_address": address_of(metrics)},
        )
        server = ControlServer(settings, folder, api=api, metrics=metrics)
        try:
            ControlArbiter(server).run()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
    return 0


@contextmanager
def state_folder(settings: ControlSettings) -> Iterator[Path]:
    """Yield the state directory, or a temporary one that is removed at the end."""
    if settings.state_dir is not None:
        yield settings.state_dir
        return
    folder = Path(mkdtemp(prefix="celerymeter-"))
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


class ControlServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """The application for gunicorn. Its parts are built after the fork, in `load`, and started in `start`."""

    def __init__(self, settings: ControlSettings, folder: Path, *, api: socket.socket, metrics: socket.socket) -> None:
        self._settings = settings
        self._folder = folder
        self._api = api
        self._metrics = metrics
        self._parts: Parts | None = None
        self._stopping = threading.Lock()
        self.feed_path = f"{settings.base_path}{FEED_PATH}"
        self.read_timeout = settings.limits.read_seconds
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings. No control socket: that would be a second entrance without a token."""
        threads = self._settings.feed_max_clients + SPARE_THREADS
        chosen = {
            "bind": f"fd://{self._api.detach()}",
            "worker_class": ControlWorker,
            "workers": 1,
            "threads": threads,
            "worker_connections": 2 * threads,
            "graceful_timeout": GRACE,
            "keepalive": 5,
            "timeout": 60,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",
            "logger_class": PlainLog,
            "loglevel": "warning",
            "proc_name": "celerymeter-control",
            "pre_request": lambda _, request: close_after_large(request, self._settings.limits.body_bytes),
            "post_worker_init": lambda _: self.start(),
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application; gunicorn calls this in the worker."""
        self._parts = build(self._settings, self._folder, metrics_socket=self._metrics)
        return create_app(self._settings, self._parts)

    def start(self) -> None:
        """Start the background threads."""
        for part in self._parts.background if self._parts else ():
            part.start()

    def stop(self) -> None:
        """Stop the background threads in reverse order; a second call waits for the first."""
        with self._stopping:
            parts, self._parts = self._parts, None
            for part in reversed(parts.background) if parts else ():
                _stop(part)


def _stop(part: Background) -> None:
    """Stop one part; an error must not keep the others from being stopped."""
    try:
        part.stop()
    except Exception:
        log.exception("could not be stopped: %s", type(part).__name__)


class ControlWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's threaded worker for a `ControlServer`; after SIGTERM it first stops the background threads."""

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
        threading.Thread(target=self._end, name="end").start()

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


def close_after_large(request: Any, limit: int) -> None:
    """Close the connection after a request that announces too large a body, so that the body is never read."""
    announced = next((value for name, value in request.headers if name.upper() == "CONTENT-LENGTH"), "0")
    if announced.isdecimal() and int(announced) > limit:
        request.force_close()


def address_of(sock: socket.socket) -> str:
    """Return ``host:port`` as in the settings."""
    host, port, *_ = sock.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(sock: socket.socket) -> str:
    """Return the URL of a socket."""
    return f"http://{address_of(sock)}"
