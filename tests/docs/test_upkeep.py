"""The pages' commands for an upgrade and a backup keep what the reader has."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from tests.control.access import bearer
from tests.control.serving import Control
from tests.docs.commands import run, scripts
from tools.docs.markdown import READMES, ROOT

from celerymeter.cli import main
from celerymeter.control.tokens import Role

pytestmark = pytest.mark.integration
CONTROL = ROOT / "exporter" / "celerymeter" / "control" / "README.md"


def test_an_upgrade_keeps_what_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The channel, a threshold and a file of one's own stay; a file that only the old version had is gone."""
    commands = list(scripts(READMES[0]))
    before = next(at for at, each in enumerate(commands) if each.startswith("celerymeter bundle export shipped"))
    save, _, apply = commands[before : before + 3]
    assert main(["bundle", "export", str(tmp_path / "monitoring")]) == 0
    rules = tmp_path / "monitoring" / "alerts" / "rules"
    alertmanager, thresholds = rules.parent / "alertmanager.yml", rules / "thresholds.yml"
    alertmanager.write_text(alertmanager.read_text().replace("#celery-alerts", "#mine"))
    thresholds.write_text(thresholds.read_text().replace("expr: 1800", "expr: 600"))
    (rules / "own.yml").write_text("groups: []\n")
    mine = {path: path.read_text() for path in (alertmanager, thresholds, rules / "own.yml")}
    assert main(["bundle", "export", str(tmp_path / "monitoring")]) == 1
    assert "files exist and differ" in capsys.readouterr().err

    run(save, folder=tmp_path, addresses={})
    (rules / "old.yml").write_text("groups: []\n")
    run(apply, folder=tmp_path, addresses={})
    assert {path: path.read_text() for path in mine} == mine
    assert not (rules / "old.yml").exists()


def test_a_backup_of_a_running_api_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has the newest row, its chain is proven, and an API starts with it."""
    (copy,) = (script for script in scripts(CONTROL) if "backup" in script)
    with Control(tmp_path) as control:
        control.up()
        body, headers = {"reason": "the newest"}, bearer(Role.OPERATOR)
        requests.post(f"{control.url}/monitoring/start", json=body, headers=headers, timeout=60)
        run(copy, folder=tmp_path, addresses={})
        capsys.readouterr()
    assert main(["audit", "verify", "--state-dir", str(tmp_path / "backup")]) == 0
    assert "findings: 0" in capsys.readouterr().out
    assert main(["audit", "show", "--state-dir", str(tmp_path / "backup")]) == 0
    assert "the newest" in capsys.readouterr().out
    restored = tmp_path / "restored"
    restored.mkdir()
    (tmp_path / "backup").rename(restored / "state")
    with Control(restored) as control:
        control.up()
        assert "the newest" in control.get("/audit").text
