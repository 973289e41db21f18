"""``celerymeter exporter --compat celery-exporter`` with a real worker, scraped by a real Prometheus."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.apps.worker_app import make_app
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.cli import group
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus, Redis, find_binary
from celerymeter.prometheus import PrometheusClient, PrometheusSettings

JOB = 'job="celery-exporter"'
EXPECTED = {
    f"sum by (name) (celery_task_failed_total{{{JOB}}}) > 0": {"tests.fail": 3.0},
    f"sum by (name) (celery_task_runtime_count{{{JOB}}}) > 0": {"tests.add": 5.0},
    f"sum by (name) (celery_task_queue_wait_time_count{{{JOB}}}) > 0": {"tests.add": 5.0, "tests.fail": 3.0},
    f'celery_active_worker_count{{{JOB}, queue_name="celery"}}': {"": 1.0},
    f'celery_active_process_count{{{JOB}, queue_name="celery"}}': {"": 2.0},
    f"count(celery_worker_up{{{JOB}}} == 1)": {"": 1.0},
}


@pytest.mark.integration
def test_their_queries_count_a_real_workload(redis_server: Redis, tmp_path: Path) -> None:
    """Five runs that succeed and three that fail, on one worker with two processes."""
    find_binary("prometheus")
    exporter = ExporterProcess(tmp_path, redis_server.url, options=("--compat", "celery-exporter"))
    config = tmp_path / "prometheus.yml"
    often = "scrape_interval: 500ms, scrape_timeout: 500ms"
    target = f"static_configs: [{{targets: ['127.0.0.1:{exporter.port}']}}]"
    config.write_text(f"scrape_configs: [{{job_name: celery-exporter, {often}, {target}}}]")
    app = make_app(redis_server.url)
    with (
        exporter.up(),
        start_worker(redis_server.url, tmp_path, concurrency=2),
        Prometheus(tmp_path / "prometheus", config=config) as prometheus,
        PrometheusClient(PrometheusSettings(prometheus.up().url)) as client,
    ):
        for name, args, count in (("tests.add", (1, 2), 5), ("tests.fail", (), 3)):
            for _ in range(count):
                app.send_task(name, args)
        app.close()
        for query, expected in EXPECTED.items():
            with suppress(TimeoutError):
                wait_until(lambda: _by_name(client, query) == expected)
            assert _by_name(client, query) == expected, query


def _by_name(client: PrometheusClient, query: str) -> dict[str, float]:
    return {sample.label("name"): sample.value for sample in client.instant(query)}


def test_another_exporter_s_name_is_refused() -> None:
    """In one line that names what there is."""
    result = CliRunner().invoke(group, ["exporter", "--broker-url", "redis://h", "--compat", "flower"])
    assert result.exit_code == 2
    assert "celery-exporter" in result.output
