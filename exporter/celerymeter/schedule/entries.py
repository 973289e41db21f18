"""Reads the entries of Celery's, django-celery-beat's and RedBeat's schedulers: when each is due, and how often."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from celery.schedules import crontab, schedule
from celery.utils.log import get_logger
from celery.utils.time import maybe_make_aware

T = TypeVar("T")

MAX_ENTRIES = 2000
"""Entries that are reported; the rest is only counted."""
AT_ONCE = 250
"""Entries of RedBeat that are read together."""
MAX_TEXT = 200
"""Characters of a name that are reported."""
MAX_MISSED = 1000
"""Times of one entry that are counted as missed at once."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """One entry of a schedule; times are UTC seconds by this host's clock, ``None`` where there is none."""

    schedule: str
    name: str
    """Of the task."""
    words: str
    every: float | None
    """Seconds, of an interval."""
    last_run_at: float | None
    next_due_at: float | None
    enabled: bool


def entries_of(scheduler: Any) -> tuple[list[Any], int]:
    """Return the entries of a scheduler, and how many there are that cannot be read or are beyond `MAX_ENTRIES`."""
    if hasattr(scheduler.Entry, "from_key"):
        return _redbeat_entries(scheduler)
    found, unread = dict(scheduler.schedule), 0
    if hasattr(getattr(getattr(scheduler, "Model", None), "objects", None), "enabled"):
        more, unread = _database_entries(scheduler, known=found)
        found = {**more, **found}
    return list(itertools.islice(found.values(), MAX_ENTRIES)), max(0, len(found) - MAX_ENTRIES) + unread


def version_of(scheduler: Any) -> object:
    """Return something that is another object when the schedule has changed."""
    if hasattr(scheduler.Entry, "from_key"):
        from redbeat.schedulers import get_redis

        return int(get_redis(scheduler.app).zcard(scheduler.app.redbeat_conf.schedule_key))
    # Celery keeps a copy of the schedule that it put into its heap, and makes another when the schedule changed.
    return getattr(scheduler, "old_schedulers", None)


def _redbeat_entries(scheduler: Any) -> tuple[list[Any], int]:
    """Return all entries of RedBeat, whose ``schedule`` holds only those that are due next."""
    from redbeat.schedulers import get_redis

    client, key = get_redis(scheduler.app), scheduler.app.redbeat_conf.schedule_key
    names = client.zrange(key, 0, MAX_ENTRIES - 1)
    found: list[Any] = []
    unread: dict[str, Exception] = {}
    for first in range(0, len(names), AT_ONCE):  # one by one they would take beat a round trip each
        with client.pipeline(transaction=False) as pipe:
            for name in names[first : first + AT_ONCE]:
                pipe.hmget(name, "definition", "meta")
            answers = pipe.execute()
        for name, (definition, meta) in zip(names[first : first + AT_ONCE], answers, strict=True):
            if definition:  # else it was deleted meanwhile
                found += _read(name, partial(_redbeat_entry, scheduler, definition, meta), unread)
    _warn(unread)
    return found, max(0, client.zcard(key) - MAX_ENTRIES) + len(unread)


def _redbeat_entry(scheduler: Any, definition: str, meta: str | None) -> Any:
    """Return an entry as `RedBeatSchedulerEntry.from_key` makes it."""
    kind = scheduler.Entry
    known = kind.decode_meta(meta)
    entry = kind(app=scheduler.app, **{**kind.decode_definition(definition), **known})
    entry.last_run_at = known["last_run_at"]
    return entry


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry that django-celery-beat has not loaded; to make its own kind of entry may write to the database."""

    name: str
    task: str
    schedule: Any
    last_run_at: datetime | None
    model: Any


def _database_entries(scheduler: Any, *, known: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the enabled entries that django-celery-beat leaves out while they are not due within two hours.

    The second value is the number of those that cannot be read, which it leaves out without a word.
    """
    found: dict[str, Any] = {}
    unread: dict[str, Exception] = {}
    for model in scheduler.Model.objects.enabled()[: MAX_ENTRIES * 2]:
        if model.name not in known:
            found.update((model.name, row) for row in _read(model.name, partial(_row, model), unread))
    _warn(unread)
    return found, len(unread)


def _row(model: Any) -> _Row:
    return _Row(model.name, model.task, model.schedule, model.last_run_at or model.date_changed, model)


def _read(name: str, make: Callable[[], T], unread: dict[str, Exception]) -> list[T]:
    """Return the entry, or nothing: its schedule was deleted, never comes, or is damaged."""
    try:
        return [make()]
    except Exception as error:  # noqa: BLE001 - whatever somebody wrote there
        unread[name] = error
        return []


