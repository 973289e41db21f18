"""Every query reads series that somebody makes, by labels that they have."""

from __future__ import annotations

import re
from collections.abc import Iterator

import promql_parser
import pytest
from tests.dashboards.grafana import ALL, Query, boards, fill
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


def queries() -> Iterator[pytest.ParameterSet]:
    """Every query of every panel and annotation, with All chosen."""
    for board in boards():
        asked = [query for panel in board.drawn for query in panel.queries]
        asked += [Query(one["name"], "mark", one["expr"], False, one["titleFormat"]) for one in board.annotations]
        for query in asked:
            yield pytest.param(query, fill(query.expr, CHOICES), id=f"{board.name}-{query.panel}-{query.ref}")


every_query = pytest.mark.parametrize(("query", "expr"), list(queries()))


@every_query
def test_series_exist_and_have_the_labels_that_they_are_chosen_by(query: Query, expr: str) -> None:
    """Each selector names a family of the catalogue, a recorded series, or one of Prometheus' own."""
    found = list(selectors(expr))

    assert not [one.name for one in found if one.name not in FOREIGN and not known(one.name)]
    assert not [(one.name, one.matched - labels(one.name)) for one in found if one.matched - labels(one.name)]


@every_query
def test_labels_that_join_and_group_exist(query: Query, expr: str) -> None:
    """What stands in ``by`` and ``on`` is a label of some series in the query, or made by the query."""
    had = {label for one in selectors(expr) for label in labels(one.name)} | created(expr)
    wanted = {label for group, _ in aggregations(expr) for label in group} | {
        label for group, *_ in joins(expr) for label in group
    }

    assert wanted <= had


@every_query
def test_legends_name_labels_that_the_result_has(query: Query, expr: str) -> None:
    """A legend never shows an empty place for a label that the query aggregates away."""
    shown = set(re.findall(r"\{\{(\w+)\}\}", query.legend))

    assert shown <= labels_of(promql_parser.parse(expr), labels) | created(expr)
