"""Producers and workers in other time zones and with clocks that are wrong: waits stay right."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from tests.events.sinks import RecordingSink
from tests.integration.exporter.conftest import StartExporter, StartWorker
from tests.servers import faketime
from tests.workers import ROOT

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.events import open_reader
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration

SEND = """
from tests.apps.worker_app import make_app
import os, sys
app = make_app(os.environ["CELERYMETER_TEST_BROKER"])
for _ in range(10):
    app.send_task("tests.add", (1, 2), **({"countdown": 3} if "eta" in sys.argv else {}))
"""


def skewed(seconds: int, zone: str) -> dict[str, str]:
    """The environment of a process whose clock is so far ahead, in this zone."""
    return {
        "LD_PRELOAD": faketime(),
        "FAKETIME": f"{seconds:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "TZ": zone,
        "PYTHONPATH": str(ROOT),
    }


AHEAD, BEHIND = 7200, -1020


def send(broker_url: str, what: str) -> None:
    """A producer two hours ahead, in Taipei, sends ten tasks."""
    environment = {**skewed(AHEAD, "Asia/Taipei"), "CELERYMETER_TEST_BROKER": broker_url, "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", SEND, what], env=environment, cwd=ROOT, check=True, timeout=60)


def test_waits_are_right_whatever_the_clocks_say(
    redis_server: Redis, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Held against the truth: both clocks are wrong by a known time, so each wait can be computed from the events."""
    exporter = new_exporter()
    ear = RecordingSink()
    reader = open_reader(BrokerSettings(url=redis_server.url), ear)
    listening = threading.Thread(target=reader.run)
    listening.start()
    new_worker("w1@test", env=skewed(BEHIND, "America/New_York"))
    wait_until(lambda: exporter.value("celery_worker_clock_offset_seconds", hostname="w1@test"))
    send(redis_server.url, "now")
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 10)
    wait_until(lambda: sum(event.type == "task-succeeded" for event in list(ear.received)) == 10, what="the ear, too")
    reader.stop()
    listening.join()
    stamps = {(event.type, event.uuid): event.timestamp for event in ear.received}
    tasks = [uuid for kind, uuid in stamps if kind == "task-sent"]
    truth = sum(stamps["task-started", uuid] - BEHIND - (stamps["task-sent", uuid] - AHEAD) for uuid in tasks)
    page = exporter.scrape()
    assert page.get("celery_worker_clock_offset_seconds", hostname="w1@test") == pytest.approx(-BEHIND, abs=0.05)
    assert page.sum("celery_task_wait_seconds_count") == len(tasks) == 10
    assert page.sum("celery_task_wait_seconds_sum") == pytest.approx(truth, abs=10 * 0.05)
    late = page.sum("celerymeter_event_lag_seconds_sum") / page.sum("celerymeter_event_lag_seconds_count")
    assert late < -BEHIND / 10


def test_an_eta_is_no_wait_of_hours(redis_server: Redis, new_worker: StartWorker, new_exporter: StartExporter) -> None:
    """A worker keeps an ETA by its own clock: three seconds on the producer's are two hours on a correct one."""
    exporter = new_exporter()
    new_worker("w1@test")
    send(redis_server.url, "eta")
    wait_until(lambda: exporter.scrape().sum("celery_task_received_total") == 10)
    wait_until(lambda: exporter.value("celery_worker_tasks_scheduled", hostname="w1@test") == 10)
    wait_until(lambda: exporter.scrape().sum("celery_queue_unacked") == 10)
    assert exporter.scrape().sum("celery_task_wait_seconds_count") == 0
