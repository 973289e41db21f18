"""Staying subscribed: pauses grow and are bounded, and nothing that an attempt does ends the loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from tests.events.sinks import RecordingSink

from celerymeter.demo.processes import wait_until
from celerymeter.errors import BrokerUnavailable
from celerymeter.events.reader import LONGEST_PAUSE, EventSink, Pauses, stay_subscribed


class FakeSubscription:
    """Lasts until it is stopped."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self._error = error

    def deliver(self, sink: EventSink, stop: threading.Event) -> None:
        """Fail, or hand over nothing and wait for the stop."""
        sink.events((), 0.0)
        if self._error is not None:
            raise self._error
        stop.wait(10)

    def close(self) -> None:
        """Count."""
        self.closed += 1


class Running:
    """`stay_subscribed` in a thread."""

    def __init__(self, subscribe: Callable[[], FakeSubscription]) -> None:
        self.sink, self.stop = RecordingSink(), threading.Event()
        self._thread = threading.Thread(target=stay_subscribed, args=(subscribe, self.sink, self.stop))
        self._thread.start()

    def end(self) -> float:
        """Stop it; how long that took, in seconds."""
        began = time.monotonic()
        self.stop.set()
        self._thread.join(5)
        return time.monotonic() - began


def test_pauses_begin_with_none_grow_and_end_at_the_longest() -> None:
    """The first attempt comes at once; jitter takes up to a half."""
    pauses = Pauses()
    taken = [pauses.next() for _ in range(12)]
    assert taken[0] == 0
    assert 0 < taken[1] <= 0.1
    assert all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE for pause in taken[-3:])
    assert len(set(taken[-5:])) == 5
    pauses.reset()
    assert pauses.next() == 0


def test_attempts_go_on_whatever_they_raise() -> None:
    """Our own errors are logged in their words, a library's by its type alone: its text may hold a password."""
    outcomes: list[Exception] = [BrokerUnavailable("away"), RuntimeError("amqp://u:hush@h"), KeyError("x")]

    def subscribe() -> FakeSubscription:
        if outcomes:
            raise outcomes.pop(0)
        return FakeSubscription()

    running = Running(subscribe)
    running.sink.await_connections()
    assert running.end() < 5

    assert [reason for _, reason in running.sink.losses] == [
        "away",
        "cannot subscribe (RuntimeError)",
        "cannot subscribe (KeyError)",
    ]


def reasons_after(error: Exception) -> list[str]:
    """Let a subscription end with an error and another one be stopped: each is closed once; return what was lost."""
    lost, good = FakeSubscription(error), FakeSubscription()
    waiting = [lost, good]
    running = Running(lambda: waiting.pop(0))
    running.sink.await_connections(2)
    running.end()
    assert (lost.closed, good.closed) == (1, 1)
    return [reason for _, reason in running.sink.losses]


def test_a_lost_subscription_is_closed_and_replaced() -> None:
    """The loss says why."""
    assert reasons_after(BrokerUnavailable("gone")) == ["gone"]


def test_a_fault_of_ours_ends_a_subscription_and_not_the_reader(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its place; the loss says only what it was."""
    assert reasons_after(IndexError("amqp://u:hush@h")) == ["unexpected IndexError: see the log"]
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_an_attempt_that_hangs_is_left_behind_and_closed_later() -> None:
    """A stop does not wait for it, and the connection that it makes after all does not stay open."""
    hanging, late = threading.Event(), FakeSubscription()

    def subscribe() -> FakeSubscription:
        hanging.wait(60)
        return late

    running = Running(subscribe)
    took = running.end()
    hanging.set()

    assert took < 5
    wait_until(lambda: late.closed == 1)
    assert not running.sink.connections
