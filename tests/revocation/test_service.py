"""A client has an answer in time, whatever the workers do; and what the answer says is what happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from tests.revocation.process import WORKER, ControlProcess

from celerymeter.control.audit.trail import Actor
from celerymeter.control.revocation import service
from celerymeter.control.revocation.service import revoke_request
from celerymeter.demo.processes import wait_until
from celerymeter.errors import BrokerUnavailable, RequestRefused

SOMEBODY = Actor("somebody")


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlProcess]:
    """One process that answers sooner than usual."""
    monkeypatch.setattr(service, "ANSWER", 0.2)
    process = ControlProcess(tmp_path / "state")
    yield process
    process.close()


@pytest.fixture
def go_on(process: ControlProcess) -> Iterator[Event]:
    """Set when the worker that was sent a command may go on."""
    event = Event()
    yield event
    event.set()


def test_answers_come_within_four_seconds() -> None:
    """Collecting and acting leave time for it; a client that waits for 5 s gives up later."""
    assert service.COLLECT < service.ACT < service.ANSWER < 4


def test_an_answer_does_not_wait_for_workers_that_are_sent_flags(process: ControlProcess, go_on: Event) -> None:
    """Their replies are in the follow-up."""
    process.remote.on_flag = lambda: go_on.wait(300)
    batch = process.parts.revocations.revoke(revoke_request(["t1", "t2"]), SOMEBODY, batch_id="b1")
    assert [result.status for result in batch.results] == ["pending", "pending"]
    assert (len(process.audited("intent")), process.audited("outcome")) == (1, [])
    go_on.set()
    wait_until(lambda: process.statuses() == {"flagged_unknown": 2})
    wait_until(lambda: process.audited("outcome"))


def test_what_was_answered_with_an_error_is_not_done_afterwards(process: ControlProcess, go_on: Event) -> None:
    """Workers that took too long to say what they hold get no flags any more; the audit trail says so."""
    process.remote.on_inspect = lambda: go_on.wait(300)
    with pytest.raises(BrokerUnavailable):
        process.parts.revocations.revoke(revoke_request(["t1"]), SOMEBODY, batch_id="b1")
    go_on.set()
    wait_until(lambda: process.audited("outcome"))
    assert process.audited("outcome") == [("refused", {"error": "broker_unavailable"})]
    assert process.parts.revocations.find("b1") is None


def test_a_revoke_that_no_worker_answers_is_sent_again_until_one_does(process: ControlProcess) -> None:
    """As after a restart of the broker: workers send heartbeats before they listen for commands again."""
    process.send_event("worker-heartbeat", at=time.time())
    process.remote.silent = True
    with pytest.raises(RequestRefused) as refused:
        process.begin("t1")()
    assert (refused.value.code, refused.value.members) == ("no_worker_answered", {"batch_id": "b1"})
    assert process.audited("outcome")[0][0] == "no_answer"
    assert process.statuses() == {"partial": 1}
    process.remote.silent = False
    process.run_threads()
    assert process.statuses() == {"flagged_unknown": 1}


def test_workers_that_answered_before_are_busy_and_not_gone(process: ControlProcess) -> None:
    """Nothing is decided yet, and it is no error."""
    act = process.begin("t1")
    process.remote.silent = True
    act()
    assert process.statuses() == {"pending": 1}
    assert process.find().workers.missing == {WORKER}
