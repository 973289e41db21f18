"""The client against the engines themselves: Prometheus 2 and 3, and VictoriaMetrics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.engines import NAMES, Canned, start_engine

from celerymeter.errors import AmbiguousCluster, AnswerTooLarge, PrometheusUnavailable, QueryRejected
from celerymeter.prometheus import Point, PrometheusClient, PrometheusSettings, Scope, choose_cluster, clusters

pytestmark = pytest.mark.integration

T0 = 1_700_000_000.0
NASTY = 'a"b\\c\n{d="e"} or up #\' $x {SEL}'
SERIES = (
    Canned("q", {"cluster": "eu", "name": NASTY}, [(T0, 1.0)]),
    Canned("q", {"cluster": "eu", "name": "plain"}, [(T0, 2.0)]),
    Canned("q", {"cluster": "us", "name": "plain"}, [(T0, 4.0)]),
    Canned("zero", {}, [(T0, 0.0)]),
    Canned("scraped", {}, [(T0 - 20.25, 5.0), (T0 - 10.125, 6.0), (T0, 7.0)]),
    Canned("gap", {}, [(T0 + 60 * n, float(n)) for n in (*range(10), *range(40, 50))]),
    Canned("celerymeter_build_info", {"cluster": "eu"}, [(T0, 1.0)]),
    Canned("celerymeter_build_info", {"cluster": "us"}, [(T0 - 1800, 1.0)]),
)


@pytest.fixture(scope="module", params=NAMES)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusClient]:
    """A client of one engine that holds the series above."""
    server, url = start_engine(request.param, tmp_path_factory.mktemp("engine") / "e", SERIES)
    with server, PrometheusClient(PrometheusSettings(url)) as client:
        yield client


def test_a_label_value_finds_itself_and_nothing_else(client: PrometheusClient) -> None:
    """A value full of PromQL is found as a value; a scope keeps other clusters out."""
    query = Scope(cluster="eu").render("q{SEL, name=$name}", name=NASTY)

    assert [(s.label("name"), s.value) for s in client.instant(query, time=T0)] == [(NASTY, 1.0)]


def test_an_exact_alternative_matches_exactly_its_members(client: PrometheusClient) -> None:
    """A tuple of values matches each as it is, whatever it holds for a regular expression."""
    query = Scope(cluster="eu").render("q{SEL, name=~$names}", names=(NASTY, "pla.n", ".*"))

    assert [s.label("name") for s in client.instant(query, time=T0)] == [NASTY]


def test_no_data_not_a_number_and_zero_differ(client: PrometheusClient) -> None:
    """Nothing and 0 ÷ 0 have no value, 0 has one."""
    found = client.instants({"none": "absent_series", "nan": "zero / zero", "zero": "zero", "scalar": "1"}, time=T0)

    assert {key: vector.value() for key, vector in found.items()} == {"none": None, "nan": None, "zero": 0, "scalar": 1}


def test_raw_samples_keep_their_scrape_times(client: PrometheusClient) -> None:
    """A range selector gives what was scraped, to the millisecond."""
    (series,) = client.samples(Scope().render("scraped{SEL}[$w]", w=timedelta(minutes=1)), time=T0)

    assert series.points == (Point(T0 - 20.25, 5.0), Point(T0 - 10.125, 6.0), Point(T0, 7.0))


def test_a_time_is_exact_to_the_millisecond(client: PrometheusClient) -> None:
    """One millisecond before a scrape the value before it holds."""
    before = client.samples("scraped[15s]", time=T0 - 0.001)

    assert [point.value for series in before for point in series.points] == [6.0]


def test_a_gap_is_missing_points(client: PrometheusClient) -> None:
    """Neither points nor zeros stand where nothing was scraped for longer than the lookback."""
    (series,) = client.range("gap", start=T0, end=T0 + 49 * 60, step=60)

    at = {round((point.at - T0) / 60): point.value for point in series.points}
    assert (at[0], at[9], at[40], at[49]) == (0.0, 9.0, 40.0, 49.0)
    assert not set(range(15, 40)) & set(at)
    assert all(math.isfinite(value) for value in at.values())


def test_a_wrong_query_is_rejected(client: PrometheusClient) -> None:
    """A syntax error is the query's fault, not the server's."""
    with pytest.raises(QueryRejected):
        client.instant("sum(")


def test_several_clusters_must_be_chosen_from(client: PrometheusClient) -> None:
    """A cluster whose exporter was scraped within the hour still counts."""
    assert clusters(client, Scope(), time=T0) == ("eu", "us")
    with pytest.raises(AmbiguousCluster):
        choose_cluster(client, Scope(), time=T0)
    assert choose_cluster(client, Scope(), time=T0 + 1801 + 60) == Scope(cluster="eu")


def test_the_bound_on_answers_holds(client: PrometheusClient) -> None:
    """A small bound refuses what the engine would give."""
    settings = PrometheusSettings(client.settings.url, max_bytes=100)
    with PrometheusClient(settings) as small, pytest.raises(AnswerTooLarge):
        small.range("gap", start=T0, end=T0 + 3000, step=1)


def test_a_wrong_path_is_no_answer(client: PrometheusClient) -> None:
    """A URL that leads to something else is said to be unusable."""
    with (
        PrometheusClient(PrometheusSettings(f"{client.settings.url}/nowhere")) as lost,
        pytest.raises(PrometheusUnavailable),
    ):
        lost.instant("up")
