"""Sends what is kept to the feed: what this process took at once, what a replica took within a second."""

from __future__ import annotations

import logging
import threading
from typing import Final

from celerymeter.control.feed.hub import Hub
from celerymeter.control.notifications.kept import KeptAlerts
from celerymeter.control.notifications.show import notice
from celerymeter.errors import StateError

INTERVAL: Final = 1.0

log = logging.getLogger(__name__)


class AlertTail:
    """Follows the kept alerts on a thread of its own."""

    def __init__(self, kept: KeptAlerts, hub: Hub, *, language: str = "en") -> None:
        self._kept = kept
        self._hub = hub
        self._language = language
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        self._last: int | None = None

    def start(self) -> None:
        """Follow from here on."""
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def look(self) -> None:
        """There is something new."""
        self._news.set()

    def publish_new(self) -> None:
        """Publish what came since the last time; the first time that is nothing."""
        if self._last is None:
            self._last = self._kept.last_id()
        for alert in self._kept.since(self._last):
            self._hub.publish("alert", notice(alert, language=self._language))
            self._last = alert.id

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.publish_new()
            except StateError as error:
                log.warning("alerts for the feed: %s", error)
            except Exception:
                log.exception("alerts for the feed: unexpected error")
            self._news.wait(INTERVAL)
            self._news.clear()
