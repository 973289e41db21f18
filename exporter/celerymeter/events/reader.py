"""The interface of event readers, and the loop that keeps one subscribed."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Protocol

from celerymeter.errors import BrokerUnavailable, CelerymeterError
from celerymeter.model import Event

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
LONGEST_ATTEMPT = 60.0
"""Libraries have their own time-outs; this one is for name servers and the like."""
STABLE = 1.0
"""After a subscription of at least this many seconds, the next attempt starts at once."""


class EventSink(Protocol):
    """Receives what a reader delivers, on the reader's thread; ``at`` is the time of receipt in UTC seconds."""

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Decoded events, in the order of receipt; an empty batch says that nothing else had come by ``at``."""

    def rejected(self, reason: str, count: int = 1) -> None:
        """Messages or events that could not be used; ``reason`` is one of `celerymeter.events.decode.REASONS`."""

    def connected(self, at: float) -> None:
        """The subscription is confirmed."""

    def disconnected(self, at: float, reason: str) -> None:
        """The subscription is gone, or could not be made; ``reason`` is a short phrase without secrets."""


class Reader(Protocol):
    """Reads events until it is stopped; reconnects by itself and never raises for what a broker does or sends."""

    def run(self) -> None:
        """Read until `stop`; returns then."""

    def stop(self) -> None:
        """End `run` soon (within a second); callable from any thread."""


class Subscription(Protocol):
    """A confirmed subscription on one connection."""

    def deliver(self, sink: EventSink, stop: threading.Event) -> None:
        """Hand events to ``sink`` until ``stop`` is set; raises `BrokerUnavailable` when the subscription is gone."""

    def close(self) -> None:
        """Give the connection back; never raises."""


class Pauses:
    """The pauses before each attempt, in seconds: none at first, then doubling, with jitter."""

    def __init__(self) -> None:
        self._ceiling = 0.0

    def reset(self) -> None:
        """The last attempt led to a good subscription."""
        self._ceiling = 0.0

    def next(self) -> float:
        """Return the pause before the next attempt."""
        ceiling, self._ceiling = self._ceiling, min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self._ceiling))
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter needs no cryptography


def stay_subscribed(subscribe: Callable[[], Subscription], sink: EventSink, stop: threading.Event) -> None:
    """Keep one subscription alive until ``stop`` is set, whatever the broker does; also ``subscribe`` may hang."""
    pauses = Pauses()
    while not stop.wait(pauses.next()):
        try:
            subscription = _interruptible(subscribe, stop)
            if subscription is not None:
                _deliver(subscription, sink, stop, pauses)
        except (CelerymeterError, OSError) as error:  # noqa: PERF203 - an iteration is a connection
            sink.disconnected(time.time(), str(error))
        except Exception as error:  # whatever it is, an exporter that reads no more is worse
            log.exception("the subscription to events ended unexpectedly; making another one")
            sink.disconnected(time.time(), f"unexpected {type(error).__name__}: see the log")


def _deliver(subscription: Subscription, sink: EventSink, stop: threading.Event, pauses: Pauses) -> None:
    began = time.monotonic()
    try:
        sink.connected(time.time())
        subscription.deliver(sink, stop)
    finally:
        subscription.close()
        if time.monotonic() - began >= STABLE:
            pauses.reset()


def _interruptible(subscribe: Callable[[], Subscription], stop: threading.Event) -> Subscription | None:
    """Return or raise what ``subscribe`` does, or return ``None`` soon after ``stop`` was set.

    Client libraries block while they connect, so they do it in a thread that can be left behind.
    """
    deadline = time.monotonic() + LONGEST_ATTEMPT
    outcome: Future[Subscription] = Future()
    threading.Thread(target=_fulfil, args=(outcome, subscribe), name="subscribe", daemon=True).start()
    while not wait([outcome], timeout=0.2).done:
        late = time.monotonic() > deadline
        if late or stop.is_set():
            outcome.add_done_callback(_close_unwanted)
            if late:
                raise BrokerUnavailable(f"no subscription within {LONGEST_ATTEMPT:g} s")
            return None
    return outcome.result()


def _fulfil(outcome: Future[Subscription], subscribe: Callable[[], Subscription]) -> None:
    try:
        outcome.set_result(subscribe())
    except CelerymeterError as error:
        outcome.set_exception(error)
    except Exception as error:  # noqa: BLE001 - whatever a client library raises, the next attempt may do better
        outcome.set_exception(BrokerUnavailable(f"cannot subscribe ({type(error).__name__})"))


def _close_unwanted(outcome: Future[Subscription]) -> None:
    if outcome.exception() is None:
        outcome.result().close()
