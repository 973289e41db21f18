"""An hour of a healthy beat with a hundred entries, with the hook and without: the shipped rules at their own pace.

The exporters are restarted in the middle. Killing both beats at the end shows that the rules were awake.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import requests
from tests.apps import cron_app, worker_app
from tests.integration.alerts.monitored import SHIPPED, Cluster, MonitoredClusters
from tests.schedule.beats import start_beat

from celerymeter.demo.processes import Process, wait_until

MINUTES = float(os.environ.get("CELERYMETER_HEALTHY_MINUTES", "60"))
"""Minutes in which nothing may fire; fewer for a quick check."""
HOOKED, PLAIN = "hooked", "plain"
APP = "tests.apps.cron_app"

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(60 * MINUTES + 1500)]


def limits() -> list[dict[str, object]]:
    """Return what an operator without the hook writes, a line a task; learned intervals for both clusters."""
    lines: list[dict[str, object]] = [
        {
            "record": "celery:task_max_age:limit",
            "expr": cron_app.interval(task) + 60,
            "labels": {"severity": "critical", "name": task, "cluster": PLAIN},
        }
        for task in cron_app.TASKS
    ]
    return [*lines, {"record": "celery:task_intervals:limit", "expr": 3, "labels": {"severity": "info"}}]


@dataclass
class Healthy:
    """Two clusters, their beats, and every alert that was seen in any state."""

    monitored: MonitoredClusters
    beats: dict[str, Process]
    seen: set[tuple[str, str, str]] = field(default_factory=set)

    def wait(self, until: float) -> None:
        """Look every 5 s until then (monotonic seconds)."""
        while time.monotonic() < until:
            for beat in self.beats.values():
                assert beat.running, beat.tail()
            for one in self.samples("ALERTS"):
                self.seen.add((one["alertstate"], one.get("cluster", ""), one["alertname"]))
            time.sleep(5)

    def samples(self, query: str) -> list[dict[str, str]]:
        """The labels of what a query finds now."""
        url = f"{self.monitored.prometheus.url}/api/v1/query"
        answer = requests.get(url, params={"query": query}, timeout=30).json()
        return [sample["metric"] for sample in answer["data"]["result"]]

    def fired(self, minutes: float) -> set[tuple[str, str]]:
        """``(cluster, alertname)`` of all that fired at any evaluation of the last minutes; all pending is printed."""
        found = self.samples(f"max_over_time(ALERTS[{round(60 * minutes)}s])")
        for one in found:
            print(dict(sorted(one.items())))
        return {(one.get("cluster", ""), one["alertname"]) for one in found if one["alertstate"] == "firing"}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healthy]:
    """Both clusters, once Prometheus has watched that long and the exporters were restarted in the middle."""
    folder: Path = tmp_path_factory.mktemp("healthy")
    beats: dict[str, Process] = {}

    def starting(hook: str) -> Callable[[Cluster], None]:
        def start(cluster: Cluster) -> None:
            cluster.worker(f"w@{cluster.name}", concurrency=4, app=APP)
            env = {worker_app.HOOK: hook}
            beats[cluster.name] = start_beat(cluster.redis.url, cluster.folder, {}, env=env, app=APP)

        return start

    clusters = {HOOKED: (starting("1"),), PLAIN: (starting("0"),)}
    with ExitStack() as stack:
        stack.callback(lambda: [beat.kill() for beat in beats.values()])
        pace = replace(SHIPPED, inspect="60s")
        monitored = stack.enter_context(MonitoredClusters(folder, clusters, pace=pace, overrides=limits()))
        healthy = Healthy(monitored, beats)
        healthy.wait(monitored.since + 30 * MINUTES)
        for cluster in monitored.clusters.values():
            cluster.exporter.stop()
            cluster.exporter.up()
        healthy.wait(monitored.since + 60 * MINUTES)
        yield healthy


def test_no_alert_fires_while_beat_is_healthy(healthy: Healthy) -> None:
    """Only the watchdog does, and what is sent and succeeds is what the schedule says."""
    print(sorted(healthy.seen))
    assert healthy.fired(MINUTES + 10) == {("", "Watchdog")}
    assert {alert for state, _, alert in healthy.seen if state == "firing"} == {"Watchdog"}
    assert healthy.monitored.value("sum(celery_schedule_entries)") == len(cron_app.TASKS)
    planned = sum(60 * MINUTES / cron_app.interval(task) for task in cron_app.TASKS)
    window = f"{round(60 * MINUTES)}s"
    for cluster in (HOOKED, PLAIN):
        succeeded = healthy.monitored.value(
            f'sum(increase(celery_task_succeeded_total{{cluster="{cluster}"}}[{window}]))'
        )
        print(f"{cluster}: {succeeded} runs succeeded, {planned:.0f} were planned")
        assert succeeded is not None
        assert succeeded > 0.9 * planned


def test_a_beat_that_dies_then_is_heard_of(healthy: Healthy) -> None:
    """The rules that were silent were awake."""
    for beat in healthy.beats.values():
        beat.kill()
    since = time.monotonic()
    wanted = {(HOOKED, "CeleryBeatDown"), (HOOKED, "CeleryScheduleMissed"), (PLAIN, "CeleryTaskOverdue")}
    wait_until(lambda: wanted <= healthy.monitored.firing(), timeout=400, interval=2, what="both deaths are seen")
    print(f"after {time.monotonic() - since:.0f} s: {healthy.monitored.firing()}")
