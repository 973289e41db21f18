"""The hook with the schedulers that people use beside Celery's: RedBeat and django-celery-beat."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.apps import beat_app
from tests.apps.worker_app import SETTINGS
from tests.schedule.beats import BEAT, DATABASE_SCHEDULER, TASK, start_beat, until
from tests.scrape import ExporterProcess, Scrape
from tests.workers import ROOT

from celerymeter.demo.processes import Process
from celerymeter.demo.servers import Redis

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(200),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of these two packages
]

CHANGE = """
import sys
from datetime import datetime, timedelta, timezone
from tests.apps.beat_app import set_up_django
set_up_django(sys.argv[1])
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask
every, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
nightly, _ = CrontabSchedule.objects.get_or_create(minute="0", hour=sys.argv[2])
if sys.argv[3] == "add":
    PeriodicTask.objects.create(name="added", task="tests.add", args="[1, 2]", interval=every)
    PeriodicTask.objects.create(name="nightly", task="tests.add", args="[1, 2]", crontab=nightly)
    past = datetime.now(timezone.utc) - timedelta(days=1)
    PeriodicTask.objects.create(name="expired", task="tests.add", crontab=nightly, expires=past)
    never, _ = CrontabSchedule.objects.get_or_create(minute="30", hour="3", day_of_month="30", month_of_year="2")
    PeriodicTask.objects.create(name="never", task="tests.add", crontab=never)
    PeriodicTask.objects.create(name="off", task="tests.add", interval=every, enabled=False)
else:
    PeriodicTask.objects.get(name="added").delete()
"""


def of(page: Scrape, family: str, name: str) -> float | None:
    """A number of an entry."""
    return page.get(f"celery_schedule_{family}", schedule=name, name=TASK)


class RedBeat:
    """RedBeat on a Redis of its own, with a beat that looks for changes each second."""

    def __init__(self, broker_url: str, schedule_url: str, folder: Path) -> None:
        self._broker_url, self._folder = broker_url, folder
        self.settings = {
            "redbeat_redis_url": schedule_url,
            "redbeat_redis_options": {"socket_timeout": 60},  # by default redis-py gives up, and beat ends
            "redbeat_lock_timeout": 30,
            "beat_max_loop_interval": 1,
        }

    def start(self, entries: dict[str, float], *, name: str = "beat") -> Process:
        """Start a beat."""
        options = ["--scheduler", "redbeat.RedBeatScheduler"]
        env = {SETTINGS: json.dumps(self.settings)}
        return start_beat(self._broker_url, self._folder, entries, name=name, options=options, env=env)

    def entry(self, name: str, seconds: float) -> Any:
        """An entry as an application makes it at run time."""
        from celery import Celery
        from celery.schedules import schedule
        from redbeat import RedBeatSchedulerEntry

        app = Celery("tests", broker=self._broker_url, set_as_current=False)
        app.conf.update(self.settings)
        return RedBeatSchedulerEntry(name, TASK, schedule(seconds, app=app), args=[1, 2], app=app)


@pytest.fixture
def redbeat(redis_server: Redis, tmp_path: Path, stack: ExitStack) -> tuple[RedBeat, Redis]:
    """RedBeat, and the Redis that holds its schedule."""
    schedule = stack.enter_context(Redis(tmp_path / "schedule"))
    schedule.up()
    return RedBeat(redis_server.url, schedule.url, tmp_path), schedule


def test_entries_of_redbeat_come_and_go_and_its_redis_hangs(
    exporter: ExporterProcess, redbeat: tuple[RedBeat, Redis], stack: ExitStack
) -> None:
    """Entries that are due much later are known too. While its Redis hangs beat lives, is late, and its entries are."""
    scheduler, schedule = redbeat
    beat = scheduler.start({"static": 1.0, "later": 50_000.0})
    stack.callback(beat.kill)
    page = until(exporter, lambda page: (of(page, "sent_total", "static") or 0) >= 2, "two runs")
    assert (of(page, "next_due_timestamp_seconds", "later") or 0) > time.time() + 40_000
    scheduler.entry("added", 1.0).save()
    until(exporter, lambda page: (of(page, "sent_total", "added") or 0) >= 2, "runs of the new entry")
    scheduler.entry("added", 1.0).delete()
    until(exporter, lambda page: of(page, "sent_total", "added") is None, "it is gone")
    os.kill(schedule.pid, signal.SIGSTOP)
    stack.callback(os.kill, schedule.pid, signal.SIGCONT)
    page = until(exporter, lambda page: (page.get("celery_beat_lag_seconds", hostname=BEAT) or 0) > 5, "beat is late")
    assert page.get("celery_beat_up", hostname=BEAT) == 1
    assert (of(page, "next_due_timestamp_seconds", "static") or 0) < time.time() - 3


@pytest.mark.slow
def test_a_redbeat_that_waits_for_its_lock_is_no_second_beat(
    exporter: ExporterProcess, redbeat: tuple[RedBeat, Redis], stack: ExitStack
) -> None:
    """It takes over when the first one ends."""
    scheduler, _ = redbeat
    first = scheduler.start({"static": 1.0})
    stack.callback(first.kill)
    until(exporter, lambda page: (of(page, "sent_total", "static") or 0) >= 1, "a run")
    standby = scheduler.start({"static": 1.0}, name="standby")
    stack.callback(standby.kill)
    before = of(exporter.scrape(), "sent_total", "static") or 0
    page = until(exporter, lambda page: (of(page, "sent_total", "static") or 0) >= before + 6, "six more runs")
    assert page.get("celery_beat_duplicate", hostname=BEAT) == 0
    first.stop()
    sent = of(exporter.scrape(), "sent_total", "static") or 0
    until(exporter, lambda page: (of(page, "sent_total", "static") or 0) >= sent + 2, "the standby sends")


def test_entries_of_a_database_come_and_go(
    exporter: ExporterProcess, redis_server: Redis, tmp_path: Path, stack: ExitStack
) -> None:
    """A nightly entry is known at noon, although django-celery-beat looks at it only within two hours of its time.

    One that nobody can read, since February has no 30th, hides no other.
    """
    database = str(tmp_path / "django.sqlite3")
    env = {beat_app.DJANGO: database, SETTINGS: json.dumps({"beat_max_loop_interval": 1})}
    options = ["--scheduler", DATABASE_SCHEDULER]
    beat = start_beat(redis_server.url, tmp_path, {"static": 1.0}, options=options, env=env)
    stack.callback(beat.kill)
    until(exporter, lambda page: (of(page, "sent_total", "static") or 0) >= 2, "two runs")
    hour = str((time.gmtime().tm_hour + 12) % 24)

    def change(what: str) -> None:
        subprocess.run([sys.executable, "-c", CHANGE, database, hour, what], cwd=ROOT, check=True, timeout=60)

    change("add")
    page = until(
        exporter,
        lambda page: (of(page, "sent_total", "added") or 0) >= 2 and of(page, "due_total", "nightly") is not None,
        "runs of the new entry",
    )
    assert (of(page, "next_due_timestamp_seconds", "nightly") or 0) > time.time() + 10 * 3600
    assert of(page, "due_total", "off") is None
    until(exporter, lambda page: page.get("celery_schedule_entries", hostname=BEAT) == 5, "all are counted")
    assert "1 entries of beat's schedule cannot be read: 'never'" in beat.tail(1000)
    assert of(page, "next_due_timestamp_seconds", "expired") is None
    change("remove")
    until(exporter, lambda page: of(page, "sent_total", "added") is None, "it is gone")
