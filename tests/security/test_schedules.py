"""Beats that nobody knows: their entries, and the work for each of their messages, are bounded."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.security.test_memory import MEGABYTE, WIDE, kept_by
from tests.security.test_work import seconds
from tests.tracking.cluster import Cluster

from celerymeter.model import BeatReport, Event, ScheduleRow


def report(cluster: Cluster, instance: str, *names: str, kind: str = "beat-schedule", **fields: Any) -> Event:
    """An event of an invented beat with these entries."""
    rows = [ScheduleRow(schedule=name, name="task") for name in names]
    beat = BeatReport(instance=instance, started_at=time.time(), schedule=rows, **fields)
    return Event(type=kind, hostname=f"beat@{instance}", timestamp=cluster.now, beat=beat)


def test_schedules_cost_the_same_however_many_beats_there_are() -> None:
    """A message must not be compared with all other beats, nor with all their entries."""
    cluster = Cluster()
    names = [f"entry-{number}" for number in range(2000)]
    cluster.tracker.apply([report(cluster, f"b{number}", *names) for number in range(100)], cluster.now)
    events = [report(cluster, f"b{number % 100}", "entry-1") for number in range(2000)]
    assert seconds(lambda: cluster.tracker.apply(events, cluster.now)) < 1.0
    assert seconds(lambda: cluster.tracker.tick(cluster.now)) < 0.5


def test_the_last_schedule_of_a_beat_counts() -> None:
    """Also among many, after the next tick."""
    cluster = Cluster()
    events = [report(cluster, "b", f"entry-{number}") for number in range(100)]
    cluster.tracker.apply(events, cluster.now)
    cluster.tracker.tick(cluster.now)
    assert {schedule.labels[0] for schedule in cluster.tracker.schedules} == {"entry-99"}


@pytest.mark.parametrize("kind", ["beat-schedule", "beat-sent", "beat-heartbeat"])
def test_entries_take_little_memory(kind: str) -> None:
    """Whatever their names are."""
    cluster = Cluster()

    def feed() -> None:
        for number in range(300):
            names = [f"{number}-{entry}{WIDE * 400}" for entry in range(50)]
            event = report(cluster, f"b{number}", *names, kind=kind, uuid=f"{number}{WIDE * 400}")
            cluster.tracker.apply([event], cluster.now)
        cluster.tracker.tick(cluster.now)

    assert kept_by(feed) < 12 * MEGABYTE
