"""Throughput and error ratio over the window."""

from __future__ import annotations

import pytest
from tests.tracking.cluster import Cluster


def test_throughput_and_error_ratio_of_the_last_minute() -> None:
    """Two tasks a second, every fourth of which fails."""
    cluster = Cluster()
    for second in range(120):
        for half in range(2):
            number = 2 * second + half
            cluster.run(str(number), outcome="failed" if number % 4 == 0 else "succeeded")
        cluster.pass_time(1)
    rate, ratio = cluster.tracker.rates.of(cluster.series(), cluster.now)
    assert rate == pytest.approx(2.0, rel=0.1)
    assert ratio == pytest.approx(0.25, rel=0.1)


def test_an_idle_window_has_no_error_ratio() -> None:
    """Nothing finished is not the same as nothing failed."""
    cluster = Cluster()
    cluster.run("a", outcome="failed")
    cluster.pass_time(90)
    assert cluster.tracker.rates.of(cluster.series(), cluster.now) == (0.0, None)
