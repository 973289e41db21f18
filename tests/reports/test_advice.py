"""Each advice appears at its threshold, with its evidence, and not below it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.reports import samples

from celerymeter.reports.advice import RULES, recommend
from celerymeter.reports.advice_texts import ADVICE
from celerymeter.reports.formatting import LANGUAGES, in_language
from celerymeter.reports.report import ErrorBudget, History, Redelivery, Report, SlotUser


def missed(events: int) -> Report:
    """So many events never arrived."""
    return samples.report(data_quality=replace(samples.report().data_quality, events_missed=events))


def growing(last: float) -> Report:
    """A queue that goes from 20 messages to ``last``."""
    curve = tuple((float(at), 20.0 if at < 6 else last) for at in range(12))
    return samples.report(history=History(60.0, queue_lengths={"mail": curve}))


def saturated(busy: float) -> Report:
    """Ten messages wait."""
    return samples.report(avg_busy_percent=busy, queues=(samples.queue(length=10.0),))


def spent(percent: float, *, judged: int = 100) -> Report:
    """Of the error budget."""
    budget = ErrorBudget(99.0, 0.01 * judged, percent, assumed=False)
    return samples.report(error_budget=budget, successful_tasks=judged - 1, failed_tasks=1, most_failing_tasks=("add",))


def tailed(p99: float) -> Report:
    """The usual run takes 200 ms."""
    return samples.report(tasks=(samples.task(p50=200.0, p99=p99, successful=500),))


def retrying(retried: int) -> Report:
    """Of a hundred."""
    return samples.report(tasks=(samples.task(successful=100, retried=retried),))


def eating(seconds: float) -> Report:
    """Of a hundred seconds, in a pool that is well used."""
    rows = (samples.task("big", seconds=seconds, successful=1), samples.task("small", seconds=100 - seconds))
    return samples.report(tasks=rows, avg_busy_percent=60.0)


def idle(busy: float) -> Report:
    """Two workers."""
    rows = (samples.worker("w1", busy=busy, highest=40.0), samples.worker("w2", busy=busy))
    return samples.report(workers=rows, avg_busy_percent=busy)


def hoarding(reserved: float) -> Report:
    """Four slots, beside a worker that has next to nothing to do."""
    rows = (samples.worker("w1", busy=100.0, reserved=reserved), samples.worker("w2", busy=5.0))
    return samples.report(workers=rows, avg_busy_percent=52.0)


def unacked(seconds: float) -> Report:
    """With a visibility timeout of an hour."""
    return samples.report(redelivery=Redelivery(seconds, 3600.0))


def late(p95: float) -> Report:
    """With a target of a second."""
    return samples.report(queues=(samples.queue("mail", p95=p95, target=1000.0),))


def filled(share: float) -> Report:
    """A queue that does not drain, and the share of its slots that one task used."""
    user = SlotUser("big", share, "queue_slots")
    return replace(growing(60.0), queues=(samples.queue("mail", user=user),))


def repeated(runs: int) -> Report:
    """Runs that began again without a retry."""
    return samples.report(tasks=(samples.task(successful=10, redelivered=runs),))


def expiring(expired: int) -> Report:
    """Of 400."""
    return samples.report(tasks=(samples.task(successful=400 - expired, expired=expired),))


CASES = [
    ("events_missing", missed(3), missed(0), 3, ""),
    ("error_budget_spent", spent(100.0), spent(99.0), 100.0, "add"),
    ("pool_saturated", saturated(90.0), saturated(84.0), 90.0, ""),
    ("queue_not_draining", growing(60.0), growing(49.0), 60.0, "mail"),
    ("waits_too_long", late(1001.0), late(1000.0), 1001.0, "mail"),
    ("slots_taken", filled(30.0), filled(29.0), 30.0, "big"),
    ("tasks_redelivered", repeated(1), repeated(0), 1, "add"),
    ("tasks_expired", expiring(20), expiring(19), 5.0, "add"),
    ("retry_storm", retrying(20), retrying(19), 20.0, "add"),
    ("redelivery_risk", unacked(2880.0), unacked(2879.0), 2880.0, ""),
    ("prefetch_hoarding", hoarding(8.0), hoarding(7.9), 8.0, "w1"),
    ("task_eats_pool", eating(70.0), eating(69.0), 70.0, "big"),
    ("long_tail", tailed(2000.0), tailed(1999.0), 2000.0, "add"),
    ("idle_workers", idle(10.0), idle(11.0), 10.0, ""),
]


BESIDE = {"slots_taken": ["queue_not_draining"]}
"""Advice that stands beside another of its kind."""


@pytest.mark.parametrize(("code", "seen", "unseen", "value", "subject"), CASES, ids=[case[0] for case in CASES])
def test_it_appears_with_its_evidence(code: str, seen: Report, unseen: Report, value: float, subject: str) -> None:
    """From its threshold on; nothing else is advised."""
    (advice,) = (one for one in recommend(seen) if one.code == code or code not in BESIDE)
    first = advice.evidence[0]
    assert (advice.code, first.value, first.subject) == (code, value, subject)
    assert first.query
    assert [one.code for one in recommend(unseen)] == BESIDE.get(code, [])


def test_every_rule_has_a_case_and_its_texts() -> None:
    """In the order of the rules."""
    assert [case[0] for case in CASES] == [rule.__name__ for rule in RULES]
    assert ADVICE.keys() == {case[0] for case in CASES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_in_the_readers_language(language: str) -> None:
    """And name what they speak of."""
    found = in_language(replace(retrying(50), recommendations=recommend(retrying(50))), language)
    (sentence,) = found.optimization_recommendations
    assert "add" in sentence
    assert "50.0%" in sentence
    assert ("重試" in sentence) == (language == "zh-TW")


def test_a_budget_is_not_judged_by_few_runs() -> None:
    """One failure of nine is a large share, and may be chance; it is still in the report."""
    assert recommend(spent(1000.0, judged=99)) == ()
    (advice,) = recommend(spent(1000.0, judged=100))
    assert [(one.figure, one.value, one.threshold) for one in advice.evidence] == [
        ("error_budget.spent_percent", 1000.0, 100.0),
        ("judged_tasks", 100, 100),
    ]


def test_a_busy_pool_alone_is_no_trouble() -> None:
    """As long as nothing waits."""
    assert recommend(samples.report(avg_busy_percent=99.0)) == ()


@pytest.mark.parametrize("found", [idle(5.0), hoarding(20.0), eating(90.0)], ids=["idle", "hoarding", "eating"])
def test_nobody_is_called_idle_when_runs_are_missing(found: Report) -> None:
    """A lost event makes workers look idle that are not."""
    (advice,) = recommend(found)
    without = {"events_missing", "pool_saturated"}
    lost = replace(found, data_quality=replace(found.data_quality, events_missed=1))
    assert advice.code not in without
    assert {one.code for one in recommend(lost)} <= without


def test_workers_are_too_many_only_if_all_of_them_are_known() -> None:
    """One that is gone counts by its busiest minute; one of which nothing is known may have been full."""
    gone = replace(samples.worker("w3", busy=0.0, highest=40.0), avg_busy_percent=None)
    without = replace(gone, max_busy_percent=None)
    found = idle(5.0)

    assert [one.code for one in recommend(replace(found, workers=(*found.workers, gone)))] == ["idle_workers"]
    assert recommend(replace(found, workers=(*found.workers, without))) == ()


def test_the_most_severe_comes_first() -> None:
    """A hint after a warning."""
    both = replace(tailed(5000.0), redelivery=Redelivery(3600.0, 3600.0))
    assert [advice.severity for advice in recommend(both)] == ["warning", "info"]
