"""A broker, a result backend, one worker, our exporter, and a recorder beside it that knows what is right."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from kombu.connection import Connection
from tests.apps.worker_app import OPTIONS
from tests.events.sentinel import SENTINEL_PASSWORD, SentinelCluster
from tests.scrape import ExporterProcess, Scrape
from tests.servers import RabbitMQ
from tools.celery_workload.notes import PATH
from tools.celery_workload.recorder import Recorder, SentinelRecorder
from tools.celery_workload.releases import Release
from tools.celery_workload.truth import Difference, Truth, compare, find_truth, left_over

from celerymeter.demo.processes import Process, wait_until
from celerymeter.demo.servers import Redis

BROKERS = ("redis", "rabbitmq")
SENTINEL = "sentinel"
"""Redis under Sentinel, for the small workload alone: in the middle of it the master dies."""
POOLS = ("prefork", "threads", "solo", "gevent")
QUIET = 12.0
"""Seconds without a task event, after which all has ended: a retry of Celery's tests waits 5 s."""
TIMEOUT = 120.0
_SENTINEL_OPTIONS = {"master_name": "shop", "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}


@dataclass(frozen=True)
class Result:
    """The result of one workload."""

    title: str
    truth: Truth
    differences: Sequence[Difference]
    left: int = 0
    """Messages that wait for a worker which stands still."""

    HEAD = f"{'workload':<44}{'events':>8}{'runs':>7}{'names':>7}{'lost':>6}{'wrong':>7}"

    def row(self) -> str:
        """One line of a table."""
        started = self.truth.steps["started"]
        numbers = (self.truth.types.total(), started.total(), len({name for name, _ in started}))
        lost, wrong = self.truth.lost.total(), len(self.differences)
        return f"{self.title:<44}{numbers[0]:>8}{numbers[1]:>7}{numbers[2]:>7}{lost:>6}{wrong:>7}"

    def text(self) -> str:
        """Every type of event, and all that differs."""
        types = [f"  {kind:<18}{count:>7}" for kind, count in sorted(self.truth.types.items())]
        lost = [f"  {count} {kind} were never sent by the worker" for kind, count in sorted(self.truth.lost.items())]
        left = [f"  {self.left} messages are left: the worker stands still (celery #10477?)"] if self.left else []
        wrong = [f"  WRONG {difference}" for difference in self.differences] or ["  every count is right"]
        return "\n".join([self.HEAD, self.row(), *types, *lost, *left, *wrong])


class Cluster:
    """All of it, started by entering the context; ``folder`` gets the logs."""

    def __init__(self, folder: Path, broker: str, pool: str, release: Release) -> None:
        self.folder, self.pool, self.release = folder, pool, release
        self.title = f"Celery {release.version}, {pool}, {broker}"
        self.redis = Redis(folder / "redis")
        self.sentinel = SentinelCluster(folder / "sentinel") if broker == SENTINEL else None
        self._rabbitmq = RabbitMQ(folder / "rabbitmq") if broker == "rabbitmq" else None
        self.broker_url = (self._rabbitmq or self.sentinel or self.redis).url
        self.broker_options = _SENTINEL_OPTIONS if self.sentinel else {}
        self.backend_url = f"redis://127.0.0.1:{self.redis.port}/1"
        self.recorder = SentinelRecorder(self.sentinel) if self.sentinel else Recorder(self.broker_url)
        words = [f"--transport-option={key}={json.dumps(value)}" for key, value in self.broker_options.items()]
        self.exporter = ExporterProcess(folder, self.broker_url, options=words)
        self._notes = folder / "notes.jsonl"
        self._stack = ExitStack()
        self._worker: Process | None = None

    def __enter__(self) -> Cluster:
        with self._stack:
            self._stack.enter_context(self.redis).up()
            if self._rabbitmq is not None:
                self._stack.enter_context(self._rabbitmq).up()
                self.title += f" {_version_of(self.broker_url)}"
            if self.sentinel is not None:
                self._stack.enter_context(self.sentinel)
            self._stack.enter_context(self.recorder)
            self._stack.enter_context(self.exporter).up()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a process use this release of Celery on this broker."""
        return {**self.release.environment, OPTIONS: json.dumps(self.broker_options)}

    def start_worker(
        self, app: str, *, options: Sequence[str] = (), environment: Mapping[str, str], folder: Path
    ) -> None:
        """Start a worker with events in ``folder``, instead of the one before, and wait until the exporter knows it."""
        argv = [sys.executable, "-m", "celery", "-A", app, "worker", "--hostname", "w1@workload", "--task-events"]
        argv += ["--pool", self.pool, "--concurrency", "2", "--loglevel", "info", *options]
        settings = {**self.environment, PATH: str(self._notes), **environment}
        worker = Process("worker", argv, log=self.folder / "worker.log", env=settings, cwd=folder)
        if self._worker is not None:
            self._worker.kill()
        self._worker = worker
        self._stack.callback(worker.kill)
        worker.start(ready=lambda: "w1@workload ready." in worker.tail(1000), timeout=TIMEOUT)
        wait_until(lambda: self.exporter.value("celery_worker_up", hostname="w1@workload") == 1, timeout=TIMEOUT)

    def wait_until_quiet(self) -> None:
        """Wait until all tasks have ended."""
        wait_until(
            lambda: time.monotonic() - self.recorder.last_task_event > QUIET, timeout=600, what="no more task events"
        )

    def notes(self) -> list[dict[str, Any]]:
        """Return the workers' notes about each of their events."""
        return [json.loads(line) for line in self._notes.read_text().splitlines()]

    def judge(self) -> Result:
        """Wait until all tasks have ended, and compare the page with what was sent."""
        self.wait_until_quiet()
        self.recorder.save(self.folder / "events.jsonl")
        truth = find_truth(self.recorder.events, self.notes())
        page = self.exporter.scrape()
        (self.folder / "page.txt").write_text(page.text)
        left = left_over(page, truth) if self.release.may_stand_still else 0
        differences = compare(page, truth, stands_still=left > 0)
        return Result(self.title + (", stood still" if left else ""), truth, differences, left)

    def page(self) -> Scrape:
        """The exporter's page, now."""
        return self.exporter.scrape()


def _version_of(rabbitmq_url: str) -> str:
    with Connection(rabbitmq_url) as connection:
        connection.ensure_connection(max_retries=3)
        properties: Any = connection.connection.server_properties
        return str(properties["version"])
