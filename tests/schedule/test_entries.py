"""The hook reads an entry: when it is due, how often, and which times have passed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import BaseSchedule, crontab, schedule

from celerymeter.schedule import entries
from celerymeter.schedule.entries import Plan, entries_of, following, missed_since, plan_of, words_of

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=timezone.utc)
APP = Celery("tests", set_as_current=False)
BERLIN = Celery("berlin", set_as_current=False)
BERLIN.conf.timezone = "Europe/Berlin"


def plan(kind: BaseSchedule, last_run_at: datetime, *, now: datetime = NOW, app: Celery = APP) -> Plan:
    """Return the hook's report of an entry with this schedule."""
    kind.nowfun = lambda: now
    kind.app = app
    entry = ScheduleEntry(name="nightly", task="reports.build", schedule=kind, last_run_at=last_run_at, app=app)
    return plan_of(entry, now=now.timestamp())


def due(kind: BaseSchedule, last_run_at: datetime, *, now: datetime = NOW, app: Celery = APP) -> datetime:
    """Return the time at which it is due, in UTC."""
    at = plan(kind, last_run_at, now=now, app=app).next_due_at
    assert at is not None
    return datetime.fromtimestamp(at, tz=timezone.utc)


def test_an_interval_is_due_that_long_after_its_last_run() -> None:
    """Also when that has passed: it is late then."""
    assert due(schedule(timedelta(minutes=5)), NOW - timedelta(minutes=2)) == NOW + timedelta(minutes=3)
    assert due(schedule(timedelta(minutes=5)), NOW - timedelta(minutes=9)) == NOW - timedelta(minutes=4)


def test_a_last_run_in_the_future_delays_no_interval() -> None:
    """The clock was set back by an hour: Celery itself would wait for an hour and five minutes."""
    assert due(schedule(timedelta(minutes=5)), NOW + timedelta(hours=1)) == NOW + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("day", "utc_hour"),
    [((2026, 10, 24), 1), ((2026, 10, 25), 2), ((2027, 3, 27), 2), ((2027, 3, 28), 1)],
    ids=["last summer night", "first winter night", "last winter night", "first summer night"],
)
def test_a_crontab_follows_daylight_saving(day: tuple[int, int, int], utc_hour: int) -> None:
    """Half past three in Berlin is one hour later in winter, by UTC."""
    noon_before = datetime(*day, 12, tzinfo=timezone.utc) - timedelta(days=1)
    yesterday = noon_before.astimezone(ZoneInfo("Europe/Berlin")).replace(hour=3, minute=30)
    expected = datetime(*day, utc_hour, 30, tzinfo=timezone.utc)
    assert due(crontab(minute="30", hour="3"), yesterday, now=noon_before, app=BERLIN) == expected


def test_a_crontab_that_is_too_late_waits_for_the_next_time() -> None:
    """`beat_cron_starting_deadline`: beat leaves out what is later than that."""
    app = Celery("deadline", set_as_current=False)
    app.conf.beat_cron_starting_deadline = 3600
    last = NOW - timedelta(hours=30)
    assert due(crontab(minute="0", hour="4"), last, app=app) == datetime(2026, 11, 29, 4, tzinfo=timezone.utc)
    assert due(crontab(minute="30", hour="11"), last, app=app) == datetime(2026, 11, 28, 11, 30, tzinfo=timezone.utc)


class _Odd(BaseSchedule):
    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        return False, 60.0

    def __repr__(self) -> str:
        return "<at full moon>" + "!" * 1000


def test_a_schedule_of_any_other_kind_is_reported_as_far_as_it_can_be() -> None:
    """One that cannot say when it is due next has no due time."""
    odd = plan(_Odd(), NOW)
    assert (odd.words[:14], len(odd.words), odd.every, odd.next_due_at) == ("<at full moon>", 200, None, None)


@dataclass
class _Row:
    """A row of some database, which has not all that django-celery-beat's rows have."""

    enabled: bool = True
    one_off: bool = False
    total_run_count: int = 0


class _Table:
    """A scheduler whose ``Model`` is no Django model, as that of sqlalchemy-celery-beat."""

    class Entry(ScheduleEntry):
        """Has a row."""

        model = _Row()

    Model = _Row

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.schedule = {"x": self.Entry(name="x", task="y", schedule=schedule(30), app=app)}


def test_a_scheduler_with_tables_of_another_kind_is_read_as_it_is() -> None:
    """Its rows may lack what Django's have."""
    [entry], left_out = entries_of(_Table(APP))
    found = plan_of(entry, now=NOW.timestamp())
    assert (found.schedule, found.name, found.enabled, left_out) == ("x", "y", True, 0)
    assert found.next_due_at is not None
    entry.model = _Row(one_off=True, total_run_count=1)
    assert plan_of(entry, now=NOW.timestamp()).next_due_at is None


def test_schedules_in_words() -> None:
    """As people write them."""
    assert words_of(schedule(90)) == "every 90 s"
    assert words_of(crontab(minute="*/5", hour="8-17", day_of_week="mon-fri")) == "crontab */5 8-17 * * mon-fri UTC"


@pytest.mark.parametrize(
    ("kind", "due_at", "missed"),
    [
        (schedule(30), NOW - timedelta(seconds=29), 0),
        (schedule(30), NOW - timedelta(seconds=100), 3),
        (schedule(0), NOW - timedelta(seconds=100), 0),
        (schedule(1), NOW - timedelta(days=100), entries.MAX_MISSED),
        (crontab(minute="0"), NOW - timedelta(minutes=30), 1),
        (crontab(minute="0", hour="4"), NOW - timedelta(hours=3 * 24 + 8), 3),
        (crontab(minute="0", hour="4"), NOW - timedelta(hours=8), 0),
        (_Odd(), NOW - timedelta(hours=8), 0),
    ],
)
def test_times_that_passed_since_it_was_due(kind: BaseSchedule, due_at: datetime, missed: int) -> None:
    """Beat was frozen or away: it sends once, whatever was due meanwhile."""
    kind.nowfun = lambda: NOW
    kind.app = APP
    assert missed_since(kind, due_at.timestamp(), now=NOW.timestamp()) == missed


def test_what_follows_a_run() -> None:
    """The next time, counted from now."""
    kind = schedule(timedelta(minutes=5), nowfun=lambda: NOW, app=APP)
    entry = ScheduleEntry(name="x", task="x", schedule=kind, last_run_at=NOW - timedelta(hours=1), app=APP)
    assert following(entry, now=NOW.timestamp()) == NOW.timestamp() + 300


def test_at_most_so_many_entries_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is counted."""
    monkeypatch.setattr(entries, "MAX_ENTRIES", 3)
    app = Celery("many", set_as_current=False)
    app.conf.beat_schedule = {f"entry{number}": {"task": "x", "schedule": 30} for number in range(5)}
    app.conf.result_expires = None
    found, left_out = entries_of(Scheduler(app))
    assert (len(found), left_out) == (3, 2)
