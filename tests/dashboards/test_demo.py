"""Every dashboard on the demo, after ten minutes of real work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from tests.dashboards.asking import (
    NONE_CHOSEN,
    QUIET,
    Choice,
    ask_all,
    ask_mark,
    choosable,
    complaints,
    silent,
)
from tests.dashboards.grafana import Board, boards
from tests.demo.running import Demo, started

from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WATCHED = 600
NOW = {**NONE_CHOSEN, "__rate_interval": ("20s",), "__range": (f"{WATCHED}s",)}
RARE = QUIET | {
    ("overview", "Queues", "D"),
    ("queues", "Queues", "D"),
    ("exporter", "Unusable and unmeasured", "C"),
    ("exporter", "Requests", "B"),
}
"""Queries that rightly give nothing while no message waits, no wait is unmeasured and no request is refused."""
RARE_OF_ONE = RARE | {
    ("queues", "Age of the oldest message", "A"),
    ("tasks", "Exceptions", "A"),
    ("tasks", "Running, and for how long", "B"),
}
"""The same of one queue that was always empty, or of one task that never failed or is not running."""
BOARDS = boards()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo under light load whose Prometheus remembers ten minutes, and whose control API was just asked."""
    running = started(tmp_path_factory.mktemp("demo"))
    try:
        wait_until(lambda: _remembers(running, WATCHED), timeout=2 * WATCHED, interval=5, what="ten minutes of history")
        yield running
    finally:
        running.process.stop(timeout=60)


def _remembers(demo: Demo, seconds: int) -> bool:
    """Return whether Prometheus knows values of so long ago. Asks the control API too, for requests to show."""
    headers = {"Authorization": f"Bearer {demo.env['CELERYMETER_TOKEN']}"}
    metrics = f"{demo.env['CELERYMETER_CONTROL_URL']}/celery-admin/monitoring/metrics/realtime"
    requests.get(metrics, headers=headers, timeout=30).raise_for_status()
    query = {"query": f"celery_task_succeeded_total offset {seconds}s"}
    reply = requests.get(f"{demo.env['PROMETHEUS_URL']}/api/v1/query", params=query, timeout=30)
    return bool(reply.json()["data"]["result"])


def choices(url: str, board: Board) -> Iterator[Choice]:
    """All; each value of each variable by itself; the first two; every one by name."""
    yield NOW
    for name, variable in board.variables.items():
        values = choosable(url, variable) if variable["type"] == "query" else []
        picks = {*((one,) for one in values), tuple(values[:2]), tuple(values)} - {()}
        yield from ({**NOW, name: pick} for pick in sorted(picks))


@pytest.mark.timeout(3 * WATCHED)
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_query_answers_whatever_is_chosen(demo: Demo, board: Board) -> None:
    """No query fails or is warned about; for All each gives numbers, else each but what is rare."""
    url = demo.env["PROMETHEUS_URL"]
    for choice in choices(url, board):
        answers = ask_all(url, board, choice, step=15)
        assert complaints(answers) == [], choice
        assert silent(board, answers) <= (RARE if choice == NOW else RARE_OF_ONE), choice


def test_a_tasks_link_finds_its_reports(demo: Demo) -> None:
    """Filled in as Grafana does it, the link answers to who shows a token, and asks everybody else for one."""
    tasks = next(board for board in BOARDS if board.name == "tasks")
    (link,) = (url for url in tasks.panel("Tasks").links if "${control}" in url)
    url = link.replace("${control}", demo.env["CELERYMETER_CONTROL_URL"] + "/celery-admin")
    url = url.replace("${__data.fields.name:percentencode}", "orders.place")
    headers = {"Authorization": f"Bearer {demo.env['CELERYMETER_TOKEN']}"}

    assert requests.get(url, timeout=30).json()["code"] == "unauthenticated"
    assert requests.get(url, headers=headers, timeout=30).json()["reports"] == []


@pytest.mark.timeout(3 * WATCHED)
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_no_worker_is_marked_as_started_later(demo: Demo, board: Board) -> None:
    """The workers are as old as what watches them."""
    (starts,) = (one for one in board.annotations if one["name"] == "Worker starts")
    assert ask_mark(demo.env["PROMETHEUS_URL"], starts, NOW, step=15).series == {}
