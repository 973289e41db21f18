"""The replay: known queues give known waits, and the smallest number of slots is the smallest."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from celerymeter.reports.replay import (
    Demand,
    Tasks,
    count_arrivals,
    count_late,
    mean_run_times,
    place,
    shape_of,
    share_within,
    smallest_slots,
)


def poisson(rate: float, number: int, *, run: float) -> Tasks:
    """Tasks that arrive at random and run equally long."""
    dice = random.Random(7)
    times, at = [], 0.0
    for _ in range(number):
        at += dice.expovariate(rate)
        times.append(at)
    return Tasks(times, [run] * number)


def md1_within(load: float, runs: int) -> float:
    """Return the share that waits at most ``runs`` run times in M/D/1 (Erlang's formula)."""
    terms = (
        (load * (step - runs)) ** step / math.factorial(step) * math.exp(-load * (step - runs))
        for step in range(runs + 1)
    )
    return (1 - load) * sum(terms)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("runs", [1, 2, 4])
def test_waits_at_one_slot_are_those_of_m_d_1(load: float, runs: int) -> None:
    """Of 200,000 tasks, so the share is right to half a per cent."""
    tasks = poisson(load, 200_000, run=1.0)
    late = count_late(tasks, slots=1, target=float(runs))
    assert 1 - late / 200_000 == pytest.approx(md1_within(load, runs), abs=0.005)


def test_a_burst_is_worked_off_in_rounds() -> None:
    """Twelve tasks of 10 s at once on four slots wait 0, 10 and 20 s, four each."""
    burst = Tasks([0.0] * 12, [10.0] * 12)
    assert [count_late(burst, slots=4, target=wait) for wait in (0.0, 9.9, 10.0, 19.9, 20.0)] == [8, 8, 4, 4, 0]
    assert smallest_slots(burst, target=10.0, objective=1.0) == 6
    assert smallest_slots(burst, target=20.0, objective=1.0) == 4
    assert smallest_slots(burst, target=0.0, objective=1.0) == 12
    assert smallest_slots(burst, target=0.0, objective=0.5) == 6


def test_one_slot_is_enough_where_tasks_do_not_overlap() -> None:
    """A task that ends when the next arrives does not delay it."""
    assert smallest_slots(Tasks([0.0, 5.0, 10.0], [5.0, 5.0, 5.0]), target=0.0, objective=1.0) == 1
    assert smallest_slots(Tasks([0.0, 4.0], [5.0, 5.0]), target=0.9, objective=1.0) == 2


def test_nothing_needs_one_slot() -> None:
    """The smallest pool; nothing is late."""
    assert count_late(Tasks([], []), slots=1, target=0.0) == 0
    assert smallest_slots(Tasks([], []), target=1.0, objective=0.95) == 1
    assert Demand(15.0, [], []).load == 0.0


@pytest.mark.parametrize("start", [1, 3, 50])
def test_where_the_search_begins_does_not_matter(start: int) -> None:
    """One slot fewer is always too few."""
    tasks = poisson(5.0, 5000, run=2.0)
    slots = smallest_slots(tasks, target=1.0, objective=0.95, start=start)
    assert count_late(tasks, slots=slots, target=1.0) <= 250 < count_late(tasks, slots=slots - 1, target=1.0)


def test_tasks_are_placed_within_their_step() -> None:
    """Each in its own way; all have the same number and the same run times in sum."""
    demand = Demand(10.0, [2, 0, 4], [1.0, 1.0, 3.0], shape=(0.5, 1.5))
    assert list(place(demand, "even").arrivals) == [2.5, 7.5, 21.25, 23.75, 26.25, 28.75]
    assert list(place(demand, "together").arrivals) == [0.0, 0.0, 20.0, 20.0, 20.0, 20.0]
    at_random = place(demand, "random")
    assert list(at_random.arrivals) == sorted(at_random.arrivals)
    assert [0 <= at < 10 for at in at_random.arrivals] == [True, True, False, False, False, False]
    assert sorted(at_random.runs) == [0.5, 1.5, 1.5, 1.5, 4.5, 4.5]
    assert demand.load == pytest.approx((2 * 1.0 + 4 * 3.0) / 30)


def test_arrivals_are_what_was_taken_and_what_the_queue_grew_by() -> None:
    """Tasks that waited at first arrive in the first step."""
    assert count_arrivals([3, 2, 4], [5, 7, 7, 0], step=15.0) == ([10, 2, 0], 3)
    assert count_arrivals([1, 1, 1], [0, 0, 0, 0], step=15.0) == ([1, 1, 1], 0)
    assert count_arrivals([], [None], step=15.0) == ([], 0)


def test_a_length_that_is_read_late_neither_adds_nor_loses_arrivals() -> None:
    """The counter already shows the four that the length still has: the next steps give them back."""
    arrivals, removed = count_arrivals([0, 4, 0, 3], [0, 4, 4, 0, 0], step=15.0)
    assert (arrivals, removed) == ([4, 4, 0, 0], 1)
    arrivals, removed = count_arrivals([4, 0, 3, 5], [4, 4, 0, 0, 0], step=15.0)
    assert (sum(arrivals), removed) == (12, 0)


def test_a_gap_in_the_length_is_bridged() -> None:
    """Tasks that arrived while the length was unknown arrive when it is known again."""
    assert count_arrivals([1, 1, 1], [2, None, None, 8], step=15.0) == ([3, 1, 7], 0)


def test_a_purge_does_not_swallow_later_arrivals() -> None:
    """1,000 messages vanish: they are counted as removed after a minute, and later tasks arrive as ever."""
    taken = [2.0] * 20
    lengths = [1000.0, *([0.0] * 20)]
    arrivals, removed = count_arrivals(taken, [*lengths[:1], *[1000.0] * 3, *[0.0] * 17], step=15.0)
    assert arrivals[:3] == [1002, 2, 2]
    assert arrivals[-10:] == [2] * 10
    assert removed > 950


def test_run_times_follow_the_hours() -> None:
    """A slow time stays slow; too few runs take the mean of their neighbours."""
    assert mean_run_times([100.0, 900.0], [200, 300]) == [0.5, 3.0]
    assert mean_run_times([10.0, 30.0, 20.0], [10, 10, 10]) == [2.0, 2.0, 2.0]
    assert mean_run_times([0.0, 0.0], [0, 0]) == [0.0, 0.0]


def test_the_shape_of_run_times_has_a_mean_of_one() -> None:
    """And is as spread as the histogram."""
    shape = shape_of({1.0: 50.0, 2.0: 100.0, math.inf: 100.0})
    assert fmean(shape) == pytest.approx(1.0)
    assert max(shape) / min(shape) > 100  # from just above 0 to 2
    assert sum(value > 1.0 for value in shape) == 100
    assert shape_of({}) == shape_of({1.0: 0.0, math.inf: 0.0}) == (1.0,)


def test_the_share_within_a_time_is_interpolated() -> None:
    """Beyond the last bound it is what was below that bound."""
    buckets = {1.0: 50.0, 3.0: 90.0, math.inf: 100.0}
    assert [share_within(buckets, at) for at in (1.0, 2.0, 3.0, 10.0)] == [0.5, 0.7, 0.9, 0.9]
    assert share_within({}, 1.0) is None
