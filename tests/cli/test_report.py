"""``celerymeter report``: its error messages and its exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tests.engines import start_engine
from tests.reports.test_counting import NOON, canned

from celerymeter.cli import main

AWAY = ["--prometheus-url", "http://127.0.0.1:1"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with several clusters."""
    server, url = start_engine("prometheus", Path(tmp_path_factory.mktemp("engine")) / "data", canned().series())
    with server:
        yield url


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--prometheus-url"),
        ([*AWAY, "--from", "now", "--to", "-1h"], "--to must be later than --from"),
        ([*AWAY, "--from", "2999-01-01T00:00:00Z", "--to", "2999-01-02T00:00:00Z"], "future"),
        ([*AWAY, "--from", "-2000d"], "366 days"),
        ([*AWAY, "--from", "yesterday"], "--from: use an ISO 8601 time"),
        ([*AWAY, "--selector", "{}"], "selector"),
    ],
)
def test_an_impossible_request_is_refused(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 2, and Prometheus is not queried."""
    assert main(["report", *options]) == 2
    assert words in capsys.readouterr().err


def test_without_prometheus_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1; one line names the URL without its password."""
    assert main(["report", "--prometheus-url", "http://ann:hush@127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert said == "celerymeter: Prometheus cannot be reached; check --prometheus-url http://ann:***@127.0.0.1:1\n"


@pytest.mark.integration
def test_a_cluster_must_be_chosen_among_several(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The clusters are listed; their numbers are never added."""
    window = ["--from", f"{_iso(NOON)}", "--to", f"{_iso(NOON + 300)}"]
    assert main(["report", "--prometheus-url", prometheus, *window]) == 2
    assert "restart, steady, two" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize(("cluster", "status"), [("steady", 0), ("blind", 1)])
def test_the_exit_status_is_1_without_counts(prometheus: str, tmp_path: Path, cluster: str, status: int) -> None:
    """The report is written in both cases."""
    out = tmp_path / "report.md"
    window = ["--from", f"{_iso(NOON)}", "--to", f"{_iso(NOON + 300)}"]
    options = ["--prometheus-url", prometheus, "--cluster", cluster, "--format", "md", "--out", str(out), "--wait"]
    assert main(["report", *window, *options]) == status
    assert ("| Ended | 30 " in out.read_text()) == (status == 0)


@pytest.mark.integration
def test_a_window_beyond_retention_says_so(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1; the report has no numbers, but the reason."""
    window = ["--from", "2001-01-01T00:00:00Z", "--to", "2001-01-02T00:00:00Z", "--cluster", "steady"]
    assert main(["report", "--prometheus-url", prometheus, *window, "--format", "md"]) == 1
    report = capsys.readouterr().out
    assert "| Ended | - " in report
    assert "older than the retention" in report


@pytest.mark.integration
def test_a_time_without_zone_is_this_machines(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The report names the time zone."""
    begins = datetime.fromtimestamp(NOON)
    window = ["--from", begins.isoformat(), "--to", (begins + timedelta(minutes=5)).isoformat(), "--cluster", "steady"]
    assert main(["report", "--prometheus-url", prometheus, *window]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["total_tasks"] == 30
    assert report["time_range"]["assumed_zone"]


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat()
