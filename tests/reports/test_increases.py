"""The increases of a counter by step follow the rule of the exact counts, whatever happened to the exporter."""

from __future__ import annotations

from celerymeter.prometheus import Matrix, Point, Series
from celerymeter.prometheus.counters import Target
from celerymeter.reports.increases import ScrapedSteps, Steps, increases_by_exporter

STEP = 60.0
FIRST = 6000.0
LONG_AGO = 100.0


def points(*values: float | None) -> tuple[Point, ...]:
    """Return one value a step; ``None`` is a step without one."""
    return tuple(Point(FIRST + number * STEP, value) for number, value in enumerate(values) if value is not None)


def increases(started: tuple[float | None, ...], counter: tuple[float | None, ...]) -> list[float | None]:
    """Return the increase of each step, ``None`` where it is not known."""
    labels = {"job": "celery", "instance": "a"}
    answer = Matrix((Series(labels, points(*started)),))
    scraped = ScrapedSteps.read(answer, first=FIRST, step=STEP)
    found: Steps = increases_by_exporter(Matrix((Series(labels, points(*counter)),)), scraped)[
        Target.of(answer.series[0]), ""
    ]
    return [found.get(FIRST + number * STEP) for number in range(len(started))]


def test_the_first_step_is_known_only_of_a_process_that_began_in_it() -> None:
    """What an older one had counted before is not in Prometheus' answer."""
    assert increases((LONG_AGO,) * 3, (1000, 1003, 1003)) == [None, 3, 0]
    assert increases((FIRST - 59,) * 3, (7, 10, 10)) == [7, 3, 0]
    assert increases((FIRST - 61,) * 3, (7, 10, 10)) == [None, 3, 0]


def test_a_counter_that_appears_was_nothing_before() -> None:
    """Its process was scraped a step before."""
    assert increases((LONG_AGO,) * 4, (None, None, 6000, 6010)) == [None, 0, 6000, 10]


def test_a_counter_that_appears_after_a_gap_may_be_older() -> None:
    """A failed scrape ends all series: with the next one come a million tasks of last week."""
    assert increases((None, LONG_AGO, LONG_AGO), (None, 1e6, 1e6 + 2)) == [None, None, 2]
    assert increases((LONG_AGO, None, LONG_AGO, LONG_AGO), (1e6, None, 1e6 + 9, 1e6 + 9)) == [None, None, None, 0]
    assert increases((LONG_AGO, None, LONG_AGO, LONG_AGO), (None, None, 5, 6)) == [None, None, None, 1]


def test_a_new_process_counts_from_nothing() -> None:
    """Though no scrape of it succeeded for a step, and its counter appears later still."""
    after = FIRST + 100.0
    assert increases((LONG_AGO, LONG_AGO, after, after), (50, 60, 4, 5)) == [None, 10, 4, 1]
    assert increases((LONG_AGO, LONG_AGO, after, after), (50, 60, 70, 80)) == [None, 10, 70, 10]
    assert increases((LONG_AGO, None, after, after), (50, None, 4, 5)) == [None, None, 4, 1]
    assert increases((LONG_AGO, LONG_AGO, after, after), (50, 60, None, 5)) == [None, 10, 0, 5]


def test_a_new_process_that_was_scraped_late_is_left_out() -> None:
    """What it counted over many steps was not counted in one."""
    after = FIRST + 30.0
    assert increases((LONG_AGO, None, None, None, after), (50, None, None, None, 900)) == [None] * 5


def test_counters_that_continue_after_a_restart_are_subtracted() -> None:
    """With a state file the start is that of the first process."""
    assert increases((LONG_AGO,) * 3, (50, 60, 64)) == [None, 10, 4]


def test_two_processes_behind_one_target_are_not_taken_for_restarts() -> None:
    """Each scrape reaches another one."""
    assert increases((LONG_AGO, LONG_AGO + 1) * 2, (50, 60, 51, 61)) == [None, 60, None, None]
