"""The doctor at a real Prometheus with the shipped rules and a real Alertmanager: faults are configured, and found."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.rules.bundle import ALERTS

from celerymeter.demo.processes import free_port, wait_until
from celerymeter.demo.servers import Alertmanager, Prometheus
from celerymeter.doctor.checks import diagnose
from celerymeter.doctor.collect import http, prometheus
from celerymeter.doctor.evidence import Evidence
from celerymeter.httpd import MetricsServer
from celerymeter.prometheus import Scope

from .cases import W1, W2, WELL
from .examining import examine

pytestmark = pytest.mark.integration

STARTED = time.time() - 3600
PAGE = """celerymeter_build_info{{version="1"}} 1
celerymeter_start_time_seconds {started}
celerymeter_broker_up 1
celerymeter_last_event_timestamp_seconds {now}
celery_worker_up{{hostname="{w1}"}} 1
celery_worker_up{{hostname="{w2}"}} 1
celery_task_started_total{{name="add",queue_name="q"}} 3
"""
RULES = str(ALERTS / "rules" / "*.yml")
BROKEN = """groups:
  - name: broken
    rules: [{record: "x:y", expr: "celery_worker_up + on () celery_worker_up"}]
"""


def serve(page: str, *, more: Callable[[], str] = str) -> MetricsServer:
    """Something that Prometheus can scrape; ``more`` adds to the page."""

    def text() -> list[bytes]:
        return [page.format(started=repr(STARTED), now=repr(time.time()), w1=W1, w2=W2).encode(), more().encode()]

    server = MetricsServer("127.0.0.1:0", page=text, healthy=lambda: None, ready=lambda: None)
    server.start()
    return server


def job(url: str, *, name: str = "celery", **more: Any) -> dict[str, Any]:
    """A scrape configuration of one target, four times a second."""
    target = {"targets": [url.removeprefix("http://")], "labels": {"cluster": "main", **more.pop("labels", {})}}
    often = {"scrape_interval": "250ms", "scrape_timeout": "250ms"}
    return {"job_name": name, "static_configs": [target], **often, **more}


@dataclass
class Monitoring:
    """A Prometheus whose configuration changes, an exporter's page and an Alertmanager."""

    prometheus: Prometheus
    config: Path
    exporter: str
    alertmanager: str

    def configure(self, *jobs: dict[str, Any], rules: tuple[str, ...], alertmanager: str | None) -> None:
        """Write and load a configuration."""
        managers = [{"static_configs": [{"targets": [alertmanager.removeprefix("http://")]}]}] if alertmanager else []
        written = {
            "global": {"evaluation_interval": "500ms"},
            "rule_files": rules,
            "alerting": {"alertmanagers": managers},
            "scrape_configs": jobs,
        }
        self.config.write_text(json.dumps(written))
        requests.post(f"{self.prometheus.url}/-/reload", timeout=60).raise_for_status()

    def found(self) -> set[str]:
        """Return the codes of the doctor's findings."""
        seen = prometheus.collect(self.prometheus.url, scope=Scope())
        return {one.code for one in diagnose(Evidence(WELL.broker, http.collect_exporter(self.exporter), seen))}


@pytest.fixture
def monitoring(tmp_path: Path) -> Iterator[Monitoring]:
    """Everything up, nothing configured; anew for each test: series outlive their scrape job by five minutes."""
    config, receivers = tmp_path / "prometheus.yml", tmp_path / "alertmanager.yml"
    config.write_text("{}")
    receivers.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    options = ["--rules.alert.resend-delay=1s"]
    page = serve(PAGE)
    try:
        with (
            Alertmanager(tmp_path / "alertmanager", config=receivers) as alertmanager,
            Prometheus(tmp_path / "prometheus", config=config, options=options) as server,
        ):
            yield Monitoring(server.up(), config, page.url, alertmanager.up().url)
    finally:
        page.stop()


