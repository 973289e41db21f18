"""The memories of aggregating workers make a history."""

from __future__ import annotations

from typing import Any

import pytest
from tests.lookup.evidence import ID, NOW, RECEIVED, SENT, STARTED, event, evidence, history, worker

from celerymeter.control.evidence.history import NO_HISTORY
from celerymeter.control.evidence.memory import Remembered, parse, with_memories
from celerymeter.control.evidence.task import BrokerFacts, WaitingMessage
from celerymeter.control.lookup.decide import decide


def remembered(state: str, name: str = "a@t", **fields: Any) -> Remembered:
    """Return a worker's memory of a task that it received and started."""
    return Remembered(name, state, "tests.add", "q", **{"received": NOW - 20, "started": NOW - 10, **fields})


@pytest.mark.parametrize(
    ("memories", "verdict"),
    [
        ([remembered("succeeded", ended=NOW - 5)], "succeeded"),
        ([remembered("failed", ended=NOW - 5)], "failed"),
        ([remembered("rejected", ended=NOW - 5)], "rejected"),
        ([remembered("started")], "unknown"),
        ([remembered("vanished", ended=NOW - 5)], "unknown"),
        ([remembered("revoked", started=None, ended=NOW - 5)], "revoked"),
        ([remembered("retried", ended=NOW - 5)], "retrying"),
        ([remembered("succeeded", ended=NOW - 5), remembered("succeeded", "b@t", ended=NOW - 1)], "ran_twice"),
        (
            [remembered("retried", ended=NOW - 5), remembered("succeeded", "b@t", started=NOW - 2, ended=NOW)],
            "succeeded",
        ),
    ],
)
def test_a_memory_is_as_good_as_events(memories: list[Remembered], verdict: str) -> None:
    """Aggregating workers publish no events of single tasks: their memories decide instead."""
    given = evidence(history=with_memories(NO_HISTORY, memories), broker=BrokerFacts("rabbitmq", depth=3))
    decision = decide(given)
    assert (decision.verdict, decision.name, decision.queue) == (verdict, "tests.add", "q")


def test_a_task_in_the_place_of_one_that_ran_has_its_own_name() -> None:
    """Its message was sent after the run of the other began, which no event reported."""
    other = event("sent", 5, worker="gen2@t", name="tests.other", queue="r", parent_id=ID, retries=0)
    made = with_memories(history(SENT, other), [remembered("started")])
    given = evidence(history=made, broker=BrokerFacts("redis", waiting=WaitingMessage("r", 1, 1)))
    decision = decide(given)
    assert (decision.verdict, decision.name, decision.queue) == ("queued", "tests.other", "r")
    assert [(run.worker, run.outcome) for run in decision.runs] == [("a@t", "replaced")]


def test_events_go_before_a_memory_of_the_same_worker() -> None:
    """They tell the class of an exception too."""
    seen = history(RECEIVED, STARTED)
    assert with_memories(seen, [remembered("succeeded", ended=NOW)]) == seen


def test_a_worker_may_answer_whatever_it_likes() -> None:
    """Parts of an answer that cannot be read are left out."""
    answer = {"ok": {"one": {"state": "started", "started": NOW, "retries": "x", "eta": True}, "two": 3, "three": {}}}
    assert list(parse(answer, "a@t")) == ["one"]
    assert parse("nothing", "a@t") == {}
    assert worker().alive
