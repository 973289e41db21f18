"""Dashboards show what they should of healthy clusters and of clusters with a fault, on a real Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.dashboards import scenarios
from tests.dashboards.asking import NONE_CHOSEN, Answer, ask, ask_all, ask_mark
from tests.dashboards.grafana import Board, Panel, boards
from tests.dashboards.simulation import RULES, Pace, Simulation

pytestmark = pytest.mark.integration

PER_EXPORTER = {"Series", "Series, and names over a limit", "Tasks in memory", "What the exporter costs"}
BOARDS = boards()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """Twenty minutes of all scenarios."""
    with Simulation(tmp_path_factory.mktemp("prometheus"), scenarios.ALL, Pace()) as running:
        yield running


def panel(board: str, title: str) -> Panel:
    """A panel of a dashboard."""
    return next(one for one in BOARDS if one.name == board).panel(title)


def number(prometheus: Simulation, board: str, title: str, cluster: str, *, at: float | None = None) -> float:
    """The number that a stat panel shows of one cluster, when all is settled or at another time."""
    answer = ask(
        prometheus.url,
        panel(board, title).queries[0],
        {**NONE_CHOSEN, "cluster": (cluster,)},
        at=at or prometheus.settled,
    )
    (value,) = answer.values
    return value


def word(prometheus: Simulation, board: str, title: str, cluster: str, *, at: float | None = None) -> str:
    """The word that a stat panel shows of one cluster, when all is settled or at another time."""
    options = panel(board, title).defaults["mappings"][0]["options"]
    text: str = options[f"{number(prometheus, board, title, cluster, at=at):g}"]["text"]
    return text


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_second_exporter_changes_nothing(prometheus: Simulation, board: Board) -> None:
    """Two exporters of one broker, scraped at the same times, show what one shows: nothing is counted twice."""
    at = prometheus.reference_time - 1
    one, two = (ask_all(prometheus.url, board, {**NONE_CHOSEN, "cluster": (name,)}, at=at) for name in ("good", "twin"))

    shown = {answer.query.panel for answer in one if answer.series}
    differing = {a.query.panel for a, b in zip(one, two, strict=True) if _seen(a) != pytest.approx(_seen(b))}

    assert differing <= {"Exporters that answer", "Exporters and brokers", *PER_EXPORTER}
    assert len(shown - differing) >= 3


def _seen(answer: Answer) -> dict[frozenset[tuple[str, str]], float]:
    """Values by the labels that do not tell clusters apart."""
    return {frozenset(label for label in labels if label[0] != "cluster"): v for labels, v in answer.series.items()}


@pytest.mark.parametrize("cluster", [*(one.cluster for one in scenarios.ALL), "never-heard-of"])
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_stat_panel_is_never_empty(prometheus: Simulation, board: Board, cluster: str) -> None:
    """In every scenario each stat panel shows exactly one number or word."""
    at = prometheus.settled
    for panel in board.drawn:
        if panel.type == "stat":
            answer = ask(prometheus.url, panel.queries[0], {**NONE_CHOSEN, "cluster": (cluster,)}, at=at)
            assert [math.isfinite(value) for value in answer.values] == [True], panel.title


@pytest.mark.parametrize(
    ("cluster", "health", "trust"),
    [
        ("good", "healthy", "yes"),
        ("twin", "healthy", "yes"),
        ("troubled", "unhealthy", "partly: events missed"),
        ("no-workers", "no workers", "yes"),
        ("nothing-run", "healthy", "yes"),
        ("full", "healthy", "yes"),
        ("broker-down", "broker down", "no: broker down"),
        ("exporter-gone", "no exporter", "no: exporter down"),
        ("never-heard-of", "unknown", "no: nothing scraped"),
    ],
)
def test_the_overview_says_how_it_is(prometheus: Simulation, cluster: str, health: str, trust: str) -> None:
    """Health and trust name the gravest fault of each scenario."""
    assert word(prometheus, "overview", "Health", cluster) == health
    assert word(prometheus, "overview", "Can I trust this page?", cluster) == trust


def test_a_page_without_rules_is_not_trusted(prometheus: Simulation) -> None:
    """Before the first rule ran, what is scraped is there and nobody says that it is well."""
    before = prometheus.reference_time - 1

    assert word(prometheus, "overview", "Can I trust this page?", "good", at=before) == "no: rules not loaded"
    assert word(prometheus, "overview", "Health", "good", at=before) == "unknown"


def test_a_page_without_limits_is_not_trusted(tmp_path: Path) -> None:
    """Rules that have nothing to compare with are as good as none."""
    rules = [path for path in RULES if path.stem != "thresholds"]
    with Simulation(tmp_path, (scenarios.NOTHING_RUN,), Pace(past=300, interval="2s"), rules=rules) as prometheus:
        assert word(prometheus, "overview", "Can I trust this page?", "nothing-run") == "no: limits not loaded"


@pytest.mark.parametrize(
    ("cluster", "workers", "pending"),
    [("good", 4, 0), ("no-workers", 0, 500), ("nothing-run", 1, 0), ("broker-down", -1, -1), ("exporter-gone", -1, -1)],
)
def test_what_is_not_known_is_not_zero(prometheus: Simulation, cluster: str, workers: int, pending: int) -> None:
    """No worker is 0, and a broker or exporter that is gone is unknown (-1)."""
    assert number(prometheus, "overview", "Active workers", cluster) == workers
    found = number(prometheus, "overview", "Pending tasks", cluster)
    assert found == pending if pending < 0 else found >= pending


@pytest.mark.parametrize(("board", "title"), [("tasks", "Runs"), ("queues", "Tasks sent"), ("queues", "Tasks started")])
def test_a_counter_that_nobody_feeds_has_no_rate(prometheus: Simulation, board: str, title: str) -> None:
    """While the broker is out of reach counters stand still, and their rate is unknown rather than 0."""
    assert word(prometheus, board, title, "broker-down") == "unknown"
    assert number(prometheus, board, title, "good") > 0


def test_a_chart_of_throughput_is_blank_while_nobody_sees_it(prometheus: Simulation) -> None:
    """The broker is down at the end of the shown time, and the last line ends where it went away."""
    overview = next(board for board in BOARDS if board.name == "overview")
    query = replace(overview.panel("Throughput").queries[0], instant=True)
    choice = {**NONE_CHOSEN, "cluster": ("broker-down",)}
    onset = prometheus.reference_time - scenarios.ONSET_AGO

    assert ask(prometheus.url, query, choice, at=prometheus.settled).series == {}
    assert ask(prometheus.url, query, choice, at=onset - 1).values[0] > 0


def test_the_state_of_a_task_is_unknown_while_nobody_sees_it(prometheus: Simulation) -> None:
    """No run ended: idle where all is well with the broker and its workers are gone, unknown where it is down."""
    overview = next(board for board in BOARDS if board.name == "overview")
    query = overview.panel("Tasks").queries[0]
    states = {
        cluster: set(ask(prometheus.url, query, {**NONE_CHOSEN, "cluster": (cluster,)}, at=prometheus.settled).values)
        for cluster in ("no-workers", "broker-down")
    }

    assert states == {"no-workers": {3}, "broker-down": {-1}}


def test_a_backlog_that_nobody_works_off_is_never_empty(prometheus: Simulation) -> None:
    """Messages wait and none is started: the time until the queues are empty is not 0, and not unknown."""
    assert word(prometheus, "queues", "Empty in", "no-workers") == "never"
    assert word(prometheus, "queues", "Empty in", "nothing-run") == "no starts"
    assert word(prometheus, "queues", "Empty in", "troubled") == "never"

    column = next(query for query in panel("queues", "Queues").queries if "celery:queue_drain:seconds" in query.expr)
    answer = ask(prometheus.url, column, {**NONE_CHOSEN, "cluster": ("troubled",)}, at=prometheus.settled)
    empty_in = {dict(labels)["queue_name"]: value for labels, value in answer.series.items()}
    assert empty_in["legacy"] == -3, "nobody consumes it"
    assert empty_in["orders"] > 0


def test_busy_is_the_share_of_the_time_of_slots(prometheus: Simulation) -> None:
    """Two of four slots of each worker, whatever number of tasks the last heartbeats gave; rates know little yet."""
    for board in ("overview", "workers"):
        assert number(prometheus, board, "Slots busy", "good") == pytest.approx(0.5, rel=0.12)
        assert number(prometheus, board, "Slots busy", "full") == pytest.approx(1.0, rel=0.12)


def test_info_is_listed_and_colours_nothing(prometheus: Simulation) -> None:
    """A full pool is in the list of alerts; it is not counted, and the cluster is healthy."""
    query = panel("overview", "Firing alerts").queries[0]
    shown = ask(prometheus.url, query, {**NONE_CHOSEN, "cluster": ("full",)}, at=prometheus.settled).series

    assert {(dict(labels)["rank"], dict(labels)["alertname"]) for labels in shown} == {
        ("3 info", "CeleryPoolSaturated")
    }
    assert number(prometheus, "overview", "Alerts firing", "full") == 0


def test_a_late_queue_names_the_task_that_used_the_slots(prometheus: Simulation) -> None:
    """Its own tasks used few of its slots, so the task that used most of all is named too; not where no worker is."""
    own, of_all = panel("queues", "Who uses the slots").queries[1:]
    choice = {**NONE_CHOSEN, "cluster": ("troubled",)}
    shares = {
        (labels["queue_name"], labels["name"]): value
        for series, value in ask(prometheus.url, of_all, choice, at=prometheus.settled).series.items()
        for labels in (dict(series),)
    }
    of_mail = {name: share for (queue, name), share in shares.items() if queue == "mail"}

    assert max(of_mail, key=lambda name: of_mail[name]) == "shop.reports.render"
    assert of_mail["shop.reports.render"] > 0.3
    assert not [queue for queue, _ in shares if queue in ("legacy", "asleep")], "no task is to blame for these"
    assert ask(prometheus.url, own, choice, at=prometheus.settled).series


def test_the_tables_begin_with_the_culprits(prometheus: Simulation) -> None:
    """In trouble the lowest state of each table is that of the queue, the task and the worker that are to blame."""
    overview = next(board for board in BOARDS if board.name == "overview")
    choice = {**NONE_CHOSEN, "cluster": ("troubled",)}
    worst = {}
    for title, label in (("Queues", "queue_name"), ("Tasks", "name"), ("Workers", "hostname")):
        states = ask(prometheus.url, overview.panel(title).queries[0], choice, at=prometheus.settled).series
        lowest = min(states.values())
        worst[title] = {dict(labels)[label] for labels, state in states.items() if state == lowest}

    assert worst["Queues"] == {"mail", "legacy", "asleep"}
    assert worst["Tasks"] == {"shop.orders.charge_card"}
    assert worst["Workers"] == {"mail@app-2"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_marks_stand_where_it_happened(prometheus: Simulation, board: Board) -> None:
    """In trouble a worker is marked at its last heartbeat and alerts at the time since which they hold."""
    onset = prometheus.reference_time - scenarios.ONSET_AGO
    timed = [one for one in board.annotations if one.get("useValueForTime")]
    alerts, stops = (
        ask_mark(prometheus.url, one, {**NONE_CHOSEN, "cluster": ("troubled",)}, at=prometheus.settled) for one in timed
    )

    assert stops.values == [pytest.approx(1000 * onset, abs=1000 * 60)]
    assert {dict(labels)["alertname"] for labels in alerts.series} >= {"CeleryWorkerDown", "CeleryEventsMissed"}
    assert min(alerts.values) >= 1000 * onset


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_crowd_stays_legible(prometheus: Simulation, board: Board) -> None:
    """However many tasks and workers there are, a chart holds few lines."""
    kinds = {panel.title: panel.type for panel in board.drawn}
    answers = ask_all(prometheus.url, board, {**NONE_CHOSEN, "cluster": ("crowded",)}, at=prometheus.settled)

    assert not [
        (one.query.panel, len(one.series))
        for one in answers
        if kinds[one.query.panel] in ("timeseries", "state-timeline") and len(one.series) > 12
    ]


@pytest.mark.slow
def test_a_big_crowd_is_shown_quickly(tmp_path: Path) -> None:
    """With 200 tasks and 50 workers every query of an hour takes less than 2 seconds.

    A query that was slow is asked once more: the machine may have been busy.
    """
    choice = {**NONE_CHOSEN, "__rate_interval": ("1m",), "__range": ("3600s",)}
    with Simulation(tmp_path, (scenarios.BIG_CROWD,), Pace(past=3600, step=15, interval="15s")) as prometheus:
        answers = [
            one for board in BOARDS for one in ask_all(prometheus.url, board, choice, at=prometheus.settled, step=15)
        ]
        again = [
            ask(prometheus.url, one.query, choice, at=prometheus.settled, step=15) for one in answers if one.seconds > 2
        ]

    assert len([one for one in answers if one.series]) > 150
    assert not [(one.query.panel, one.seconds) for one in again if one.seconds > 2]
