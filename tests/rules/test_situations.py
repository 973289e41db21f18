"""The alerts are silent in healthy situations and fire in incidents, each in a cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rules.promtool import ONE_IN_SLOW, run, tool
from tests.rules.situations import HEALTHY, INCIDENTS, Situation
from tests.rules.swings import END, Case, series_of, write_world

pytestmark = pytest.mark.timeout(600)


def _inputs(situation: Situation) -> Iterator[dict[str, str]]:
    yield from series_of(Case(situation.name, situation.series), cluster=situation.name, exporters=1)


def _expectation(situation: Situation) -> dict[str, object]:
    """Every alert above info that fired at any time, by name and severity."""
    fired = f'ALERTS{{cluster="{situation.name}",alertstate="firing",severity!="info"}}'
    pairs = [(alert, severity) for alert, both in situation.fires.items() for severity in both.split()]
    return {
        "expr": f"group by (alertname, severity) (count_over_time({fired}[{END}m]))",
        "eval_time": f"{END}m",
        "exp_samples": [
            {"labels": f'{{alertname="{alert}",severity="{severity}"}}', "value": 1} for alert, severity in pairs
        ],
    }


@pytest.mark.parametrize("release", ONE_IN_SLOW)
@pytest.mark.parametrize("kind", [HEALTHY, INCIDENTS], ids=["healthy", "incidents"])
def test_exactly_the_expected_alerts_fire(release: str, kind: tuple[Situation, ...], tmp_path: Path) -> None:
    """Four hours of each situation, all in one Prometheus."""
    test = {
        "name": "situations",
        "interval": "1m",
        "input_series": [line for situation in kind for line in _inputs(situation)],
        "promql_expr_test": [_expectation(situation) for situation in kind],
    }
    ran = run(tool(release), "test", "rules", str(write_world(tmp_path / "situations.yml", [test])))
    assert ran.returncode == 0, ran.stdout + ran.stderr
