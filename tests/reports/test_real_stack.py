"""A thousand tasks of known outcomes on a real cluster are reported as a thousand, whatever happens to an exporter."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery
from tests.apps.worker_app import make_app
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus, Redis
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.reports.performance import Performance, Question
from celerymeter.reports.report import Report
from celerymeter.reports.window import Window

pytestmark = pytest.mark.integration

CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: celerymeter
    static_configs: [{{targets: ["127.0.0.1:{first}", "127.0.0.1:{second}"], labels: {{cluster: test}}}}]
"""
ENDED = (
    'sum by (instance) ({__name__=~"celery_task_(succeeded|failed|rejected|revoked)_total", requeue!="true"})'
    " and on (instance) (time() - timestamp(celerymeter_start_time_seconds) < 3)"
)


@dataclass(frozen=True)
class Afternoon:
    """What is left of it: Prometheus, and when it was."""

    prometheus: str
    instances: tuple[str, str]
    window: Window

    def report(self, selector: str = "") -> Report:
        """The report of the exporters that the selector leaves."""
        with PrometheusClient(PrometheusSettings(self.prometheus)) as client:
            return Performance(client, Scope(selector=selector)).report(Question(self.window))


def first_half(app: Celery) -> None:
    """500 ends: 400 successes (50 of them after two retries each), 100 failures."""
    for number in range(350):
        app.send_task("tests.add", (number, 1), queue="fast")
    for _ in range(50):
        app.send_task("tests.retry", (2,), queue="fast")
    for _ in range(100):
        app.send_task("tests.fail", queue="slow")


def second_half(app: Celery) -> None:
    """500 ends: a pair that is new in the window (200), 250 successes, 50 failures."""
    for number in range(200):
        app.send_task("tests.add", (number, 1), queue="slow")
    for number in range(250):
        app.send_task("tests.add", (number, 1), queue="fast")
    for _ in range(50):
        app.send_task("tests.fail", queue="slow")


def scraped(client: PrometheusClient) -> list[float]:
    """Ends by exporter, as Prometheus has them now, the least first."""
    return sorted(sample.value for sample in client.instant(ENDED))


def newest_start(client: PrometheusClient) -> float:
    """When the youngest exporter that was scraped started."""
    return client.instant("max(celerymeter_start_time_seconds)").value() or 0.0


@pytest.fixture(scope="module")
def afternoon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Afternoon]:
    """Two exporters on one broker; the first is killed and started anew in the middle."""
    folder = tmp_path_factory.mktemp("afternoon")
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(folder / "redis")).up()
        pair = [stack.enter_context(ExporterProcess(folder, redis.url, name=name)).up() for name in ("first", "second")]
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(first=pair[0].port, second=pair[1].port))
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", config=config)).up()
        stack.enter_context(start_worker(redis.url, folder, concurrency=3, queues=("fast", "slow")))
        client = stack.enter_context(PrometheusClient(PrometheusSettings(prometheus.url)))
        app = make_app(redis.url)
        wait_until(lambda: len(client.instant("celerymeter_start_time_seconds")) == 2, what="scrapes of both")
        begins = time.time()
        first_half(app)
        wait_until(lambda: scraped(client) == [500, 500], timeout=60, interval=0.3, what="the first half, scraped")
        pair[0].kill()
        killed = time.time()
        pair[0].up()
        wait_until(lambda: newest_start(client) > killed, timeout=30, interval=0.3, what="a scrape of the new one")
        second_half(app)
        wait_until(lambda: scraped(client) == [500, 1000], timeout=60, interval=0.3, what="the second half, scraped")
        app.close()
        yield Afternoon(
            prometheus.url,
            (f"127.0.0.1:{pair[0].port}", f"127.0.0.1:{pair[1].port}"),
            Window(begins, time.time()),
        )


def assert_exact(report: Report) -> None:
    """1,000 ends, by outcome, task and queue."""
    assert (report.total_tasks, report.successful_tasks, report.failed_tasks) == (1000, 850, 150)
    assert (report.retried_tasks, report.revoked_tasks, report.rejected_tasks) == (100, 0, 0)
    assert {row.name: row.ends.total for row in report.tasks} == {
        "tests.add": 800,
        "tests.fail": 150,
        "tests.retry": 50,
    }
    assert {row.queue_name: (row.ends.total, row.ends.failed) for row in report.queues} == {
        "fast": (650, 0),
        "slow": (350, 150),
    }


def test_two_exporters_are_counted_once(afternoon: Afternoon) -> None:
    """Also while one of them was away."""
    report = afternoon.report()
    assert_exact(report)
    assert (report.data_quality.exporters, report.data_quality.exporter_restarts) == (2, 1)


@pytest.mark.parametrize("number", [0, 1])
def test_one_exporter_alone_counts_the_same(afternoon: Afternoon, number: int) -> None:
    """The one that was killed in the middle, and the one that was not."""
    report = afternoon.report(f'instance="{afternoon.instances[number]}"')
    assert_exact(report)
    assert report.data_quality.exporter_restarts == 1 - number


def test_the_command_says_the_same(afternoon: Afternoon, tmp_path: Path) -> None:
    """And writes a page."""
    window = ("--from", "-10m", "--to", "now")
    argv = [sys.executable, "-m", "celerymeter", "report", "--prometheus-url", afternoon.prometheus, *window]
    told = subprocess.run(argv, check=True, capture_output=True, timeout=60)
    found = json.loads(told.stdout)
    assert (found["total_tasks"], found["settled"]) == (1000, False)
    page = tmp_path / "report.html"
    subprocess.run([*argv, "--format", "html", "--out", str(page)], check=True, timeout=60)
    assert "tests.fail" in page.read_text()
