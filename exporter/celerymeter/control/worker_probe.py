"""Asks workers for a sign of life, where their events alone do not prove that they are there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from celerymeter.control.live_workers import FEW, LiveWorkers
from celerymeter.remote_control import Command, RemoteControl
from celerymeter.threads import PeriodicThread

log = logging.getLogger(__name__)

PROBE_INTERVAL: Final = 5.0
PROBE_PAUSE: Final = 30.0
"""Seconds between two requests for an answer of workers that only send events."""


class WorkerProbe:
    """Asks all workers for an answer when some are known by their events alone, or many are new."""

    def __init__(self, remote: RemoteControl, workers: LiveWorkers, *, clock: Callable[[], float] = time.time) -> None:
        self._remote = remote
        self._workers = workers
        self._clock = clock
        self._believed = 0
        self._next_at = 0.0
        self._thread = PeriodicThread("workers: probe", self.probe, interval=PROBE_INTERVAL)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._thread.stop()

    def probe(self) -> None:
        """Ask, unless nothing has changed since the last time or that was a moment ago."""
        now, workers = self._clock(), self._workers
        if now < self._next_at or not (workers.crowded or workers.believed != self._believed):
            return
        if workers.crowded:
            log.warning("more than %d unknown workers send events; only those that answer count as alive", FEW)
        self._next_at, self._believed = now + PROBE_PAUSE, workers.believed
        # Not `ping`, which others than workers answer. No worker is expected: which there are is what this finds out.
        workers.answered(self._remote.ask([Command("active_queues")]).hostnames)
