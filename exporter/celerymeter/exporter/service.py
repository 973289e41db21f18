"""Composition root of the exporter: names the concrete parts, starts their threads, stops them."""

from __future__ import annotations

import gc
import logging
import platform
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import msgspec

from celerymeter import __version__
from celerymeter.events import open_reader
from celerymeter.exporter.polls import Poll, SharedTracker, queue_collector, worker_collector
from celerymeter.exporter.process import process_lines
from celerymeter.exporter.pushed import NoReader, check_push, has_broker, open_push
from celerymeter.exporter.state_file import INTERVAL, StateFile
from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import Build
from celerymeter.httpd import MetricsServer, WebConfig, load_web_config
from celerymeter.polling import open_queue_poller
from celerymeter.polling.queues import KnownQueues
from celerymeter.polling.workers import WorkerPoller
from celerymeter.settings import ExporterSettings
from celerymeter.threads import PeriodicThread
from celerymeter.tracking import saved
from celerymeter.tracking.tracker import Tracker

log = logging.getLogger(__name__)

TICK = 0.5
HEARTBEATS = 2.5
"""Seconds before the first poll of the workers, so that all of them were heard: who is not known is not waited for."""
STALLED = 15.0
"""Seconds without a tick after which the process calls itself unhealthy."""
STOP_TIMEOUT = 0.75
"""Seconds that each thread has to end."""
SWITCH_INTERVAL = 0.001
"""Seconds that a thread may keep the interpreter while others wait for it; Python's own 5 ms show in scrapes."""
MAX_LOGGED = 10
"""Lines for runs that outlived their workers, at a time."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Exporter:
    """One exporter on one broker, from `start` to `stop`."""

    def __init__(self, settings: ExporterSettings) -> None:
        tracker = Tracker(settings, now=time.time())
        state = self.state = SharedTracker(tracker)
        build = Build(version=__version__, python=platform.python_version(), celery=version("celery"))
        self._page = Page(tracker, build=build, process=process_lines)
        self._source = f"reading {settings.broker.safe_url}" if has_broker(settings) else "without a broker"
        self._last_tick = time.monotonic()
        check_push(settings)
        self._reader = open_reader(settings.broker, state) if has_broker(settings) else NoReader(state)
        self._reader_thread = threading.Thread(target=self._reader.run, name="reader", daemon=True)
        self._known_queues = KnownQueues()
        polls = self._polls(settings) if has_broker(settings) else []
        path = settings.state_file
        self._state_file = open_state_file(path, state, self._known_queues) if path else None
        self._threads = [*polls, PeriodicThread("ticks", self._tick, interval=TICK)]
        if (file := self._state_file) is not None:
            saving = PeriodicThread(
                "state file", file.save_or_log, interval=lambda: file.interval, first_delay=INTERVAL
            )
            self._threads.append(saving)
        self.http = MetricsServer(
            settings.listen,
            page=self.render,
            healthy=self.why_not_healthy,
            ready=state.why_not_ready,
            web_config=replace(
                load_web_config(settings.web_config_file) if settings.web_config_file else WebConfig(),
                hosts=settings.allowed_hosts,
            ),
        )
        if (endpoint := open_push(settings, state)) is not None:
            self.http.accept_pushes(endpoint)

    def _polls(self, settings: ExporterSettings) -> list[PeriodicThread]:
        """The threads that ask the broker and, through it, the workers."""
        state = self.state
        queues = Poll(
            "queues",
            queue_collector(open_queue_poller(settings, self._known_queues), state),
            state=state,
            interval=settings.poll_interval,
        )
        workers = Poll(
            "workers",
            worker_collector(WorkerPoller(settings), state, enable_events=settings.enable_events),
            state=state,
            interval=settings.poll_interval,
            first_delay=HEARTBEATS,
            requested=self._worker_poll_requested,
        )
        return [queues.thread, workers.thread]

    def start(self) -> None:
        """Listen, then read and poll; raises `PortInUse` or `SettingsError`."""
        self.http.start()
        everywhere = self.http.address[0] in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
        others = " and all other interfaces" if everywhere else ""
        log.info("listening on %s%s, %s", self.http.url, others, self._source)
        self._reader_thread.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all threads, within some seconds."""
        self._reader.stop()
        self.http.stop()
        for thread in self._threads:
            thread.stop(STOP_TIMEOUT)
        if self._reader_thread.is_alive():
            self._reader_thread.join(STOP_TIMEOUT)
        if self._state_file is not None:
            with self.state.locked() as tracker:
                tracker.totals.add_up(everything=True)
            self._state_file.save_or_log()
            self._state_file.close()

    def render(self) -> list[bytes]:
        """Return the page of metrics as of now, in parts."""
        with self.state.locked():
            return self._page.render(time.time())

    def why_not_healthy(self) -> str | None:
        """Return the reason why this process should be restarted, or ``None``; an unreachable broker is not one."""
        dead = [thread.name for thread in self._threads if thread.started and not thread.alive]
        if self._reader_thread.ident is not None and not self._reader_thread.is_alive():
            dead.append(self._reader_thread.name)
        if dead:
            return f"threads ended: {', '.join(dead)}"
        return "stalled" if time.monotonic() - self._last_tick > STALLED else None

    def _tick(self) -> None:
        outlived = self.state.tick(time.time())
        self._last_tick = time.monotonic()
        log_outlived(outlived)

    def _worker_poll_requested(self) -> bool:
        with self.state.locked() as tracker:
            return tracker.wants_poll()


def log_outlived(runs: Counter[tuple[str, str, str]]) -> None:
    """Say which tasks outlived the grace period of their workers: they are lost, or run again elsewhere."""
    for (hostname, name, queue), count in runs.most_common(MAX_LOGGED):
        log.warning("%s shut down before %d runs of %s (queue %s) had ended", hostname, count, name, queue)
    if more := sum(count for _, count in runs.most_common()[MAX_LOGGED:]):
        log.warning("other workers shut down before %d runs had ended", more)


def open_state_file(path: Path, state: SharedTracker, queues: KnownQueues) -> StateFile:
    """Return the state file, and let tracker and queues continue from it; raises `SettingsError`."""
    file = StateFile(path)

    def dump() -> object:
        with state.locked() as tracker:
            return saved.save(tracker)

    def load(section: msgspec.Raw) -> None:
        before = msgspec.json.decode(section, type=saved.Saved)
        with state.locked() as tracker:
            saved.restore(tracker, before, now=time.time())

    file.add("counters", dump=dump, load=load)
    file.add("queues", dump=queues.dump, load=queues.load)
    file.restore()
    return file


def run(settings: ExporterSettings) -> int:
    """Run until SIGTERM or SIGINT; a second signal ends at once. Returns the exit status."""
    exporter = Exporter(settings)
    sys.setswitchinterval(SWITCH_INTERVAL)
    with signals_blocked():
        exporter.start()
        # Task states are many, live long and hold no cycles: the cycle collector need not walk them every second.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        wait_for_signal()
    log.info("stopping")
    exporter.stop()
    return 0


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Make SIGTERM and SIGINT wait for `wait_for_signal`, also those to threads that are started inside.

    A handler that sets a `threading.Event` may find its lock held by the thread that it interrupts, and a signal just
    before a thread begins to wait is not seen while it does: either way the program would never end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def wait_for_signal() -> None:
    """Wait for the first signal, however long ago it came; the next one ends the process at once."""
    signal.sigwait(SIGNALS)
    for number in SIGNALS:
        signal.signal(number, _end_at_once)


def _end_at_once(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
