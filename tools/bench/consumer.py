"""A consumer of events in a process of its own, and what the kernel says of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis
import requests
from tests.scrape import Scrape
from tools.bench.measure import await_quiet, cpu_seconds, memory_mb
from tools.bench.publish import Publisher
from tools.bench.wire import Stream

from celerymeter.demo.processes import Process, free_port
from celerymeter.demo.servers import Redis

ROOT = Path(__file__).parents[2]
EXPORTER = "exporter"
LABELS = {
    "receiver": "(a) Celery's Receiver, empty handler",
    "raw": "(b) hiredis and orjson, decoding only",
    "cut": "(b') the same with our decoder's short cuts",
    "reader": "reader and decoder alone, no tracker",
    EXPORTER: "(c) `celerymeter exporter`, as shipped",
}
UNLIMITED = ("--client-output-buffer-limit", "pubsub", "0", "0", "0")
"""So that a slow consumer gets everything and can be compared; Redis' default would drop it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One consumer over one stream; CPU in seconds, user and system."""

    cpu: float
    events: int
    lost: int
    peak_mb: float

    @property
    def per_second(self) -> float:
        """Events per CPU second."""
        return self.events / self.cpu


class Consumer:
    """A consumer that is subscribed and idle once entered."""

    def __init__(
        self,
        kind: str,
        server: Redis,
        folder: Path,
        *,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._kind, self._server, self._options = kind, server, options
        self._count = folder / f"{kind}-{time.monotonic_ns()}"
        self._port = free_port()
        self._process = Process(kind, self._argv(), log=self._count.with_suffix(".log"), cwd=ROOT, env=environment)

    def _argv(self) -> list[str]:
        if self._kind != EXPORTER:
            return [sys.executable, "-m", "tools.bench.contestants", self._kind, self._server.url, str(self._count)]
        listen = ["--listen", f"127.0.0.1:{self._port}"]
        return [
            sys.executable,
            "-m",
            "celerymeter",
            "exporter",
            "--broker-url",
            self._server.url,
            *listen,
            *self._options,
        ]

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """The exporter's page."""
        return f"http://127.0.0.1:{self._port}/metrics"

    def page(self) -> Scrape:
        """The exporter's page, parsed."""
        return Scrape(requests.get(self.url, timeout=30).text)

    def seen(self) -> int:
        """Return the number of events that it has counted; a contestant ends with that."""
        if self._kind == EXPORTER:
            return int(self.page().sum("celerymeter_events_total"))
        self._process.stop()
        return int(self._count.read_text())

    def __enter__(self) -> Consumer:
        with redis.Redis(port=self._server.port) as client:
            before = client.pubsub_numpat()
            self._process.start(ready=lambda: client.pubsub_numpat() > before)
        await_quiet(self.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()


def flat_out(
    kind: str,
    stream: Stream,
    folder: Path,
    *,
    options: Sequence[str] = UNLIMITED,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Publish a stream as fast as Redis takes it, to one consumer on a Redis of its own."""
    with Redis(folder / "redis", options=options) as server:
        server.up()
        with Consumer(kind, server, folder, environment=environment) as consumer:
            publisher = Publisher(server.port)
            before = cpu_seconds(consumer.pid)
            publisher.flat_out(stream.messages)
            cpu = await_quiet(consumer.pid) - before
            publisher.close()
            peak = memory_mb(consumer.pid)
            seen = consumer.seen()
    return Run(cpu=cpu, events=seen, lost=stream.total - seen, peak_mb=peak)
