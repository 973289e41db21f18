"""The rules under promtool itself: the distribution's Prometheus 2 and, where it is there, Prometheus 3."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.rules.bundle import ALERTS, RULES, TESTS
from tests.rules.promtool import RELEASES, Ran, run, tool

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=RELEASES)
def promtool(request: pytest.FixtureRequest) -> str:
    """The path of one generation's promtool."""
    return tool(str(request.param))


@pytest.fixture(scope="module")
def runs(promtool: str) -> dict[Path, Future[Ran]]:
    """All rule tests of one generation, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return {path: pool.submit(run, promtool, "test", "rules", str(path)) for path in TESTS}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_alerts_fire_and_resolve_as_written(runs: dict[Path, Future[Ran]], path: Path) -> None:
    """promtool's own unit tests: exact labels, exact annotations, exact moments."""
    ran = runs[path].result()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "SUCCESS" in ran.stdout


def test_rules_and_configuration_are_valid(promtool: str) -> None:
    """Nothing to complain of, not even a duplicate."""
    rules = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))
    assert rules.returncode == 0, rules.stdout + rules.stderr
    config = run(promtool, "check", "config", "--lint=none", str(ALERTS / "prometheus.yml"))
    assert config.returncode == 0, config.stdout + config.stderr
    assert f"{len(RULES)} rule files found" in config.stdout


def test_no_template_fails(runs: dict[Path, Future[Ran]]) -> None:
    """A template that cannot be expanded leaves its error in the annotation."""
    assert not [path for path in TESTS if "error executing template" in path.read_text().lower()]
    assert all("error expanding" not in future.result().stderr for future in runs.values())
