"""A thousand tasks of known outcomes on a real cluster are reported as a thousand, whatever happens to an exporter."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from celery import Celery
from tests.apps.worker_app import make_app
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus, Redis
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope
from celerymeter.reports.counting import WindowCounter
from celerymeter.reports.report import Report
from celerymeter.reports.request import ReportRequest, Window
from celerymeter.reports.service import ReportService

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


SEVERAL_SCRAPES = 5.0
"""Seconds."""


@dataclass(frozen=True)
class Afternoon:
    """The Prometheus that is left of it, and its times."""

    prometheus: str
    instances: tuple[str, str]
    window: Window
    restarted: float
    """Between the last scrape of the first exporter's first life and the first one of its second."""
    blind: float
    """For so many seconds there was no Prometheus."""

    def client(self) -> PrometheusClient:
        """A client of its Prometheus."""
        return PrometheusClient(PrometheusSettings(self.prometheus))

    def report(self, selector: str = "", *, since: float | None = None) -> Report:
        """The report of the exporters that the selector leaves; ``since`` is another start."""
        window = self.window if since is None else Window(since, self.window.end)
        with self.client() as client:
            return ReportService(client, Scope(selector=selector)).report(ReportRequest(window))


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


def ended(exporter: ExporterProcess) -> float:
    """Ended tasks on an exporter's page."""
    page = exporter.scrape()
    return page.sum("celery_task_succeeded_total") + page.sum("celery_task_failed_total")


def newest_start(client: PrometheusClient) -> float:
    """Return the start of the youngest exporter that was scraped."""
    return client.instant("max(celerymeter_start_time_seconds)").value() or 0.0


