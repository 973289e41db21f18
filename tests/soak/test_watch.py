"""The soak notices what it is there to notice."""

from __future__ import annotations

from tests.scrape import Scrape
from tools.soak.watch import ENOUGH, fallen, quarters


def page(**series: int) -> Scrape:
    """A page of untyped series."""
    return Scrape("".join(f"{name} {value}\n" for name, value in series.items()))


def test_a_counter_that_falls_is_noticed() -> None:
    """Gauges may fall, and a series may go."""
    before = page(runs_total=5, waits_count=3, queue_length=9, old_total=7)
    [problem] = fallen(before, page(runs_total=4, waits_count=3, queue_length=1))
    assert "runs_total" in problem
    assert fallen(before, page(runs_total=5, waits_count=4, queue_length=1)) == []


def test_memory_is_compared_after_the_start() -> None:
    """Memory taken in the first quarter is no growth; a short life shows nothing."""
    assert quarters([10.0] * 15 + [50.0] * 30 + [70.0] * 15) == (50.0, 70.0)
    assert quarters([50.0] * (ENOUGH - 1)) is None
