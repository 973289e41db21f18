"""The two polls: each on its interval, never in a scrape, and each outcome on the page."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from celerymeter.errors import CelerymeterError
from celerymeter.exporter.state import SharedTracker
from celerymeter.model import PollOutcome
from celerymeter.polling.queues import QueuePoller
from celerymeter.polling.workers import WorkerPoller

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5
MIN_PAUSE = 1.0
"""Seconds between two polls of the workers that somebody asked for."""


class Poll:
    """Runs one collector until stopped; a failure is a metric and one log line when it begins."""

    def __init__(
        self,
        collector: Literal["queues", "workers"],
        collect: Callable[[float], None],
        *,
        state: SharedTracker,
        interval: float,
        wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.collector = collector
        self._collect = collect
        self._state = state
        self._interval = interval
        self._wanted = wanted
        self._failing = False
        self._wake = threading.Event()

    def wake(self) -> None:
        """Poll soon."""
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Poll on the interval, sooner when wanted, until ``stop``."""
        stop.wait(FIRST_DELAY)
        while not stop.is_set():
            self.once()
            self._pause(stop)

    def once(self) -> None:
        """One poll, whatever comes of it."""
        at, begun = time.time(), time.monotonic()
        error = self._try(at)
        with self._state.lent() as tracker:
            tracker.polled(PollOutcome(self.collector, error is None, at, time.monotonic() - begun))
        if (error is not None) != self._failing:
            self._failing = error is not None
            log.warning("polling %s %s", self.collector, f"fails: {error}" if error else "works again")

    def _try(self, at: float) -> str | None:
        try:
            self._collect(at)
        except CelerymeterError as error:
            return str(error)
        except Exception as error:  # a poll that trips must not end all later polls
            log.exception("polling %s tripped", self.collector)
            return type(error).__name__
        return None

    def _pause(self, stop: threading.Event) -> None:
        deadline = time.monotonic() + self._interval
        stop.wait(min(MIN_PAUSE, self._interval))
        while not stop.is_set() and time.monotonic() < deadline and not self._wake.is_set() and not self._wanted():
            self._wake.wait(min(MIN_PAUSE, self._interval))
        self._wake.clear()


def queue_collector(poller: QueuePoller, state: SharedTracker) -> Callable[[float], None]:
    """Asks the broker for the depths of every queue that we know."""

    def collect(at: float) -> None:
        with state.lent() as tracker:
            names = tracker.known_queues()
        snapshot = poller.poll(names, now=at)
        with state.lent() as tracker:
            tracker.queues_seen(snapshot)

    return collect


def worker_collector(poller: WorkerPoller, state: SharedTracker, *, enable_events: bool) -> Callable[[float], None]:
    """Asks all workers at once and waits for the replies of those that are alive."""

    def collect(at: float) -> None:
        with state.lent() as tracker:
            expected = [worker.hostname for worker in tracker.workers if worker.up]
            tracker.asking()
        snapshot = poller.poll(now=at, expected=expected)
        with state.lent() as tracker:
            tracker.inspected(snapshot)
            silent = [worker.hostname for worker in tracker.workers if worker.up and worker.loss.off]
        if enable_events and silent:
            poller.enable_events(silent)

    return collect
