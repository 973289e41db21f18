"""Two clusters in one Prometheus, with the same names of queues, tasks and workers: nothing mixes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.control.access import bearer
from tests.control.serving import Control
from tests.scaling.series import alerts, names, query, recorded
from tests.scaling.shipped import QUICK, configured, quick_rules
from tests.scaling.site import Site

from celerymeter.demo.processes import free_port, wait_until
from celerymeter.demo.servers import Prometheus
from celerymeter.errors import AmbiguousCluster
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope, choose_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@dataclass
class Cluster:
    """One of the two; every name in it is a name in the other as well."""

    site: Site
    control: Control

    def live_metrics(self) -> dict[str, Any]:
        """The metrics object, or a problem."""
        return dict(self.control.get("/monitoring/metrics/realtime").json())

    def report(self) -> dict[str, Any]:
        """Of the last ten minutes."""
        url, window = f"{self.control.url}/monitoring/reports/performance", {"start": "-10m", "end": "now"}
        answer = requests.post(url, json=window, headers=bearer(), timeout=60)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@dataclass
class TwoClusters:
    """Both, under one Prometheus."""

    eu: Cluster
    us: Cluster
    prometheus: str


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[TwoClusters]:
    """The shipped configuration; a control API for each cluster."""
    port = free_port()
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        sites = {name: stack.enter_context(Site(tmp_path / name)) for name in ("eu", "us")}
        exporters = dict(zip(sites, pool.map(lambda site: site.exporter("exporter"), sites.values()), strict=True))
        list(pool.map(lambda site: site.worker("w1@test", "fast"), sites.values()))
        controls = {
            name: stack.enter_context(Control(site.folder, options(name, site, port))) for name, site in sites.items()
        }
        list(pool.map(Control.up, controls.values()))
        ours = {f"exporter-{name}:9808": f"127.0.0.1:{one.port}" for name, one in exporters.items()}
        ours |= {f"control-{name}:9809": one.lines[0]["metrics_address"] for name, one in controls.items()}
        config = configured("several-clusters/prometheus.yml", tmp_path, {**QUICK, **ours})
        quick_rules(tmp_path)
        stack.enter_context(Prometheus(tmp_path / "prometheus", config=config, port=port)).up()
        eu, us = (Cluster(sites[name], controls[name]) for name in sites)
        yield TwoClusters(eu, us, f"http://127.0.0.1:{port}")


def options(name: str, site: Site, prometheus: int) -> tuple[str, ...]:
    """Of the control API of a cluster."""
    where = ("--prometheus-url", f"http://127.0.0.1:{prometheus}")
    return ("--broker-url", site.redis.url, *where, "--cluster", name)


def test_nothing_of_one_is_seen_in_the_other(clusters: TwoClusters) -> None:
    """Recorded series, alerts, live metrics, reports; and without a choice nobody is given a mixture."""
    clusters.eu.site.send("tests.add", 1, 2, queue="fast", count=30)
    clusters.eu.site.send("tests.fail", queue="fast", count=25)
    clusters.eu.site.send("tests.add", 1, 2, queue="nobody")
    clusters.us.site.send("tests.add", 1, 2, queue="fast", count=5)
    clusters.us.site.send("tests.add", 1, 2, queue="nobody", count=60)
    shows(clusters.prometheus, "eu", {"runs": {"tests.add": 30, "tests.fail": 25}, "waiting": 1, "workers": 1})
    shows(clusters.prometheus, "us", {"runs": {"tests.add": 5}, "waiting": 60, "workers": 1})
    assert [one["metric"] for one in query(clusters.prometheus, NAMELESS)] == []

    wait_until(lambda: faults(clusters.prometheus, "us") == {"CeleryQueueBacklog"})
    wait_until(lambda: faults(clusters.prometheus, "eu") == {"CeleryHighErrorRate"})

    for cluster, ended, waiting, workers in ((clusters.eu, (55, 25), 1, 1), (clusters.us, (5, 0), 60, 1)):
        wait_until(partial(is_live, cluster, waiting=waiting, workers=workers))
        report = cluster.report()
        assert (report["total_tasks"], report["failed_tasks"]) == ended
    with (
        PrometheusClient(PrometheusSettings(clusters.prometheus)) as client,
        pytest.raises(AmbiguousCluster, match="us"),
    ):
        choose_cluster(client, Scope())


def is_live(cluster: Cluster, *, waiting: int, workers: int) -> bool:
    """Return whether the feed's numbers are those; a queue is absent while a poll of a busy machine fails."""
    live = cluster.live_metrics()
    return (live["queue_lengths"].get("nobody"), live["active_workers"]) == (waiting, workers)


NAMELESS = '{__name__=~"celery:.+",__name__!~".*:limit",cluster=""}'
"""Recorded series of no cluster: only limits may be for all."""


def faults(url: str, cluster: str) -> set[str]:
    """The alerts that the test causes, of those that a cluster has."""
    return names(alerts(url, cluster)) & {"CeleryQueueBacklog", "CeleryHighErrorRate"}


def shows(url: str, cluster: str, expected: dict[str, object]) -> None:
    """Wait until this is recorded of it."""
    try:
        wait_until(lambda: recorded_metrics(url, cluster) == expected, interval=0.5)
    except TimeoutError:
        assert recorded_metrics(url, cluster) == expected


def recorded_metrics(url: str, cluster: str) -> dict[str, object]:
    """Runs by task, messages that wait, workers."""
    found = [(dict(labels), number) for labels, number in recorded(url, cluster).items()]
    lengths = {one["queue_name"]: n for one, n in found if one["__name__"] == "celery:queue_length:max"}
    return {
        "runs": {one["name"]: n for one, n in found if one["__name__"] == "celery:task_started:increase5m"},
        "waiting": lengths.get("nobody"),
        "workers": sum(n for one, n in found if one["__name__"] == "celery:workers_up:count"),
    }
