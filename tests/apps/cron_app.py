"""A Celery application with a hundred periodic tasks, each of its own name, as a shop has them: seconds and cron lines.

The broker comes from ``CELERYMETER_TEST_BROKER``; beat has the hook unless ``CELERYMETER_TEST_HOOK`` is 0.
"""

from __future__ import annotations

import os
import time

from celery import Celery
from tests.apps.cron_line import crontab_of
from tests.apps.worker_app import BROKER, HOOK

import celerymeter.schedule

SECONDS = (5, 7, 10, 15, 20, 30, 45, 60, 90, 120, 300, 600)
CRON = {
    "* * * * *": 60,
    "*/2 * * * *": 120,
    "*/5 * * * *": 300,
    "3-59/10 * * * *": 600,
    "7,37 * * * *": 1800,
    "0 * * * *": 3600,
    "15 4 * * *": 86_400,
    "0 5 * * mon": 7 * 86_400,
}
"""Cron lines and the seconds between two of their times."""
TASKS: dict[str, str | int] = {
    **{f"seconds.{every}.{number}": every for every in SECONDS for number in range(5)},
    **{f"cron.{place}.{number}": line for place, line in enumerate(CRON) for number in range(5)},
}
"""The seconds or the cron line of each task's entry."""


def interval(task: str) -> int:
    """Seconds between two runs of a task."""
    plan = TASKS[task]
    return CRON[plan] if isinstance(plan, str) else plan


def work(seconds: float) -> None:
    """Take a while, then succeed."""
    time.sleep(seconds)


def make_app(broker_url: str) -> Celery:
    """The application with its tasks and its schedule."""
    app = Celery("shop", broker=broker_url, set_as_current=False)
    app.conf.update(task_send_sent_event=True, task_ignore_result=True, worker_hijack_root_logger=False)
    app.conf.result_expires = None  # else Celery adds an entry of its own
    app.conf.broker_connection_retry_on_startup = True
    schedule = {}
    for number, (name, plan) in enumerate(TASKS.items()):
        app.task(name=name)(work)
        when = crontab_of(plan, app) if isinstance(plan, str) else float(plan)
        schedule[name] = {"task": name, "args": [number % 10 / 20], "schedule": when}
    app.conf.beat_schedule = schedule
    return app


if BROKER in os.environ:
    app = make_app(os.environ[BROKER])
    app.set_current()  # entries that a scheduler has stored know no other
    if os.environ.get(HOOK) != "0":
        celerymeter.schedule.install(app)
