"""The pages of every weather, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from tests.dashboards import synthetic, weather
from tests.dashboards.moment import Moment
from tests.dashboards.weather import Weather


@dataclass(frozen=True, slots=True)
class Target:
    """One page that Prometheus scrapes."""

    weather: Weather
    instance: str
    control: bool = False

    @property
    def job(self) -> str:
        return "celerymeter-control" if self.control else "celerymeter"

    @property
    def path(self) -> str:
        return f"/{self.weather.cluster}/{self.job}"

    @property
    def labels(self) -> dict[str, str]:
        return {"cluster": self.weather.cluster, "instance": self.instance, "job": self.job}


def targets(weathers: Iterable[Weather]) -> Iterator[Target]:
    """Every page of every weather; the twin has two exporters."""
    for one in weathers:
        yield Target(one, f"{one.cluster}:9808")
        yield Target(one, f"{one.cluster}:9809", control=True)
        if one is weather.TWIN:
            yield Target(one, f"{one.cluster}-2:9808")


class Pages:
    """The HTTP server of all pages; a weather without exporter answers 503 from its onset on."""

    def __init__(self, targets: Iterable[Target], *, told_at: float) -> None:
        by_path = {target.path: target for target in targets}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target = by_path[self.path]
                at = Moment(target.weather, told_at, time.time())
                gone = at.gone and not target.control
                body = b"" if gone else synthetic.text(at, control=target.control).encode()
                self.send_response(503 if gone else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Pages:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
