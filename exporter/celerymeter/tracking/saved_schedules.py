"""Schedules and beats as values that outlive the exporter: what beats counted meanwhile is then counted in full."""

from __future__ import annotations

import msgspec

from celerymeter.tracking.beats import Beat, Schedule
from celerymeter.tracking.schedules import ScheduleTable

_NUMBERS = tuple(name for name in Schedule.__slots__ if name not in ("labels", "lateness"))


class SavedSchedule(msgspec.Struct):
    """One entry of a schedule."""

    schedule: str
    name: str
    numbers: dict[str, int | float | None]
    lateness: list[int]
    lateness_sum: float


class SavedBeat(msgspec.Struct):
    """One beat process, and what it had counted: due, sent and failed by schedule and task."""

    instance: str
    hostname: str
    last_seen: float
    fresh: bool
    counts: list[tuple[str, str, int, int, int]]


class SavedSchedules(msgspec.Struct):
    """All of them."""

    schedules: list[SavedSchedule] = []
    beats: list[SavedBeat] = []


def save_schedules(table: ScheduleTable) -> SavedSchedules:
    """Return the entries and beats of a table."""
    return SavedSchedules(
        [
            SavedSchedule(
                *one.labels,
                {name: getattr(one, name) for name in _NUMBERS},
                list(one.lateness.counts),
                one.lateness.sum,
            )
            for one in table
        ],
        [
            SavedBeat(
                instance,
                beat.hostname,
                beat.last_seen,
                beat.fresh,
                [(*labels, *counts) for labels, counts in beat.counts.items()],
            )
            for instance, beat in table.by_instance.items()
        ],
    )


def restore_schedules(table: ScheduleTable, saved: SavedSchedules) -> None:
    """Let a new table continue. A beat that is not heard again within half a minute is down."""
    for one in saved.schedules:
        schedule = table.add((one.schedule, one.name))
        if schedule is None:
            continue
        for name, value in one.numbers.items():
            if name in _NUMBERS:
                setattr(schedule, name, value)
        if len(one.lateness) == len(schedule.lateness.counts):
            schedule.lateness.counts[:] = one.lateness
            schedule.lateness.sum = one.lateness_sum
    for kept in saved.beats:
        beat = table.by_instance[kept.instance] = Beat(kept.hostname, fresh=kept.fresh, at=kept.last_seen)
        beat.counts = {(schedule, name): (due, sent, failed) for schedule, name, due, sent, failed in kept.counts}
