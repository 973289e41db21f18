"""The made-up pages are worth looking at: every family is on them, and counters behave as counters do."""

from __future__ import annotations

import pytest
from tests.dashboards.scenario_state import ScenarioState
from tests.dashboards.scenarios import ALL, TROUBLED, Scenario
from tests.dashboards.synthetic import page

from celerymeter.metrics import CATALOGUE

SUFFIXES = {"histogram": "_bucket", "summary": "_sum"}


def test_every_family_of_the_catalogue_is_on_a_page() -> None:
    """A new family gets its samples here, so that a dashboard can show it."""
    at = ScenarioState(TROUBLED, reference_time=1e9, now=1e9)

    shown = {name for control in (False, True) for name, _, _ in page(at, control=control)}

    assert {family.name + SUFFIXES.get(family.kind, "") for family in CATALOGUE} <= shown


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.cluster)
def test_counters_never_fall(scenario: Scenario) -> None:
    """Whatever happens, a counter that was seen is not lower a minute later."""
    before, after = (
        {
            name + labels: value
            for name, labels, value in page(ScenarioState(scenario, reference_time=1e9, now=1e9 - ago))
        }
        for ago in (630.0, 570.0)
    )
    counters = {family.name for family in CATALOGUE if family.kind == "counter"}

    fallen = [
        key for key, value in before.items() if key.partition("{")[0] in counters and after.get(key, value) < value
    ]

    assert fallen == []
