"""Every fault, caused for real on real clusters: its alert arrives, and ends when the cause is gone.

All scripts run at once, on four clusters under one Prometheus, with the shipped rules thirty times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.integration.alerts.drill import Drill, Expected, Outcome, outcomes
from tests.integration.alerts.faults import QUICK_OVERRIDES, SCRIPTS, cast
from tests.integration.alerts.stage import QUICK, Stage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
FAULTS = [(script, expected) for script, all_of_it in SCRIPTS.items() for expected in all_of_it]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """The stage after every script has run to its end, or to its failure."""
    folder = tmp_path_factory.mktemp("alerts")
    with Stage(folder, cast(), pace=QUICK, overrides=QUICK_OVERRIDES) as stage:
        yield outcomes(Drill(stage), SCRIPTS)


@pytest.mark.parametrize(("script", "expected"), FAULTS, ids=[str(expected) for _, expected in FAULTS])
def test_the_fault_is_told_and_its_end_too(
    outcome: Outcome, script: Callable[[Drill], None], expected: Expected
) -> None:
    """Firing, with the labels that say what and where, then resolved."""
    told = outcome.of(script, expected)
    assert told.firing > 0
    assert told.resolved > 0


def test_nothing_else_is_told(outcome: Outcome) -> None:
    """No false alarm anywhere, and no cluster is blamed for another's fault."""
    caused = {(expected.cluster, expected.alert) for _, expected in FAULTS}
    # the task that fills the pool is long too, and so many failures use up the error budget
    consequences = {("queues", "CeleryTaskStuck"), ("tasks", "CeleryErrorBudgetBurn")}
    assert caused <= outcome.drill.stage.told() <= caused | consequences
