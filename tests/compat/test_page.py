"""The page with ``--compat celery-exporter``: more labels and families, the same sums."""

from __future__ import annotations

from tests.compat.history import scrapes
from tests.scrape import Scrape, text_of
from tests.tracking.cluster import Cluster, make_settings

from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import NEWBORN, Build
from celerymeter.metrics import CATALOGUE, COMPATIBLE, Family

BUILD = Build(version="1", python="3", celery="5")
PAY = {"name": "pay", "queue_name": "celery"}
FAILED = "celery_task_failed_total"


def sample_name(family: Family) -> str:
    """The name of one sample of a family."""
    return f"{family.name}_count" if family.kind in ("histogram", "summary") else family.name


def test_without_the_option_the_page_knows_nothing_of_it() -> None:
    """Not even the names."""
    page = scrapes(None)[-1]
    assert not [family.name for family in COMPATIBLE if f"# TYPE {family.name} " in page.text]
    assert page.by(FAILED, "exception").keys() == {("",)}


def test_every_family_that_we_lack_is_served() -> None:
    """Under the other exporter's names, with the values of ours."""
    page = scrapes("celery-exporter")[-1]
    for theirs, ours in {
        "celery_task_runtime": "celery_task_runtime_seconds",
        "celery_task_queue_wait_time": "celery_task_wait_seconds",
    }.items():
        for part in ("count", "sum"):
            assert page.by(f"{theirs}_{part}", "name", "queue_name") == page.by(f"{ours}_{part}", "name", "queue_name")
        assert page.by(f"{theirs}_bucket", "name", "le") == page.by(f"{ours}_bucket", "name", "le")
    assert page.by("celery_active_worker_count", "queue_name") == {("celery",): 1, ("mail",): 1}
    assert page.by("celery_active_process_count", "queue_name") == {("celery",): 4, ("mail",): 4}
    assert page.by("celery_active_consumer_count", "queue_name") == {("celery",): 2, ("mail",): 2}


def test_no_name_is_used_twice() -> None:
    """A family of theirs must not be one of ours with another meaning."""
    assert not {family.name for family in CATALOGUE} & {family.name for family in COMPATIBLE}


def test_every_sum_is_what_it_is_without_the_option() -> None:
    """Over half an hour, by the labels that each family has without it; but there are more series."""
    families = [family for family in CATALOGUE if family.name != "celerymeter_series"]
    for plain, both in zip(scrapes(None), scrapes("celery-exporter"), strict=True):
        for family in families:
            name = sample_name(family)
            assert both.by(name, *family.labels) == plain.by(name, *family.labels)


def test_no_counter_falls_and_none_is_born_above_zero() -> None:
    """`increase()` sees what grows, and not what a series is born with."""
    before = scrapes("celery-exporter")[0].counters()
    for page in scrapes("celery-exporter")[1:]:
        now = page.counters()
        assert {key for key in before if now[key] < before[key]} == set()
        assert {key for key in now.keys() - before.keys() if key[0] == FAILED and now[key]} == set()
        before = now


def test_failures_of_a_class_s_first_minute_stay_without_its_name() -> None:
    """At every scraper that comes at least once a minute the class is first seen at 0; the sum is never late."""
    cluster = Cluster(make_settings(compat="celery-exporter"))
    page = Page(cluster.tracker, build=BUILD)

    def failed() -> dict[tuple[str, ...], float]:
        cluster.run(f"run-{cluster.now}", "pay", outcome="failed")
        return Scrape(text_of(page, cluster.now)).by(FAILED, "exception")

    cluster.publish("first", "pay")
    assert failed() == {("",): 1}
    cluster.now += NEWBORN - 1
    assert failed() == {("",): 2}
    cluster.now += 1
    assert failed() == {("",): 2, ("unknown",): 1}
    cluster.now -= 3600  # the clock is set back
    assert failed() == {("",): 2, ("unknown",): 2}


def test_exceptions_of_retries_are_no_failures() -> None:
    """With --count-retry-exceptions as well the failures by exception add up to the failures."""
    cluster = Cluster(make_settings(compat="celery-exporter", count_retry_exceptions=True))
    for number in range(3):
        cluster.publish(f"{number}", "pay")
        cluster.start(f"{number}")
        cluster.end(f"{number}", "failed" if number else "retried", exception="KeyError('x')")
    page = Scrape(text_of(Page(cluster.tracker, build=BUILD), cluster.now))
    assert page.sum(FAILED, **PAY) == 2
    assert page.get("celery_task_exceptions_total", exception="KeyError", **PAY) == 3


def test_what_cannot_be_known_is_absent() -> None:
    """Before the first poll there are no consumers, rather than none."""
    cluster = Cluster(make_settings(compat="celery-exporter"))
    assert "celery_active_" not in text_of(Page(cluster.tracker, build=BUILD), cluster.now)
