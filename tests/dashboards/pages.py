"""HTTP server with the pages that the exporters of all scenarios would serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from tests.dashboards import scenarios, synthetic
from tests.dashboards.scenario_state import ScenarioState
from tests.dashboards.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Target:
    """One page that Prometheus scrapes."""

    scenario: Scenario
    instance: str
    control: bool = False

    @property
    def job(self) -> str:
        return "celerymeter-control" if self.control else "celerymeter"

    @property
    def path(self) -> str:
        return f"/{self.scenario.cluster}/{self.job}"

    @property
    def labels(self) -> dict[str, str]:
        return {"cluster": self.scenario.cluster, "instance": self.instance, "job": self.job}


def targets(wanted: Iterable[Scenario]) -> Iterator[Target]:
    """Yield the pages of these scenarios; the twin has two exporters."""
    for one in wanted:
        yield Target(one, f"{one.cluster}:9808")
        yield Target(one, f"{one.cluster}:9809", control=True)
        if one is scenarios.TWIN:
            yield Target(one, f"{one.cluster}-2:9808")


class Pages:
    """An HTTP server of all pages; where the exporter is down it answers 503."""

    def __init__(self, targets: Iterable[Target], *, reference_time: float) -> None:
        by_path = {target.path: target for target in targets}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target = by_path[self.path]
                at = ScenarioState(target.scenario, reference_time, time.time())
                gone = at.exporter_down and not target.control
                body = b"" if gone else synthetic.text(at, control=target.control).encode()
                self.send_response(503 if gone else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
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
