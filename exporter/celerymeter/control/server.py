"""The server: binds two sockets, then runs gunicorn with one worker process of many threads."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidChunkSize
from prometheus_client import disable_created_metrics

from celerymeter.control.app import create_app
from celerymeter.control.parts import Background, Parts, build, check
from celerymeter.control.routing import FEED_PATH
from celerymeter.control.settings import ControlSettings
from celerymeter.control.store import locked
from celerymeter.control.worker import WAITING_CONNECTIONS, ControlWorker
from celerymeter.httpd.server import bind

log = logging.getLogger(__name__)

SPARE_THREADS = 32
"""Threads beside those that the feed's clients occupy, for all other requests."""
MAX_CHUNKS = 20_000
"""Chunks of a body. Each costs the same however short it is: 4 MB of single bytes would take a minute."""
GRACE = 4
"""Seconds that running requests have after SIGTERM; then the worker is killed."""


def run(settings: ControlSettings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status; raises `SettingsError` or `PortInUse` at once."""
    disable_created_metrics()
    with ExitStack() as stack:
        folder = stack.enter_context(state_folder(settings))
        stack.enter_context(locked(folder))
        check(settings, folder)
        api = stack.enter_context(bind(settings.listen, option="--listen"))
        metrics = stack.enter_context(bind(settings.metrics_listen, option="--metrics-listen"))
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


class ControlServer(BaseApplication):
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
            "worker_connections": threads + WAITING_CONNECTIONS,
            "graceful_timeout": GRACE,
            "keepalive": 5,
            "timeout": 60,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",
            "logger_class": PlainLog,
            "loglevel": "warning",
            "proc_name": "celerymeter-control",
            "pre_request": lambda _, request: limit_body(request, self._settings.limits.body_bytes),
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


class ControlArbiter(Arbiter):
    """The parent of one worker. Signals that would start another or restart it are ignored."""

    def _ignore(self) -> None:
        self.log.warning("signal ignored: restart the program instead")

    handle_hup = handle_ttin = handle_ttou = handle_usr2 = _ignore


class PlainLog(Logger):
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


def limit_body(request: Any, limit: int) -> None:
    """Bound the work of a body before it is read.

    The connection is closed after a request that announces too large a body, so that the body is never read. One of
    very many chunks is refused in between.
    """
    announced = next((value for name, value in request.headers if name.upper() == "CONTENT-LENGTH"), "0")
    if announced.isdecimal() and int(announced) > limit:
        request.force_close()
    if isinstance(request.body.reader, ChunkedReader):
        request.body.reader.parser = _limited(request.body.reader.parser)


def _limited(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for number, chunk in enumerate(chunks):
        if number >= MAX_CHUNKS:
            raise InvalidChunkSize(b"too many chunks")
        yield chunk


def address_of(sock: socket.socket) -> str:
    """Return ``host:port`` as in the settings."""
    host, port, *_ = sock.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(sock: socket.socket) -> str:
    """Return the URL of a socket."""
    return f"http://{address_of(sock)}"
