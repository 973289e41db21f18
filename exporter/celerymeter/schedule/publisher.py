"""The thread that publishes beat's events. Beat only appends to a queue, and waits for nothing."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from celery.utils.log import get_logger

HEARTBEAT = 5.0
"""Seconds between two heartbeats."""
MAX_WAITING = 5000
"""Events that wait while the broker is away; more are dropped and counted."""
MAX_PAUSE = 30.0
STOP_TIMEOUT = 2.0
LOOK = 0.5
"""Seconds after which the thread looks whether it should stop: a signal handler may not take locks."""

Report = Mapping[str, object]

log = get_logger(__name__)


class Publisher:
    """Publishes under the node name ``hostname``; ``heartbeat`` gives what each heartbeat says."""

    def __init__(self, app: Any, *, hostname: str, heartbeat: Callable[[], Report]) -> None:
        self.dropped = 0
        self._app = app
        self._hostname = hostname
        self._heartbeat = heartbeat
        self._waiting: deque[tuple[str, Report]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._next_heartbeat = 0.0
        self._thread = threading.Thread(target=self._run, name="celerymeter-beat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, kind: str, report: Report) -> None:
        """Publish soon."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
        else:
            self._waiting.append((kind, report))
            self._wake.set()

    def stop(self, report: Report) -> None:
        """Say that beat ends, if the broker takes it in time."""
        if not self._stopping and self._thread.is_alive():
            self._waiting.append(("beat-offline", report))
            self._stopping = True
            self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping:
            pause = min(2 * pause + 1.0, MAX_PAUSE) if self._failed() else 0.0
            end = time.monotonic() + pause
            while not self._stopping and time.monotonic() < end:
                time.sleep(LOOK)

    def _failed(self) -> bool:
        """Publish until it is time to stop, or until the connection fails."""
        try:
            with self._app.connection_for_write() as connection:
                connection.connect()
                self._publish(self._app.events.Dispatcher(connection, hostname=self._hostname))
        except Exception as error:  # noqa: BLE001 - whatever a broker's client raises: beat goes on
            log.warning("celerymeter: beat's events could not be published: %r", error)
            return True
        return False

    def _publish(self, dispatcher: Any) -> None:
        dispatcher.buffer_while_offline = False  # its buffer has no bound
        while True:
            if time.monotonic() >= self._next_heartbeat:
                dispatcher.send("beat-heartbeat", beat=self._heartbeat())
                self._next_heartbeat = time.monotonic() + HEARTBEAT
            while self._waiting:
                kind, report = self._waiting[0]
                dispatcher.send(kind, beat=report)
                self._waiting.popleft()
            if self._stopping:
                return
            self._wake.wait(min(LOOK, max(0.0, self._next_heartbeat - time.monotonic())))
            self._wake.clear()
