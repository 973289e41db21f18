"""Every query, run by a real Prometheus that has watched good and bad weather."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from tests.dashboards import weather
from tests.dashboards.grafana import ALL, Board, Query, boards, fill
from tests.dashboards.stage import Pace, Stage

pytestmark = pytest.mark.integration

SHOWN, STEP = 900.0, 60
"""Seconds of history that a chart shows, and between its points."""
Choice = Mapping[str, tuple[str, ...]]
WINDOWS = {"__rate_interval": ("4m",), "__range": (f"{SHOWN:.0f}s",), "__interval": ("15s",)}
NONE_CHOSEN = {**dict.fromkeys(("job", "cluster", "queue", "task", "worker"), (ALL,)), **WINDOWS}
GOOD = {**NONE_CHOSEN, "cluster": (weather.GOOD.cluster,)}
CHOICES = {
    "all": NONE_CHOSEN,
    "one of each": {
        **GOOD,
        "job": ("celerymeter",),
        "queue": ("orders",),
        "task": ("shop.orders.charge_card",),
        "worker": ("orders@app-1",),
    },
    "several of each": {
        **GOOD,
        "cluster": (weather.GOOD.cluster, weather.TWIN.cluster),
        "queue": ("orders", "mail"),
        "task": ("shop.orders.charge_card", "shop.mail.send"),
        "worker": ("orders@app-1", "mail@app-2"),
    },
}
QUIET = {
    ("overview", "Firing alerts"),
    ("workers", "Changes between up and down"),
    ("workers", "Runs whose events never arrived"),
    ("exporter", "Runs whose events never arrived"),
    ("exporter", "Unusable and unmeasured"),
    ("exporter", "Series, and names beyond a cap"),
    ("exporter", "Tasks in memory"),
}
"""Panels that rightly have something missing in good weather."""
PER_EXPORTER = {"Series", "Series, and names beyond a cap", "Tasks in memory", "What the exporter costs"}
BOARDS = boards()


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prometheus says to a query: its series by labels with their last value, what it warns of, and the time."""

    query: Query
    series: dict[frozenset[tuple[str, str]], float]
    complaints: tuple[str, ...]
    seconds: float

    @property
    def values(self) -> list[float]:
        return list(self.series.values())


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """All weathers, watched for twenty minutes."""
    with Stage(tmp_path_factory.mktemp("stage"), weather.ALL, Pace()) as running:
        yield running


def ask(stage: Stage, query: Query, choice: Choice, *, at: float, step: int = STEP) -> Answer:
    """Run one query as its panel would: at the end of the shown time, or over it."""
    form: dict[str, str | float] = {"query": fill(query.expr, choice)}
    shown = float(choice["__range"][0].removesuffix("s"))
    form |= {"time": at} if query.instant else {"start": at - shown, "end": at, "step": step}
    begun = time.monotonic()
    reply = requests.post(f"{stage.url}/api/v1/query{'' if query.instant else '_range'}", data=form, timeout=30)
    took = time.monotonic() - begun
    body = reply.json()
    complaints = (*([body["error"]] if "error" in body else []), *body.get("warnings", []), *body.get("infos", []))
    found = {
        frozenset(one["metric"].items()): float((one["values"][-1] if "values" in one else one["value"])[1])
        for one in body.get("data", {}).get("result", [])
    }
    return Answer(query, found, complaints, took)


def ask_all(stage: Stage, board: Board, choice: Choice, *, at: float | None = None, step: int = STEP) -> list[Answer]:
    """Every query of every panel of a dashboard, now or at an earlier time."""
    at = at or time.time()
    asked = [query for panel in board.drawn for query in panel.queries]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda query: ask(stage, query, choice, at=at, step=step), asked))


def figure(stage: Stage, board: str, title: str, cluster: str) -> float:
    """The value that a figure shows of one cluster."""
    panel = next(one for one in BOARDS if one.name == board).panel(title)
    answer = ask(stage, panel.queries[0], {**NONE_CHOSEN, "cluster": (cluster,)}, at=time.time())
    (value,) = answer.values
    return value


def word(stage: Stage, board: str, title: str, cluster: str) -> str:
    """The word that a figure shows of one cluster."""
    panel = next(one for one in BOARDS if one.name == board).panel(title)
    options = panel.defaults["mappings"][0]["options"]
    text: str = options[f"{figure(stage, board, title, cluster):g}"]["text"]
    return text


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_every_query_answers(stage: Stage, board: Board, choice: Choice) -> None:
    """Whatever is chosen, no query fails or is warned about, and each gives numbers."""
    answers = ask_all(stage, board, choice)

    assert not [(one.query.panel, one.complaints) for one in answers if one.complaints]
    silent = {(board.name, one.query.panel) for one in answers if not any(map(math.isfinite, one.values))}
    assert silent <= QUIET


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_list_of_values_is_filled(stage: Stage, board: Board) -> None:
    """Each variable finds values, and annotations can be drawn."""
    for name, variable in board.variables.items():
        if variable["type"] == "query":
            selector, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            match = {"match[]": fill(selector, NONE_CHOSEN)}
            reply = requests.get(f"{stage.url}/api/v1/label/{label}/values", params=match, timeout=10)
            assert reply.json()["data"], name
    marks = [Query(one["name"], "mark", one["expr"], False, "") for one in board.annotations]
    assert not [one.complaints for one in (ask(stage, mark, GOOD, at=time.time()) for mark in marks) if one.complaints]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_second_exporter_changes_nothing(stage: Stage, board: Board) -> None:
    """Two exporters of one broker, scraped at the same moments, show what one shows: nothing is counted twice."""
    at = stage.told_at - 1
    one, two = (ask_all(stage, board, {**NONE_CHOSEN, "cluster": (name,)}, at=at) for name in ("good", "twin"))

    shown = {answer.query.panel for answer in one if answer.series}
    differing = {a.query.panel for a, b in zip(one, two, strict=True) if _seen(a) != pytest.approx(_seen(b))}

    assert differing <= {"Exporters that answer", "Exporters and brokers", *PER_EXPORTER}
    assert len(shown - differing) >= 3


