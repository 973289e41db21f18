"""``celerymeter bundle export``: rules and dashboards in a folder, without overwriting edits."""

from __future__ import annotations

from pathlib import Path

from .conftest import Run


def test_rules_and_dashboards_are_exported(run: Run, tmp_path: Path) -> None:
    """They are those of the repository; a second export changes nothing."""
    target = tmp_path / "monitoring"
    outcome = run("bundle", "export", target)
    assert outcome.status == 0, outcome.err
    assert list(target.glob("alerts/rules/*.yml"))
    assert list(target.glob("grafana/dashboards/*.json"))
    assert not list(target.rglob(".*"))
    assert "0 of them new or changed" in run("bundle", "export", target).out


def test_what_was_edited_is_kept(run: Run, tmp_path: Path) -> None:
    """One edited file prevents the export; ``--force`` overwrites it."""
    run("bundle", "export", tmp_path)
    edited, other = sorted(tmp_path.glob("alerts/rules/*.yml"))[:2]
    shipped = edited.read_bytes()
    edited.write_text("mine")
    other.unlink()
    outcome = run("bundle", "export", tmp_path)
    assert outcome.status == 1
    assert outcome.err.startswith(f"celerymeter: files exist and differ: {edited}; nothing was written")
    assert (edited.read_text(), other.exists()) == ("mine", False)
    assert "2 of them new or changed" in run("bundle", "export", tmp_path, "--force").out
    assert edited.read_bytes() == shipped


def test_a_folder_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    """A file has the name of the folder."""
    (tmp_path / "alerts").write_text("")
    outcome = run("bundle", "export", tmp_path)
    assert outcome.status == 1
    assert outcome.err.startswith(f"celerymeter: cannot write {tmp_path}/alerts: ")
    assert outcome.err.count("\n") == 1


def test_links_lead_to_the_given_hosts(run: Run, tmp_path: Path) -> None:
    """In the rules and in the Kubernetes manifest; as shipped they name no host."""
    links = ("--grafana-url", "https://grafana.example.org/", "--runbook-url", "https://wiki.example.org/celery")
    assert run("bundle", "export", tmp_path, *links).status == 0
    for path in (tmp_path / "alerts/rules/queues.yml", tmp_path / "alerts/kubernetes/prometheusrule.yaml"):
        text = path.read_text()
        assert "dashboard_url: https://grafana.example.org/d/celerymeter-queues?" in text
        assert "runbook_url: https://wiki.example.org/celery/CeleryQueueBacklog.md" in text
        assert "_url: /d/" not in text
        assert "_url: runbooks/" not in text
    assert "0 of them new or changed" in run("bundle", "export", tmp_path, *links).out


def test_without_hosts_there_are_paths_only(run: Run, tmp_path: Path) -> None:
    """A runbook's path inside the bundle, and a dashboard's inside Grafana."""
    run("bundle", "export", tmp_path)
    text = (tmp_path / "alerts/rules/queues.yml").read_text()
    assert "runbook_url: runbooks/CeleryQueueBacklog.md" in text
    assert "dashboard_url: /d/celerymeter-queues?" in text
