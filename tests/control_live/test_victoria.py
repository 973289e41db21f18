"""The live metrics over VictoriaMetrics, which by itself keeps the newest half minute back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.control.serving import Control
from tests.control_live.live_api import Page, served

from celerymeter.demo.processes import Process, free_port, wait_until
from celerymeter.demo.servers import answers, find_binary

pytestmark = pytest.mark.integration


def victoria(folder: Path, port: int, scraped: int) -> Process:
    """VictoriaMetrics that scrapes a page every second, up."""
    binary = find_binary("victoria-metrics")
    config = folder / "scrape.yml"
    targets = f"[{{targets: ['127.0.0.1:{scraped}']}}]"
    config.write_text(f"scrape_configs: [{{job_name: celery, scrape_interval: 1s, static_configs: {targets}}}]\n")
    flags = [f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}/data", f"-promscrape.config={config}"]
    server = Process("victoria-metrics", [binary, *flags], log=folder / "victoria.log")
    return server.start(ready=lambda: answers(f"http://127.0.0.1:{port}/health"))


def metrics(control: Control) -> dict[str, Any]:
    """The metrics object, or a problem."""
    found: dict[str, Any] = control.get("/monitoring/metrics/realtime").json()
    return found


@pytest.mark.slow
def test_metrics_are_as_fresh_as_the_scrapes(tmp_path: Path) -> None:
    """A change is seen within seconds, and counted to the task."""
    page, port = Page(), free_port()
    control = Control(tmp_path, ["--prometheus-url", f"http://127.0.0.1:{port}"])
    with served(page) as scraped, victoria(tmp_path, port, scraped), control:
        control.up()
        wait_until(lambda: metrics(control).get("active_workers") == 1)
        page.queues, page.succeeded, page.failed = {"celery": 5}, 42, 8
        wait_until(lambda: metrics(control).get("pending_tasks") == 5, timeout=8)
        found = metrics(control)
    assert (found["finished_in_window"], found["error_rate_percent"]) == (50, 16.0)
    assert found["data_age_seconds"] < 5
