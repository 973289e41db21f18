"""Incidents, caused for real: each alert arrives, and ends when the cause is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.alerts.incidents import QUICK_OVERRIDES, SCRIPTS, starters
from tests.integration.alerts.monitored import QUICK, MonitoredClusters
from tests.integration.alerts.timing import AlertTimer, Expected, Outcome, outcomes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(700)]
FAULTS = [(script, expected) for script, all_of_it in SCRIPTS.items() for expected in all_of_it]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """The clusters after every script has run to its end, or to its failure."""
    folder: Path = tmp_path_factory.mktemp("incidents")
    with MonitoredClusters(
        folder, starters(), pace=replace(QUICK, timeout=200), overrides=QUICK_OVERRIDES
    ) as monitored:
        yield outcomes(AlertTimer(monitored), SCRIPTS)


@pytest.mark.parametrize(("script", "expected"), FAULTS, ids=[str(expected) for _, expected in FAULTS])
def test_the_incident_is_notified_and_resolved(
    outcome: Outcome, script: Callable[[AlertTimer], None], expected: Expected
) -> None:
    """Firing, with the labels that say what and where, then resolved."""
    times = outcome.of(script, expected)
    assert times.firing > 0
    assert times.resolved > 0
