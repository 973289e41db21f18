"""A PostgreSQL for django-celery-beat, and a proxy before it that can hang."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from tempfile import mkdtemp
from types import TracebackType

from celerymeter.demo.processes import Process, free_port
from celerymeter.demo.servers import find_binary


class PostgreSQL(Process):
    """A server on loopback that trusts everybody, with its data in a folder of its own; it refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        self._bin = Path(find_binary("postgres")).resolve().parent
        self._home = Path(mkdtemp(prefix="celerymeter-postgres-"))  # pytest's own folders are closed to others
        self.port = free_port()
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=20")
        argv = [str(self._bin / "postgres"), "-D", str(self._home / "data"), "-p", str(self.port)]
        argv += [word for setting in settings for word in ("-c", setting)]
        super().__init__("postgres", [*self._unprivileged(), *argv], log=folder / "postgres.log")

    def _unprivileged(self) -> Sequence[str]:
        if os.geteuid():
            return ()
        shutil.chown(self._home, "nobody")
        return ("setpriv", "--reuid", "nobody", "--clear-groups")

    def up(self) -> PostgreSQL:
        """Start; its data is made the first time."""
        data = self._home / "data"
        if not data.exists():
            argv = [*self._unprivileged(), str(self._bin / "initdb"), "-D", str(data), "-U", "beat", "--auth", "trust"]
            subprocess.run([*argv, "--no-sync"], check=True, capture_output=True, timeout=120, cwd=self._home)
        probe = [str(self._bin / "pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(self.port)]
        self.start(ready=lambda: subprocess.run(probe, check=False, timeout=10).returncode == 0)
        return self

    def stop(self, timeout: float = 10.0) -> int:
        """End without waiting for clients."""
        if self.running:
            os.kill(self.pid, signal.SIGINT)
        return super().stop(timeout)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)


class Proxy:
    """Forwards a port of its own to another one, until it hangs: it goes on taking connections, and nothing passes."""

    def __init__(self, target: int) -> None:
        self._flows = threading.Event()
        self._flows.set()
        proxy = self

        class Handler(BaseRequestHandler):
            """One connection."""

            def handle(self) -> None:
                proxy._flows.wait()
                with suppress(OSError), socket.create_connection(("127.0.0.1", target)) as upstream:
                    back = threading.Thread(target=proxy._pump, args=(upstream, self.request))
                    back.start()
                    proxy._pump(self.request, upstream)
                    back.join()

        self._server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,))

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def hang(self) -> None:
        """Let nothing pass."""
        self._flows.clear()

    def go_on(self) -> None:
        """Let everything pass, what was held back first."""
        self._flows.set()

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
