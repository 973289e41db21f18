"""Counts are exact to the task, on every engine, whatever happened to the exporter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.engines import NAMES, Canned, start_engine

from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.reports.counting import WindowCounter, WindowCounts
from celerymeter.reports.quality import judge
from celerymeter.reports.request import Window

pytestmark = pytest.mark.integration

NOON = 1_700_000_000.0 - 1_700_000_000.0 % 86_400 + 43_200
STEP = 10.0
Pair = tuple[str, str]


@dataclass
class History:
    """Canned scrapes of exporters."""

    samples: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = field(default_factory=dict)

    def scrape(
        self, at: float, *, cluster: str, started: float, succeeded: dict[Pair, int], instance: str = "a"
    ) -> None:
        """One scrape."""
        target = {"cluster": cluster, "job": "celery", "instance": instance}
        self._add("celerymeter_start_time_seconds", target, at, started)
        self._add("celerymeter_build_info", target, at, 1)
        for (name, queue), value in succeeded.items():
            labels = {**target, "name": name, "queue_name": queue}
            self._add("celery_task_succeeded_total", labels, at, value)

    def _add(self, name: str, labels: dict[str, str], at: float, value: float) -> None:
        self.samples.setdefault((name, tuple(sorted(labels.items()))), []).append((at, value))

    def series(self) -> list[Canned]:
        """For an engine."""
        return [Canned(name, dict(labels), samples) for (name, labels), samples in self.samples.items()]


def canned() -> History:
    """One cluster a case; each runs from ten minutes before noon to ten minutes after."""
    history = History()
    begin, add = NOON - 600, ("add", "celery")
    history.scrape(NOON + 1, cluster="new", started=NOON - 1 / 3, succeeded={add: 5})
    for number in range(121):
        at = begin + number * STEP
        history.scrape(at, cluster="steady", started=begin - 50, succeeded={add: number})
        restarted = at >= NOON + 95
        history.scrape(
            at,
            cluster="restart",
            started=NOON + 92 if restarted else begin - 50,
            succeeded={add: 500 + number if restarted else number},
        )
        edge = at > NOON
        history.scrape(
            at, cluster="edge", started=NOON + 3 if edge else begin - 50, succeeded={add: 7 if edge else 1000 + number}
        )
        born = {("late", "celery"): 7 + number // 100} if at > NOON + 60 else {}
        history.scrape(at, cluster="born", started=begin - 50, succeeded={add: 3, **born})
        for instance, lag in (("a", 0), ("b", 2)):
            history.scrape(
                at + lag, cluster="two", started=begin - 50, succeeded={add: number * 2 - lag}, instance=instance
            )
            seen = number * 2 if instance == "a" else number
            history.scrape(at + lag, cluster="apart", started=begin - 50, succeeded={add: seen}, instance=instance)
        history.scrape(at + 5, cluster="handover", started=begin - 50, succeeded={add: number * 10 + 5}, instance="b")
        if at <= NOON + 100:
            history.scrape(at, cluster="handover", started=begin - 50, succeeded={add: number * 10})
        if at >= NOON + 150:
            history.scrape(at, cluster="handover", started=NOON + 140, succeeded={add: int(at - NOON - 140)})
        if at > NOON + 30:
            history.scrape(at, cluster="blind", started=begin - 86_400, succeeded={add: 10_000 + number})
        if at < NOON - 300 or at > NOON + 30:
            history.scrape(at, cluster="gap", started=begin - 50, succeeded={add: number})
    return history


@pytest.fixture(scope="module", params=NAMES)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusClient]:
    """A client of each engine, with the canned history."""
    server, url = start_engine(request.param, Path(tmp_path_factory.mktemp("engine")) / "data", canned().series())
    with server, PrometheusClient(PrometheusSettings(url)) as client:
        yield client


def count(client: PrometheusClient, cluster: str, *, start: float = NOON, end: float = NOON + 300) -> WindowCounts:
    """A window of one cluster."""
    return WindowCounter(client, Scope(cluster=cluster)).count(start=start, end=end)


def succeeded(counted: WindowCounts) -> float:
    """The successes; the window must be known."""
    assert counted.counts is not None
    return counted.counts.total("celery_task_succeeded_total")


def test_a_steady_window_is_the_difference_of_its_scrapes(client: PrometheusClient) -> None:
    """30 scrapes, one task each."""
    assert succeeded(count(client, "steady")) == 30


def test_a_window_between_two_scrapes_is_what_was_scraped_in_it(client: PrometheusClient) -> None:
    """(start, end]: the scrape at the start is the base; what happened between two scrapes belongs to the later one."""
    assert count(client, "steady", start=NOON + 1, end=NOON + 9).counts is None
    assert succeeded(count(client, "steady", start=NOON + 9, end=NOON + 10)) == 1
    assert succeeded(count(client, "steady", start=NOON + 5, end=NOON + 25)) == 2


def test_a_restart_inside_loses_nothing_that_was_scraped(client: PrometheusClient) -> None:
    """Even though the new process soon shows more than the old one did."""
    counted = count(client, "restart")
    assert succeeded(counted) == 9 + 500 + 90
    assert len(counted.processes) == 2


def test_a_process_that_began_just_before_the_window_counts_from_nothing(client: PrometheusClient) -> None:
    """Wherever between two milliseconds it began."""
    assert succeeded(count(client, "new", start=NOON + 1e-4)) == 5


def test_a_restart_at_the_edge_counts_from_nothing(client: PrometheusClient) -> None:
    """The scrape before the window belongs to the process before."""
    assert succeeded(count(client, "edge")) == 7


def test_a_series_born_inside_counts_from_nothing(client: PrometheusClient) -> None:
    """`increase()` would lose the seven that it was born with."""
    counted = count(client, "born", end=NOON + 600)
    assert counted.counts is not None
    assert counted.counts.total("celery_task_succeeded_total", name="late") == 8
    assert counted.counts.total("celery_task_succeeded_total", name="add") == 0


def test_two_exporters_are_not_added_up(client: PrometheusClient) -> None:
    """The one that saw more is taken, and the difference to the other is reported."""
    counted = count(client, "two")
    assert succeeded(counted) in (60, 62)
    assert counted.disagreement <= 6


def test_an_exporter_that_sees_half_is_reported(client: PrometheusClient) -> None:
    """The counts are those of the other one, and the verdict is lowered."""
    window = Window(NOON, NOON + 300)
    apart = count(client, "apart")
    assert (succeeded(apart), apart.disagreement) == (60, 30)
    assert [note.code for note in judge(apart, window, []).notes] == ["exporters_disagree"]
    assert judge(count(client, "two"), window, []).verdict == "complete"


def test_a_handover_counts_no_task_twice(client: PrometheusClient) -> None:
    """One task a second; one of two exporters, scraped five seconds apart, goes and comes back meanwhile."""
    assert succeeded(count(client, "handover")) == 300
    assert succeeded(count(client, "handover", end=NOON + 147)) == pytest.approx(147, abs=STEP)


def test_a_process_without_a_scrape_before_the_window_cannot_be_counted(client: PrometheusClient) -> None:
    """It was up for a day, but Prometheus was not: no number at all."""
    counted = count(client, "blind")
    assert counted.counts is None
    assert [process.target.instance for process in counted.without_base] == ["a"]


def test_a_gap_over_the_edge_is_bridged_by_the_scrape_before_it(client: PrometheusClient) -> None:
    """Tasks that ended in the gap cannot be placed better; the last scrape is five minutes old."""
    assert succeeded(count(client, "gap")) == 90 - 29


def test_an_empty_cluster_has_no_counts(client: PrometheusClient) -> None:
    """No exporter is not the same as no tasks."""
    counted = count(client, "nobody")
    assert (counted.counts, counted.processes) == (None, ())
