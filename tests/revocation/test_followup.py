"""Events during an act, acts that fail, ids that are held too long or are too many, and restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tests.control.access import control_settings
from tests.revocation.process import ControlProcess

from celerymeter.control.audit.trail import Actor
from celerymeter.control.revocation.batches import MAX_OPEN
from celerymeter.control.revocation.models import MAX_IDS
from celerymeter.control.revocation.service import revoke_request
from celerymeter.control.revocation.workers import BatchSize
from celerymeter.demo.processes import wait_until
from celerymeter.errors import BrokerUnavailable, RequestRefused
from celerymeter.model import Event as CeleryEvent

MakeProcess = Callable[..., ControlProcess]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeProcess]:
    """Start a process on the state directory; one after the other."""
    made: list[ControlProcess] = []

    def start(**settings: Any) -> ControlProcess:
        varied = replace(control_settings(), **settings)
        made.append(ControlProcess(tmp_path / "state", varied))
        return made[-1]

    yield start
    made[-1].close()


@pytest.fixture
def process(make: MakeProcess) -> ControlProcess:
    """One process."""
    return make()


def recorded_once(process: ControlProcess, task_id: str, status: str, batch: str = "b1") -> bool:
    """Return whether trail, counter and feed each have it exactly once, and the disk too."""
    rows = [detail for outcome, detail in process.audited("event") if outcome == status]
    assert [row["task_ids"] for row in rows if row["batch_id"] == batch] == [[task_id]]
    assert (process.counted(status), process.fed().count((task_id, status))) == (1.0, 1)
    process.run_threads()  # what is settled leaves the memory
    return process.statuses(batch)[status] == 1


def test_a_task_that_ends_while_the_act_is_under_way_is_recorded_once(process: ControlProcess) -> None:
    """Its end goes before what the act found, and has a row of its own after the outcome's."""
    process.remote.on_flag = lambda: process.handle_event("task-succeeded", "t1", at=time.time())
    process.begin("t1", "t2")()
    (outcome,) = process.audited("outcome")
    assert outcome[1]["statuses"] == {"flagged_unknown": 1, "ran_anyway": 1}
    assert recorded_once(process, "t1", "ran_anyway")


def test_a_task_that_ends_before_the_workers_are_sent_flags_is_recorded_once(process: ControlProcess) -> None:
    """From the intent on nothing is missed."""
    act = process.begin("t1")
    process.handle_event("task-failed", "t1", at=time.time())
    assert process.audited("event") == []
    act()
    assert recorded_once(process, "t1", "ran_anyway")


def test_an_end_after_the_act_is_recorded_once(process: ControlProcess) -> None:
    """However often its event comes."""
    process.begin("t1")()
    for _ in range(2):
        process.handle_event("task-succeeded", "t1", at=time.time())
    assert recorded_once(process, "t1", "ran_anyway")


def test_an_event_during_an_act_that_failed_is_not_lost(process: ControlProcess) -> None:
    """The broker went away in the middle of it."""

    def fail() -> None:
        process.handle_event("task-revoked", "t1", at=time.time())
        raise BrokerUnavailable("gone")

    process.remote.on_flag = fail
    with pytest.raises(RequestRefused) as refused:
        process.begin("t1", "t2")()
    assert (refused.value.code, refused.value.members) == ("broker_unavailable", {"batch_id": "b1"})
    assert process.audited("outcome")[0][0] == "failed"
    assert recorded_once(process, "t1", "revoked")


def test_what_is_held_too_long_is_given_up_and_counted(make: MakeProcess) -> None:
    """It is unconfirmed, which is no success."""
    process = make(revoke_hold=0.0)
    process.begin("t1", "t2")()
    assert process.statuses() == {"flagged_unknown": 2}
    process.run_threads()
    assert process.statuses() == {"unconfirmed": 2}
    assert process.sample("celerymeter_control_held_dropped_total", reason="expired") == 2
    assert process.sample("celerymeter_control_held_revocations") == 0
    assert process.audited("event") == [("unconfirmed", {"batch_id": "b1", "task_ids": ["t1", "t2"]})]


