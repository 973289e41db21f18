"""The rules under promtool itself: the distribution's Prometheus 2 and, where it is there, Prometheus 3."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.rules.bundle import ALERTS, RULES, TESTS
from tests.rules.parts import part_of, write_parts
from tests.rules.promtool import RELEASES, run, tool

pytestmark = pytest.mark.timeout(600)
EACH_FILE = pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)


@pytest.fixture(scope="module", params=RELEASES)
def promtool(request: pytest.FixtureRequest) -> str:
    """The path of one generation's promtool."""
    return tool(str(request.param))


def _passes(promtool: str, *paths: Path) -> None:
    ran = run(promtool, "test", "rules", *map(str, paths))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("SUCCESS") == len(paths)
    assert "error expanding" not in ran.stderr


@EACH_FILE
def test_the_alerts_fire_and_resolve_as_written(promtool: str, path: Path, tmp_path: Path) -> None:
    """promtool's own unit tests: exact labels, exact annotations, exact moments.

    Each test has only the rules that it asks for: with all of them it takes eight times as long, and nothing that it
    looks at differs. `test_the_files_pass_as_they_are` runs them with all.
    """
    _passes(promtool, *write_parts(path, tmp_path))


@pytest.mark.slow
@EACH_FILE
def test_the_files_pass_as_they_are(promtool: str, path: Path) -> None:
    """As `promtool test rules` runs them for somebody who changes a rule."""
    _passes(promtool, path)


def test_a_part_has_all_that_it_depends_on() -> None:
    """It has the rules that an alert reads, by name or by a pattern, itself or in its texts, and no others."""
    groups = [
        {
            "name": "records",
            "rules": [
                {"record": "x:a:limit", "expr": 1},
                {"record": "x:b:limit", "expr": 2},
                {"record": "x:c:rate", "expr": "rate(c[5m])"},
                {"record": "x:d:max", "expr": "max(x:c:rate or vector(0))"},
            ],
        },
        {
            "name": "alerts",
            "rules": [
                {"alert": "Direct", "expr": "\nx:d:max\n> 5"},
                {"alert": "Text", "expr": "up == 0", "annotations": {"summary_zh": '門檻{{ query "x:a:limit" }}'}},
                {"alert": "Pattern", "expr": 'count({__name__=~"x:.+:limit"}) < 2'},
            ],
        },
    ]

    def names(alerts: tuple[str, ...] = (), queries: tuple[str, ...] = ()) -> list[str]:
        part = part_of(groups, alerts=alerts, queries=queries)
        return [str(rule.get("record") or rule["alert"]) for group in part for rule in group["rules"]]

    assert names(("Direct",)) == ["x:c:rate", "x:d:max", "Direct"]
    assert names(("Text",)) == ["x:a:limit", "Text"]
    assert names(("Pattern",)) == ["x:a:limit", "x:b:limit", "Pattern"]
    assert names(queries=("x:c:rate offset 1m", 'count(ALERTS{area="a", alertname="Text"})')) == [
        "x:a:limit",
        "x:c:rate",
        "Text",
    ]
    everything = ["x:a:limit", "x:b:limit", "x:c:rate", "x:d:max", "Direct", "Text", "Pattern"]
    assert names(queries=('count(ALERTS{alertname!="Text"})',)) == names(queries=("ALERTS",)) == everything
    assert names(("Gone",)) == []


def test_rules_and_configuration_are_valid(promtool: str) -> None:
    """Nothing to complain of, not even a duplicate."""
    rules = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))
    assert rules.returncode == 0, rules.stdout + rules.stderr
    config = run(promtool, "check", "config", "--lint=none", str(ALERTS / "prometheus.yml"))
    assert config.returncode == 0, config.stdout + config.stderr
    assert f"{len(RULES)} rule files found" in config.stdout


def test_no_template_fails() -> None:
    """A template that cannot be expanded leaves its error in the annotation, where a test could take it for right."""
    assert not [path for path in TESTS if "error executing template" in path.read_text().lower()]
