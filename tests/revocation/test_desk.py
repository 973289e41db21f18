"""Whoever asks has an answer in time, whatever the workers do; and what it says is what happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from tests.revocation.room import Room

from celerymeter.control.audit.trail import Actor
from celerymeter.control.revocation import desk as module
from celerymeter.control.revocation.models import ordered
from celerymeter.control.revocation.revoker import ACTING, LOOKING
from celerymeter.demo.processes import wait_until
from celerymeter.errors import BrokerUnavailable

SOMEBODY = Actor("somebody")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """One process that answers sooner than usual."""
    monkeypatch.setattr(module, "ANSWER", 0.2)
    room = Room(tmp_path / "state")
    yield room
    room.close()


@pytest.fixture
def go_on(room: Room) -> Iterator[Event]:
    """Set when the worker that is asked or told may go on."""
    event = Event()
    yield event
    event.set()


def test_answers_come_within_four_seconds() -> None:
    """Looking and acting leave time for it; a client that waits for 5 s gives up later."""
    assert LOOKING < ACTING < module.ANSWER < 4


def test_an_answer_does_not_wait_for_workers_that_are_told(room: Room, go_on: Event) -> None:
    """What they say is in the follow-up."""
    room.workers.meanwhile = lambda: go_on.wait(300)
    batch = room.parts.revocations.take(ordered(["t1", "t2"]), SOMEBODY, batch="b1")
    assert [result.status for result in batch.results] == ["pending", "pending"]
    assert (len(room.audited("intent")), room.audited("outcome")) == (1, [])
    go_on.set()
    wait_until(lambda: room.statuses() == {"flagged_unknown": 2}, timeout=60)
    wait_until(lambda: room.audited("outcome"), timeout=60)


def test_what_was_answered_with_an_error_is_not_done_afterwards(room: Room, go_on: Event) -> None:
    """Workers that took too long to say what they hold are not told any more; the audit trail says so."""
    room.workers.asked = lambda: go_on.wait(300)
    with pytest.raises(BrokerUnavailable):
        room.parts.revocations.take(ordered(["t1"]), SOMEBODY, batch="b1")
    go_on.set()
    wait_until(lambda: room.audited("outcome"), timeout=60)
    assert room.audited("outcome") == [("refused", {"error": "broker_unavailable"})]
    assert room.parts.revocations.find("b1") is None
