"""Every alert tells a person what is wrong, how badly and what to open next, and is tested from silence to silence."""

from __future__ import annotations

import re
from pathlib import Path

import promql_parser as promql
import pytest
import yaml
from tests.rules.bundle import ALERTS, RULES, Alert, alerts, checks
from tests.rules.promql import labels_of
from tests.rules.schema import series
from tests.rules.swing_cases import CASES, LASTING

TEXTS = ("summary", "description", "summary_zh", "description_zh")
ANNOTATIONS = {*TEXTS, "runbook_url", "dashboard_url"}
PARTS = ["## Is it going away by itself?", "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]
DASHBOARDS = {"overview", "tasks", "queues", "workers", "schedules", "exporter"}
EACH = pytest.mark.parametrize("alert", alerts(), ids=str)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_USED = re.compile(r"\$labels\.(\w+)")


def _page(alert: Alert) -> Path:
    return ALERTS / "runbooks" / alert.annotations["runbook_url"].rsplit("/", 1)[1]


@EACH
def test_severity_and_annotations_are_complete(alert: Alert) -> None:
    """A severity that routing knows, the area that inhibition asks for, and every annotation."""
    assert alert.labels["severity"] in {"critical", "warning", "info"}
    assert alert.labels["area"] == Path(alert.file).stem
    assert set(alert.annotations) == ANNOTATIONS


@EACH
def test_both_languages_are_there(alert: Alert) -> None:
    """English without Chinese characters, Traditional Chinese with them."""
    for key in TEXTS:
        assert bool(_CHINESE.search(alert.annotations[key])) == key.endswith("_zh")


@EACH
def test_both_languages_show_the_same_values(alert: Alert) -> None:
    """Whatever one language quotes, the other does too."""
    for key in ("summary", "description"):
        shown, shown_zh = (_USED.findall(alert.annotations[name]) for name in (key, f"{key}_zh"))
        assert sorted(shown) == sorted(shown_zh)


@EACH
def test_labels_used_in_texts_survive_the_aggregation(alert: Alert) -> None:
    """`$labels.x` of a label that is gone would print nothing."""
    survivors = labels_of(promql.parse(alert.expr), series) | alert.labels.keys()
    for text in alert.annotations.values():
        gone = set(_USED.findall(text)) - survivors
        assert not gone, f"alerts/source/{alert.file}: the expression of {alert.name} has no {', '.join(sorted(gone))}"


@EACH
def test_the_description_gives_numbers_or_names(alert: Alert) -> None:
    """A reader of the message alone learns which and how much, unless there is only one of it."""
    about_the_whole = set(_USED.findall("".join(alert.annotations[key] for key in TEXTS))) <= {"cluster"}
    said = alert.annotations["summary"] + alert.annotations["description"]
    assert about_the_whole or "$value" in said or "$labels" in said


@EACH
def test_waiting_is_deliberate(alert: Alert) -> None:
    """An alert has `for`, or its source says in `no_for` why not."""
    source = yaml.safe_load((ALERTS / "source" / alert.file).read_text())
    reasons = [entry.get("no_for") for entry in source if entry["alert"] == alert.name]
    assert alert.has_for or all(reasons), f"add `for` or `no_for` to {alert.name} in alerts/source/{alert.file}"


@EACH
def test_the_runbook_has_its_parts(alert: Alert) -> None:
    """First whether it ends by itself, then meaning, impact, diagnosis, mitigation, each with something in it."""
    page = _page(alert)
    assert page.stem == alert.name
    assert page.exists(), f"write alerts/runbooks/{page.name}"
    text = page.read_text()
    assert text.startswith(f"# {alert.name}\n")
    parts = [line for line in text.splitlines() if line.startswith("## ")]
    assert parts == PARTS, f"alerts/runbooks/{page.name} must have the parts {', '.join(PARTS)}"
    for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert len(part.split()) >= 6, f"a part of alerts/runbooks/{page.name} is empty, or nearly so"


@EACH
def test_the_dashboard_is_one_of_ours(alert: Alert) -> None:
    """Each link opens a shipped dashboard."""
    found = re.search(r"/d/celerymeter-(\w+)", alert.annotations["dashboard_url"])
    assert found is not None
    assert found.group(1) in DASHBOARDS


def test_no_runbook_is_left_without_its_alert() -> None:
    """A page for an alert that is gone helps nobody."""
    left = {page.stem for page in (ALERTS / "runbooks").glob("*.md")} - {alert.name for alert in alerts()}
    assert not left, f"remove {', '.join(f'alerts/runbooks/{name}.md' for name in left)}"


@EACH
def test_every_alert_is_shown_not_yet_firing_firing_and_resolved(alert: Alert) -> None:
    """In one test: silence, then this very alert, then silence."""
    if alert.name == "Watchdog":
        assert any(check.alert == "Watchdog" and check.firing for check in checks())
        return
    mine = [check for check in checks() if check.alert == alert.name]
    firing = [check for check in mine if any(alert.labels.items() <= labels.items() for labels in check.firing)]
    file = f"tests/rules/{Path(alert.file).stem}_test.yml"
    assert firing, f"no test shows it firing: add one to {file}"
    for shown in firing:
        silent = [check.at for check in mine if check.test == shown.test and not _fires(alert, check.firing)]
        if any(at < shown.at for at in silent) and any(at > shown.at for at in silent):
            return
    pytest.fail(f"no test shows it silent both before and after: add that to {file}")


def _fires(alert: Alert, firing: tuple[object, ...]) -> bool:
    return any(isinstance(labels, dict) and alert.labels.items() <= labels.items() for labels in firing)


@EACH
def test_every_alert_has_a_case_that_swings(alert: Alert) -> None:
    """Its cause comes and goes, and `test_swings.py` shows that it does not flap."""
    cases = {case.cluster for case in CASES}
    assert (str(alert) in LASTING) != (str(alert) in cases), (
        f"add a Case for {alert} to tests/rules/swing_cases.py, or, if nothing of it can swing, to LASTING there"
    )


def test_every_case_that_swings_is_of_an_alert() -> None:
    """A case of an alert that is gone is removed too."""
    gone = {case.alert for case in CASES} - {alert.name for alert in alerts()}
    assert not gone, f"remove from tests/rules/swing_cases.py: {', '.join(gone)}"


def test_every_threshold_is_in_the_test_that_misses_them() -> None:
    """`limits_test.yml` loads all of them by hand, as its subject is that one is missing."""
    shipped, loaded = (
        set(re.findall(r"celery:\w+:limit", _lines(path)))
        for path in (ALERTS / "rules" / "thresholds.yml", Path(__file__).with_name("limits_test.yml"))
    )
    assert loaded == shipped, (
        f"tests/rules/limits_test.yml lacks {sorted(shipped - loaded)} and has {sorted(loaded - shipped)} too many"
    )


def _lines(path: Path) -> str:
    """Return the text of a file without its comments."""
    return re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE)


def test_every_rule_file_is_one_subject() -> None:
    """Alerts live in the file of their area; the shared files have none."""
    with_alerts = {alert.file for alert in alerts()}
    assert {path.name for path in RULES} - with_alerts == {"thresholds.yml", "recording.yml", "effective.yml"}
