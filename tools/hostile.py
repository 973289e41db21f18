"""A flood of hostile events beside real tasks: `python -m tools.hostile [--broker redis] [--seconds 60] [--rate 10]`.

It starts a broker, a worker with real tasks, an exporter and a control API as shipped, publishes events that no worker
would send, and prints the memory of both, the slowest reply of both, whether the real tasks are counted exactly and
the real worker is known to both. It fails if one of them is not as it must be. Without ``--broker`` it does so with
Redis, then with RabbitMQ.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import redis
import requests
from celery import Celery
from kombu import connection as kombu
from tests.control.access import bearer
from tests.control.serving import Control
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.control.tokens import Role
from celerymeter.demo.processes import Process, free_port, wait_until
from celerymeter.demo.servers import Redis

MEGABYTE = 1_000_000
MAX_MEMORY = 256.0
"""MB that exporter and control may take, each."""
MAX_SECONDS = 1.0
"""Seconds that a scrape, and a request to the API, may take."""
BROKERS = ("redis", "amqp")
TASK = "tests.add"
WORKER = "real@test"
REAL_RATE = 20
"""Real tasks a second."""
SIGNS = ("a", "ä", "列", "\U0001f600", "\n", "\x1b[2J", "\u202e", '"', "\\", "\x00", "{", "%")


@dataclass
class Served:
    """One of the two programs, as its users find it."""

    peak_mb: float = 0.0
    slowest: float = 0.0
    """Seconds for a page of the exporter, for the state of the cluster by the API."""
    asked: int = 0
    cpu_seconds: float = 0.0
    """During the flood: what it would take on a machine of its own."""
    largest_mb: float = 0.0
    """Its largest response."""
    knows_worker: bool = False
    errors: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """The result; ``counted`` and ``sent`` are real tasks."""

    published: int = 0
    bytes: int = 0
    seconds: float = 0.0
    load_average: float = 0.0
    exporter: Served = field(default_factory=Served)
    control: Served = field(default_factory=Served)
    sent: int = 0
    counted: int = 0
    missed: float = 0.0
    reconnects: float = 0.0
    acknowledged: bool = False
    """The real worker is among those that acknowledged a revoke amid the flood."""

    def problems(self) -> list[str]:
        """Return what is not as it must be."""
        found = []
        for name, served in (("exporter", self.exporter), ("control", self.control)):
            found += [f"{name}: {served.peak_mb:.0f} MB"] if served.peak_mb >= MAX_MEMORY else []
            found += [f"{name}: {served.slowest:.2f} s for a reply"] if served.slowest >= MAX_SECONDS else []
            found += [] if served.knows_worker else [f"{name} does not know the real worker"]
            found += [f"{name}: {line}" for line in served.errors]
        if self.counted != self.sent or self.missed:
            found.append(f"{self.counted} of {self.sent} real tasks counted, {self.missed:g} known to be missing")
        return found if self.acknowledged else [*found, "the real worker acknowledged no revoke"]


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


class Flood:
    """Publishes events at a rate in bytes a second, in a process of its own that delays nothing that is measured."""

    def __init__(self, url: str, *, rate: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._ended, self._counts = context.Event(), context.Array("Q", 2)
        self._process = context.Process(target=_publish, args=(url, rate, self._ended, self._counts), daemon=True)

    def __enter__(self) -> Flood:
        """Begin."""
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._ended.set()
        self._process.join(30)
        self._process.kill()

    @property
    def published(self) -> tuple[int, int]:
        """Return the messages and their bytes so far."""
        messages, size = self._counts[:]
        return messages, size


def _publish(url: str, rate: float, ended: Event, counts: Any) -> None:
    publish = redis_publisher(url) if url.startswith("redis") else amqp_publisher(url)
    began = time.monotonic()
    for body in Events().messages():
        if ended.is_set():
            return
        publish(body)
        counts[0] += 1
        counts[1] += len(body)
        if (ahead := counts[1] / rate - (time.monotonic() - began)) > 0.01:
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


class Cluster:
    """Broker, worker, exporter and control, and what their users do meanwhile."""

    def __init__(self, broker: str, folder: Path, stack: ExitStack) -> None:
        self.outcome = Outcome()
        self._folder = folder
        server: Redis | RabbitMQ = Redis(folder / "redis") if broker == "redis" else RabbitMQ(folder / "rabbitmq")
        stack.enter_context(server)
        self._url = server.up().url
        stack.callback(start_worker(self._url, folder, hostname=WORKER, concurrency=2).stop)
        self._port = free_port()
        argv = ["exporter", "--broker-url", self._url, "--listen", f"127.0.0.1:{self._port}"]
        self._exporter = Process(
            "exporter", [sys.executable, "-m", "celerymeter", *argv], log=folder / "exporter.log"
        ).start(ready=self._is_ready, timeout=60)
        stack.callback(self._exporter.stop)
        self._control = Control(folder, ("--broker-url", self._url))
        stack.enter_context(self._control)
        self._control.up()
        self._app = Celery(broker=self._url, set_as_current=False)
        self._app.conf.task_send_sent_event = True

    def use(self, seconds: float) -> None:
        """Send real tasks, scrape and ask the API; together every two seconds, as Prometheus and a page would."""
        end, next_look = time.monotonic() + seconds, 0.0
        while time.monotonic() < end:
            self._app.send_task(TASK, args=(1, 2))
            self.outcome.sent += 1
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + 2.0
                self.scrape()
                self.ask()
            time.sleep(1 / REAL_RATE)

    def flood(self, *, seconds: float, rate: float) -> None:
        """Use it for so long while hostile events come."""
        began, before = time.monotonic(), [_cpu_seconds(pid) for pid in self._pids]
        with Flood(self._url, rate=rate) as flood:
            self.use(seconds)
            self._revoke()
            self.outcome.published, self.outcome.bytes = flood.published
        self.outcome.seconds, self.outcome.load_average = time.monotonic() - began, os.getloadavg()[0]
        for served, pid, cpu in zip(self._served, self._pids, before, strict=True):
            served.cpu_seconds = _cpu_seconds(pid) - cpu

    def settle(self) -> None:
        """Wait until the real tasks are counted, or for half a minute; then note what is known."""
        end, outcome = time.monotonic() + 30, self.outcome
        while True:
            page = self.scrape()
            outcome.counted = int(_value(page, f'celery_task_succeeded_total{{name="{TASK}",queue_name="celery"}}'))
            if outcome.counted >= outcome.sent or time.monotonic() > end:
                break
            time.sleep(1)
        outcome.exporter.knows_worker = _value(page, f'celery_worker_up{{hostname="{WORKER}"}}') == 1
        outcome.control.knows_worker = WORKER in self.ask()
        outcome.missed = _value(page, f'celerymeter_events_missed_total{{hostname="{WORKER}"}}')
        outcome.reconnects = _value(page, "celerymeter_broker_reconnects_total")
        for served, pid, name in zip(self._served, self._pids, ("exporter", "control"), strict=True):
            served.peak_mb = _peak_mb(pid)
            log = (self._folder / f"{name}.log").read_text().splitlines()
            served.errors = [line for line in log if '"error"' in line or "Traceback" in line][:5]

    def scrape(self) -> str:
        """Return the exporter's page."""
        url = f"http://127.0.0.1:{self._port}/metrics"
        return _timed(self.outcome.exporter, url, {}).decode()

    def ask(self) -> list[str]:
        """Return the workers that the API knows."""
        state = json.loads(_timed(self.outcome.control, f"{self._control.url}/monitoring/status", bearer(Role.VIEWER)))
        return [worker["hostname"] for worker in state["workers"]]

    def _revoke(self) -> None:
        body = {"task_ids": ["never-was"], "operation": "revoke"}
        url = f"{self._control.url}/tasks/batch"
        response = requests.post(url, json=body, headers=bearer(Role.ADMIN), timeout=30)
        self.outcome.acknowledged = response.ok and WORKER in response.json()["workers"]["acknowledged"]

    @property
    def _served(self) -> Sequence[Served]:
        return self.outcome.exporter, self.outcome.control

    @property
    def _pids(self) -> Sequence[int]:
        """Exporter, and the process of the API that serves."""
        parent = self._control.pid
        return self._exporter.pid, int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self._port}/-/ready", timeout=1).ok
        except requests.RequestException:
            return False


