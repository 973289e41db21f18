"""A control API over a real Prometheus that scrapes one page, whose values a test sets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.control.access import token
from tests.control.serving import Control
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus

INTERVAL = 1.0
SCRAPE = "500ms"


@dataclass
class Page:
    """The page of the exporter under Prometheus."""

    started: float = field(default_factory=lambda: time.time() - 30)
    broker_up: int = 1
    workers: dict[str, int] = field(default_factory=lambda: {"w1@a": 1})
    queues: dict[str, int] = field(default_factory=lambda: {"celery": 0})
    succeeded: int = 0
    failed: int = 0

    def text(self) -> str:
        """The exposition."""
        task = '{name="shop.pay",queue_name="celery"}'
        lines = [
            f"celerymeter_start_time_seconds {self.started}",
            'celerymeter_build_info{version="1"} 1',
            f"celerymeter_broker_up {self.broker_up}",
            f'celerymeter_poll_success{{collector="queues"}} {self.broker_up}',
            f"celery_task_succeeded_total{task} {self.succeeded}",
            f"celery_task_failed_total{task} {self.failed}",
        ]
        if self.broker_up:
            lines += [f'celery_worker_up{{hostname="{name}"}} {up}' for name, up in self.workers.items()]
            lines += [f'celery_worker_tasks_active{{hostname="{name}"}} 0' for name in self.workers]
            lines += [f'celery_queue_length{{queue_name="{name}"}} {n}' for name, n in self.queues.items()]
        return "\n".join(lines) + "\n"


@dataclass
class LiveApi:
    """The page, the Prometheus that scrapes it, and the API in front."""

    page: Page
    prometheus: Prometheus
    control: Control
    elsewhere: str
    """The URL of that page at another address, which to a browser is another site."""

    @property
    def feed_url(self) -> str:
        """The WebSocket's URL."""
        return self.control.url.replace("http", "ws", 1) + "/monitoring/ws"

    def feed(self, query: str = "", *, origin: str | None = None, protocols: Sequence[str] = ()) -> ClientConnection:
        """A connected client with a viewer's token."""
        return feed(self.feed_url + query, bearer=token(), origin=origin, protocols=protocols)


def feed(
    url: str, *, bearer: str | None = None, origin: str | None = None, protocols: Sequence[str] = ()
) -> ClientConnection:
    """A client connected to this URL."""
    return connect(
        url,
        additional_headers={"Authorization": f"Bearer {bearer}"} if bearer else None,
        origin=None if origin is None else Origin(origin),
        subprotocols=[Subprotocol(name) for name in protocols] or None,
        compression=None,
        proxy=None,
    )


@contextmanager
def running_api(folder: Path, options: Sequence[str] = ()) -> Iterator[LiveApi]:
    """Everything up, with the first metrics known."""
    page = Page()
    folder.mkdir(parents=True, exist_ok=True)
    with served(page) as port:
        config = folder / "prometheus.yml"
        config.write_text(
            f"global: {{scrape_interval: {SCRAPE}, scrape_timeout: {SCRAPE}}}\nscrape_configs: [{{job_name: celery, "
            f"static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
        )
        prometheus = Prometheus(folder / "prometheus", config=config)
        live = ["--prometheus-url", prometheus.url, "--feed-interval", f"{INTERVAL:g}s"]
        with prometheus.up(), Control(folder, [*live, *options]) as control:
            control.up()
            wait_until(lambda: control.get("/monitoring/metrics/realtime").status_code == 200, what=control.tail())
            yield LiveApi(page, prometheus, control, f"http://127.0.0.1:{port}/metrics")


@contextmanager
def served(page: Page) -> Iterator[int]:
    """The page on loopback; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


Message = dict[str, Any]


def messages(client: ClientConnection, *, timeout: float = 10.0) -> Iterator[Message]:
    """Yield the messages of the feed, until ``timeout`` seconds bring nothing."""
    while True:
        yield json.loads(client.recv(timeout=timeout))


def until(client: ClientConnection, wanted: Callable[[Message], object], *, within: int = 600) -> Message:
    """The first message that is wanted."""
    for _, message in zip(range(within), messages(client), strict=False):
        if wanted(message):
            return message
    raise AssertionError(f"not among {within} messages")


def drain(client: ClientConnection) -> Close:
    """Read until the feed closes, and say how it did."""
    with pytest.raises(ConnectionClosed) as closed:
        list(messages(client))
    assert closed.value.rcvd is not None, "closed without a word"
    return closed.value.rcvd
