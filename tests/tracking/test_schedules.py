"""Schedules and beats as the hook in beat reports them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.tracking.cluster import BEAT, START, Cluster

from celerymeter.model import ScheduleRow
from celerymeter.tracking import schedules
from celerymeter.tracking.beats import Schedule
from celerymeter.tracking.saved import Saved, restore, save


def row(
    name: str = "nightly", *, every: float | None = 60.0, due_in: float | None = 60.0, **fields: Any
) -> ScheduleRow:
    """An entry, due so many seconds after the start of all."""
    next_due_at = START + due_in if due_in is not None else None
    return ScheduleRow(schedule=name, name=f"tasks.{name}", every=every, next_due_at=next_due_at, **fields)


def schedule(cluster: Cluster, name: str = "nightly") -> Schedule:
    """Return what is known of an entry."""
    [found] = [one for one in cluster.tracker.schedules if one.labels[0] == name]
    return found


def up(cluster: Cluster) -> dict[str, bool]:
    """Beats, and whether they are up."""
    return cluster.tracker.schedules.up(cluster.now)


def beat_on(cluster: Cluster, seconds: int, *, instance: str = "i1", hostname: str = BEAT) -> None:
    """Let time pass with a heartbeat every five seconds."""
    for _ in range(seconds // 5):
        cluster.pass_time(5)
        cluster.beat("heartbeat", hostname=hostname, instance=instance, count=1)


def test_a_beat_is_down_after_three_missed_heartbeats_and_its_series_stays_an_hour() -> None:
    """The last beat's schedule stays longer: somebody must see what is due."""
    cluster = Cluster()
    cluster.beat("schedule", row(), count=1)
    beat_on(cluster, 20)
    cluster.pass_time(15)
    assert up(cluster) == {BEAT: True}
    cluster.pass_time(2)
    assert up(cluster) == {BEAT: False}
    assert cluster.tracker.schedules.newest() == {}
    cluster.pass_time(3570)
    assert up(cluster) == {BEAT: False}
    cluster.pass_time(60)
    assert up(cluster) == {}
    assert schedule(cluster).next_due_at == START + 60


def test_a_beat_that_says_goodbye_is_down_at_once() -> None:
    """And one that starts in its place takes its schedule."""
    cluster = Cluster()
    cluster.beat("schedule", row(), row("gone"))
    cluster.beat("offline")
    cluster.pass_time(1)
    assert up(cluster) == {BEAT: False}
    cluster.beat("schedule", row(), instance="i2", started_at=cluster.now, hostname="celerybeat@two")
    assert [one.labels[0] for one in cluster.tracker.schedules] == ["nightly"]
    cluster.pass_time(1)
    assert up(cluster) == {"celerybeat@two": True}


def test_nothing_is_known_of_beats_while_our_subscription_is_down() -> None:
    """After it is back each has half a minute to be heard."""
    cluster = Cluster()
    cluster.beat("heartbeat")
    cluster.tracker.disconnected()
    cluster.pass_time(120)
    cluster.tracker.connected(cluster.now)
    cluster.pass_time(20)
    assert up(cluster) == {BEAT: True}
    cluster.pass_time(20)
    assert up(cluster) == {BEAT: False}


def test_counts_make_up_for_lost_events() -> None:
    """The runs that a beat counted since its last event are added, whatever event says so."""
    cluster = Cluster()
    cluster.beat("sent", row(due=1, sent=1), due_at=START, uuid="a")
    cluster.beat("sent", row(due=4, sent=3), due_at=START, uuid="d")
    cluster.beat("schedule", row(due=7, sent=5, failed=1))
    found = schedule(cluster)
    assert (found.due, found.sent, found.failed) == (7, 5, 1)


def test_a_beat_that_was_there_before_us_counts_from_now_on() -> None:
    """An exporter that restarts takes neither its past as new nor loses the first event."""
    cluster = Cluster()
    cluster.beat("sent", row(due=90, sent=80), due_at=START, uuid="a", started_at=START - 5000)
    cluster.beat("failed", row("other", due=9, sent=3, failed=6), due_at=START, started_at=START - 5000)
    cluster.beat("schedule", row("third", due=9, sent=9), row(due=92, sent=82), started_at=START - 5000)
    counts = {one.labels[0]: (one.due, one.sent, one.failed) for one in cluster.tracker.schedules}
    assert counts == {"nightly": (3, 3, 0), "third": (0, 0, 0)}


