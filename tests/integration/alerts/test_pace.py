"""Rules run faster for tests, and otherwise as shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.integration.alerts.pace import quickened, write_rules
from tests.rules.bundle import RULES


@pytest.mark.parametrize(
    ("shipped", "quick"),
    [
        ("rate(x[5m]) / 300", "rate(x[30s]) / 30"),
        ("sum_over_time(y[3d:5m])", "sum_over_time(y[432m0s:30s])"),
        ("z - z offset 5m >= 0", "z - z offset 30s >= 0"),
        ("time() - process_start_time_seconds < 360", "time() - process_start_time_seconds < 36"),
        ("time() - celerymeter_start_time_seconds > 120", "time() - celerymeter_start_time_seconds > 12"),
        ("a > 1300", "a > 1300"),
        ("changes(up[15s])", "changes(up[1500ms])"),
        ("m[5s]", "m[1s]"),
    ],
)
def test_only_durations_are_divided(shipped: str, quick: str) -> None:
    """Ten times faster, but never below a second."""
    assert quickened(shipped, 10) == quick


def test_every_shipped_rule_is_kept_and_waits_less(tmp_path: Path) -> None:
    """All files, plus the overrides."""
    write_rules(tmp_path / "rules", factor=30, overrides=[{"record": "celery:x:limit", "expr": 1}])
    assert {path.name for path in (tmp_path / "rules").iterdir()} == {*(path.name for path in RULES), "overrides.yml"}
    queues = yaml.safe_load((tmp_path / "rules" / "queues.yml").read_text())
    [backlog, *_] = [rule for group in queues["groups"] for rule in group["rules"] if rule.get("alert")]
    assert (backlog["for"], backlog["keep_firing_for"]) == ("8s", "10s")
