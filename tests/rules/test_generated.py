"""Files that are generated from the rules agree with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml
from tests.rules.bundle import ALERTS, alerts, recordings

from celerymeter.demo.servers import find_binary

MANIFEST = ALERTS / "kubernetes" / "prometheusrule.yaml"


def test_manifest_and_table_are_up_to_date() -> None:
    """`python alerts/generate.py` would change nothing."""
    ran = subprocess.run(
        [sys.executable, ALERTS / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_the_manifest_holds_every_rule_and_promtool_accepts_it(tmp_path: Path) -> None:
    """Its spec is a rule file."""
    resource = yaml.safe_load(MANIFEST.read_text())
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    groups = resource["spec"]["groups"]
    assert sum(len(group["rules"]) for group in groups) == len(alerts()) + len(recordings())
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    ran = subprocess.run(
        [find_binary("promtool"), "check", "rules", str(tmp_path / "rules.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_rule_file_goes_into_the_manifest() -> None:
    """The list in generate.py is complete: a group of every file is there."""
    names = {group["name"] for group in yaml.safe_load(MANIFEST.read_text())["spec"]["groups"]}
    for path in (ALERTS / "rules").glob("*.yml"):
        assert {group["name"] for group in yaml.safe_load(path.read_text())["groups"]} <= names


def test_the_operators_page_lists_every_alert() -> None:
    """README.md has a row for each, which opens its runbook."""
    text = (ALERTS / "README.md").read_text()
    assert all(f"[{alert.name}](runbooks/{alert.name}.md)" in text for alert in alerts())
