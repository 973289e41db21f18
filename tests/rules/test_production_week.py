"""A shop over some hours: nothing fires while nothing is wrong, and each incident brings its alerts and no other.

The whole week of a large shop takes too long for a test: `python -m tools.production_week` runs it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.production_week.evaluation import Evaluation, in_order, needed, rules_of
from tools.production_week.history import History
from tools.production_week.incidents import INCIDENTS
from tools.production_week.shop import Shop
from tools.production_week.worlds import World, healthy, objections, rules, with_incident

pytestmark = pytest.mark.timeout(600)
SHOP = Shop(queues=5, tasks=20, workers=8, from_hour=10, hours=3)
"""Three hours with a deploy, bursts, a restart of the exporter, and workers that come and go."""


@pytest.mark.slow
def test_nothing_fires_while_nothing_is_wrong() -> None:
    """Info apart."""
    assert objections([healthy(SHOP)]) == ""


@pytest.mark.slow
def test_each_incident_brings_its_alerts_and_no_other() -> None:
    """Each in a shop of its own."""
    assert objections([with_incident(SHOP, incident) for incident in INCIDENTS]) == ""


def test_an_alert_that_must_not_fire_is_named() -> None:
    """With its subject: the check can fail. An incident brings its alerts, and here none is expected."""
    [poison] = [incident for incident in INCIDENTS if incident.name == "a poison message"]
    world = with_incident(Shop(queues=3, tasks=4, workers=2, from_hour=11, hours=2), poison)
    world = World(world.cluster, world.minutes, world.series, {"CeleryBeatDown": "critical"})
    found = objections([world])
    assert 'alertname="CeleryPoolProcessLost", name="shop.every_ten_minutes"' in found
    assert "CeleryBeatDown (critical) did not fire" in found


GROUPS = [
    {
        "name": "x",
        "rules": [
            {"alert": "Seen", "expr": "x:seen:info == 1", "for": "2m", "labels": {"severity": "warning"}},
            {"record": "x:seen:info", "expr": "celery:up:max == 1 or celery:seen:info"},
            {"record": "celery:seen:info", "expr": "celery:up:max == 1 or celery:seen:info offset 1m"},
            {"record": "celery:up:max", "expr": "max by (cluster) (up)"},
        ],
    }
]


def test_rules_are_evaluated_as_prometheus_does(tmp_path: Path) -> None:
    """A rule that needs another comes after it, one that needs its own past has it, and `for` is waited for."""
    names = [[rule.name for rule in together] for together in in_order(rules_of(GROUPS)) if not together[0].alerts]
    assert names.index(["celery:up:max"]) < names.index(["celery:seen:info"]) < names.index(["x:seen:info"])
    labels = (("__name__", "up"), ("cluster", "eu"))
    with History(tmp_path) as history:
        history.write([(labels, [0.0, 0.0, 1.0, None, None, 0.0])])
        evaluation = Evaluation(history, rules_of(GROUPS))
        evaluation.run(0, 6)
        [up] = [values for _, values in history.range("celery:up:max", start=0, end=6)]
    assert up == [0.0, 0.0, 1.0, None, None, 0.0]
    assert list(evaluation.fired.values()) == [[4, 5]]


def test_a_recorded_series_that_no_alert_needs_is_left_out() -> None:
    """Alerts need what their series need, too."""
    unused = {"name": "y", "rules": [{"record": "celery:unused:max", "expr": "celery:up:max"}]}
    assert [rule.name for rule in needed(rules_of([*GROUPS, unused]))] == [rule.name for rule in rules_of(GROUPS)]


def test_every_shipped_recording_rule_has_its_place() -> None:
    """None is left out, and few need their own past."""
    records = [rule for rule in rules() if not rule.alerts]
    together = list(in_order(records))
    assert sorted(map(id, records)) == sorted(id(rule) for some in together for rule in some)