def test_of_too_many_held_ids_the_oldest_are_given_up_and_counted(process: ControlProcess) -> None:
    """Ten thousand stay."""
    for number in range(MAX_OPEN // MAX_IDS):
        process.begin(*(f"{number}-{place}" for place in range(MAX_IDS)), batch=f"b{number}")()
    process.begin("one-more", "another", batch="last")()
    process.run_threads()
    assert process.statuses("b0") == {"unconfirmed": 2, "flagged_unknown": MAX_IDS - 2}
    assert process.statuses("last") == {"flagged_unknown": 2}
    assert process.sample("celerymeter_control_held_dropped_total", reason="capacity") == 2
    assert process.sample("celerymeter_control_held_revocations") == MAX_OPEN


def test_an_open_batch_is_kept_however_many_came_later(
    process: ControlProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that are settled only the latest stay readable."""
    monkeypatch.setattr("celerymeter.control.revocation.batches.KEPT", 2)
    process.begin("open", batch="b0")()
    for number in range(1, 5):
        process.begin(f"t{number}", batch=f"b{number}")()
        process.handle_event("task-revoked", f"t{number}", at=time.time())
    assert [process.parts.revocations.find(f"b{number}") is not None for number in range(5)] == [
        True,
        False,
        False,
        True,
        True,
    ]


def test_ids_for_which_there_was_no_time_are_sent_afterwards(process: ControlProcess) -> None:
    """They are pending until then, for no worker has acknowledged them."""
    process.begin(*(f"t{number}" for number in range(BatchSize.FIRST + 1)), until=0.0)()
    assert process.statuses() == {"flagged_unknown": BatchSize.FIRST, "pending": 1}
    process.run_threads()
    assert process.statuses() == {"flagged_unknown": BatchSize.FIRST + 1}


def test_events_do_not_wait_for_silent_workers(process: ControlProcess) -> None:
    """While one is waited for, what happens to a task is known at once."""
    process.begin("t1", "t2")()
    asked, answer = Event(), Event()

    def keep_waiting() -> None:
        asked.set()
        answer.wait(300)

    process.remote.on_flag = keep_waiting
    process.parts.followup.start()
    try:
        process.send_event("worker-online", at=time.time())
        assert asked.wait(60)
        process.send_event("task-succeeded", "t1", at=time.time())
        wait_until(lambda: process.statuses()["ran_anyway"])
        assert not answer.is_set()
    finally:
        answer.set()
        process.parts.followup.stop()


def test_open_batches_are_resumed_at_the_start(make: MakeProcess) -> None:
    """Settled tasks stay settled; the others are followed, and sent again to the worker that had not acknowledged."""
    first = make()
    first.begin("t1", "t2")()
    first.handle_event("task-succeeded", "t1", at=time.time())
    first.begin("t3", batch="b2")  # killed before the act
    first.close()

    second = make()
    assert second.statuses("b2") == {"pending": 1}
    second.parts.followup.resume()
    second.run_threads()
    assert second.statuses() == {"ran_anyway": 1, "flagged_unknown": 1}
    assert second.statuses("b2") == {"flagged_unknown": 1}
    second.handle_event("task-revoked", "t2", at=time.time())
    assert recorded_once(second, "t2", "revoked")
    second.handle_event("task-succeeded", "t3", at=time.time())
    assert recorded_once(second, "t3", "ran_anyway", batch="b2")


def test_a_batch_whose_act_was_killed_waits_for_every_worker(make: MakeProcess) -> None:
    """Its ids stay pending while a worker that lived then has not acknowledged them."""
    first = make()
    service, request = first.parts.revocations, revoke_request(["t1"])
    evidence = service.collect(request, until=float("inf"))
    two_workers = replace(evidence, workers=evidence.workers | {"b@t"})
    service.begin(request, Actor("somebody"), two_workers, batch_id="b1")
    first.close()

    second = make()
    second.parts.followup.resume()
    second.run_threads()
    assert second.statuses() == {"pending": 1}
    assert second.find().workers.missing == {"b@t"}
    offline = CeleryEvent(type="worker-offline", hostname="b@t", timestamp=time.time())
    second.parts.events.events([offline], time.time())
    assert second.statuses() == {"flagged_unknown": 1}