def _seen(answer: Answer) -> dict[frozenset[tuple[str, str]], float]:
    """Values by the labels that do not tell clusters apart."""
    return {frozenset(label for label in labels if label[0] != "cluster"): v for labels, v in answer.series.items()}


@pytest.mark.parametrize("cluster", [*(one.cluster for one in weather.ALL), "never-heard-of"])
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_figure_is_never_empty(stage: Stage, board: Board, cluster: str) -> None:
    """In any weather each figure shows exactly one number or word."""
    at = time.time()
    for panel in board.drawn:
        if panel.type == "stat":
            answer = ask(stage, panel.queries[0], {**NONE_CHOSEN, "cluster": (cluster,)}, at=at)
            assert [math.isfinite(value) for value in answer.values] == [True], panel.title


@pytest.mark.parametrize(
    ("cluster", "health", "trust"),
    [
        ("good", "healthy", "yes"),
        ("twin", "healthy", "yes"),
        ("troubled", "unhealthy", "partly: events missed"),
        ("no-workers", "no workers", "yes"),
        ("nothing-run", "healthy", "yes"),
        ("broker-down", "broker down", "no: broker down"),
        ("exporter-gone", "no exporter", "no: exporter down"),
        ("never-heard-of", "unknown", "no: nothing scraped"),
    ],
)
def test_the_overview_says_how_it_is(stage: Stage, cluster: str, health: str, trust: str) -> None:
    """Health and trust name the gravest fault of each weather."""
    assert word(stage, "overview", "Health", cluster) == health
    assert word(stage, "overview", "Can I trust this page?", cluster) == trust


@pytest.mark.parametrize(
    ("cluster", "workers", "pending"),
    [("good", 4, 0), ("no-workers", 0, 500), ("nothing-run", 1, 0), ("broker-down", -1, -1), ("exporter-gone", -1, -1)],
)
def test_what_is_not_known_is_not_zero(stage: Stage, cluster: str, workers: int, pending: int) -> None:
    """No worker is 0, and a broker or exporter that is gone is unknown (-1)."""
    assert figure(stage, "overview", "Active workers", cluster) == workers
    found = figure(stage, "overview", "Pending tasks", cluster)
    assert found == pending if pending < 0 else found >= pending


def test_the_tables_begin_with_the_culprits(stage: Stage) -> None:
    """In trouble the lowest state of each table is that of the queue, the task and the worker that are to blame."""
    overview = next(board for board in BOARDS if board.name == "overview")
    choice = {**NONE_CHOSEN, "cluster": ("troubled",)}
    worst = {}
    for title, label in (("Queues", "queue_name"), ("Tasks", "name"), ("Workers", "hostname")):
        states = ask(stage, overview.panel(title).queries[0], choice, at=time.time()).series
        lowest = min(states.values())
        worst[title] = {dict(labels)[label] for labels, state in states.items() if state == lowest}

    assert worst["Queues"] == {"mail", "legacy"}
    assert worst["Tasks"] == {"shop.orders.charge_card"}
    assert worst["Workers"] == {"mail@app-2"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_marks_stand_where_it_happened(stage: Stage, board: Board) -> None:
    """In trouble a worker is marked at its last heartbeat and alerts at the time since which they hold."""
    onset = stage.told_at - weather.ONSET_AGO
    marks = [
        Query(one["name"], "mark", one["expr"], False, "") for one in board.annotations if one.get("useValueForTime")
    ]
    alerts, stops = (ask(stage, mark, {**NONE_CHOSEN, "cluster": ("troubled",)}, at=time.time()) for mark in marks)

    assert stops.values == [pytest.approx(1000 * onset, abs=1000 * 60)]
    assert {dict(labels)["alertname"] for labels in alerts.series} >= {"CeleryWorkerDown", "CeleryEventsMissed"}
    assert min(alerts.values) >= 1000 * onset


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_crowd_stays_legible(stage: Stage, board: Board) -> None:
    """However many tasks and workers there are, a chart holds few lines."""
    kinds = {panel.title: panel.type for panel in board.drawn}
    answers = ask_all(stage, board, {**NONE_CHOSEN, "cluster": ("crowded",)})

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
    with Stage(tmp_path, (weather.BIG_CROWD,), Pace(past=3600, step=15, interval="15s")) as stage:
        answers = [one for board in BOARDS for one in ask_all(stage, board, choice, step=15)]
        again = [ask(stage, one.query, choice, at=time.time(), step=15) for one in answers if one.seconds > 2]

    assert len([one for one in answers if one.series]) > 150
    assert not [(one.query.panel, one.seconds) for one in again if one.seconds > 2]
