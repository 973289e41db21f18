"""Counter differences are exact: whole scrapes of one process are subtracted, and a new process counts from 0."""

from __future__ import annotations

import pytest

from celerymeter.prometheus import Sample, Vector
from celerymeter.prometheus.counters import (
    OLDEST_START,
    START_TIME,
    Counts,
    Key,
    Totals,
    recent_increase,
    recent_scrapes_query,
)

SUCCEEDED, FAILED = "celery_task_succeeded_total", "celery_task_failed_total"
NOW = 1_700_000_000.0
LONG_AGO = NOW - 7200


def scrape(
    at: float, *, age: int = 0, started: float = LONG_AGO, instance: str = "a", **counts: float
) -> tuple[Sample, ...]:
    """The samples of one scrape in the answer to a query; ``counts`` are successes by task."""
    labels = {"cluster": "", "job": "celery", "instance": instance, "age": str(age)}
    counters = [Sample({**labels, "__name__": SUCCEEDED, "name": name}, value, NOW) for name, value in counts.items()]
    return (
        Sample({**labels, "what": "scraped"}, at, NOW),
        Sample({**labels, "__name__": START_TIME}, started, NOW),
        *counters,
    )


def increase(*scrapes: tuple[Sample, ...], wanted: float = 60.0) -> tuple[float, dict[str, float]] | None:
    """The seconds and the successes by task."""
    found = recent_increase(Vector(tuple(sample for one in scrapes for sample in one)), wanted=wanted)
    if found is None:
        return None
    return found.seconds, {name: part.total(SUCCEEDED) for name, part in found.counts.split("name").items()}


def test_two_scrapes_of_a_process_are_subtracted() -> None:
    """A task that is not in the older scrape counts from 0; one that did not move is left out."""
    older = scrape(NOW - 60, age=60, add=5, mail=2)
    assert increase(scrape(NOW, add=9, mail=2, new=3), older) == (60.0, {"add": 4.0, "new": 3.0})


def test_a_process_that_started_in_between_counts_from_its_start() -> None:
    """The older scrape is of another process, although its counter is lower."""
    found = increase(scrape(NOW, started=NOW - 30, add=7), scrape(NOW - 60, age=60, add=5))
    assert found == (30.0, {"add": 7.0})


def test_the_span_nearest_to_the_wanted_one_is_taken() -> None:
    """Of several scrapes and the start of the process."""
    scrapes = [scrape(NOW - age, age=age, started=NOW - 200, add=10 - age / 20) for age in (0, 20, 100)]
    assert increase(*scrapes, wanted=90) == (100.0, {"add": 5.0})
    assert increase(*scrapes, wanted=10) == (20.0, {"add": 1.0})
    assert increase(*scrapes, wanted=300) == (200.0, {"add": 10.0})


def test_of_several_exporters_the_one_that_saw_most_is_taken() -> None:
    """They are on one broker, so their counts are never added up."""
    both = [scrape(NOW - age, age=age, instance=name, add=grown if not age else 0)
            for age in (0, 60) for name, grown in (("a", 3.0), ("b", 5.0))]  # fmt: skip
    assert increase(*both) == (60.0, {"add": 5.0})


@pytest.mark.parametrize(
    "scrapes",
    [
        [],
        [scrape(NOW, add=1)],
        [scrape(NOW, add=1), scrape(NOW, age=20, add=1)],
        [scrape(NOW, started=NOW - OLDEST_START - 1, add=1)],
        [scrape(NOW - 60, age=60, add=1)],
    ],
)
def test_without_two_scrapes_there_is_no_increase(scrapes: list[tuple[Sample, ...]]) -> None:
    """Nothing, one scrape, the same scrape twice, a start that is too long ago, and no current scrape."""
    assert increase(*scrapes) is None


def test_ended_is_each_end_once() -> None:
    """A retry is not an end."""
    ends = {Key(f"celery_task_{end}_total", "add"): 1.0 for end in ("succeeded", "failed", "revoked", "rejected")}
    assert Counts({**ends, Key("celery_task_retried_total", "add"): 9.0}).ended == 4


def test_counts_add_up_and_split() -> None:
    """By a label that only some of them have."""
    parts = [Counts({Key(SUCCEEDED, "add", "q"): 2.0}), Counts({Key(SUCCEEDED, "add", "q"): 1.0, Key(FAILED): 4.0})]
    totals = Totals()
    for part in parts:
        totals.add(part)
    total = totals.counts()
    assert (total.total(SUCCEEDED), total.total(SUCCEEDED, name="mail"), total.total(FAILED)) == (3.0, 0.0, 4.0)
    assert total.split("queue_name") == {"q": Counts({Key(SUCCEEDED, "add", "q"): 3.0})}


def test_the_query_reads_every_scrape_once() -> None:
    """The newest, and one for each age; apart by a label where that is wanted."""
    query = recent_scrapes_query(20, 60, by="name")
    assert [query.count(text) for text in ("offset 20s", "offset 60s", '"age"', "instance, name")] == [2, 2, 6, 3]
