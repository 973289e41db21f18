"""No alert flaps: what comes and goes around its limit, or its state, notifies once, and resolves once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.rules.bundle import Alert, alerts
from tests.rules.promtool import ONE_IN_SLOW, run, tool
from tests.rules.swing_cases import CASES
from tests.rules.swings import write_swings

LEAST_KEEP = 300


@pytest.mark.timeout(600)
@pytest.mark.parametrize("release", ONE_IN_SLOW)
@pytest.mark.parametrize("exporters", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_each_alert_is_sent_once_in_its_own_cluster_alone(release: str, exporters: int, tmp_path: Path) -> None:
    """One or two hours of swings, every cause in a cluster of its own, all under one Prometheus.

    Two exporters, of which one calls the queue of every task unknown, bring no alert that one does not, and none twice.
    """
    path = write_swings(tmp_path / "swings.yml", CASES, exporters=exporters)
    ran = run(tool(release), "test", "rules", str(path))
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("alert", [one for one in alerts() if ":effective" in one.expr], ids=str)
def test_an_alert_with_a_limit_outlasts_a_short_calm(alert: Alert) -> None:
    """Five minutes and more below its limit end it, nothing shorter."""
    assert alert.keeps >= LEAST_KEEP, f"give {alert.name} in alerts/source/{alert.file} `keep_firing_for: 5m` or more"
