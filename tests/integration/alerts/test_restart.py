"""Prometheus is restarted while an alert fires."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.alerts.stage import QUICK, Stage

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration

NO_WORKERS = ("empty", "CeleryNoWorkers")


def test_an_alert_fires_on_through_a_restart_of_prometheus(tmp_path: Path) -> None:
    """It is neither resolved nor told anew, and the restart itself brings no alert."""
    with Stage(tmp_path, {"empty": ()}, pace=replace(QUICK, factor=20), overrides=[]) as stage:
        wait_until(lambda: stage.heard("firing", *NO_WORKERS), timeout=60)
        stage.prometheus.stop()
        stage.prometheus.up()
        restarted = time.monotonic()
        wait_until(lambda: NO_WORKERS in stage.firing(), timeout=60)
        wait_until(lambda: time.monotonic() > restarted + 14)  # longer than Alertmanager remembers a silent Prometheus
        assert stage.heard("resolved", *NO_WORKERS) == []
        assert len(stage.heard("firing", *NO_WORKERS)) == 1
        assert stage.told() == {NO_WORKERS}
