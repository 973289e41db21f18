"""Healthy sites do it all the time: restart Prometheus while an alert fires, and replace workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.integration.alerts.monitored import QUICK, Cluster, MonitoredClusters

from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

NO_WORKERS = ("empty", "CeleryNoWorkers")
UNDISTURBED = 14.0
"""Seconds: longer than any ``for`` at this pace, and than Alertmanager remembers a silent Prometheus."""


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoredClusters]:
    """A cluster without workers, where messages will wait, and one with two."""
    shop = (
        lambda cluster: cluster.worker("old-1@shop", "celery"),
        lambda cluster: cluster.worker("old-2@shop", "celery"),
    )
    folder = tmp_path_factory.mktemp("restarts")
    with MonitoredClusters(
        folder, {"empty": (), "shop": shop}, pace=replace(QUICK, factor=20), overrides=[]
    ) as monitored:
        yield monitored


def wait(seconds: float) -> None:
    """Let time pass in which nothing may happen."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, timeout=seconds + 60)


def test_an_alert_fires_on_through_a_restart_of_prometheus(monitored: MonitoredClusters) -> None:
    """It is neither resolved nor sent anew, and the restart itself brings no alert."""
    monitored.clusters["empty"].send("tests.add", 1, 2)  # without a message nobody waits for a worker
    wait_until(lambda: monitored.heard("firing", *NO_WORKERS))
    monitored.prometheus.stop()
    monitored.prometheus.up()
    wait_until(lambda: NO_WORKERS in monitored.firing())
    wait(UNDISTURBED)
    assert monitored.heard("resolved", *NO_WORKERS) == []
    assert len(monitored.heard("firing", *NO_WORKERS)) == 1
    assert monitored.notified() == {NO_WORKERS}


def test_a_deploy_that_replaces_every_worker_pages_nobody(monitored: MonitoredClusters) -> None:
    """New workers under new names come, every old one finishes its task and goes; work is sent all the while."""
    shop = monitored.clusters["shop"]
    shop.send("tests.sleep", 1, count=4)
    for name in ("new-1@shop", "new-2@shop"):
        shop.worker(name, "celery")
        shop.send("tests.add", 1, 2, count=5)
    for name in ("old-1@shop", "old-2@shop"):
        assert shop.workers[name].stop(timeout=60) == 0, "it ended its tasks and then itself"
        shop.send("tests.add", 1, 2, count=5)
    wait_until(lambda: gone(monitored) == 2, what="both old workers are seen to be gone")
    wait_until(lambda: ended(shop) == 24, what="every task has run")
    wait(UNDISTURBED)
    assert monitored.value('count(celery_worker_up{cluster="shop"} == 1)') == 2
    assert {alert for cluster, alert in monitored.notified() | monitored.firing() if cluster == "shop"} == set()


def gone(monitored: MonitoredClusters) -> float | None:
    """Return how many workers of the shop Prometheus knows to be down."""
    return monitored.value('count(celery:worker_up:max{cluster="shop"} == 0)')


def ended(cluster: Cluster) -> float:
    """Runs that have succeeded."""
    return cluster.exporter.scrape().sum("celery_task_succeeded_total")
