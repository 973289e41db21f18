"""Incidents and rarer faults, caused for real: each alert arrives, and ends when the cause is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from tests.integration.alerts import incidents, rare_faults
from tests.integration.alerts.monitored import QUICK, MonitoredClusters
from tests.integration.alerts.timing import AlertTimer, Expected, Outcome, outcomes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
SETS = {"incidents": incidents, "rare": rare_faults}
"""Each on clusters of its own, one set after the other: all at once is too much for two cores."""
FAULTS = [
    pytest.param(name, script, expected, id=str(expected))
    for name, of in SETS.items()
    for script, all_of_it in of.SCRIPTS.items()
    for expected in all_of_it
]

SILENT = [
    pytest.param(name, script, id=script.__name__)
    for name, of in SETS.items()
    for script, all_of_it in of.SCRIPTS.items()
    if not all_of_it
]
"""Scripts of faults for which no alert must arrive."""


@pytest.fixture(scope="module")
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """The clusters of a set after every script has run to its end, or to its failure."""
    of = SETS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    pace = replace(QUICK, timeout=200)
    with MonitoredClusters(folder, of.starters(), pace=pace, overrides=of.QUICK_OVERRIDES) as monitored:
        yield outcomes(AlertTimer(monitored), of.SCRIPTS)


@pytest.mark.parametrize(("outcome", "script", "expected"), FAULTS, indirect=["outcome"])
def test_the_fault_is_notified_and_resolved(
    outcome: Outcome, script: Callable[[AlertTimer], None], expected: Expected
) -> None:
    """Firing, with the labels that say what and where, then resolved."""
    times = outcome.of(script, expected)
    assert times.firing > 0
    assert times.resolved > 0


@pytest.mark.parametrize(("outcome", "script"), SILENT, indirect=["outcome"])
def test_what_is_no_fault_is_silent(outcome: Outcome, script: Callable[[AlertTimer], None]) -> None:
    """The script itself says that nothing was notified."""
    outcome.ran[script].result()