def _warn(unread: dict[str, Exception]) -> None:
    """Name the entries that never run because nobody can read them; beat may not."""
    if unread:
        some = "; ".join(f"{name!r}: {error!r}" for name, error in itertools.islice(unread.items(), 3))
        log.warning("celerymeter: %d entries of beat's schedule cannot be read: %s", len(unread), some[: 5 * MAX_TEXT])


def plan_of(entry: Any, *, now: float) -> Plan:
    """Return what an entry says at ``now``; a due time in the past means that it is late."""
    model = getattr(entry, "model", None)
    enabled = bool(getattr(model if model is not None else entry, "enabled", True))
    last_run_at = entry.last_run_at
    next_due_at = _next_due(entry, now=now) if enabled else None
    return Plan(
        schedule=str(entry.name)[:MAX_TEXT],
        name=str(entry.task)[:MAX_TEXT],
        words=words_of(entry.schedule)[:MAX_TEXT],
        every=interval_of(entry.schedule),
        last_run_at=maybe_make_aware(last_run_at).timestamp() if last_run_at is not None else None,
        next_due_at=_within(model, next_due_at, now=now),
        enabled=enabled,
    )


def _within(model: Any, due_at: float | None, *, now: float) -> float | None:
    """Return when an entry of a database is due: not before its start, nor after its end, nor again if it runs once."""
    if due_at is None or (getattr(model, "one_off", False) and getattr(model, "total_run_count", 0)):
        return None
    starts, expires = getattr(model, "start_time", None), getattr(model, "expires", None)
    if isinstance(starts, datetime):
        due_at = max(due_at, maybe_make_aware(starts).timestamp())
    expired = isinstance(expires, datetime) and maybe_make_aware(expires).timestamp() <= max(due_at, now)
    return None if expired else due_at


def _next_due(entry: Any, *, now: float) -> float | None:
    if entry.last_run_at is None:  # RedBeat: it has never run
        return now
    remaining = _remaining(entry.schedule, entry.last_run_at)
    if remaining is None:
        return None
    deadline = entry.schedule.app.conf.beat_cron_starting_deadline if isinstance(entry.schedule, crontab) else None
    if deadline is not None and remaining < -deadline:  # beat leaves out what was due before
        remaining = _remaining(entry.schedule, entry.schedule.now() - timedelta(seconds=deadline)) or 0.0
    every = interval_of(entry.schedule)
    if every is not None:  # a last run in the future: the clock was set back
        remaining = min(remaining, every)
    return now + remaining


def following(entry: Any, *, now: float) -> float | None:
    """Return when an entry that runs now is due again."""
    remaining = _remaining(entry.schedule, entry.schedule.now())
    due_at = now + remaining if remaining is not None and remaining > 0 else None
    return _within(getattr(entry, "model", None), due_at, now=now)


def _remaining(plan: Any, last_run_at: datetime) -> float | None:
    """Return the seconds until a schedule is due after a run, negative if it is late."""
    try:
        remaining: timedelta | None = plan.remaining_estimate(maybe_make_aware(last_run_at))
    except NotImplementedError:  # a schedule of the application's own
        return None
    return remaining.total_seconds() if remaining is not None else None


def interval_of(plan: Any) -> float | None:
    """Return the seconds of an interval, ``None`` for any other kind of schedule."""
    return plan.run_every.total_seconds() if isinstance(plan, schedule) else None


def words_of(plan: Any) -> str:
    """Return a schedule as text.

    >>> words_of(schedule(90)), words_of(crontab(minute="0", hour="4"))
    ('every 90 s', 'crontab 0 4 * * * UTC')
    """
    if isinstance(plan, schedule):
        return f"every {plan.run_every.total_seconds():g} s"
    if isinstance(plan, crontab):
        fields = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
        return " ".join(["crontab", *(str(getattr(plan, f"_orig_{field}")) for field in fields), str(plan.tz)])
    return repr(plan)


def missed_since(plan: Any, due_at: float, *, now: float) -> int:
    """Return how many later times have passed too, since one that was due at ``due_at``."""
    every = interval_of(plan)
    if every is not None:
        return min(MAX_MISSED, int((now - due_at) / every)) if every > 0 else 0
    missed, due = 0, due_at
    while missed < MAX_MISSED:
        remaining = _remaining(plan, datetime.fromtimestamp(due, tz=plan.tz))
        if remaining is None or remaining > 0 or now + remaining <= due:
            break
        missed, due = missed + 1, now + remaining
    return missed
