"""All events of a broker as they come, taken off it by kombu and kept: as plain as can be, to compare with."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from celery.events.event import get_exchange
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer


class Recorder:
    """A thread that consumes the exchange ``celeryev`` while the context is open."""

    def __init__(self, broker_url: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.last_task_event = time.monotonic()
        self._url = broker_url
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._consume, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(30)

    def save(self, path: Path) -> None:
        """Write one event a line."""
        path.write_text("".join(json.dumps(event) + "\n" for event in self.events))

    def _consume(self) -> None:
        with Connection(self._url) as connection:  # type: ignore[no-untyped-call] # kombu is untyped
            exchange = get_exchange(connection)
            queue: Any = Queue(  # type: ignore[no-untyped-call]
                "", exchange, routing_key="#", exclusive=True, auto_delete=True, durable=False
            )
            consumer: Any = Consumer(  # type: ignore[no-untyped-call]
                connection, [queue], callbacks=[self._take], no_ack=True, accept=["json"]
            )
            with consumer:
                self._ready.set()
                while not self._over.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=1)

    def _take(self, body: Any, _message: object) -> None:
        for event in body if isinstance(body, list) else [body]:
            self.events.append(event)
            if event["type"].startswith("task-"):
                self.last_task_event = time.monotonic()
