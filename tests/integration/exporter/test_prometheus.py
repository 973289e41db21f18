"""A real Prometheus scrapes the exporter, and PromQL sees what happened."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from celery import Celery
from tests import engines
from tests.integration.exporter.conftest import StartExporter, StartWorker
from tests.scrape import ExporterProcess

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus

pytestmark = pytest.mark.integration

COUNTERS = (
    *(f"celery_task_{step}_total" for step in ("sent", "received", "started", "succeeded", "failed", "accepted")),
    "celery_worker_tasks_processed_total",
    "celerymeter_events_missed_total",
)
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: celerymeter
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture(params=["prometheus", "prometheus-newer"])
def binary(request: pytest.FixtureRequest) -> str:
    """Return the path of a Prometheus of each generation."""
    return engines.binary(request.param, "prometheus")


def start(binary: str, exporter: ExporterProcess, folder: Path, stack: ExitStack) -> Prometheus:
    """A Prometheus that scrapes the exporter every second."""
    folder.mkdir()
    (folder / "prometheus.yml").write_text(CONFIG.format(port=exporter.port))
    server = Prometheus(folder, config=folder / "prometheus.yml")
    server.argv = (binary, *server.argv[1:])
    stack.callback(server.kill)
    return server.up()


def query(server: Prometheus, expr: str) -> float | None:
    """The value of an expression that has at most one series."""
    answer = requests.get(f"{server.url}/api/v1/query", params={"query": expr}, timeout=30).json()
    result = answer["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def test_prometheus_sees_first_failures_and_no_phantoms(
    binary: str,
    producer: Celery,
    new_worker: StartWorker,
    new_exporter: StartExporter,
    tmp_path: Path,
    stack: ExitStack,
) -> None:
    """The first failure of a task that was seen waiting is an increase; a restart of the exporter is none."""
    exporter = new_exporter()
    server = start(binary, exporter, tmp_path / "prometheus", stack)
    wait_until(lambda: query(server, "up") == 1)
    producer.send_task("tests.fail", countdown=4)
    new_worker("w1@test", concurrency=2)
    wait_until(lambda: (query(server, "increase(celery_task_failed_total[1m])") or 0) > 0.5)
    assert query(server, "sum(celery_task_failed_total)") == 1
    for _ in range(200):
        producer.send_task("tests.add", (1, 2))
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 200)
    exporter.stop()
    exporter.up()
    restarted = time.time()
    wait_until(lambda: query(server, f"count_over_time(up[{max(1, int(time.time() - restarted))}s:1s]) > 4"))
    window = int(time.time() - restarted) + 1
    for name in COUNTERS:
        assert not query(server, f"sum(increase({name}[{window}s]))"), name
    scrapes = query(server, "scrape_samples_scraped")
    assert scrapes is not None
    assert scrapes > 50
