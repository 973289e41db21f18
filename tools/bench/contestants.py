"""Rivals of the exporter; each runs by itself: ``python -m tools.bench.contestants KIND URL FILE``.

``receiver``  Celery's own `app.events.Receiver` with a handler that does nothing but count
``raw``       frames read with hiredis and decoded with the fastest JSON library, nothing else
``cut``       the same with every short cut that we know
``reader``    our reader and decoder, whose events go nowhere

Each prints ``ready`` when it is subscribed and writes to FILE, on SIGTERM, how many events it has seen.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

Count = Callable[[], int]


def receiver(url: str, ready: Callable[[Count], None]) -> None:
    """(a): as Celery's documentation has it, without a State."""
    from celery import Celery

    seen = 0

    def handle(event: dict[str, Any]) -> None:
        nonlocal seen
        seen += 1

    app = Celery(broker=url, set_as_current=False)
    with app.connection() as connection:
        capture = app.events.Receiver(connection, handlers={"*": handle})
        consumer = capture.consume(limit=None, timeout=None, wakeup=False)
        ready(lambda: seen)
        for _ in consumer:
            pass


def raw(url: str, ready: Callable[[Count], None]) -> None:
    """(b): envelope and body decoded to plain objects."""
    import orjson

    loads = orjson.loads
    _frames(url, ready, lambda message: loads(a2b_base64(loads(message)["body"])))


def cut(url: str, ready: Callable[[Count], None]) -> None:
    """(b'): with the short cuts of our own decoder, the envelope unseen and base64 decoded by vector instructions."""
    import orjson
    from pybase64 import b64decode

    loads = orjson.loads
    _frames(url, ready, lambda message: loads(b64decode(message[10 : message.find(b'"', 10)])))


def _frames(url: str, ready: Callable[[Count], None], decode: Callable[[bytes], Any]) -> None:
    import hiredis

    seen = 0
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname, where.port))
    connection.sendall(b"*2\r\n$10\r\nPSUBSCRIBE\r\n$13\r\n/0.celeryev/*\r\n")
    reader = hiredis.Reader()
    ready(lambda: seen)
    while chunk := connection.recv(32 * 1024):
        reader.feed(chunk)
        while frame := reader.gets():
            if len(frame) == 4:
                events = decode(frame[3])
                seen += len(events) if type(events) is list else 1


def reader(url: str, ready: Callable[[Count], None]) -> None:
    """Ours, without a tracker."""
    from celerymeter.events import open_reader
    from celerymeter.model import Event
    from celerymeter.settings import BrokerSettings

    class Nowhere:
        seen = 0

        def events(self, batch: Sequence[Event], at: float) -> None:
            self.seen += len(batch)

        def rejected(self, reason: str, count: int = 1) -> None:
            raise SystemExit(f"rejected: {reason}")

        def connected(self, at: float) -> None:
            pass

        def disconnected(self, at: float, reason: str) -> None:
            print(reason, file=sys.stderr)

    sink = Nowhere()
    ready(lambda: sink.seen)
    open_reader(BrokerSettings(url=url), sink).run()


KINDS = {"receiver": receiver, "raw": raw, "cut": cut, "reader": reader}


def main(kind: str, url: str, file: str) -> None:
    """Run one consumer until SIGTERM."""

    def ready(count: Count) -> None:
        def report(number: int, frame: object) -> NoReturn:
            Path(file).write_text(str(count()))
            os._exit(0)

        signal.signal(signal.SIGTERM, report)

    try:
        KINDS[kind](url, ready)
    except Exception as error:  # noqa: BLE001 - dropped by Redis, says so in many ways; what was seen counts
        print(error, file=sys.stderr)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
