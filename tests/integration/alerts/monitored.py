"""Several real clusters under one real Prometheus and Alertmanager, with the shipped rules and routing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import redis
import requests
import yaml
from celery import Celery
from tests.alertmanager.conftest import LOG, SECRETS, adapted
from tests.alertmanager.sinks import HttpSink
from tests.apps.worker_app import make_app
from tests.control.serving import Control
from tests.integration.alerts.pace import write_rules
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import Process, free_port, wait_until
from celerymeter.demo.servers import Alertmanager, Prometheus, Redis
from celerymeter.prometheus import PrometheusClient, PrometheusSettings


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of time: rules are divided by ``factor``; the rest is how often programs scrape, evaluate or poll."""

    factor: float
    scrape: str
    evaluate: str
    group_wait: str
    group_interval: str
    poll: str
    timeout: float
    inspect: str = "1s"

    @property
    def five_minutes(self) -> float:
        """In real seconds."""
        return 300 / self.factor


QUICK = Pace(30, scrape="1s", evaluate="1s", group_wait="0s", group_interval="1s", poll="1s", timeout=200)
SHIPPED = Pace(1, scrape="10s", evaluate="15s", group_wait="15s", group_interval="2m", poll="15s", timeout=3000)


class Cluster:
    """A broker, its exporter and its workers; ``app`` sends tasks to it."""

    def __init__(self, name: str, folder: Path, *, pace: Pace) -> None:
        self.name = name
        self.folder = folder / name
        self.redis = Redis(self.folder)
        options = ("--poll-interval", pace.poll, "--inspect-interval", pace.inspect, "--rate-window", "10s")
        self.exporter = ExporterProcess(self.folder, self.redis.url, options=options)
        self.targets = [f"127.0.0.1:{self.exporter.port}"]
        self.workers: dict[str, Process] = {}
        self.control: Control | None = None
        self.subscriptions: list[str] = []
        self.app: Celery = make_app(self.redis.url)

    def up(self, starters: Sequence[Callable[[Cluster], None]]) -> None:
        """Start everything; the exporter first, so that it sees all events."""
        self.redis.up()
        self.exporter.up("/-/ready")
        self.subscriptions = self._subscriptions()
        with ThreadPoolExecutor(2) as pool:
            for started in [pool.submit(start, self) for start in starters]:
                started.result()
        wait_until(lambda: self.exporter.scrape().sum("celery_worker_up") == len(self.workers))

    def _subscriptions(self) -> list[str]:
        """The ids of the exporter's subscriptions, while nobody else has any."""
        with redis.Redis(port=self.redis.port) as client:
            return [str(one["id"]) for one in client.client_list() if int(one["psub"]) or int(one["sub"])]

    def worker(
        self,
        name: str,
        *queues: str,
        events: bool = True,
        concurrency: int = 1,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        app: str = "tests.apps.worker_app",
    ) -> None:
        """Start a worker, or start it again."""
        self.workers[name] = start_worker(
            self.redis.url,
            self.folder,
            hostname=name,
            queues=queues or ("celery",),
            events=events,
            concurrency=concurrency,
            options=("--prefetch-multiplier", "1", "--without-gossip", *options),
            env=env,
            app=app,
        )

    def serve(self) -> None:
        """Start a control API whose Prometheus is away; it is scraped too."""
        listen, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.control = Control(self.folder, ("--listen", listen, "--metrics-listen", metrics)).up()
        self.targets.append(metrics)

    def send(self, task: str, *args: object, queue: str = "celery", count: int = 1) -> list[str]:
        """Send a task so many times; their ids."""
        return [str(self.app.send_task(task, args=args, queue=queue).id) for _ in range(count)]

    def down(self) -> None:
        """Stop everything."""
        self.app.close()
        for worker in self.workers.values():
            worker.kill()
        if self.control:
            self.control.stop()
        self.exporter.stop()
        self.redis.kill()


Starters: TypeAlias = Mapping[str, Sequence[Callable[[Cluster], None]]]
"""Clusters and how to start what works in them."""


