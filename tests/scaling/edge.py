"""nginx with the committed configuration, before the control API."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Mapping
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import requests
from tests.control.access import bearer
from tests.control.serving import Control
from tests.events.certificates import Certificates
from tests.scaling.shipped import command, configured
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from celerymeter.control.tokens import Role
from celerymeter.demo.processes import Process, free_port
from celerymeter.demo.servers import find_binary, listens

BASE = "/celery-admin"


def behind(folder: Path, *, state: Path, broker: str, port: int) -> Control:
    """The page's command line; Prometheus is away."""
    folder.mkdir()
    made = Control(folder)
    ours = {
        "127.0.0.1:8000": f"127.0.0.1:{port}",
        "127.0.0.1:9809": "127.0.0.1:0",
        "/var/lib/celerymeter": str(state),
        "/etc/celerymeter/jwt-secret": str(folder / "secret"),
        "redis://localhost:6379/0": broker,
        "http://localhost:9090": "http://127.0.0.1:1",
    }
    made.argv = (sys.executable, "-m", *command("celerymeter control ", ours))
    return made


class Edge(Process):
    """nginx in a folder of its own, on a free port, with a certificate made on the spot."""

    def __init__(self, folder: Path, upstream: int) -> None:
        self.port = free_port()
        (folder / "tmp").mkdir(parents=True)
        self.certificates = Certificates(folder)
        self.logs = (folder / "access.log", folder / "nginx.log")
        ours = {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "127.0.0.1:8000": f"127.0.0.1:{upstream}",
            "/etc/celerymeter/tls/cert.pem": str(self.certificates.certificate),
            "/etc/celerymeter/tls/key.pem": str(self.certificates.key),
            "/var/log/nginx/celerymeter.log": str(self.logs[0]),
        }
        configured("behind-nginx/celerymeter.conf", folder, ours)
        configured("behind-nginx/nginx.conf", folder, {})
        argv = [find_binary("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
        super().__init__("nginx", argv, log=self.logs[1])

    def up(self) -> Edge:
        """Start and wait until it listens."""
        return self.start(ready=lambda: listens(self.port))

    @property
    def url(self) -> str:
        """With the base path."""
        return f"https://localhost:{self.port}{BASE}"

    def ask(self, method: str, path: str, *, role: Role | None = Role.ADMIN, **more: Any) -> requests.Response:
        """A request whose certificate is checked."""
        headers = {**(bearer(role) if role else {}), **more.pop("headers", {})}
        verify = str(self.certificates.authority)
        return requests.request(method, self.url + path, headers=headers, verify=verify, timeout=30, **more)

    def ask_from(self, source: str, path: str, headers: Mapping[str, str]) -> int:
        """The status of a GET that comes from another address of this machine."""
        context = ssl.create_default_context(cafile=str(self.certificates.authority))
        client = HTTPSConnection("127.0.0.1", self.port, context=context, source_address=(source, 0), timeout=30)
        try:
            client.request("GET", BASE + path, headers=dict(headers))
            return client.getresponse().status
        finally:
            client.close()

    def feed(self, query: str = "", *, bearing: Mapping[str, str] | None = None, origin: str | None = None) -> Any:
        """A client of the feed.

        It reads in a thread of its own. Only from 3.13 on Python locks what both threads use of a TLS connection. With
        TLS 1.3 the server sends tickets while the client sends its request, which may be why answers were lost.
        """
        context = ssl.create_default_context(cafile=str(self.certificates.authority))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        connected: ClientConnection = connect(
            f"wss://localhost:{self.port}{BASE}/monitoring/ws{query}",
            additional_headers=dict(bearing or {}),
            ssl=context,
            origin=None if origin is None else Origin(origin),
            compression=None,
            proxy=None,
            open_timeout=30,  # as every other request
        )
        return connected

    def logged(self) -> str:
        """All that nginx wrote."""
        return "".join(path.read_text() for path in self.logs if path.exists())


def speaks_plain_http(port: int) -> str:
    """The reply to a request without TLS."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return client.makefile().readline().strip()
