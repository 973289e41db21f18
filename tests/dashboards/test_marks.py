"""The marks on charts, over a history that is written by hand."""

from __future__ import annotations

from pathlib import Path

from tests.dashboards.asking import NONE_CHOSEN, ask_mark
from tests.dashboards.grafana import boards
from tools.production_week.history import History, Labels
from tools.production_week.series import Value

MINUTES = 40


def series(name: str, values: list[Value], **labels: str) -> tuple[Labels, list[Value]]:
    """One of the cluster."""
    return tuple(sorted({"__name__": name, "cluster": "eu", "job": "celery", **labels}.items())), values


def test_a_restart_of_the_exporter_starts_no_worker(tmp_path: Path) -> None:
    """A page is missing in minute 20. One worker starts in minute 30, and is marked."""
    always: list[Value] = [None if minute == 20 else 1.0 for minute in range(MINUTES)]
    later: list[Value] = [None if minute < 30 else 1.0 for minute in range(MINUTES)]
    [starts] = [mark for mark in boards()[0].annotations if mark["name"] == "Worker starts"]
    with History(tmp_path) as history:
        history.write(
            [
                series("up", [1.0] * MINUTES),
                series("celerymeter_start_time_seconds", always, instance="a"),
                series("celery:worker_up:max", always, hostname="old"),
                series("celery:worker_up:max", later, hostname="new"),
            ]
        )
        choice = {**NONE_CHOSEN, "__rate_interval": ("60s",), "__range": (f"{MINUTES * 60}s",)}
        found = ask_mark(history.url, starts, choice, at=60.0 * (MINUTES - 1), step=60).series
    assert {dict(labels)["hostname"] for labels in found} == {"new"}
