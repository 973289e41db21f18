"""Every fault, caused for real on real clusters: its alert arrives, and ends when the cause is gone.

All scripts run at once, on four clusters under one Prometheus, with the shipped rules thirty times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.integration.alerts.faults import QUICK_OVERRIDES, SCRIPTS, starters
from tests.integration.alerts.monitored import QUICK, MonitoredClusters
from tests.integration.alerts.timing import AlertTimer, Expected, Outcome, outcomes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(800)]
FAULTS = [(script, expected) for script, all_of_it in SCRIPTS.items() for expected in all_of_it]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """The clusters after every script has run to its end, or to its failure."""
    folder = tmp_path_factory.mktemp("alerts")
    with MonitoredClusters(folder, starters(), pace=QUICK, overrides=QUICK_OVERRIDES) as monitored:
        yield outcomes(AlertTimer(monitored), SCRIPTS)


@pytest.mark.parametrize(("script", "expected"), FAULTS, ids=[str(expected) for _, expected in FAULTS])
def test_the_fault_is_notified_and_resolved(
    outcome: Outcome, script: Callable[[AlertTimer], None], expected: Expected
) -> None:
    """Firing, with the labels that say what and where, then resolved."""
    times = outcome.of(script, expected)
    assert times.firing > 0
    assert times.resolved > 0


def test_nothing_else_is_notified(outcome: Outcome) -> None:
    """No false alarm anywhere, and no cluster is blamed for another's fault."""
    caused = {(expected.cluster, expected.alert) for _, expected in FAULTS}
    # the task that fills the pool is long too, its queues do not drain, the worker of the stalled queue holds a
    # message, and so many failures use up the error budget
    consequences = {
        ("queues", "CeleryTaskStuck"),
        ("queues", "CeleryWorkerStuck"),
        ("queues", "CeleryQueueWillNotDrain"),
        ("tasks", "CeleryErrorBudgetBurn"),
    }
    assert caused <= outcome.timer.monitored.notified() <= caused | consequences
