"""A real cluster under a real exporter."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from tests.apps.worker_app import BACKEND, make_app
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import Process
from celerymeter.demo.servers import Redis

StartWorker = Callable[..., Process]
StartExporter = Callable[..., ExporterProcess]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Stops what a test started, newest first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def producer(redis_server: Redis, stack: ExitStack) -> Celery:
    """The test's own application, which sends tasks and `task-sent` events."""
    app = make_app(redis_server.url)
    stack.callback(app.close)
    return app


@pytest.fixture
def chord_producer(redis_server: Redis) -> Iterator[Celery]:
    """The same with a result backend, which chords need; its results are gone before the backend is."""
    app = make_app(redis_server.url, backend=f"{redis_server.url[:-1]}1")
    yield app
    app.close()
    for result in [one for one in gc.get_objects() if issubclass(type(one), AsyncResult)]:  # isinstance wakes proxies
        result.backend = None  # else it calls its backend when it is collected, long after that is gone


@pytest.fixture
def new_worker(redis_server: Redis, tmp_path: Path, stack: ExitStack) -> StartWorker:
    """Starts a worker by name, with the options of `tests.workers.start_worker`."""

    def start(hostname: str, *, env: dict[str, str] | None = None, **options: Any) -> Process:
        environment = {BACKEND: f"{redis_server.url[:-1]}1", **(env or {})}
        worker = start_worker(redis_server.url, tmp_path, hostname=hostname, env=environment, **options)
        stack.callback(worker.kill)
        return worker

    return start


@pytest.fixture
def new_exporter(redis_server: Redis, tmp_path: Path, stack: ExitStack) -> StartExporter:
    """Starts an exporter on the broker, ready when it returns."""

    def start(*options: str, path: str = "/-/ready", name: str = "exporter") -> ExporterProcess:
        exporter = ExporterProcess(tmp_path, redis_server.url, options=options, name=name)
        stack.callback(exporter.stop)
        return exporter.up(path)

    return start
