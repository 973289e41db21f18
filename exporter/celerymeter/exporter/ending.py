"""SIGTERM and SIGINT, awaited by the main thread."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def held_back() -> Iterator[None]:
    """Inside, the signals wait for `awaited`, also those to threads that are started inside.

    A handler that sets a `threading.Event` may find its lock held by the very thread that it interrupts, and a signal
    just before a thread begins to wait is not seen while it does: either way the program would never end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def awaited() -> None:
    """Wait for the first signal, however long ago it came; the next one, once let through, ends the process at once."""
    signal.sigwait(SIGNALS)
    for number in SIGNALS:
        signal.signal(number, _at_once)


def _at_once(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