def test_what_a_beat_without_memory_slept_through_counts_as_due() -> None:
    """Killed, and started again after three of its times."""
    cluster = Cluster()
    cluster.beat("schedule", row(due_in=60))
    cluster.pass_time(200)
    cluster.beat("schedule", row(due_in=260), instance="i2", started_at=cluster.now)
    assert (schedule(cluster).due, schedule(cluster).sent) == (3, 0)


def test_a_time_of_a_crontab_that_a_new_beat_left_out_is_late_until_the_entry_is_sent() -> None:
    """It came a moment after the night's run was due, and remembers nothing."""
    cluster = Cluster()
    cluster.beat("schedule", row(every=None, due_in=20), row("later", every=None, due_in=60), row("often", due_in=20))
    cluster.beat("offline")
    cluster.pass_time(30)
    ahead = [row(every=None, due_in=500), row("later", every=None, due_in=60), row("often", due_in=90)]
    cluster.beat("schedule", *ahead, instance="i2", started_at=cluster.now)
    assert [schedule(cluster, name).due_at for name in ("nightly", "later", "often")] == [
        START + 20,
        START + 60,
        START + 90,  # an interval begins anew with each beat
    ]
    cluster.beat("schedule", *ahead, instance="i2")
    assert schedule(cluster).due_at == START + 20
    cluster.beat("sent", row(every=None, due_in=900, due=1, sent=1), due_at=START + 500, uuid="a", instance="i2")
    assert schedule(cluster).due_at == START + 900


def test_an_entry_that_was_left_out_and_is_disabled_is_late_no_more() -> None:
    """Nobody waits for it."""
    cluster = Cluster()
    cluster.beat("schedule", row(every=None, due_in=20))
    cluster.pass_time(30)
    cluster.beat("schedule", row(every=None, due_in=500), instance="i2", started_at=cluster.now)
    assert schedule(cluster).due_at == START + 20
    cluster.beat("schedule", row(every=None, due_in=500, enabled=False), instance="i2")
    assert schedule(cluster).due_at is None


def test_times_are_by_our_clock() -> None:
    """The host of beat is an hour ahead."""
    cluster = Cluster(skew={"one": 3600.0})
    ahead = START + 3600
    entry = ScheduleRow(schedule="x", name="y", last_run_at=ahead, next_due_at=ahead + 30, due=1, sent=1)
    cluster.beat("sent", entry, due_at=ahead - 2, uuid="a", started_at=ahead)
    found = schedule(cluster, "x")
    assert (found.last_sent_at, found.next_due_at, found.lateness.sum) == (START, START + 30, 2.0)


@pytest.mark.parametrize("step", [3600.0, -3600.0], ids=["ahead", "back"])
def test_a_clock_that_was_set_is_believed_at_once(step: float) -> None:
    """Else an entry would be late by an hour until beat reports its schedule again."""
    cluster = Cluster()
    cluster.beat("schedule", row(), skew=1000.0)
    cluster.pass_time(5)
    cluster.skew["one"] = step
    cluster.beat("schedule", row(due_in=step + 60), skew=1000.0 + step)
    assert schedule(cluster).next_due_at == START + 60


def test_an_entry_that_is_disabled_or_done_has_no_due_time() -> None:
    """It can be late no more."""
    cluster = Cluster()
    cluster.beat("schedule", row("off", enabled=False), row("done", due_in=None))
    assert [one.next_due_at for one in cluster.tracker.schedules] == [None, None]


@pytest.mark.parametrize("early", [False, True], ids=["sent first", "end first"])
def test_the_end_of_a_run_is_known_by_the_entry_that_sent_it(early: bool) -> None:
    """Whichever event comes first."""
    cluster = Cluster()
    cluster.beat("heartbeat")
    for uuid, outcome in (("a", "failed"), ("b", "revoked"), ("c", "succeeded"), ("d", "failed")):
        number = "abcd".index(uuid) + 1
        if early:
            cluster.run(uuid, outcome=outcome)
        cluster.beat("sent", row(due=number, sent=number), due_at=cluster.now, uuid=uuid)
        if not early:
            cluster.run(uuid, outcome=outcome)
        if uuid == "b":
            assert schedule(cluster).failures == 2
    found = schedule(cluster)
    assert (found.runs_succeeded, found.runs_failed, found.failures) == (1, 3, 1)
    assert found.last_success_at == cluster.now
    cluster.end("d", "failed")
    assert found.runs_failed == 3


def test_failures_with_successes_in_between_are_not_in_a_row() -> None:
    """Workers that aggregate send an event for a revoked task, and none for one that succeeded."""
    cluster = Cluster()
    for number in (1, 2, 3):
        cluster.beat("sent", row(due=number, sent=number), due_at=cluster.now, uuid=f"u{number}")
        cluster.run(f"u{number}", outcome="revoked")
        cluster.pass_time(1)
        cluster.tracker.tasks.counts.last_success["tasks.nightly"] = cluster.now
        cluster.pass_time(1)
    assert (schedule(cluster).runs_failed, schedule(cluster).failures) == (3, 1)


