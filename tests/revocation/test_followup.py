"""What becomes known while an act is under way, when it breaks off, and when too much is held too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from tests.revocation.room import Room

from celerymeter.control.revocation.followup import CLAIM
from celerymeter.control.revocation.ledger import MOST
from celerymeter.control.revocation.models import MAX_IDS
from celerymeter.control.testing import control_settings
from celerymeter.demo.processes import wait_until
from celerymeter.errors import BrokerUnavailable

MakeRoom = Callable[..., Room]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeRoom]:
    """Replicas on one state directory."""
    made: list[Room] = []

    def replica(**settings: object) -> Room:
        varied = replace(control_settings(), **settings)  # type: ignore[arg-type]  # the test names fields
        made.append(Room(tmp_path / "state", varied))
        return made[-1]

    yield replica
    for room in made:
        room.close()


@pytest.fixture
def room(make: MakeRoom) -> Room:
    """One process."""
    return make()


def told_once(room: Room, task_id: str, status: str) -> bool:
    """Whether trail, counter and feed each have it exactly once, and the disk too."""
    rows = [detail["task_ids"] for outcome, detail in room.audited("event") if outcome == status]
    assert (rows, room.counted(status), room.fed().count((task_id, status))) == ([[task_id]], 1.0, 1)
    room.turn()  # what is settled leaves the memory
    return room.statuses()[status] == 1


def test_a_task_that_ends_while_the_act_is_under_way_is_told_once(room: Room) -> None:
    """Its end goes before what the act found, and has a row of its own after the outcome's."""
    room.workers.meanwhile = lambda: room.hear("task-succeeded", "t1", at=time.time())
    room.begin("t1", "t2")()
    (outcome,) = room.audited("outcome")
    assert outcome[1]["statuses"] == {"flagged_unknown": 1, "ran_anyway": 1}
    assert told_once(room, "t1", "ran_anyway")


def test_a_task_that_ends_before_the_workers_are_told_is_told_once(room: Room) -> None:
    """From the intent on nothing is missed."""
    act = room.begin("t1")
    room.hear("task-failed", "t1", at=time.time())
    assert room.audited("event") == []
    act()
    assert told_once(room, "t1", "ran_anyway")


def test_an_end_after_the_act_is_told_once(room: Room) -> None:
    """However often it is heard."""
    room.begin("t1")()
    for _ in range(2):
        room.hear("task-succeeded", "t1", at=time.time())
    assert told_once(room, "t1", "ran_anyway")


def test_what_was_heard_during_an_act_that_broke_off_is_not_lost(room: Room) -> None:
    """The broker went away in the middle of it."""

    def fail() -> None:
        room.hear("task-revoked", "t1", at=time.time())
        raise BrokerUnavailable("gone")

    room.workers.meanwhile = fail
    with pytest.raises(BrokerUnavailable):
        room.begin("t1", "t2")()
    assert room.audited("outcome")[0][0] == "failed"
    assert told_once(room, "t1", "revoked")


def test_what_is_held_too_long_is_given_up_and_counted(make: MakeRoom) -> None:
    """It is unconfirmed, which is no success."""
    room = make(revoke_hold=0.0)
    room.begin("t1", "t2")()
    assert room.statuses() == {"flagged_unknown": 2}
    room.turn()
    assert room.statuses() == {"unconfirmed": 2}
    assert room.sample("celerymeter_control_held_dropped_total", reason="expired") == 2
    assert room.sample("celerymeter_control_held_revocations") == 0
    assert room.audited("event") == [("unconfirmed", {"batch_id": "b1", "task_ids": ["t1", "t2"]})]


def test_of_too_many_held_ids_the_oldest_are_given_up_and_counted(room: Room) -> None:
    """Ten thousand stay."""
    for number in range(MOST // MAX_IDS):
        room.begin(*(f"{number}-{place}" for place in range(MAX_IDS)), batch=f"b{number}")()
    room.begin("one-more", "another", batch="last")()
    room.turn()
    assert room.statuses("b0") == {"unconfirmed": 2, "flagged_unknown": MAX_IDS - 2}
    assert room.statuses("last") == {"flagged_unknown": 2}
    assert room.sample("celerymeter_control_held_dropped_total", reason="capacity") == 2
    assert room.sample("celerymeter_control_held_revocations") == MOST


def test_an_open_batch_is_kept_however_many_came_later(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that are settled only the latest stay readable."""
    monkeypatch.setattr("celerymeter.control.revocation.store.KEPT", 2)
    room.begin("open", batch="b0")()
    for number in range(1, 5):
        room.begin(f"t{number}", batch=f"b{number}")()
        room.hear("task-revoked", f"t{number}", at=time.time())
    assert [room.parts.revocations.find(f"b{number}") is not None for number in range(5)] == [
        True,
        False,
        False,
        True,
        True,
    ]


def test_ids_for_which_there_was_no_time_are_told_afterwards(room: Room) -> None:
    """They are pending until then, for nobody has heard of them."""
    room.workers.time = 1
    room.begin("t1", "t2")()
    assert room.statuses() == {"flagged_unknown": 1, "pending": 1}
    room.turn()
    assert room.statuses() == {"flagged_unknown": 2}


def leased_until(room: Room) -> float:
    """When the batch may be taken over, by the disk."""
    (row,) = room.parts.store.read("SELECT lease FROM revoke_batches", ())
    return float(row["lease"])


def test_leases_do_not_wait_for_silent_workers(room: Room) -> None:
    """While one is waited for, the batch stays ours, and what is heard of it is told."""
    room.begin("t1", "t2")()
    asked, answer = Event(), Event()

    def keep_waiting() -> None:
        asked.set()
        answer.wait(300)

    room.workers.meanwhile = keep_waiting
    room.parts.followup.start()
    try:
        room.listen("worker-online", at=time.time())
        assert asked.wait(60)
        lease = leased_until(room)
        room.listen("task-succeeded", "t1", at=time.time())
        wait_until(lambda: room.statuses()["ran_anyway"], timeout=60)
        wait_until(lambda: leased_until(room) > lease + CLAIM, timeout=60, interval=0.2)
        assert not answer.is_set()
    finally:
        answer.set()
        room.parts.followup.stop()


def test_a_batch_belongs_to_one_process_at_a_time(make: MakeRoom) -> None:
    """One that stood still for longer than its lease finds that another goes on, and leaves it alone."""
    first, second = make(), make()
    first.begin("t1")()
    with first.parts.store.write() as connection:
        connection.execute("UPDATE revoke_batches SET lease = 0")
    second.turn()
    for room in (first, second):
        room.hear("task-succeeded", "t1", at=time.time())
    rows = [outcome for outcome, _ in first.audited("event")]
    assert (rows, first.counted("ran_anyway"), second.counted("ran_anyway")) == (["ran_anyway"], 0.0, 1.0)
    assert first.statuses() == {"ran_anyway": 1}


def test_what_happened_while_nobody_followed_a_batch_is_caught_up_with(make: MakeRoom) -> None:
    """The one that followed it died; the one that takes it over had heard all along."""
    first, second = make(), make()
    first.begin("t1", "t2")()
    second.listen("task-succeeded", "t1", at=time.time())
    first.parts.followup.stop()
    assert second.statuses() == {"flagged_unknown": 2}
    second.turn()
    assert second.statuses() == {"ran_anyway": 1, "flagged_unknown": 1}
    assert told_once(second, "t1", "ran_anyway")
