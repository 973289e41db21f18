"""The one thread that looks at the cluster every interval: for the feed, and for whoever asks how the system is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from celerymeter.control.feed.hub import Hub
from celerymeter.control.health import Component, SystemState
from celerymeter.control.live.lookout import Look
from celerymeter.control.live.models import (
    DashboardReply,
    MetricsUpdate,
    show_metrics,
    trouble,
)
from celerymeter.errors import CelerymeterError

DASHBOARD_EVERY: Final = 30
"""Ticks between two dashboards on the feed."""
LATE: Final = 3
"""Intervals without a look after which the sampler itself counts as failed."""
GRACE: Final = 15.0
"""Seconds that a look may take on top, before it counts as late."""

log = logging.getLogger(__name__)


class Sampler:
    """Looks, remembers the last look, and publishes it while the feed is on."""

    def __init__(
        self,
        look: Callable[[], Look],
        board: Callable[[], DashboardReply],
        hub: Hub,
        *,
        interval: float,
        feed_on: Callable[[], bool],
        probes: tuple[Callable[[], Component], ...] = (),
    ) -> None:
        self._look = look
        self._board = board
        self._hub = hub
        self._interval = interval
        self._feed_on = feed_on
        self._probes = probes
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last: SystemState | None = None
        self._last_at = time.monotonic()
        self._ticks = 0

    def start(self) -> None:
        """Look every interval, the first time at once."""
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; a look under way is left behind."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def state(self) -> SystemState:
        """The last look, and whether there still are looks."""
        late = time.monotonic() - self._last_at > LATE * self._interval + GRACE
        sampler = Component("sampler", "failed" if late else "ok", critical=True)
        last = self._last or SystemState(at=time.time(), components=(Component("prometheus", "unknown"),))
        return replace(last, components=(*last.components, sampler))

    def tick(self) -> None:
        """Look once, and publish."""
        look = self._look()
        self._last = SystemState(
            at=look.at,
            components=(*look.components, *(probe() for probe in self._probes)),
            queues=look.queues,
            firing=look.firing,
        )
        self._last_at = time.monotonic()
        if self._feed_on():
            self._publish(look)
        self._ticks += 1

    def _publish(self, look: Look) -> None:
        if look.metrics is None:
            self._hub.publish("error", trouble(look.problem))
            return
        self._hub.publish("metrics_update", MetricsUpdate(metrics=show_metrics(look.metrics)))
        if self._ticks % DASHBOARD_EVERY == DASHBOARD_EVERY - 1 and self._hub.client_count:
            try:
                self._hub.publish("dashboard_data", self._board())
            except CelerymeterError as error:
                self._hub.publish("error", trouble(error))

    def _run(self) -> None:
        next_at = time.monotonic()
        while not self._stopping.wait(max(0.0, next_at - time.monotonic())):
            next_at = max(next_at + self._interval, time.monotonic())
            try:
                self.tick()
            except Exception:
                log.exception("a look at the cluster failed unexpectedly")