def test_two_beats_with_the_same_entries_are_duplicates_and_others_are_not() -> None:
    """Celery's own entry is in every schedule."""
    cluster = Cluster()
    cleanup = ScheduleRow(schedule="celery.backend_cleanup", name="celery.backend_cleanup")
    cluster.beat("schedule", row(), cleanup)
    cluster.beat("schedule", row("other"), cleanup, instance="i2", hostname="celerybeat@two")
    assert cluster.tracker.schedules.duplicates(cluster.now) == {BEAT: False, "celerybeat@two": False}
    cluster.beat("schedule", row(), cleanup, instance="i3", hostname="celerybeat@two")
    assert cluster.tracker.schedules.duplicates(cluster.now) == {BEAT: True, "celerybeat@two": True}


def test_two_beats_on_one_host_are_duplicates() -> None:
    """Their node name is the same; until the first is known to be dead both live."""
    cluster = Cluster()
    cluster.beat("schedule", row())
    cluster.beat("schedule", row(), instance="i2")
    assert cluster.tracker.schedules.duplicates(cluster.now) == {BEAT: True}
    beat_on(cluster, 30, instance="i2")
    assert cluster.tracker.schedules.duplicates(cluster.now) == {BEAT: False}


def test_a_beat_without_the_hook_is_up_while_it_answers_pings() -> None:
    """Celery 5.7's own remote control; two of them may send the same."""
    cluster = Cluster()
    for _ in range(4):
        cluster.tracker.beats_answered(["celerybeat@a", "celerybeat@b"], cluster.now)
        cluster.pass_time(15)
    assert up(cluster) == {"celerybeat@a": True, "celerybeat@b": True}
    assert cluster.tracker.schedules.duplicates(cluster.now) == {"celerybeat@a": True, "celerybeat@b": True}
    cluster.pass_time(120)  # polls fail
    assert up(cluster) == {"celerybeat@a": True, "celerybeat@b": True}
    cluster.tracker.beats_answered(["celerybeat@b"], cluster.now)
    assert up(cluster) == {"celerybeat@a": False, "celerybeat@b": True}
    assert not list(cluster.tracker.workers)


def test_an_exporter_with_a_state_file_goes_on_where_it_was() -> None:
    """Runs that beat counted meanwhile are counted; one that died meanwhile is down half a minute later."""
    cluster = Cluster()
    cluster.beat("schedule", row(due=4, sent=4))
    cluster.beat("heartbeat", instance="other", hostname="celerybeat@two")
    saved = msgspec.json.decode(msgspec.json.encode(save(cluster.tracker)), type=Saved)
    following = Cluster(now=cluster.now + 20)
    restore(following.tracker, saved, now=following.now)
    following.beat("sent", row(due=9, sent=7), due_at=following.now, uuid="x")
    assert (schedule(following).due, schedule(following).sent) == (9, 7)
    beat_on(following, 40)
    assert up(following) == {BEAT: True, "celerybeat@two": False}


def test_schedules_and_beats_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedules and beats beyond the limits are counted as folded."""
    monkeypatch.setattr(schedules, "MAX_SCHEDULES", 2)
    monkeypatch.setattr(schedules, "MAX_BEATS", 2)
    monkeypatch.setattr(schedules, "MAX_AWAITED", 3)
    cluster = Cluster()
    cluster.beat("schedule", *(row(name) for name in "abcde"))
    assert len(list(cluster.tracker.schedules)) == 2
    assert cluster.tracker.task_series.folded["schedule"] == 3
    for number in range(3):
        cluster.beat("heartbeat", instance=f"j{number}", hostname=f"celerybeat@{number}")
    assert len(cluster.tracker.schedules.beats) == 2
    assert cluster.tracker.task_series.folded["hostname"] == 2
    for number in range(9):
        cluster.run(f"uuid{number}")
        cluster.beat("sent", row("a", due=number, sent=number), due_at=START, uuid=f"other{number}")
    table = cluster.tracker.schedules
    assert (len(table._awaited), len(table._ended)) == (3, 3)


def test_events_of_an_application_under_these_names_are_only_counted() -> None:
    """They carry no report."""
    cluster = Cluster()
    cluster.send("beat-heartbeat", "celery@one")
    assert cluster.tracker.event_counts["beat-heartbeat"] == 1
    assert up(cluster) == {}