@pytest.fixture(scope="module")
def afternoon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Afternoon]:
    """Two exporters on one broker: the first is killed and started anew in the middle, Prometheus while tasks run."""
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
        wait_until(lambda: scraped(client) == [500, 500], interval=0.3, what="the first half, scraped")
        pair[0].kill()
        killed = time.time()
        pair[0].up()
        wait_until(lambda: newest_start(client) > killed, interval=0.3, what="a scrape of the new one")
        second_half(app)
        prometheus.kill()
        away = time.time()
        wait_until(lambda: [ended(one) for one in pair] == [500, 1000], interval=0.3, what="all have ended")
        wait_until(lambda: time.time() > away + SEVERAL_SCRAPES, what="scrapes that Prometheus missed")
        blind = time.time() - away
        prometheus.up()
        wait_until(lambda: scraped(client) == [500, 1000], interval=0.3, what="the second half, scraped")
        app.close()
        yield Afternoon(
            prometheus.url,
            (f"127.0.0.1:{pair[0].port}", f"127.0.0.1:{pair[1].port}"),
            Window(begins, time.time()),
            restarted=killed,
            blind=blind,
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


@pytest.mark.parametrize("number", [None, 0, 1])
def test_a_restart_at_the_edge_counts_the_second_half(afternoon: Afternoon, number: int | None) -> None:
    """The exporter was new between the last scrape before the window and the first one in it; also beside another."""
    selector = "" if number is None else f'instance="{afternoon.instances[number]}"'
    report = afternoon.report(selector, since=afternoon.restarted)
    assert (report.total_tasks, report.successful_tasks, report.failed_tasks) == (500, 450, 50)
    assert {row.queue_name: row.ends.total for row in report.queues} == {"fast": 250, "slow": 250}


def test_a_window_between_scrapes_is_what_was_scraped_in_it(afternoon: Afternoon) -> None:
    """Wherever between two scrapes it starts or ends, as the raw samples say; the report explains it."""
    selector = f'instance="{afternoon.instances[1]}"'
    begin, end = afternoon.window.start, afternoon.window.end
    with afternoon.client() as client:
        scrapes = raw_scrapes(client, selector, begin, end)
        between = [(earlier + later) / 2 for earlier, later in pairwise(sorted(scrapes))]
        assert len(between) >= 2
        for start, over in [*((at, between[-1]) for at in between[:-1]), *((begin, at) for at in between)]:
            counts = WindowCounter(client, Scope(selector=selector)).count(start=start, end=over).counts
            base, last = (max((at for at in scrapes if at <= edge), default=begin) for edge in (start, over))
            expected = None if base == last else scrapes[last] - scrapes.get(base, 0)
            assert (None if counts is None else counts.ended) == expected
    assert afternoon.report().time_range.meaning.startswith("what Prometheus scraped after start")


def raw_scrapes(client: PrometheusClient, selector: str, start: float, end: float) -> dict[float, float]:
    """Ends by scrape, added up from raw samples."""
    scrapes: dict[float, float] = {}
    for name in ("celery_task_succeeded_total", "celery_task_failed_total", "celerymeter_start_time_seconds"):
        for series in client.samples(f"{name}{{{selector}}}[{math.ceil(end - start)}s]", time=end):
            for point in series.points:
                scrapes[point.at] = scrapes.get(point.at, 0) + (point.value if name.endswith("_total") else 0)
    return scrapes


def test_prometheus_killed_in_the_window_costs_no_task(afternoon: Afternoon) -> None:
    """Tasks that ended meanwhile are counted at the next scrape; the gap is measured, and the verdict says so."""
    quality = afternoon.report(f'instance="{afternoon.instances[1]}"').data_quality
    assert quality.verdict == "limited"
    assert quality.longest_gap_seconds is not None
    assert quality.longest_gap_seconds >= afternoon.blind
    assert (quality.scrapes_present_percent or 0) < 100


def test_the_command_says_the_same(afternoon: Afternoon, tmp_path: Path) -> None:
    """And writes a page."""
    window = ("--from", "-10m", "--to", "now")
    argv = [sys.executable, "-m", "celerymeter", "report", "--prometheus-url", afternoon.prometheus, *window]
    result = subprocess.run(argv, check=True, capture_output=True, timeout=60)
    found = json.loads(result.stdout)
    assert (found["total_tasks"], found["settled"]) == (1000, False)
    page = tmp_path / "report.html"
    subprocess.run([*argv, "--format", "html", "--out", str(page)], check=True, timeout=60)
    assert "tests.fail" in page.read_text()


def test_short_tasks_are_in_the_busy_figures(tmp_path: Path) -> None:
    """Three slots run 90 tasks of 0.1 s and one of 3 s, all of which a gauge that is read now and then misses."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(tmp_path / "redis")).up()
        exporter = stack.enter_context(ExporterProcess(tmp_path, redis.url)).up()
        config = tmp_path / "prometheus.yml"
        config.write_text(CONFIG.format(first=exporter.port, second=exporter.port))
        prometheus = stack.enter_context(Prometheus(tmp_path / "prometheus", config=config)).up()
        stack.enter_context(start_worker(redis.url, tmp_path, concurrency=3))
        client = stack.enter_context(PrometheusClient(PrometheusSettings(prometheus.url)))
        app = make_app(redis.url)
        wait_until(lambda: client.instant("celery_worker_pool_size").value() == 3, what="a scrape of the worker")
        begins = time.time()
        for _ in range(90):
            app.send_task("tests.sleep", (0.1,))
        app.send_task("tests.fail")
        app.send_task("tests.sleep", (3,))
        wait_until(lambda: scraped(client) == [92], interval=0.3, what="all ends, scraped")
        wait_until(lambda: time.time() > begins + 40, what="a window with several points")
        app.close()
        report = ReportService(client, Scope()).report(ReportRequest(Window(begins, time.time())))
        measured = client.instant('sum(celery_task_runtime_seconds_sum{name="tests.sleep"})').value() or 0.0
    seconds = {row.name: row.execution_seconds for row in report.tasks}
    assert measured > 90 * 0.1 + 3  # on a busy machine by much
    assert seconds["tests.sleep"] == pytest.approx(measured, rel=0.15)
    expected = 100 * sum(seconds.values()) / (3 * report.time_range.seconds)
    assert report.avg_busy_percent == pytest.approx(expected, rel=0.15)
    assert [row.avg_busy_percent for row in report.workers] == [report.avg_busy_percent]


RULES = """
groups:
  - name: stand-ins that fire at once
    interval: 1s
    rules:
      - alert: CeleryTasksExpired
        expr: sum by (cluster, name) (celery_task_revoked_total{reason="expired"}) > 0
        labels: {severity: warning}
      - alert: CeleryTaskRanTwice
        expr: sum by (cluster, name) (celery_task_redelivered_total) > 0
        labels: {severity: critical}
"""


def test_expired_and_redelivered_runs_and_when_their_alerts_fired(tmp_path: Path) -> None:
    """Three messages expire behind a run of 3 s; then one that outlasts the visibility timeout is run twice."""
    rules, config = tmp_path / "rules.yml", tmp_path / "prometheus.yml"
    rules.write_text(RULES)
    sweep = {"visibility_timeout": 2, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(tmp_path / "redis")).up()
        exporter = stack.enter_context(ExporterProcess(tmp_path, redis.url)).up()
        config.write_text(f"rule_files: [{rules}]{CONFIG.format(first=exporter.port, second=exporter.port)}")
        prometheus = stack.enter_context(Prometheus(tmp_path / "prometheus", config=config)).up()
        client = stack.enter_context(PrometheusClient(PrometheusSettings(prometheus.url)))
        app = make_app(redis.url)
        stack.callback(app.close)
        begins = time.time()

        def fires(alert: str) -> float:
            wait_until(lambda: client.instant(f'ALERTS{{alertname="{alert}"}}'), interval=0.3, what=alert)
            return time.time()

        with start_worker(redis.url, tmp_path):
            app.send_task("tests.sleep", (3,))
            for _ in range(3):
                app.send_task("tests.add", (1, 2), expires=1)
            expired = fires("CeleryTasksExpired")
            wait_until(lambda: exporter.scrape().sum("celery_task_revoked_total") == 3, what="all expired")
        for hostname in ("w2@test", "w3@test"):
            stack.enter_context(start_worker(redis.url, tmp_path, hostname=hostname, transport_options=sweep))
        app.send_task("tests.sleep_late", (8,))
        redelivered = fires("CeleryTaskRanTwice")
        service = ReportService(client, Scope())

        def reported() -> Report:
            return service.report(ReportRequest(Window(begins, time.time())))

        wait_until(lambda: len(reported().alerts) == 2, interval=2, what="a point of the chart with both")
        report = reported()
    assert report.expired_tasks == 3
    assert (report.redelivered_runs or 0) >= 1
    ends = {row.name: row.ends for row in report.tasks}
    assert (ends["tests.add"].expired, ends["tests.sleep_late"].redelivered) == (3, report.redelivered_runs)
    assert [(row.alert, row.severity, row.subject, row.times) for row in report.alerts] == [
        ("CeleryTaskRanTwice", "critical", "tests.sleep_late", 1),
        ("CeleryTasksExpired", "warning", "tests.add", 1),
    ]
    for row, fired in zip(report.alerts, (redelivered, expired), strict=True):
        [span] = row.spans
        assert span.start.timestamp() == pytest.approx(fired, abs=20)
        assert span.end is None
