"""The control API as its users run it: a process of its own, on free ports."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests
from tests.control.access import SECRET, bearer
from tests.forked import ForkedProcess

from celerymeter.control.tokens import Role
from celerymeter.demo.servers import answers

_IMPATIENT = """
from dataclasses import replace
from celerymeter import log
from celerymeter.control import server
from celerymeter.control.settings import RequestLimits
from tests.control.access import control_settings
log.setup()
server.SPARE_THREADS = 7
server.run(replace(control_settings(), listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", feed_max_clients=1,
                   limits=RequestLimits(read_seconds=1.0)))
"""


class Control(ForkedProcess):
    """``celerymeter control`` whose broker and Prometheus are away unless ``options`` name others."""

    def __init__(self, folder: Path, options: Sequence[str] = (), *, env: Mapping[str, str] | None = None) -> None:
        self.state = folder / "state"
        secret = folder / "secret"
        secret.write_bytes(SECRET)
        argv = [sys.executable, "-m", "celerymeter", "control", "--jwt-secret-file", str(secret)]
        away = {"--broker-url": "redis://127.0.0.1:1/0", "--prometheus-url": "http://127.0.0.1:1"}
        argv += [word for option, value in away.items() if option not in options for word in (option, value)]
        argv += ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--state-dir", str(self.state)]
        super().__init__("control", [*argv, *options], log=folder / "control.log", env=env)

    @classmethod
    def impatient(cls, folder: Path) -> Control:
        """One that gives a client a second to send its request, and has eight threads."""
        made = cls(folder)
        made.argv = (sys.executable, "-c", _IMPATIENT)
        return made

    def up(self) -> Control:
        """Start and wait until it answers."""
        self.log.unlink(missing_ok=True)
        self.start(ready=lambda: self.log.exists() and self.lines and answers(self.info))
        return self

    @property
    def lines(self) -> list[dict[str, str]]:
        """Its log, without a line that is being written."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    @property
    def address(self) -> tuple[str, int]:
        """The address on which the API listens, by the first line of the log."""
        host, _, port = self.lines[0]["address"].rpartition(":")
        return host, int(port)

    @property
    def root(self) -> str:
        """The API's URL without the base path."""
        return f"http://{self.lines[0]['address']}"

    @property
    def url(self) -> str:
        """The API's URL with the base path."""
        return f"{self.root}/celery-admin"

    @property
    def info(self) -> str:
        """A path that anybody may read."""
        return f"{self.url}/system/info"

    @property
    def metrics_url(self) -> str:
        """The API's own metrics."""
        return f"http://{self.lines[0]['metrics_address']}/metrics"

    def get(self, path: str, role: Role = Role.ADMIN) -> requests.Response:
        """GET a path below the base path."""
        return requests.get(self.url + path, headers=bearer(role), timeout=30)
