"""The replay of a window: the same arrivals and run times with another number of slots. Pure.

Tasks start in the order of their arrival, each in the first slot that is free. What a replay does not know is stated
by `celerymeter.reports.capacity`: when a task arrived within a step, and which task ran how long.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from itertools import cycle
from typing import Literal

from celerymeter.reports.metrics import quantile

Placement = Literal["even", "random", "together"]
"""The moment in its step at which a task arrives: evenly spread, at random, or all tasks at the step's beginning."""
SHAPES = 200
"""Run times into which a histogram is divided."""
BORROWED = 60.0
ENOUGH_RUNS = 100
"""Runs from which a mean run time is taken; so a slow hour stays slow in the replay."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The work that a queue was sent: arrivals by step, and the mean run time (s) of each step's tasks."""

    step: float
    arrivals: Sequence[int]
    means: Sequence[float]
    shape: Sequence[float] = (1.0,)
    """Run times relative to their mean, which is 1, each as frequent as the others."""

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return sum(self.arrivals)

    @property
    def load(self) -> float:
        """Slots that all run times together keep busy, on average."""
        work = sum(count * mean for count, mean in zip(self.arrivals, self.means, strict=True))
        return work / (self.step * len(self.arrivals)) if self.arrivals else 0.0


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks in the order of their arrival: when each arrives and how long it runs (s)."""

    arrivals: Sequence[float]
    runs: Sequence[float]


def place(demand: Demand, placement: Placement, *, seed: int = 0) -> Tasks:
    """Return the tasks of a demand; the same seed gives the same tasks."""
    dice = random.Random(seed)  # noqa: S311 - a repeatable simulation
    deck = list(demand.shape)
    dice.shuffle(deck)
    shapes = cycle(deck)
    times, runs = array("d"), array("d")
    for number, (count, mean) in enumerate(zip(demand.arrivals, demand.means, strict=True)):
        begin = number * demand.step
        if placement == "even":
            times.extend(begin + demand.step * (one + 0.5) / count for one in range(count))
        elif placement == "random":
            times.extend(sorted(begin + demand.step * dice.random() for _ in range(count)))
        else:
            times.extend([begin] * count)
        runs.extend(mean * next(shapes) for _ in range(count))
    return Tasks(times, runs)


def count_late(tasks: Tasks, *, slots: int, target: float, limit: float = math.inf) -> int:
    """Return how many tasks start later than ``target`` seconds after their arrival; more than ``limit`` end it."""
    free = [0.0] * slots
    late = 0
    deadline = target + 1e-9  # a wait of exactly the target is in time
    for at, run in zip(tasks.arrivals, tasks.runs, strict=True):
        first = free[0]
        if first > at:
            if first - at > deadline:
                late += 1
                if late > limit:
                    break
            heapreplace(free, first + run)
        else:
            heapreplace(free, at + run)
    return late


def smallest_slots(tasks: Tasks, *, target: float, objective: float, start: int = 1) -> int:
    """Return the fewest slots with which a share ``objective`` of the tasks starts within ``target`` seconds.

    ``start`` is where the search begins. More slots never make a task later, so the search may halve.
    """
    allowed = math.floor((1 - objective) * len(tasks.arrivals) + 1e-9)

    def enough(slots: int) -> bool:
        return count_late(tasks, slots=slots, target=target, limit=allowed) <= allowed

    low, high = 0, max(1, start)
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# Arrivals and run times, from samples.


def count_arrivals(taken: Sequence[float], lengths: Sequence[float | None], *, step: float) -> tuple[list[int], int]:
    """Return arrivals by step, and how many messages left the queue without being taken (purged, expired).

    ``taken`` are the tasks that workers took from the queue in each step, ``lengths`` the queue before the first step
    and after each. What was in the queue at first arrives in the first step. The length may be older than the counter,
    so a step may seem to have less than no arrivals: it borrows from the steps of the next `BORROWED` seconds.
    """
    arrivals: list[int] = []
    known = next((length for length in lengths if length is not None), 0.0)
    carried, borrowed_for, removed = known, 0.0, 0.0
    for count, length in zip(taken, lengths[1:], strict=True):
        found = carried + count
        if length is not None:
            found, known = found + length - known, length
        whole = max(0, math.floor(found + 1e-6))
        arrivals.append(whole)
        carried = found - whole
        borrowed_for = borrowed_for + step if carried <= -1 else 0.0
        if borrowed_for > BORROWED:
            removed, carried, borrowed_for = removed - carried, 0.0, 0.0
    return arrivals, round(removed - min(0.0, carried))


def mean_run_times(busy: Sequence[float], started: Sequence[float]) -> list[float]:
    """Return the mean run time of each step, from neighbouring steps that have enough runs together."""
    means: list[float] = []
    seconds, runs, steps = 0.0, 0.0, 0
    left = sum(started)
    for took, count in zip(busy, started, strict=True):
        seconds, runs, steps, left = seconds + took, runs + count, steps + 1, left - count
        if runs >= ENOUGH_RUNS and left >= ENOUGH_RUNS:
            means.extend([seconds / runs] * steps)
            seconds, runs, steps = 0.0, 0.0, 0
    means.extend([seconds / runs if runs else 0.0] * steps)
    return means


def shape_of(buckets: Mapping[float, float]) -> tuple[float, ...]:
    """Return run times with a mean of 1 that are distributed as in cumulative buckets; ``(1.0,)`` if there are none.

    Run times beyond the last bound count as that bound.
    """
    found = [quantile((one + 0.5) / SHAPES, buckets) or 0.0 for one in range(SHAPES)]
    mean = sum(found) / len(found)
    return tuple(value / mean for value in found) if mean > 0 else (1.0,)


def share_within(buckets: Mapping[float, float], seconds: float) -> float | None:
    """Return the share of cumulative buckets that is at most ``seconds``, interpolated; ``None`` if they are empty."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    lower = before = 0.0
    for bound in bounds:
        if bound >= seconds:
            part = 0.0 if math.isinf(bound) else (seconds - lower) / (bound - lower)
            return (before + part * (buckets[bound] - before)) / total
        lower, before = bound, buckets[bound]
    return 1.0
