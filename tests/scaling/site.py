"""A broker with workers and exporters of its own, to be watched."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from celery import Celery
from tests.apps.worker_app import make_app
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import Process
from celerymeter.demo.servers import Redis


class Site:
    """One cluster; everything that was started ends with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = Redis(folder / "redis")
        self.app: Celery = make_app(self.redis.url)
        self._stack = ExitStack()

    def __enter__(self) -> Site:
        self._stack.enter_context(self.redis).up()
        self._stack.callback(self.app.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def exporter(self, name: str) -> ExporterProcess:
        """An exporter that is subscribed."""
        return self._stack.enter_context(ExporterProcess(self.folder, self.redis.url, name=name)).up()

    def worker(self, hostname: str, *queues: str, concurrency: int = 2) -> Process:
        """A worker that holds no more than it runs."""
        options = ("--prefetch-multiplier", "1", "--without-gossip")
        started = start_worker(
            self.redis.url, self.folder, hostname=hostname, queues=queues, concurrency=concurrency, options=options
        )
        self._stack.callback(started.kill)
        return started

    def send(self, name: str, *args: object, queue: str = "celery", count: int = 1) -> list[str]:
        """Send a task so many times; their ids."""
        return [str(self.app.send_task(name, args=args, queue=queue).id) for _ in range(count)]
