"""A flood of hostile events beside real tasks: `python -m tools.hostile [--broker amqp] [--seconds 60] [--rate 10]`.

It starts a broker, a worker with real tasks and an exporter as shipped, publishes events that no worker would send, and
prints the exporter's memory, the slowest scrape, and whether the real tasks and the real worker are still known.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import requests
from celery import Celery
from kombu import connection as kombu
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.demo.processes import Process, free_port
from celerymeter.demo.servers import Redis

MEGABYTE = 1_000_000
TASK = "tests.add"
REAL_RATE = 20
"""Real tasks a second."""
SIGNS = ("a", "ä", "列", "\U0001f600", "\n", "\x1b[2J", "\u202e", '"', "\\", "\x00", "{", "%")


@dataclass
class Outcome:
    """What came of it; ``counted`` and ``sent`` are real tasks."""

    published: int = 0
    bytes: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the exporter, during the flood: what it would take on a machine of its own."""
    load_average: float = 0.0
    peak_mb: float = 0.0
    slowest_scrape: float = 0.0
    scrapes: int = 0
    page_mb: float = 0.0
    sent: int = 0
    counted: int = 0
    missed: float = 0.0
    reconnects: float = 0.0
    worker_up: bool = False
    errors: list[str] = field(default_factory=list)


