"""Every query reads series that somebody makes, by labels that they have."""

from __future__ import annotations

import re
from collections.abc import Iterator

import promql_parser
import pytest
from tests.dashboards.grafana import ALL, Board, Query, boards, fill
from tests.rules.promql import Labels, aggregations, joins, labels_of, selectors, walk
from tests.rules.schema import TARGET, known, series

FOREIGN = {
    "ALERTS": TARGET | {"alertname", "alertstate", "severity", "area", "queue_name", "name", "schedule", "hostname"},
    "process_cpu_seconds_total": TARGET,
    "process_resident_memory_bytes": TARGET,
}
"""Series that Prometheus and its client library make, beside those that rules read."""
FOREIGN["ALERTS_FOR_STATE"] = FOREIGN["ALERTS"] - {"alertstate"}
CHOICES = {
    **dict.fromkeys(("job", "cluster", "queue", "task", "worker", "schedule"), (ALL,)),
    **dict.fromkeys(("__rate_interval", "__range", "__interval"), ("1m",)),
}


def labels(name: str) -> Labels:
    """The labels of a series."""
    return FOREIGN.get(name) or series(name)


def created(expr: str) -> set[str]:
    """The labels that an expression itself adds."""
    calls = (node for node in walk(promql_parser.parse(expr)) if isinstance(node, promql_parser.Call))
    return {call.args[1].val for call in calls if call.func.name in ("label_replace", "label_join")}


def queries(board: Board) -> Iterator[tuple[str, Query, str]]:
    """A place on a board, its query, and its expression with All chosen: of every panel and annotation."""
    asked = [query for panel in board.drawn for query in panel.queries]
    asked += [Query(one["name"], "mark", one["expr"], False, one["titleFormat"]) for one in board.annotations]
    for query in asked:
        yield f"{query.panel}, query {query.ref}", query, fill(query.expr, CHOICES)


every_board = pytest.mark.parametrize("board", boards(), ids=lambda board: board.name)


@every_board
def test_series_exist_and_have_the_labels_that_they_are_chosen_by(board: Board) -> None:
    """Each selector names a family of the catalogue, a recorded series, or one of Prometheus' own."""
    for place, _, expr in queries(board):
        found = list(selectors(expr))

        assert not [one.name for one in found if one.name not in FOREIGN and not known(one.name)], place
        assert not [(one.name, one.matched - labels(one.name)) for one in found if one.matched - labels(one.name)], (
            place
        )


@every_board
def test_labels_that_join_and_group_exist(board: Board) -> None:
    """Every label in ``by`` and ``on`` is one of some series in the query, or made by the query."""
    for place, _, expr in queries(board):
        had = {label for one in selectors(expr) for label in labels(one.name)} | created(expr)
        wanted = {label for group, _ in aggregations(expr) for label in group} | {
            label for group, *_ in joins(expr) for label in group
        }

        assert wanted <= had, place


@every_board
def test_legends_name_labels_that_the_result_has(board: Board) -> None:
    """A legend never shows an empty place for a label that the query aggregates away."""
    for place, query, expr in queries(board):
        shown = set(re.findall(r"\{\{(\w+)\}\}", query.legend))

        assert shown <= labels_of(promql_parser.parse(expr), labels) | created(expr), place
