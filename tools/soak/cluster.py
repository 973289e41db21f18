"""A small cluster under a steady load, and the exporter that watches it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from itertools import cycle
from pathlib import Path
from typing import Any

import redis
from kombu.exceptions import OperationalError
from tests.apps.worker_app import make_app
from tests.scrape import ExporterProcess
from tests.workers import start_worker
from tools.bench.measure import memory_mb
from tools.soak.proxy import DroppingProxy
from tools.soak.truth import FOLDER

from celerymeter import stamp
from celerymeter.demo.processes import Process, wait_until
from celerymeter.demo.servers import Redis

WORKERS = {"w1@soak": "prefork", "w2@soak": "prefork", "w3@soak": "threads"}
MIXED = {**WORKERS, "w4@soak": "gevent"}
"""The workers of a run with both kinds, each with a queue of its own."""
AGGREGATING = ("w1@soak", "w3@soak", "w4@soak")
"""Those that count their tasks themselves, in such a run; between them and Redis is a proxy."""
Task = tuple[str, tuple[Any, ...], dict[str, Any]]
TASKS: tuple[Task, ...] = (
    ("tests.add", (1, 2), {}),
    ("tests.sleep", (0.05,), {}),
    ("tests.fail", (), {}),
    ("tests.retry", (2,), {}),
    ("tests.add", (3,), {}),
)
MORE_TASKS: tuple[Task, ...] = (
    ("tests.ignore", (), {}),
    ("tests.reject", (), {}),
    ("tests.sleep", (0.6,), {}),
    ("tests.add", (1, 2), {"expires": datetime(2020, 1, 1, tzinfo=timezone.utc)}),
)
"""Tasks whose events say too little to count them to the task while connections are lost."""
PAUSE = 0.04
"""Seconds between two tasks."""
TIMEOUT = 300.0
"""Seconds for what takes some on a quiet machine."""
REST = 5.0
"""Seconds without any change, after which nothing is under way."""


class Cluster:
    """Redis, its workers, an exporter, and a producer in a thread; left, all of it is stopped."""

    def __init__(self, folder: Path, *, mixed: bool = False) -> None:
        """``mixed``: some workers aggregate, and the exporter has a state file."""
        self.mixed = mixed
        self.workers = MIXED if mixed else WORKERS
        self.redis = Redis(folder / "redis")
        self.client = redis.Redis(port=self.redis.port)
        self.proxy = DroppingProxy(self.redis.port)
        state = ("--state-file", str(folder / "state.json")) if mixed else ()
        self.exporter = ExporterProcess(folder, self.redis.url, options=state)
        self.generation = 0
        """Restarts of the exporter: after each its counters begin again."""
        self.away = threading.Event()
        """Set while the exporter is not there to answer, because we made it so."""
        self.fault_began = 0.0
        self.deaths: list[tuple[int, float]] = []
        """Worker processes that ended without SIGTERM, and when they were last well."""
        self.sent = 0
        self.truth = folder / "truth"
        self.truth.mkdir()
        self._folder = folder
        self._workers: dict[str, Process] = {}
        self._idle = threading.Event()
        self._held = threading.Event()
        self._unacked, self._since = -1, 0.0
        self._stack = ExitStack()
        self._load = threading.Thread(target=self._produce, name="load")

    def __enter__(self) -> Cluster:
        with self._stack:  # stops what was started, should the rest fail to
            self._stack.enter_context(self.redis).up()
            self._stack.enter_context(self.proxy)
            self._stack.enter_context(self.exporter).up()
            self._stack.callback(lambda: [worker.kill() for worker in self._workers.values()])
            for hostname in self.workers:
                self.start_worker(hostname)
            self._load.start()
            self._stack.callback(self.stop_load)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def queues(self) -> list[str]:
        """The queues that tasks are sent to."""
        return [self._queue(hostname) for hostname in self.workers] if self.mixed else ["celery"]

    def _queue(self, hostname: str) -> str:
        return hostname.partition("@")[0] if self.mixed else "celery"

    def start_worker(self, hostname: str) -> None:
        """Start it, or start it again."""
        aggregates = self.mixed and hostname in AGGREGATING
        self._workers[hostname] = start_worker(
            self.proxy.url if aggregates else self.redis.url,
            self._folder,
            hostname=hostname,
            pool=self.workers[hostname],
            concurrency=2,
            queues=[self._queue(hostname)],
            aggregate={} if aggregates else None,
            app="tools.soak.app",
            env={FOLDER: str(self.truth)},
        )

    def kill_worker(self, hostname: str) -> None:
        """With SIGKILL, and its pool with it."""
        self.deaths.append((self._workers[hostname].pid, time.time()))
        self._workers[hostname].kill()

    def stop_worker(self, hostname: str) -> None:
        """With SIGTERM: it lets its tasks end."""
        self._workers[hostname].stop(TIMEOUT)

    def stop_load(self) -> None:
        """Send no more tasks."""
        self._idle.set()
        if self._load.ident is not None:
            self._load.join(30)

    @contextmanager
    def held_load(self) -> Iterator[None]:
        """No new tasks within, and those that were sent have come to their end: nothing can be lost but heartbeats."""
        self._held.set()
        self._since = time.monotonic()
        try:
            wait_until(self._at_rest, timeout=TIMEOUT, interval=0.5, what="all tasks have ended")
            yield
        finally:
            self._held.clear()

    @contextmanager
    def reconnecting(self) -> Iterator[None]:
        """Hold the load while connections are cut inside, until the workers are back.

        Celery itself drops the events of what a worker begins while it reconnects.
        """
        with self.held_load():
            before = self._subscribers()
            yield
            time.sleep(REST)  # until everybody has noticed
            wait_until(lambda: self._subscribers() >= before, timeout=TIMEOUT, interval=0.5, what="all are back")

    def _subscribers(self) -> int:
        return len(self.client.client_list(_type="pubsub"))

    def await_health(self) -> None:
        """Wait until the exporter sees broker and workers; raises `TimeoutError`.

        Celery 5.7 may end when Redis goes (an `AttributeError` in `kombu.common`): then it is started again.
        """
        wait_until(self._healthy, timeout=TIMEOUT, interval=0.5, what="broker and workers are up")

    def memory(self) -> float:
        """Return the memory that the exporter occupies now, in MB."""
        return memory_mb(self.exporter.pid, "VmRSS")

    def _healthy(self) -> bool:
        for hostname, worker in list(self._workers.items()):
            if not worker.running:
                self.deaths.append((worker.pid, self.fault_began))
                self.start_worker(hostname)
        page = self.exporter.scrape()
        ups = [page.get("celery_worker_up", hostname=hostname) for hostname in self.workers]
        return page.get("celerymeter_broker_up") == 1 and all(up == 1 for up in ups)

    def _at_rest(self) -> bool:
        """Return True if nothing changes any more; messages of a killed worker stay unacknowledged for an hour."""
        page, unacked = self.exporter.scrape(), self.client.hlen("unacked")
        ended = page.sum("celery_queue_length") == 0 and page.sum("celery_task_in_progress") == 0
        if not ended or any(map(self.client.llen, self.queues)) or unacked != self._unacked:
            self._unacked, self._since = unacked, time.monotonic()
        return time.monotonic() - self._since > REST

    def _produce(self) -> None:
        app = make_app(self.redis.url)
        if self.mixed:
            stamp.install()
        tasks = (*TASKS, *MORE_TASKS) if self.mixed else TASKS
        for (name, arguments, options), queue in zip(cycle(tasks), cycle(self.queues), strict=False):
            while self._held.is_set() and not self._idle.is_set():
                self._idle.wait(PAUSE)
            if self._idle.wait(PAUSE):
                break
            try:
                app.send_task(name, arguments, queue=queue, retry=False, **options)
                self.sent += 1
            except (OperationalError, redis.RedisError, OSError):
                self._idle.wait(0.5)  # the broker is away
        app.close()
