"""Runs the queries of the dashboards as their panels would, for any choice of the variables."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import requests
from tests.dashboards.grafana import ALL, Board, Json, Query, fill

SHOWN, STEP = 900.0, 60
"""Seconds of history that a chart shows, and between its points."""
Choice = Mapping[str, tuple[str, ...]]
WINDOWS = {"__rate_interval": ("4m",), "__range": (f"{SHOWN:.0f}s",), "__interval": ("15s",)}
NONE_CHOSEN = {**dict.fromkeys(("job", "cluster", "queue", "task", "worker", "schedule"), (ALL,)), **WINDOWS}
QUIET = {
    ("overview", "Firing alerts", "A"),
    ("workers", "Changes between up and down", "A"),
    ("workers", "Changes between up and down", "B"),
    ("workers", "Runs whose events never arrived", "A"),
    ("exporter", "Runs whose events never arrived", "A"),
    ("exporter", "Unusable and unmeasured", "A"),
    ("exporter", "Unusable and unmeasured", "B"),
    ("exporter", "Series, and names over a limit", "B"),
    ("exporter", "Tasks in memory", "B"),
    ("schedules", "Could not be sent", "A"),
    ("schedules", "Failed", "A"),
    # of one task perhaps nothing runs at the moment
    ("tasks", "Running, and for how long", "B"),
    # thresholds that are off by default: infinite ones draw no line
    ("overview", "Waits over time (p95)", "B"),
    ("overview", "Waiting messages over time", "C"),
    ("queues", "Age of the oldest message", "C"),
    ("queues", "Waiting messages over time", "C"),
    ("queues", "Waits over time (p95)", "B"),
    ("tasks", "Run time", "D"),
    ("tasks", "Wait", "D"),
}
"""Queries that rightly give nothing of a healthy cluster."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of Prometheus to a query: its series by labels with their last value, its warnings, and the time."""

    query: Query
    series: dict[frozenset[tuple[str, str]], float]
    complaints: tuple[str, ...]
    seconds: float

    @property
    def values(self) -> list[float]:
        return list(self.series.values())


def ask(url: str, query: Query, choice: Choice, *, at: float, step: int = STEP) -> Answer:
    """Run one query as its panel would: at the end of the shown time, or over it."""
    form: dict[str, str | float] = {"query": fill(query.expr, choice)}
    shown = float(choice["__range"][0].removesuffix("s"))
    form |= {"time": at} if query.instant else {"start": at - shown, "end": at, "step": step}
    begun = time.monotonic()
    reply = requests.post(f"{url}/api/v1/query{'' if query.instant else '_range'}", data=form, timeout=30)
    took = time.monotonic() - begun
    body = reply.json()
    complaints = (*([body["error"]] if "error" in body else []), *body.get("warnings", []), *body.get("infos", []))
    found = {
        frozenset(one["metric"].items()): float((one["values"][-1] if "values" in one else one["value"])[1])
        for one in body.get("data", {}).get("result", [])
    }
    return Answer(query, found, complaints, took)


def ask_all(url: str, board: Board, choice: Choice, *, at: float | None = None, step: int = STEP) -> list[Answer]:
    """Every query of every panel of a dashboard, now or at an earlier time."""
    at = at or time.time()
    asked = [query for panel in board.drawn for query in panel.queries]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda query: ask(url, query, choice, at=at, step=step), asked))


def ask_mark(url: str, annotation: Json, choice: Choice, *, at: float | None = None, step: int = STEP) -> Answer:
    """The query of an annotation over the shown time."""
    query = Query(annotation["name"], "mark", annotation["expr"], False, "")
    return ask(url, query, choice, at=at or time.time(), step=step)


def complaints(answers: list[Answer]) -> list[tuple[str, tuple[str, ...]]]:
    """Every error and warning, with the panel that it belongs to."""
    return [(one.query.panel, one.complaints) for one in answers if one.complaints]


def silent(board: Board, answers: list[Answer]) -> set[tuple[str, str, str]]:
    """Dashboard, panel and letter of every query that gives no number."""
    return {(board.name, one.query.panel, one.query.ref) for one in answers if not any(map(math.isfinite, one.values))}


def choosable(url: str, variable: Json) -> list[str]:
    """The values that a variable offers."""
    selector, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
    match = {"match[]": fill(selector, NONE_CHOSEN)}
    found: list[str] = requests.get(f"{url}/api/v1/label/{label}/values", params=match, timeout=30).json()["data"]
    return found
