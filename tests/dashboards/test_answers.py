"""Every query of every panel answers, whatever is chosen, on the oldest and on a newer Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.dashboards import scenarios
from tests.dashboards.asking import NONE_CHOSEN, QUIET, Choice, ask_all, ask_mark, choosable, complaints, silent
from tests.dashboards.grafana import Board, boards
from tests.dashboards.simulation import Pace, Simulation

pytestmark = pytest.mark.integration

GOOD = {**NONE_CHOSEN, "cluster": (scenarios.GOOD.cluster,)}
CHOICES = {
    "all": NONE_CHOSEN,
    "one of each": {
        **GOOD,
        "job": ("celerymeter",),
        "queue": ("orders",),
        "task": ("shop.orders.charge_card",),
        "worker": ("orders@app-1",),
        "schedule": ("sync-stock",),
    },
    "several of each": {
        **GOOD,
        "cluster": (scenarios.GOOD.cluster, scenarios.TWIN.cluster),
        "queue": ("orders", "mail"),
        "task": ("shop.orders.charge_card", "shop.mail.send"),
        "worker": ("orders@app-1", "mail@app-2"),
        "schedule": ("sync-stock", "nightly-report"),
    },
}
BOARDS = boards()
PACE = Pace(interval="2s")


@pytest.fixture(scope="module", params=["prometheus", "prometheus-newer"])
def prometheus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """Twenty minutes of a healthy cluster, seen by one exporter and by two."""
    folder = tmp_path_factory.mktemp("prometheus")
    with Simulation(folder, (scenarios.GOOD, scenarios.TWIN), PACE, engine=request.param) as prometheus:
        yield prometheus


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_every_query_answers(prometheus: Simulation, board: Board, choice: Choice) -> None:
    """Whatever is chosen, no query fails or is warned about, and each gives numbers."""
    answers = ask_all(prometheus.url, board, choice, at=prometheus.settled)

    assert complaints(answers) == []
    assert silent(board, answers) <= QUIET


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_list_of_values_is_filled(prometheus: Simulation, board: Board) -> None:
    """Each variable finds values, and annotations can be drawn."""
    for name, variable in board.variables.items():
        if variable["type"] == "query":
            assert choosable(prometheus.url, variable), name
    assert complaints([ask_mark(prometheus.url, one, GOOD, at=prometheus.settled) for one in board.annotations]) == []