class Events:
    """Endless hostile events, by a seed."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._number = 0
        self._uuids: list[str] = ["0"]
        self._kinds: tuple[Callable[[], dict[str, Any]], ...] = (
            self._sent,
            self._retry,
            self._received,
            self._started,
            self._ended,
            self._failed,
            self._heartbeat,
            self._restart,
            self._custom,
            self._totals,
            self._beat,
            self._route,
        )

    def messages(self) -> Iterator[bytes]:
        """Yield bodies: one event, a batch of up to 24, or nonsense."""
        choose = self._random
        while True:
            shape = choose.random()
            if shape < 0.6:
                yield json.dumps(self._event()).encode()
            elif shape < 0.97:
                yield json.dumps([self._event() for _ in range(choose.randint(1, 24))]).encode()
            else:
                yield choose.choice((b"[" * 5000, b"null", b"\xff" * 500, b'{"type": 5}', b"x" * 100_000))

    def _event(self) -> dict[str, Any]:
        self._number += 1
        event = {"hostname": self._name("celery@"), "timestamp": time.time(), "pid": 1, "clock": self._clock()}
        return {**event, **self._random.choice(self._kinds)()}

    def _clock(self) -> int:
        return self._random.choice((self._number, 2**62, 2**63 - 1, 0))

    def _name(self, prefix: str = "") -> str:
        [length] = self._random.choices((1, 10, 40, 150, 300, 3000), weights=(40, 40, 40, 20, 10, 1))
        return f"{prefix}{self._number}{self._random.choice(SIGNS) * length}"

    def _uuid(self) -> str:
        if self._random.random() < 0.5:
            return self._random.choice(self._uuids)
        uuid = f"{self._number}{self._random.choice(SIGNS[:4]) * self._random.choice((1, 30, 100, 400))}"
        self._uuids = [*self._uuids[-200:], uuid]
        return uuid

    def _text(self) -> str:
        [length] = self._random.choices((100, 1000, 100_000), weights=(50, 50, 1))
        return "Traceback\n" + "x" * length + f"\nErr{self._number}: no"

    def _sent(self) -> dict[str, Any]:
        return {"type": "task-sent", "uuid": self._uuid(), "name": self._name(), "queue": self._name("q")}

    def _retry(self) -> dict[str, Any]:
        return {
            **self._sent(),
            "retries": self._random.randint(1, 99),
            "traceback": self._text(),
            "parent_id": self._uuid(),
        }

    def _received(self) -> dict[str, Any]:
        return {"type": "task-received", "uuid": self._uuid(), "name": self._name(), "parent_id": self._uuid()}

    def _started(self) -> dict[str, Any]:
        return {"type": "task-started", "uuid": self._uuid()}

    def _ended(self) -> dict[str, Any]:
        kind = self._random.choice(("succeeded", "revoked", "rejected", "cancelled"))
        return {"type": f"task-{kind}", "uuid": self._uuid(), "runtime": 1e9, "requeue": True}

    def _failed(self) -> dict[str, Any]:
        text = self._text()
        kind = self._random.choice(("failed", "retried"))
        return {
            "type": f"task-{kind}",
            "uuid": self._uuid(),
            "exception": f"E{self._number}('{text}')",
            "traceback": text,
        }

    def _heartbeat(self) -> dict[str, Any]:
        return {
            "type": "worker-heartbeat",
            "processed": self._number,
            "active": 2**60,
            "sw_ver": self._name(),
            "freq": 2.0,
        }

    def _restart(self) -> dict[str, Any]:
        host = f"celery@fixed{self._number % 50}"
        return {"type": "worker-heartbeat", "hostname": host, "pid": self._number, "processed": 5, "active": 0}

    def _custom(self) -> dict[str, Any]:
        return {"type": self._name("my-")}

    def _totals(self) -> dict[str, Any]:
        series = {f"k{key}": [self._name(), self._name("q"), 5, 5, 5] for key in range(self._random.choice((1, 20)))}
        totals = {
            "version": 1,
            "instance": f"i{self._number}",
            "sequence": 1,
            "age": 1.0,
            "begun": 5,
            "processed": 9,
            "started": 5,
            "series": series,
            "runtime_bounds": [1.0],
            "wait_bounds": [1.0],
            "folded": {self._name(): 1},
        }
        return {"type": "celerymeter-totals", "totals": totals}

    def _beat(self) -> dict[str, Any]:
        rows = [{"schedule": self._name(), "name": self._name()} for _ in range(self._random.choice((1, 20)))]
        beat = {"instance": f"b{self._number % 300}", "started_at": 1.0, "schedule": rows, "uuid": self._uuid()}
        return {"type": self._random.choice(("beat-schedule", "beat-sent", "beat-heartbeat")), "beat": beat}

    def _route(self) -> dict[str, Any]:
        key = ".".join(str(self._number % 7) * self._random.choice((1, 60)))
        return {**self._sent(), "queue": None, "exchange": "celery", "routing_key": key}


class Flood(threading.Thread):
    """Publishes events at a rate in bytes a second until it is told to stop."""

    def __init__(self, publish: Callable[[bytes], object], *, rate: float, outcome: Outcome) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self._publish = publish
        self._rate = rate
        self._outcome = outcome

    def run(self) -> None:
        """Publish."""
        began = time.monotonic()
        for body in Events().messages():
            if self.ended.is_set():
                return
            self._publish(body)
            self._outcome.published += 1
            self._outcome.bytes += len(body)
            if (ahead := self._outcome.bytes / self._rate - (time.monotonic() - began)) > 0.01:
                time.sleep(ahead)


def redis_publisher(url: str) -> Callable[[bytes], object]:
    """Return a function that publishes a body as kombu does."""
    client = redis.Redis.from_url(url)
    head, tail = (
        b'{"body": "',
        (
            b'", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"hostname": "h"}, '
            b'"properties": {"delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"}, "priority": 0, '
            b'"body_encoding": "base64", "delivery_tag": "x"}}'
        ),
    )
    return lambda body: client.publish("/0.celeryev/task.multi", head + base64.b64encode(body) + tail)


def amqp_publisher(url: str) -> Callable[[bytes], object]:
    """Return a function that publishes a body to the event exchange."""
    module: Any = kombu
    connection = module.Connection(url)
    channel = connection.channel()
    producer = connection.Producer(channel, auto_declare=False)
    return lambda body: producer.publish(
        body, exchange="celeryev", routing_key="task.multi", content_type="application/json", content_encoding="utf-8"
    )


def measure(*, broker: str = "redis", seconds: float = 60.0, rate: float = 10 * MEGABYTE) -> Outcome:
    """Run it."""
    outcome = Outcome()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server: Redis | RabbitMQ = Redis(folder / "redis") if broker == "redis" else RabbitMQ(folder / "rabbitmq")
        stack.enter_context(server)
        server.up()
        worker = start_worker(server.url, folder, hostname="real@test", concurrency=2)
        stack.callback(worker.stop)
        port = free_port()
        exporter = Process(
            "exporter",
            [
                sys.executable,
                "-m",
                "celerymeter",
                "exporter",
                "--broker-url",
                server.url,
                "--listen",
                f"127.0.0.1:{port}",
            ],
            log=folder / "exporter.log",
        ).start(ready=lambda: _ready(port), timeout=30)
        stack.callback(exporter.stop)
        app = Celery(broker=server.url, set_as_current=False)
        app.conf.task_send_sent_event = True
        _send_real(app, outcome, until=time.monotonic() + 5, scrape=lambda: _scrape(port, outcome))
        publish = redis_publisher(server.url) if broker == "redis" else amqp_publisher(server.url)
        flood = Flood(publish, rate=rate, outcome=outcome)
        flood.start()
        began, cpu = time.monotonic(), _cpu_seconds(exporter.pid)
        _send_real(app, outcome, until=time.monotonic() + seconds, scrape=lambda: _scrape(port, outcome))
        flood.ended.set()
        flood.join(30)
        outcome.seconds, outcome.cpu_seconds = time.monotonic() - began, _cpu_seconds(exporter.pid) - cpu
        outcome.load_average = os.getloadavg()[0]
        _await_real(port, outcome)
        status = Path(f"/proc/{exporter.pid}/status").read_text()
        outcome.peak_mb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
        outcome.errors = [line for line in (folder / "exporter.log").read_text().splitlines() if '"error"' in line][:5]
    return outcome


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ready(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=1).ok
    except requests.RequestException:
        return False


def _send_real(app: Celery, outcome: Outcome, *, until: float, scrape: Callable[[], object]) -> None:
    next_scrape = time.monotonic()
    while time.monotonic() < until:
        app.send_task(TASK, args=(1, 2))
        outcome.sent += 1
        if time.monotonic() >= next_scrape:
            scrape()
            next_scrape = time.monotonic() + 2.0
        time.sleep(1 / REAL_RATE)


def _scrape(port: int, outcome: Outcome) -> str:
    began = time.monotonic()
    page = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30, headers={"Accept-Encoding": "gzip"}).text
    outcome.slowest_scrape = max(outcome.slowest_scrape, time.monotonic() - began)
    outcome.page_mb = max(outcome.page_mb, len(page.encode()) / MEGABYTE)
    outcome.scrapes += 1
    return page


def _await_real(port: int, outcome: Outcome) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        page = _scrape(port, outcome)
        outcome.counted = int(_value(page, f'celery_task_succeeded_total{{name="{TASK}",queue_name="celery"}}'))
        outcome.worker_up = _value(page, 'celery_worker_up{hostname="real@test"}') == 1
        outcome.missed = _value(page, 'celerymeter_events_missed_total{hostname="real@test"}')
        outcome.reconnects = _value(page, "celerymeter_broker_reconnects_total")
        if outcome.counted >= outcome.sent:
            return
        time.sleep(1)


def _value(page: str, series: str) -> float:
    found = [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(f"{series} ")]
    return float(found[0]) if found else 0.0


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["redis", "amqp"], default="redis")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0, help="MB a second")
    chosen = parser.parse_args()
    outcome = measure(broker=chosen.broker, seconds=chosen.seconds, rate=chosen.rate * MEGABYTE)
    for name in Outcome.__dataclass_fields__:
        print(f"{name}: {getattr(outcome, name)}")


if __name__ == "__main__":
    main()