def measure(*, broker: str = "redis", seconds: float = 60.0, rate: float = 10 * MEGABYTE) -> Outcome:
    """Run it."""
    with ExitStack() as stack:
        cluster = Cluster(broker, Path(stack.enter_context(tempfile.TemporaryDirectory())), stack)
        wait_until(lambda: WORKER in cluster.ask(), timeout=60, what="a worker that answers")
        cluster.outcome.control = Served()
        cluster.use(5)
        cluster.flood(seconds=seconds, rate=rate)
        cluster.settle()
    return cluster.outcome


def _timed(served: Served, url: str, headers: dict[str, str]) -> bytes:
    """Return the body; the time is that until its last byte, before it is decompressed."""
    began = time.monotonic()
    with requests.get(url, timeout=30, headers={**headers, "Accept-Encoding": "gzip"}, stream=True) as response:
        response.raise_for_status()
        body: bytes = response.raw.read()
        served.slowest = max(served.slowest, time.monotonic() - began)
        content = gzip.decompress(body) if response.headers.get("Content-Encoding") == "gzip" else body
    served.largest_mb = max(served.largest_mb, len(content) / MEGABYTE)
    served.asked += 1
    return content


def _cpu_seconds(pid: int) -> float:
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _value(page: str, series: str) -> float:
    found = [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(f"{series} ")]
    return float(found[0]) if found else 0.0


def show(outcome: Outcome) -> None:
    """Print it."""
    for item in fields(Outcome):
        value = getattr(outcome, item.name)
        if isinstance(value, Served):
            for part in fields(Served):
                print(f"  {item.name} {part.name}: {getattr(value, part.name)}")
        else:
            print(f"  {item.name}: {value}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=BROKERS, action="append", help="both without it")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0, help="MB a second")
    chosen = parser.parse_args()
    failed = False
    for broker in chosen.broker or BROKERS:
        outcome = measure(broker=broker, seconds=chosen.seconds, rate=chosen.rate * MEGABYTE)
        problems = outcome.problems()
        failed = failed or bool(problems)
        print(f"{broker}: {'; '.join(problems) or 'as it must be'}")
        show(outcome)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
