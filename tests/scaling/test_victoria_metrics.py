"""Prometheus writes into VictoriaMetrics: the control API and the reports read there, vmalert evaluates the rules."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.control.access import bearer
from tests.control.serving import Control
from tests.scaling.series import alerts, await_equal, names, recorded, value
from tests.scaling.shipped import QUICK, ROOT, changed, command, configured, quick_rules
from tests.scaling.site import Site
from tests.scrape import ExporterProcess

from celerymeter.demo.processes import Process, free_port, wait_until
from celerymeter.demo.servers import Alertmanager, Prometheus, answers, find_binary

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

WAITING = 60
"""More than the shipped limit of a backlog."""


@dataclass
class WatchedSite:
    """A cluster whose exporter is scraped into VictoriaMetrics, and a control API that reads there."""

    folder: Path
    site: Site
    exporter: ExporterProcess
    victoria: str
    control: Control

    def realtime(self) -> dict[str, Any]:
        """The metrics object, or a problem."""
        return dict(self.control.get("/monitoring/metrics/realtime").json())

    def page(self) -> dict[str, Any]:
        """The API's report of the last ten minutes, or a problem."""
        url, window = f"{self.control.url}/monitoring/reports/performance", {"start": "-10m", "end": "now"}
        return dict(requests.post(url, json=window, headers=bearer(), timeout=60).json())

    def report(self) -> dict[str, int]:
        """Counts of the command's report."""
        window = ("--prometheus-url", self.victoria, "--cluster", "main", "--from", "-10m", "--to", "now")
        argv = [sys.executable, "-m", "celerymeter", "report", *window]
        made = json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout)
        return {name: made[name] for name in ("total_tasks", "successful_tasks", "failed_tasks")}

    def work(self) -> None:
        """Fifty runs, ten of them failures, and a queue that nobody consumes."""
        self.site.send("tests.fail", queue="fast", count=10)
        self.site.send("tests.add", 1, 2, queue="fast", count=40)
        self.site.send("tests.add", 1, 2, queue="nobody", count=WAITING)


def victoria_metrics(folder: Path, port: int) -> Process:
    """Started by the page's command line."""
    argv = command("victoria-metrics ", {"127.0.0.1:8428": f"127.0.0.1:{port}", "=data": f"={folder}/data"})
    server = Process("victoria-metrics", [find_binary("victoria-metrics"), *argv[1:]], log=folder / "victoria.log")
    return server.start(ready=lambda: answers(f"http://127.0.0.1:{port}/health"))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedSite]:
    """Everything up, nothing sent yet."""
    with ExitStack() as stack:
        site = stack.enter_context(Site(tmp_path))
        exporter = site.exporter("exporter")
        port = free_port()
        stack.enter_context(victoria_metrics(tmp_path, port))
        url = f"http://127.0.0.1:{port}"
        options = ("--broker-url", site.redis.url, "--prometheus-url", url, "--cluster", "main")
        control = stack.enter_context(Control(tmp_path, options)).up()
        ours = {
            "exporter:9808": f"127.0.0.1:{exporter.port}",
            "control:9809": control.lines[0]["metrics_address"],
            "victoria-metrics:8428": f"127.0.0.1:{port}",
            "scrape_interval: 10s": "scrape_interval: 1s",
        }
        config = configured("victoria-metrics/prometheus.yml", tmp_path, ours)
        stack.enter_context(Prometheus(tmp_path / "prometheus", config=config)).up()
        site.worker("w1@test", "fast")
        yield WatchedSite(tmp_path, site, exporter, url, control)


def test_the_api_and_the_reports_read_what_was_written(watched: WatchedSite) -> None:
    """To the task."""
    watched.work()
    wait_until(lambda: watched.realtime().get("pending_tasks") == WAITING, interval=0.5, what="the queue")
    wait_until(lambda: watched.page().get("total_tasks") == 50, interval=0.5, what="all runs")
    assert watched.realtime()["queue_lengths"] == {"fast": 0, "nobody": WAITING}
    assert watched.realtime()["active_workers"] == 1
    assert watched.report() == {"total_tasks": 50, "successful_tasks": 40, "failed_tasks": 10}


