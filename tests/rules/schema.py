"""Which labels each series has: families from the catalogue, recorded series from their rules."""

from __future__ import annotations

from functools import cache

import promql_parser as promql
from tests.rules.bundle import recordings
from tests.rules.promql import Labels, labels_of

from celerymeter.metrics import CATALOGUE

TARGET: Labels = frozenset({"cluster", "job", "instance"})
"""The labels that the scrape configuration adds."""
OVERRIDES: Labels = frozenset({"cluster", "queue_name", "name", "schedule"})
"""The labels that a line of an operator's own thresholds may add to a limit."""
FOREIGN = {"up": TARGET, "process_start_time_seconds": TARGET}
"""Series that Prometheus and its client library make."""
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


@cache
def exposed() -> dict[str, Labels]:
    """Every series name that a page of ours can have."""
    names: dict[str, Labels] = {}
    for family in CATALOGUE:
        labels = frozenset(family.labels) | TARGET
        for suffix in _SUFFIXES.get(family.kind, ("",)):
            names[family.name + suffix] = labels | {"le"} if suffix == "_bucket" else labels
    return names


def known(name: str) -> bool:
    """Return whether a page, Prometheus or a rule makes this series."""
    return name in exposed() or name in FOREIGN or name in {rule.name for rule in recordings()}


def series(name: str) -> Labels:
    """The labels of a series; none for a name that nobody makes."""
    return _series(name, frozenset())


@cache
def _series(name: str, within: frozenset[str]) -> Labels:
    """The same inside the rules of ``within``: one that reads what is made of its own series adds no label to it."""
    if name in exposed() or name in FOREIGN:
        return exposed().get(name) or FOREIGN[name]
    if name in within:
        return frozenset[str]().union(*exposed().values())
    labels: Labels = frozenset()
    for rule in recordings():
        if rule.name == name:
            added = OVERRIDES if name.endswith(":limit") else frozenset[str]()
            read = labels_of(promql.parse(rule.expr), lambda other: _series(other, within | {name}))
            labels |= read | frozenset(rule.labels) | added
    return labels