def test_all_is_well(monitoring: Monitoring) -> None:
    """ScrapedExporter, rules and limits loaded, an Alertmanager that answers."""
    monitoring.configure(job(monitoring.exporter), rules=(RULES,), alertmanager=monitoring.alertmanager)
    wait_until(lambda: monitoring.found() == set(), interval=1)


def test_scraped_twice_and_in_part_without_rules(monitoring: Monitoring) -> None:
    """A second job, a dropped family, a target label of our name, no rules."""
    drop = [{"source_labels": ["__name__"], "regex": "celery_worker_up", "action": "drop"}]
    monitoring.configure(
        job(monitoring.exporter, metric_relabel_configs=drop, labels={"name": "shop"}),
        job(monitoring.exporter, metric_relabel_configs=drop, labels={"name": "shop"}, name="celery-again"),
        rules=(),
        alertmanager=None,
    )
    expected = {"exporter-scraped-twice", "metrics-dropped", "labels-renamed", "rules-not-loaded"}
    wait_until(lambda: expected <= monitoring.found(), interval=1)
    assert "no-alertmanager" not in monitoring.found()


def test_a_family_that_is_new_on_the_page_was_not_dropped(monitoring: Monitoring) -> None:
    """The doctor waits for the next scrape before it blames relabelling."""
    read = threading.Event()
    failed = 'celery_task_failed_total{name="add",queue_name="q"} 1\n'

    def as_the_doctor_reads_it() -> str:
        read.set()
        return failed

    scraped = serve(PAGE, more=lambda: failed if read.is_set() else "")
    page = serve(PAGE, more=as_the_doctor_reads_it)
    try:
        monitoring.configure(job(scraped.url, scrape_interval="3s"), rules=(), alertmanager=None)
        wait_until(lambda: prometheus.collect(monitoring.prometheus.url, scope=Scope()).exporters)
        _, found, _ = examine("redis://127.0.0.1:1/0", exporter_url=page.url, prometheus_url=monitoring.prometheus.url)
        assert "metrics-dropped" not in found
        assert "rules-not-loaded" in found
    finally:
        scraped.stop()
        page.stop()


def test_without_labels_limits_and_an_alertmanager(monitoring: Monitoring, tmp_path: Path) -> None:
    """A dropped label, no thresholds, a rule that fails, an Alertmanager that is away; then none at all."""
    drop = [{"regex": "queue_name", "action": "labeldrop"}]
    broken = tmp_path / "broken.yml"
    broken.write_text(BROKEN)
    some = tuple(str(path) for path in sorted((ALERTS / "rules").glob("*.yml")) if path.stem != "thresholds")
    rules = (*some, str(broken))
    nowhere = f"http://127.0.0.1:{free_port()}"
    monitoring.configure(job(monitoring.exporter, metric_relabel_configs=drop), rules=rules, alertmanager=nowhere)
    expected = {"labels-dropped", "limits-not-loaded", "rules-failing", "alertmanager-unreachable"}
    wait_until(lambda: expected <= monitoring.found(), interval=1)
    monitoring.configure(job(monitoring.exporter, metric_relabel_configs=drop), rules=rules, alertmanager=None)
    wait_until(lambda: "no-alertmanager" in monitoring.found(), interval=1)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("things 1\n", {"exporter-not-scraped": False, "scrape-wrong-target": True, "other-exporter": False}),
        (
            'celery_worker_up{{hostname="h"}} 1\n',
            {"exporter-not-scraped": True, "scrape-wrong-target": False, "other-exporter": True},
        ),
    ],
    ids=["nothing of Celery", "another exporter"],
)
def test_another_page_in_the_exporter_s_place(monitoring: Monitoring, page: str, expected: dict[str, bool]) -> None:
    """A target that serves nothing of Celery's, and one with another program's series."""
    other = serve(page)
    try:
        monitoring.configure(job(other.url), rules=(RULES,), alertmanager=monitoring.alertmanager)
        wait_until(
            lambda: {code: code in found for found in [monitoring.found()] for code in expected} == expected,
            interval=1,
        )
    finally:
        other.stop()