def fitting_rules(folder: Path) -> None:
    """The shipped rules, as the page says that an old vmalert wants them."""
    quick_rules(folder)
    subprocess.run(["sh", "-c", " ".join(command("sed ", {}))], cwd=folder, check=True)


def test_vmalert_takes_every_rule(tmp_path: Path) -> None:
    """Expressions, durations and templates; what an old release does not know is one field."""
    fitting_rules(tmp_path)
    argv = [find_binary("vmalert"), "-dryRun", "-rule=rules/*.yml"]
    tried = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert tried.returncode == 0, tried.stderr


def vmalert(folder: Path, victoria: str, alertmanager: str) -> Process:
    """Started by the page's command line."""
    fitting_rules(folder)
    address = f"127.0.0.1:{free_port()}"
    ours = {"http://127.0.0.1:8428": victoria, "http://127.0.0.1:9093": alertmanager, "127.0.0.1:8880": address}
    argv = command("vmalert ", {**ours, "=15s": "=1s"})
    server = Process("vmalert", [find_binary("vmalert"), *argv[1:]], log=folder / "vmalert.log", cwd=folder)
    return server.start(ready=lambda: answers(f"http://{address}/health"))


def reference(folder: Path, exporter: int) -> Prometheus:
    """The shipped configuration, with the label that the other one has."""
    quick_rules(folder)
    text = (ROOT / "alerts" / "prometheus.yml").read_text()
    ours = {**QUICK, "127.0.0.1:9808": f"127.0.0.1:{exporter}", "# labels: {cluster: eu}": "labels: {cluster: main}"}
    (folder / "prometheus.yml").write_text(changed(text, ours))
    return Prometheus(folder, config=folder / "prometheus.yml")


def alertmanager(folder: Path) -> Alertmanager:
    """One that tells nobody."""
    folder.mkdir()
    (folder / "alertmanager.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    return Alertmanager(folder, config=folder / "alertmanager.yml")


@pytest.mark.slow
def test_vmalert_records_and_alerts_as_prometheus_does(watched: WatchedSite) -> None:
    """Every recorded series; a backlog; the death of the exporter; and Alertmanager hears of it."""
    folder, (add, fail) = watched.folder, ("tests.add", "tests.fail")
    watched.site.send(fail, queue="fast")  # a queue that never started anything would look stalled
    watched.site.send(add, 1, 2, queue="nobody")  # and one that grows must be there before
    with ExitStack() as stack:
        receiver = stack.enter_context(alertmanager(folder / "alertmanager")).up()
        stack.enter_context(vmalert(folder / "vmalert", watched.victoria, receiver.url))
        prometheus = stack.enter_context(reference(folder / "reference", watched.exporter.port)).up()
        engines = {"vmalert": watched.victoria, "Prometheus": prometheus.url}
        for url in engines.values():
            wait_until(lambda: value(url, "sum(celery:task_ended:increase5m)") == 1)
        watched.work()
        wait_until(lambda: value(watched.victoria, "sum(celery:task_ended:increase5m)") == 51)
        await_equal({name: partial(recorded, url, "main") for name, url in engines.items()})

        wait_until(lambda: "CeleryQueueBacklog" in names(alerts(watched.victoria, "main")))
        watched.exporter.kill()
        wait_until(lambda: "CeleryExporterDown" in names(alerts(watched.victoria, "main")))
        wait_until(lambda: alerts(watched.victoria, "main") == alerts(prometheus.url, "main"))
        known = f"{receiver.url}/api/v2/alerts"
        wait_until(lambda: "Watchdog" in requests.get(known, timeout=30).text, what="a notification")
