"""The thread that runs something every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from celerymeter.demo.processes import wait_until
from celerymeter.errors import PollError
from celerymeter.threads import PeriodicThread


class Work:
    """Counts its runs and does what it is given."""

    def __init__(self, action: Callable[[], object] = lambda: None) -> None:
        self.runs: list[float] = []
        self._action = action

    def __call__(self) -> None:
        self.runs.append(time.monotonic())
        self._action()


def fail() -> None:
    """Fail in a known way."""
    raise PollError("no luck")


def test_it_runs_on_its_interval_until_it_is_stopped() -> None:
    """The interval counts from start to start."""
    work = Work(lambda: time.sleep(0.05))
    thread = PeriodicThread("work", work, interval=0.1)
    assert (thread.started, thread.alive) == (False, False)
    thread.start()
    assert (thread.started, thread.alive) == (True, True)
    wait_until(lambda: len(work.runs) >= 6)
    thread.stop()
    assert not thread.alive
    runs = len(work.runs)
    assert work.runs[5] - work.runs[0] < 0.75, "6 runs from start to start"
    assert len(work.runs) == runs


def test_stop_ends_a_long_rest_at_once() -> None:
    """Also before the first run, and when nothing was started."""
    work = Work()
    thread = PeriodicThread("work", work, interval=600, first_delay=600)
    thread.start()
    began = time.monotonic()
    thread.stop()
    assert time.monotonic() - began < 1
    assert not thread.alive
    assert work.runs == []
    PeriodicThread("work", work, interval=600).stop()


def test_stop_does_not_wait_for_a_run_that_hangs() -> None:
    """It is left behind."""
    hang = threading.Event()
    thread = PeriodicThread("work", hang.wait, interval=600)
    thread.start()
    began = time.monotonic()
    thread.stop(timeout=0.1)
    assert time.monotonic() - began < 1
    assert thread.stopping
    hang.set()


def test_wake_starts_the_next_run_now() -> None:
    """Whatever its interval is."""
    work = Work()
    thread = PeriodicThread("work", work, interval=600)
    thread.start()
    wait_until(lambda: len(work.runs) == 1)
    thread.wake()
    wait_until(lambda: len(work.runs) == 2)
    thread.stop()


def test_the_interval_may_change() -> None:
    """A function is asked after every run."""
    pauses = [0.01, 0.01, 600.0]
    work = Work()
    thread = PeriodicThread("work", work, interval=lambda: pauses.pop(0))
    thread.start()
    wait_until(lambda: not pauses)
    thread.stop()
    assert len(work.runs) == 3


@pytest.mark.parametrize(("action", "level"), [(fail, "WARNING"), (lambda: int("x"), "ERROR")])
def test_an_error_is_logged_and_counted_and_ends_nothing(
    action: Callable[[], object], level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A known one in a line, an unknown one with its traceback."""
    work = Work(action)
    thread = PeriodicThread("work", work, interval=0.01, error_pause=0.01)
    thread.start()
    wait_until(lambda: thread.failures >= 2)
    thread.stop()
    assert {(record.levelname, record.message.partition(":")[0]) for record in caplog.records} == {(level, "work")}


def test_after_an_error_there_is_a_pause_even_if_it_is_woken() -> None:
    """A broken dependency is not called in a tight loop."""
    work = Work(fail)
    thread = PeriodicThread("work", work, interval=600, error_pause=0.2)
    thread.start()
    wait_until(lambda: thread.failures == 1)
    thread.wake()
    wait_until(lambda: thread.failures == 2)
    thread.stop()
    assert work.runs[1] - work.runs[0] >= 0.2