class MonitoredClusters:
    """Clusters by name, and what reaches the log's webhook about them."""

    def __init__(
        self,
        folder: Path,
        clusters: Starters,
        *,
        pace: Pace,
        overrides: list[dict[str, object]],
    ) -> None:
        self.pace = pace
        self.folder = folder
        self.since = 0.0
        """The time since which Prometheus has watched (monotonic seconds)."""
        self.sink = HttpSink()
        self._cast = clusters
        self.clusters = {name: Cluster(name, folder, pace=pace) for name in clusters}
        write_rules(folder / "rules", factor=pace.factor, overrides=overrides)
        self.alertmanager = Alertmanager(folder / "alertmanager", config=self._routing(folder))
        self.prometheus = Prometheus(
            folder / "prometheus",
            config=folder / "prometheus.yml",
            options=(
                f"--rules.alert.resend-delay={60 / pace.factor:g}s",
                f"--rules.alert.for-grace-period={max(1, 60 / pace.factor):g}s",
                f"--query.lookback-delta={pace.five_minutes:g}s",
            ),
        )
        self._stack = ExitStack()

    def _routing(self, folder: Path) -> Path:
        (folder / "secrets").mkdir()
        for name, secret in {**SECRETS, "slack_url": f"{self.sink.url}/slack"}.items():
            (folder / "secrets" / name).write_text(secret)
        text = adapted(folder, http=self.sink.url, smtp="127.0.0.1:9")
        text = text.replace("group_wait: 1s", f"group_wait: {self.pace.group_wait}")
        text = text.replace("group_interval: 1s", f"group_interval: {self.pace.group_interval}")
        (folder / "alertmanager.yml").write_text(text)
        return folder / "alertmanager.yml"

    def _scraping(self, folder: Path) -> None:
        targets = [{"targets": cluster.targets, "labels": {"cluster": name}} for name, cluster in self.clusters.items()]
        config = {
            "global": {"scrape_interval": self.pace.scrape, "evaluation_interval": self.pace.evaluate},
            "rule_files": ["rules/*.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{self.alertmanager.port}"]}]}]},
            "scrape_configs": [{"job_name": "whatever", "static_configs": targets}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> MonitoredClusters:
        with self._stack as stack:  # stops what was started, should the rest fail to
            stack.enter_context(self.sink)
            for cluster in self.clusters.values():
                stack.callback(cluster.down)
            with ThreadPoolExecutor(3) as pool:
                for started in [pool.submit(self.clusters[name].up, starters) for name, starters in self._cast.items()]:
                    started.result()
            self._scraping(self.folder)
            for server in (self.alertmanager, self.prometheus):  # last: workers that are late to start are no fault
                stack.callback(server.stop)
                server.up()
            self.since = time.monotonic()
            wait_until(self._notifies, what="Prometheus finds its Alertmanager")
            wait_until(self._watches, timeout=self.pace.five_minutes + 60, what="Prometheus has watched five minutes")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _notifies(self) -> bool:
        assert self.prometheus.running, self.prometheus.tail()
        answer = requests.get(f"{self.prometheus.url}/api/v1/alertmanagers", timeout=30).json()
        return bool(answer["data"]["activeAlertmanagers"])

    def _watches(self) -> bool:
        """Return whether a counter that is born now counts from 0 in every cluster."""
        watched = f"count(celerymeter_build_info offset {round(1000 * self.pace.five_minutes)}ms)"
        return self.value(watched) == len(self.clusters)

    def value(self, query: str) -> float | None:
        """The one value of a query; ``None`` when there is none."""
        with PrometheusClient(PrometheusSettings(self.prometheus.url)) as prometheus:
            return prometheus.instant(query).value()

    def firing(self) -> set[tuple[str, str]]:
        """``(cluster, alertname)`` of what Prometheus itself holds to be firing."""
        answer = requests.get(f"{self.prometheus.url}/api/v1/alerts", timeout=30).json()
        return {
            (alert["labels"].get("cluster", ""), alert["labels"]["alertname"])
            for alert in answer["data"]["alerts"]
            if alert["state"] == "firing"
        }

    def heard(self, status: str, cluster: str, alert: str, **labels: str) -> list[float]:
        """Return when such an alert reached the webhook with this status (monotonic seconds)."""
        wanted = {"cluster": cluster, "alertname": alert, **labels}.items()
        return [
            posted.at
            for posted in self.sink.to(LOG)
            for alert in posted.body["alerts"]
            if alert["status"] == status and wanted <= alert["labels"].items()
        ]

    def firings(self, cluster: str, *, area: str) -> list[str]:
        """The alert of each time that one of an area began to fire and was notified."""
        began = {
            (alert["labels"]["alertname"], alert["fingerprint"], alert["startsAt"])
            for posted in self.sink.to(LOG)
            for alert in posted.body["alerts"]
            if alert["labels"]["cluster"] == cluster and alert["labels"]["area"] == area
        }
        return sorted(name for name, _, _ in began)

    def notified(self) -> set[tuple[str, str]]:
        """``(cluster, alertname)`` of every alert that reached the webhook."""
        return {
            (alert["labels"]["cluster"], alert["labels"]["alertname"])
            for posted in self.sink.to(LOG)
            for alert in posted.body["alerts"]
        }
