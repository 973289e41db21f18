"""An hour of a healthy shop: the demo as people start it, with its light and its busy load side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.demo.running import Demo, started

from celerymeter.demo.processes import wait_until
from celerymeter.prometheus import PrometheusClient, PrometheusSettings

MINUTES = float(os.environ.get("CELERYMETER_HEALTHY_MINUTES", "60"))
"""Minutes for which the demos run; fewer for a quick check."""
LOADS = ("light", "busy")
LIVED = "(time() - min(process_start_time_seconds{job='prometheus'})) / 60"

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(60 * MINUTES + 600)]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Demo]]:
    """One demo a load, once the younger has run that long."""
    folders: dict[str, Path] = {load: tmp_path_factory.mktemp(load) for load in LOADS}
    with ThreadPoolExecutor(len(LOADS)) as pool:
        running = {load: pool.submit(started, folder, "--load", load) for load, folder in folders.items()}
    try:
        demos = {load: demo.result() for load, demo in running.items()}
        wait_until(
            lambda: all(lived(demo) >= MINUTES for demo in demos.values()), timeout=60 * MINUTES + 300, interval=5
        )
        yield demos
    finally:
        for demo in running.values():
            if demo.exception() is None:
                demo.result().process.stop(timeout=60)


def lived(demo: Demo) -> float:
    """For how many minutes its Prometheus has watched; raises when the demo has ended."""
    assert demo.process.running, demo.process.tail()
    with PrometheusClient(PrometheusSettings(demo.env["PROMETHEUS_URL"])) as prometheus:
        return prometheus.instant(LIVED).value() or 0.0


@pytest.mark.parametrize("load", LOADS)
def test_nothing_but_the_watchdog_fires(demos: dict[str, Demo], load: str) -> None:
    """Tasks fail, are retried and wait now and then, and nobody is notified; what was pending is printed."""
    with PrometheusClient(PrometheusSettings(demos[load].env["PROMETHEUS_URL"])) as prometheus:
        seen = prometheus.instant(f"count_over_time(ALERTS[{round(60 * MINUTES + 600)}s])")
        succeeded = prometheus.instant("sum(celery_task_succeeded_total)").value()
    for sample in seen:
        print(f"{load}: {sample.value:.0f} evaluations of {dict(sorted(sample.labels.items()))}")
    fired = {sample.label("alertname") for sample in seen if sample.label("alertstate") == "firing"}
    assert fired == {"Watchdog"}
    assert succeeded, "a shop where nothing happens is not healthy"
