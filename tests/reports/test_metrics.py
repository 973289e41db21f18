"""The metrics of a report that are computed from counts, without a Prometheus."""

from __future__ import annotations

import pytest

from celerymeter.prometheus.counters import Counts, Key
from celerymeter.reports.metrics import BUSY, TASK_BUSY, busy_percent, rounded, slot_seconds, slot_users, without_gaps
from celerymeter.reports.report import SlotUser

TWO_MINUTES = 120.0


def counts(**seconds: float) -> Counts:
    """The slot-seconds of tasks of one queue."""
    return Counts({Key(TASK_BUSY, name, "celery"): value for name, value in seconds.items()})


def test_short_tasks_keep_slots_busy_though_no_sample_sees_them() -> None:
    """719 tasks took 117 slot-seconds of the 720 that three workers with two slots have in two minutes."""
    slots = {f"w{number}": tuple((float(at), 2.0) for at in range(0, 120, 15)) for number in range(3)}
    capacity = slot_seconds(slots, seconds=TWO_MINUTES, points=8)

    assert sum(capacity.values()) == 720
    assert busy_percent(counts(add=117.0), capacity, all_tasks=True) == 16.25


def test_a_slot_is_there_though_its_worker_does_not_answer() -> None:
    """A solo worker runs a task for 30 s of a minute; one that is down has no slots, nor before it began."""
    times = (0.0, 15.0, 30.0, 45.0)
    solo, gone = ((0.0, 1.0), (45.0, 1.0)), ((15.0, 4.0),)
    up = {"solo": tuple((at, 1.0) for at in times), "gone": ((15.0, 1.0), (30.0, 1.0), (45.0, 0.0))}

    assert without_gaps({"solo": solo, "gone": gone}, present=up, times=times) == {
        "solo": ((0.0, 1.0), (15.0, 1.0), (30.0, 1.0), (45.0, 1.0)),
        "gone": ((15.0, 4.0), (30.0, 4.0)),
    }


def test_slots_do_not_go_while_the_exporter_is_away() -> None:
    """Nobody knows of any worker at 15 and 30 s; a worker that was down before is down there too."""
    up = {"here": ((0.0, 1.0), (45.0, 1.0)), "down": ((0.0, 0.0), (45.0, 1.0))}
    slots = {"here": ((0.0, 2.0), (45.0, 3.0)), "down": ((45.0, 2.0),)}

    filled = without_gaps(slots, present=up, times=(0.0, 15.0, 30.0, 45.0))

    assert filled == {"here": ((0.0, 2.0), (15.0, 2.0), (30.0, 2.0), (45.0, 3.0)), "down": ((45.0, 2.0),)}


def test_busy_time_of_a_worker_that_is_gone_counts() -> None:
    """It worked for a minute and its own counter went with it; the counter of the task stays."""
    capacity = {"gone": 60.0, "here": 120.0}
    found = Counts({Key(TASK_BUSY, "add", "celery"): 90.0, Key(BUSY, hostname="here"): 30.0})

    assert busy_percent(found, capacity, all_tasks=True) == 50.0
    assert busy_percent(found, capacity, all_tasks=False) == 25.0


def test_an_exporter_without_busy_time_says_nothing_of_it() -> None:
    """That is unknown, not idle; with the counters of workers it is idle."""
    assert busy_percent(Counts(), {"w": 120.0}, all_tasks=True) is None
    assert busy_percent(Counts({Key(BUSY, hostname="w"): 0.0}), {"w": 120.0}, all_tasks=True) == 0.0


def test_a_queue_names_the_task_that_used_most_of_its_slots() -> None:
    """Below 30% its slots were free, or full of tasks of other queues: then the one that used most of all is named."""
    found = Counts({Key(TASK_BUSY, "own", "b"): 29.0, Key(TASK_BUSY, "big", "a"): 71.0})

    assert slot_users(found, {"a": 100.0, "b": 100.0}, all_tasks=True) == {
        "a": SlotUser("big", 71.0, "queue_slots"),
        "b": SlotUser("big", 71.0, "busy_time"),
    }
    assert slot_users(found, {"b": 100.0}, all_tasks=False) == {}


@pytest.mark.parametrize(("value", "shown"), [(7.190000000000007, 7.19), (1 / 3, 0.333333), (1234567.8, 1234568.0)])
def test_values_have_no_digits_that_mean_nothing(value: float, shown: float) -> None:
    """Six of them are enough."""
    assert rounded(value) == shown
