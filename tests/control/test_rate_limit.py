"""Token buckets by key."""

from __future__ import annotations

import pytest

from celerymeter.rate_limit import RateLimit


def test_a_full_bucket_lets_so_many_through_at_once() -> None:
    """Then one at a time, as the minute goes on."""
    limit = RateLimit(2)
    assert [limit.take("a", now=0.0) for _ in range(3)] == [0.0, 0.0, 30.0]
    assert limit.take("a", now=29.0) == pytest.approx(1.0)
    assert limit.take("a", now=30.0) == 0.0


def test_waiting_takes_nothing() -> None:
    """Looking is free."""
    limit = RateLimit(1)
    assert [limit.wait("a", now=0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    limit.take("a", now=0.0)
    assert limit.wait("a", now=15.0) == pytest.approx(45.0)


def test_keys_are_counted_apart() -> None:
    """One that is exhausted harms no other."""
    limit = RateLimit(1)
    limit.take("a", now=0.0)
    assert (limit.take("a", now=0.0) > 0, limit.take("b", now=0.0)) == (True, 0.0)


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    """Nor does it take anything."""
    limit = RateLimit(1)
    limit.take("a", now=100.0)
    assert limit.wait("a", now=50.0) == pytest.approx(60.0)


def test_memory_is_bounded() -> None:
    """Beyond the limit the key that was idle longest is forgotten."""
    limit = RateLimit(1, max_keys=3)
    for key in ("a", "b", "c"):
        limit.take(key, now=0.0)
    limit.take("a", now=1.0)
    limit.take("d", now=2.0)
    assert (len(limit), limit.wait("b", now=2.0), limit.wait("a", now=2.0) > 0) == (3, 0.0, True)
