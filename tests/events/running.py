"""Real readers against real brokers: each in a thread, with a sink that remembers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from celery import Celery
from tests.apps.worker_app import make_app
from tests.events.sinks import RecordingSink

from celerymeter.events.reader import Reader


class Readers:
    """Runs readers until it is left."""

    def __init__(self) -> None:
        self._running: list[tuple[Reader, threading.Thread]] = []

    def start(self, reader: Reader) -> None:
        """Run a reader in a thread."""
        thread = threading.Thread(target=reader.run, name="reader")
        thread.start()
        self._running.append((reader, thread))

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader, _ in self._running:
            reader.stop()
        for _, thread in self._running:
            thread.join(5)


def app_of(url: str, *, settings: Mapping[str, Any] | None = None, **transport_options: Any) -> Celery:
    """A cluster's application with these settings."""
    app = make_app(url, transport_options=transport_options)
    app.conf.update(settings or {})
    return app


def emit(app: Celery, *types: str, **fields: Any) -> None:
    """Send events the way that Celery itself sends them."""
    with app.connection_for_write() as connection, app.events.Dispatcher(connection, hostname="w1@host1") as dispatcher:
        for kind in types or ("shop-opened",):
            dispatcher.send(kind, **fields)


def emit_until_received(app: Celery, sink: RecordingSink) -> None:
    """Send one event and wait for it."""
    before = len(sink.received)
    emit(app)
    sink.await_events(before + 1)
    assert sink.received[-1].type == "shop-opened"
