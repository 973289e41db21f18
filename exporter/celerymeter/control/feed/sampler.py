"""Snapshots of the cluster every few seconds, for the feed and for ``/system/*``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from celerymeter.control.cluster.models import ClusterSnapshot, Component
from celerymeter.control.cluster.snapshot import ClusterReader
from celerymeter.control.feed.hub import Hub, MetricsUpdate, feed_error
from celerymeter.errors import CelerymeterError
from celerymeter.threads import PeriodicThread

DASHBOARD_EVERY: Final = 30
"""Ticks between two dashboards on the feed."""
LATE_INTERVALS: Final = 3
"""Intervals without a snapshot after which the sampler itself counts as failed."""
GRACE: Final = 15.0
"""Seconds that a snapshot may take on top, before it counts as late."""


class Sampler:
    """Reads snapshots, remembers the last one, and publishes it while the feed is on."""

    def __init__(
        self,
        reader: ClusterReader,
        hub: Hub,
        *,
        interval: float,
        feed_on: Callable[[], bool],
        probes: tuple[Callable[[], Component], ...] = (),
    ) -> None:
        self._reader = reader
        self._hub = hub
        self._interval = interval
        self._feed_on = feed_on
        self._probes = probes
        self._thread = PeriodicThread("sampler", self.tick, interval=interval)
        self._last = ClusterSnapshot(at=time.time(), components=(Component("prometheus", "unknown"),))
        self._last_at = time.monotonic()
        self._ticks = 0

    def start(self) -> None:
        """Begin; the first snapshot is read at once."""
        self._thread.start()

    def stop(self) -> None:
        """End without waiting long for a snapshot under way."""
        self._thread.stop(timeout=1.0)

    def last_snapshot(self) -> ClusterSnapshot:
        """Return the last snapshot, with a component that says whether there still are new ones."""
        late = time.monotonic() - self._last_at > LATE_INTERVALS * self._interval + GRACE
        sampler = Component("sampler", "failed" if late else "ok", critical=True)
        last = self._last
        return replace(last, components=(*last.components, sampler))

    def tick(self) -> None:
        """Read one snapshot, and publish it."""
        snapshot = self._reader.snapshot()
        self._last = replace(snapshot, components=(*snapshot.components, *(probe() for probe in self._probes)))
        self._last_at = time.monotonic()
        if self._feed_on():
            self._publish(snapshot)
        self._ticks += 1

    def _publish(self, snapshot: ClusterSnapshot) -> None:
        if snapshot.metrics is None:
            self._hub.publish("error", feed_error(snapshot.problem))
            return
        self._hub.publish("metrics_update", MetricsUpdate(snapshot.metrics))
        # A dashboard costs Prometheus a second round of queries: only when somebody listens.
        if self._ticks % DASHBOARD_EVERY == DASHBOARD_EVERY - 1 and self._hub.client_count:
            try:
                self._hub.publish("dashboard_data", self._reader.dashboard())
            except CelerymeterError as error:
                self._hub.publish("error", feed_error(error))
