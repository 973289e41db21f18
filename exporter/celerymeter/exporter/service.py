"""Composition root: names the concrete parts, starts their threads, stops them."""

from __future__ import annotations

import gc
import logging
import platform
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

from celerymeter import __version__
from celerymeter.events import open_reader
from celerymeter.exporter.ending import awaited, held_back
from celerymeter.exporter.polls import Poll, queue_collector, worker_collector
from celerymeter.exporter.process import process_lines
from celerymeter.exporter.state import SharedTracker, tick_forever
from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import Build
from celerymeter.httpd import MetricsServer, load_web_config
from celerymeter.polling import open_queue_poller
from celerymeter.polling.workers import WorkerPoller
from celerymeter.settings import ExporterSettings
from celerymeter.tracking.tracker import Tracker

log = logging.getLogger(__name__)

STALLED = 15.0
"""Seconds without a tick after which the process calls itself unhealthy."""
STOP_TIMEOUT = 3.0
SWITCH = 0.001
"""Seconds that a thread may keep the interpreter while others wait for it; Python's own 5 ms show in scrapes."""


class Exporter:
    """One exporter on one broker, from `start` to `stop`."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._stop = threading.Event()
        self._beat = time.monotonic()
        tracker = Tracker(settings, now=time.time())
        self.state = SharedTracker(tracker)
        self._page = Page(tracker, build=_build(), process=process_lines)
        self._broker = settings.broker.safe_url
        self._reader = open_reader(settings.broker, self.state)
        self._queue_poller = open_queue_poller(settings)
        worker_poller = WorkerPoller(settings)
        self._queues = Poll(
            "queues",
            queue_collector(self._queue_poller, self.state),
            state=self.state,
            interval=settings.poll_interval,
        )
        self._workers = Poll(
            "workers",
            worker_collector(worker_poller, self.state, enable_events=settings.enable_events),
            state=self.state,
            interval=settings.poll_interval,
            wanted=self._workers_wanted,
        )
        self.http = MetricsServer(
            settings.listen,
            page=self.render,
            healthy=self.why_not_healthy,
            ready=self.state.why_not_ready,
            web_config=load_web_config(settings.web_config_file) if settings.web_config_file else None,
        )
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True) for name, target in self._loops().items()
        ]

    def _loops(self) -> dict[str, Callable[[], None]]:
        return {
            "reader": self._reader.run,
            "queues": lambda: self._queues.run(self._stop),
            "workers": lambda: self._workers.run(self._stop),
            "ticks": lambda: tick_forever(self.state, self._stop, beat=self._mark),
        }

    def start(self) -> None:
        """Listen, then read and poll; raises `PortInUse` or `SettingsError`."""
        self.http.start()
        log.info("listening on %s, reading %s", self.http.url, self._broker)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all threads, within some seconds."""
        self._stop.set()
        self._reader.stop()
        self._workers.wake()
        self._queues.wake()
        self.http.stop()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT / len(self._threads))

    def render(self) -> bytes:
        """The page, now."""
        with self.state.lent():
            return self._page.render(time.time())

    def why_not_healthy(self) -> str | None:
        """The reason why this process should be restarted, or ``None``; an absent broker is none."""
        dead = [thread.name for thread in self._threads if thread.ident is not None and not thread.is_alive()]
        if dead:
            return f"threads ended: {', '.join(dead)}"
        return "stalled" if time.monotonic() - self._beat > STALLED else None

    def _mark(self) -> None:
        self._beat = time.monotonic()

    def _workers_wanted(self) -> bool:
        with self.state.lent() as tracker:
            return tracker.wants_poll()


def _build() -> Build:
    return Build(version=__version__, python=platform.python_version(), celery=version("celery"))


def _spare_the_collector() -> None:
    """Task states are many, live long and hold no cycles: the cycle collector need not walk them every second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run(settings: ExporterSettings) -> int:
    """Run until SIGTERM or SIGINT; a second signal ends at once. Returns the exit status."""
    exporter = Exporter(settings)
    sys.setswitchinterval(SWITCH)
    with held_back():
        exporter.start()
        _spare_the_collector()
        awaited()
    log.info("stopping")
    exporter.stop()
    return 0
