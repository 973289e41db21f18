"""Reads a line of a crontab as people write it: minute, hour, day of the month, month, day of the week."""

from __future__ import annotations

from celery import Celery
from celery.schedules import crontab


def crontab_of(line: str, app: Celery) -> crontab:
    """The schedule of a line in an application's time zone; `crontab` takes the day of the week third."""
    minute, hour, day, month, weekday = line.split()
    return crontab(minute, hour, weekday, day, month, app=app)
