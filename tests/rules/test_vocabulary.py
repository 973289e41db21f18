"""Rules read only what exists, under labels that it has, and never mix clusters."""

from __future__ import annotations

import re

import promql_parser as promql
import pytest
from tests.rules.bundle import Alert, Recording, alerts, recordings
from tests.rules.promql import aggregations, joins, labels_of, selectors
from tests.rules.schema import OVERRIDES, known, series

Rules = list[Alert | Recording]
EVERY: Rules = [*recordings(), *alerts()]
FILES = {file: [rule for rule in EVERY if rule.file == file] for file in sorted({rule.file for rule in EVERY})}
every_file = pytest.mark.parametrize("rules", FILES.values(), ids=FILES)
WITHOUT_CLUSTER = {"Watchdog", "CeleryExporterAbsent", "CeleryThresholdsMissing"}
"""They speak for the Prometheus itself."""


@every_file
def test_every_series_exists_and_has_the_labels_that_it_is_matched_by(rules: Rules) -> None:
    """A name is in the catalogue, recorded, or Prometheus' own."""
    for rule in rules:
        for selector in selectors(rule.expr):
            name = selector.name
            if name:
                assert known(name), (
                    f"{rule.name}: nobody makes {name}: record it in alerts/source/recording.yml, or correct its name"
                )
                assert selector.matched <= series(name), f"{rule.name}: {name} has no {selector.matched}"
            else:
                assert selector.matched == {"__name__"}, rule.name


@every_file
def test_every_label_that_is_grouped_or_joined_by_exists_on_both_sides(rules: Rules) -> None:
    """A label that a side lacks would match everything, or nothing, in silence."""
    for rule in rules:
        for labels, inner in aggregations(rule.expr):
            assert labels <= labels_of(inner, series) | {"__name__"}, rule.name
        for labels, left, right in joins(rule.expr):
            assert labels <= labels_of(left, series), rule.name
            assert labels <= labels_of(right, series), rule.name


@every_file
def test_no_rule_matches_a_job_or_an_instance(rules: Rules) -> None:
    """Operators choose the names of their scrape jobs."""
    for rule in rules:
        matched = {label for selector in selectors(rule.expr) for label in selector.matched}
        assert not {"job", "instance"} & matched, rule.name


@every_file
def test_clusters_are_never_mixed(rules: Rules) -> None:
    """Whatever is aggregated keeps its cluster; only limits have defaults for all."""
    for rule in rules:
        for labels, inner in aggregations(rule.expr):
            read = {selector.name for selector in selectors(str(inner.prettify()))}
            limits = all(name.endswith(":limit") or not name for name in read)
            assert "cluster" in labels or limits, rule.name


@pytest.mark.parametrize("alert", [alert for alert in alerts() if alert.name not in WITHOUT_CLUSTER], ids=str)
def test_every_alert_says_its_cluster(alert: Alert) -> None:
    """Routing, grouping and inhibition go by it."""
    assert "cluster" in labels_of(promql.parse(alert.expr), series)


def test_every_limit_has_its_effective_series_with_all_four_ways_to_override() -> None:
    """cluster and queue or task, then queue or task, then cluster, then the default."""
    effective = {
        (rule.name, *sorted(rule.labels.items())): rule.expr for rule in recordings() if rule.file == "effective.yml"
    }
    limits = {
        (rule.name.replace(":limit", ":effective"), *sorted(rule.labels.items())): rule
        for rule in recordings()
        if rule.file == "thresholds.yml"
    }
    assert effective.keys() == limits.keys()
    for key, rule in limits.items():
        assert effective[key] == _resolution(rule, effective[key])


def _resolution(limit: Recording, expr: str) -> str:
    found = re.search(r"celery:(queue|task|awaited|schedule|cluster):known", expr)
    assert found is not None
    base = found.group()
    own = {"queue": "queue_name", "task": "name", "awaited": "name", "schedule": "schedule"}.get(found.group(1))
    fixed = "".join(f'{name}="{value}", ' for name, value in limit.labels.items())
    branches = []
    for labels in (("cluster", own), (own,), ("cluster",), ()) if own else (("cluster",), ()):
        asked = ", ".join(f'{name}{"!=" if name in labels else "="}""' for name in ("cluster", own) if name)
        grouped = f"max by ({', '.join(map(str, labels))})" if labels else "max"
        joined = ", ".join(map(str, labels))
        branches.append(f"0 * {base} + on ({joined}) group_left () {grouped} ({limit.name}{{{fixed}{asked}}})")
    return "\nor ".join(branches) + "\n"


def test_a_limit_is_one_line_that_takes_overrides() -> None:
    """Nothing else in thresholds.yml carries the labels that an override adds."""
    limits = [rule for rule in recordings() if rule.file == "thresholds.yml"]
    assert limits
    for rule in limits:
        assert rule.name.endswith(":limit")
        assert not OVERRIDES & rule.labels.keys()


def test_thresholds_missing_counts_every_family_of_limits() -> None:
    """A family more or less in thresholds.yml changes the number in the alert."""
    [alert] = [alert for alert in alerts() if alert.name == "CeleryThresholdsMissing"]
    families = {rule.name for rule in recordings() if rule.name.endswith(":limit")}
    assert f"< {len(families)}\n" in alert.expr
