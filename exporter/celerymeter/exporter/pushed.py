"""Totals that workers push over HTTP instead of publishing them, and an exporter without a broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from celerymeter.errors import SettingsError
from celerymeter.events import EventSink
from celerymeter.events.decode import Decoder
from celerymeter.httpd import PushEndpoint
from celerymeter.kinds import NO_BROKER
from celerymeter.settings import ExporterSettings
from celerymeter.totals_message import TOTALS, WorkerTotals

PAUSE = 0.25
"""Seconds."""
MAX_INSTANCES = 20_000
"""Worker processes of which the last message is known."""
PUSHED = frozenset({"worker-online", "worker-heartbeat", "worker-offline", TOTALS})


def has_broker(settings: ExporterSettings) -> bool:
    """Return False for ``--broker-url none``."""
    return settings.broker.url != NO_BROKER


def check_push(settings: ExporterSettings) -> None:
    """Raise `SettingsError` for settings that let nothing in, or contradict each other."""
    if settings.push_token is not None and not settings.push_token.strip():
        raise SettingsError("--push-token-file: the token is empty")
    if settings.push_token is not None and settings.open_push:
        raise SettingsError("give --push-token-file or --open-push, not both")
    if not has_broker(settings) and settings.push_token is None and not settings.open_push:
        raise SettingsError("--broker-url none: no worker could send anything; give --push-token-file (or --open-push)")


def open_push(settings: ExporterSettings, sink: EventSink) -> PushEndpoint | None:
    """Return the endpoint, if the settings open it."""
    if settings.push_token is None and not settings.open_push:
        return None
    return PushEndpoint(taker(sink), token=settings.push_token.strip() if settings.push_token else None)


def taker(sink: EventSink) -> Callable[[bytes], int]:
    """Return a function that hands the events of a body on, and returns their number.

    A body whose totals came before is not handed on: its heartbeat would look like one of another process.
    """
    decoder = Decoder(sink.rejected)
    newest: dict[str, int] = {}
    """The sequence number of the last totals of each worker process, the last heard at the end."""

    def take(body: bytes) -> int:
        events = decoder.bare(body, content_type="application/json", content_encoding=None)
        wanted = [event for event in events if event.type in PUSHED]
        if len(events) > len(wanted):
            sink.rejected("fields", len(events) - len(wanted))
        if any(not _is_new(event.totals, newest) for event in wanted if event.totals is not None):
            sink.rejected("repeated", len(wanted))
        elif wanted:
            sink.events(wanted, time.time())
        return len(wanted)

    return take


def _is_new(totals: WorkerTotals, newest: dict[str, int]) -> bool:
    before = newest.pop(totals.instance, 0)
    newest[totals.instance] = max(before, totals.sequence)
    if len(newest) > MAX_INSTANCES:
        del newest[next(iter(newest))]
    return totals.sequence > before


class NoReader:
    """A `Reader` without a broker: always connected, and silent."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._stop = threading.Event()

    def run(self) -> None:
        """Report until `stop` that nothing is unread."""
        self._sink.connected(time.time())
        while not self._stop.wait(PAUSE):
            self._sink.events([], time.time())

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()
