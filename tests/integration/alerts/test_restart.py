"""What happens to a healthy site all the time: Prometheus is restarted while an alert fires, workers are replaced."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.integration.alerts.stage import QUICK, Cluster, Stage

from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

NO_WORKERS = ("empty", "CeleryNoWorkers")
PATIENCE = 14.0
"""Seconds: longer than any ``for`` at this pace, and than Alertmanager remembers a silent Prometheus."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A cluster without workers, and one with two."""
    shop = (
        lambda cluster: cluster.worker("old-1@shop", "celery"),
        lambda cluster: cluster.worker("old-2@shop", "celery"),
    )
    folder = tmp_path_factory.mktemp("restarts")
    with Stage(folder, {"empty": (), "shop": shop}, pace=replace(QUICK, factor=20), overrides=[]) as stage:
        yield stage


def wait(seconds: float) -> None:
    """Let time pass in which nothing may happen."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, timeout=seconds + 60)


def test_an_alert_fires_on_through_a_restart_of_prometheus(stage: Stage) -> None:
    """It is neither resolved nor told anew, and the restart itself brings no alert."""
    wait_until(lambda: stage.heard("firing", *NO_WORKERS), timeout=100)
    stage.prometheus.stop()
    stage.prometheus.up()
    wait_until(lambda: NO_WORKERS in stage.firing(), timeout=100)
    wait(PATIENCE)
    assert stage.heard("resolved", *NO_WORKERS) == []
    assert len(stage.heard("firing", *NO_WORKERS)) == 1
    assert stage.told() == {NO_WORKERS}


def test_a_deploy_that_replaces_every_worker_pages_nobody(stage: Stage) -> None:
    """New workers under new names come, every old one finishes its task and goes; work is sent all the while."""
    shop = stage.clusters["shop"]
    shop.send("tests.sleep", 1, count=4)
    for name in ("new-1@shop", "new-2@shop"):
        shop.worker(name, "celery")
        shop.send("tests.add", 1, 2, count=5)
    for name in ("old-1@shop", "old-2@shop"):
        shop.workers[name].stop()
        shop.send("tests.add", 1, 2, count=5)
    wait_until(lambda: gone(stage) == 2, timeout=60, what="both old workers are seen to be gone")
    wait_until(lambda: ended(shop) == 24, timeout=60, what="every task has run")
    wait(PATIENCE)
    assert stage.value('count(celery_worker_up{cluster="shop"} == 1)') == 2
    assert {alert for cluster, alert in stage.told() | stage.firing() if cluster == "shop"} == set()


def gone(stage: Stage) -> float | None:
    """How many workers of the shop Prometheus knows to be down."""
    return stage.value('count(celery:worker_up:max{cluster="shop"} == 0)')


def ended(cluster: Cluster) -> float:
    """Runs that have succeeded."""
    return cluster.exporter.scrape().sum("celery_task_succeeded_total")
