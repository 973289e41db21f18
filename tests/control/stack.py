"""A whole cluster under the control API: broker, worker, exporter, Prometheus, all real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from tests.control.serving import Control
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus, Redis

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
scrape_configs:
  - job_name: celerymeter
    static_configs: [{{targets: ["127.0.0.1:{port}"], labels: {{cluster: test}}}}]
"""


@dataclass(frozen=True)
class Stack:
    """The parts, once all of them answer."""

    redis: Redis
    exporter: ExporterProcess
    prometheus: Prometheus
    control: Control


@contextmanager
def running_stack(folder: Path, options: tuple[str, ...] = ()) -> Iterator[Stack]:
    """Start everything, wait until the control API gives metrics, and stop everything."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(folder / "redis")).up()
        stack.enter_context(start_worker(redis.url, folder))
        exporter = stack.enter_context(ExporterProcess(folder, redis.url)).up()
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(port=exporter.port))
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", config=config)).up()
        urls = ("--broker-url", redis.url, "--prometheus-url", prometheus.url, "--feed-interval", "1s")
        control = stack.enter_context(Control(folder, (*urls, *options))).up()
        wait_until(lambda: gives_metrics(control), interval=0.3, what="metrics of a scraped cluster")
        yield Stack(redis=redis, exporter=exporter, prometheus=prometheus, control=control)


def gives_metrics(control: Control) -> bool:
    """Return whether the metrics object can be read."""
    try:
        return control.get("/monitoring/metrics/realtime").status_code == 200
    except requests.RequestException:
        return False
