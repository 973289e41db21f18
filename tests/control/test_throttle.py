"""Token buckets by key."""

from __future__ import annotations

import pytest

from celerymeter.control.throttle import Throttle


def test_a_full_bucket_lets_so_many_through_at_once() -> None:
    """Then one at a time, as the minute goes on."""
    throttle = Throttle(2)
    assert [throttle.take("a", now=0.0) for _ in range(3)] == [0.0, 0.0, 30.0]
    assert throttle.take("a", now=29.0) == pytest.approx(1.0)
    assert throttle.take("a", now=30.0) == 0.0


def test_waiting_takes_nothing() -> None:
    """Looking is free."""
    throttle = Throttle(1)
    assert [throttle.wait("a", now=0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    throttle.take("a", now=0.0)
    assert throttle.wait("a", now=15.0) == pytest.approx(45.0)


def test_keys_are_counted_apart() -> None:
    """One that is exhausted harms no other."""
    throttle = Throttle(1)
    throttle.take("a", now=0.0)
    assert (throttle.take("a", now=0.0) > 0, throttle.take("b", now=0.0)) == (True, 0.0)


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    """Nor does it take anything."""
    throttle = Throttle(1)
    throttle.take("a", now=100.0)
    assert throttle.wait("a", now=50.0) == pytest.approx(60.0)


def test_memory_is_bounded() -> None:
    """Beyond the limit the key that was idle longest is forgotten."""
    throttle = Throttle(1, max_keys=3)
    for key in ("a", "b", "c"):
        throttle.take(key, now=0.0)
    throttle.take("a", now=1.0)
    throttle.take("d", now=2.0)
    assert (len(throttle), throttle.wait("b", now=2.0), throttle.wait("a", now=2.0) > 0) == (3, 0.0, True)
