"""Faults of beat, caused for real: each alert arrives once, nothing else does, and it ends when the cause is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.alerts.monitored import QUICK, MonitoredClusters
from tests.integration.alerts.schedule_faults import OVERRIDES, SCRIPTS, starters
from tests.integration.alerts.timing import AlertTimer, Expected, Outcome, outcomes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(700)]
FAULTS = [(script, expected) for script, all_of_it in SCRIPTS.items() for expected in all_of_it]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """The clusters after every script has run to its end, or to its failure."""
    folder: Path = tmp_path_factory.mktemp("beats")
    with MonitoredClusters(folder, starters(), pace=replace(QUICK, timeout=150), overrides=OVERRIDES) as monitored:
        yield outcomes(AlertTimer(monitored), SCRIPTS)


@pytest.mark.parametrize(("script", "expected"), FAULTS, ids=[str(expected) for _, expected in FAULTS])
def test_the_fault_is_notified_and_resolved(
    outcome: Outcome, script: Callable[[AlertTimer], None], expected: Expected
) -> None:
    """Firing once, with the labels that say what and where, then resolved; nothing else about schedules is."""
    times = outcome.of(script, expected)
    print(f"{expected}: {times.firing:.0f} s, resolved after {times.resolved:.0f} s")
    assert times.firing > 0
    assert times.resolved > 0
    outcome.ran[script].result()
