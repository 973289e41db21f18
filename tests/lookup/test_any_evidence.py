"""Whatever sources say, in whatever order: an answer with a sentence, and no claim without its proof."""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st
from tests.lookup.evidence import NOW, event, evidence, held, worker

from celerymeter.control.evidence.history import MAX_RUNS
from celerymeter.control.evidence.models import Termination
from celerymeter.control.evidence.task import (
    BrokerFacts,
    Evidence,
    StoredResult,
    TaskFacts,
    UnackedMessage,
    WaitingMessage,
)
from celerymeter.control.lookup.decide import decide
from celerymeter.control.lookup.models import FINAL
from celerymeter.control.lookup.sentences import sentence
from celerymeter.model import Event

NAMES = ("a@t", "b@t")
TYPES = ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked")
STATES = ("SUCCESS", "FAILURE", "RETRY", "REVOKED", "STARTED", "PENDING", "what")
ETAS = (None, "2033-05-18T03:33:20+00:00", "no time")
booleans = st.booleans()


@st.composite
def events(draw: st.DrawFn) -> tuple[Event, float]:
    """An event as any worker may send it."""
    fields: dict[str, Any] = {
        "name": draw(st.sampled_from((None, "tests.add", "tests.other"))),
        "queue": draw(st.sampled_from((None, "q"))),
        "retries": draw(st.sampled_from((None, 0, 1))),
        "parent_id": draw(st.sampled_from((None, "one"))),
        "eta": draw(st.sampled_from(ETAS)),
        "expires": draw(st.sampled_from((*ETAS, 3, {"a": 1}))),
        "exception": draw(st.sampled_from((None, "ValueError('secret')", "Reject('x')"))),
    }
    fields |= {name: draw(st.sampled_from((None, True, False))) for name in ("terminated", "expired", "requeue")}
    ago = draw(st.floats(-5, 100))
    return event(draw(st.sampled_from(TYPES)), ago, worker=draw(st.sampled_from(NAMES)), **fields)


@st.composite
def workers(draw: st.DrawFn, name: str) -> Any:
    """A worker in any state."""
    return worker(
        name,
        alive=draw(booleans),
        answered=draw(booleans),
        pid=draw(st.sampled_from((None, 7, 8))),
        started_at=draw(st.sampled_from((None, NOW - 1000, NOW - 3))),
        connected=draw(st.sampled_from((None, True, False))),
        left_at=draw(st.sampled_from((None, NOW - 50, NOW - 1))),
        ambiguous=draw(booleans),
        sends_task_events=draw(st.sampled_from((None, True, False))),
        slots=draw(st.sampled_from((None, 2))),
        active=draw(st.sampled_from((None, 1))),
        queues=draw(st.sampled_from((None, frozenset({"q"})))),
    )


@st.composite
def brokers(draw: st.DrawFn) -> BrokerFacts:
    """A broker that shows something or nothing."""
    kind: Literal["redis", "rabbitmq", "other"] = draw(st.sampled_from(("redis", "rabbitmq", "other")))
    redis = kind == "redis"
    return BrokerFacts(
        kind,
        reachable=draw(booleans),
        waiting=WaitingMessage("q", 1, 2, 0) if redis and draw(booleans) else None,
        unacked=UnackedMessage(NOW - 20, NOW + 3580) if redis and draw(booleans) else None,
        lists_read=redis and draw(booleans),
        unacked_read=redis and draw(booleans),
        depth=draw(st.sampled_from((None, 0, 3))),
        delay_level=draw(st.sampled_from((None, 5))) if kind == "rabbitmq" else None,
    )


@st.composite
def anything(draw: st.DrawFn) -> Evidence:
    """Any evidence about one task."""
    stored = draw(st.sampled_from((None, *STATES)))
    terminated = draw(st.sampled_from((None, Termination(9), Termination(9, died=True), Termination(9, alive=True))))
    return evidence(
        *draw(st.lists(events(), max_size=14)),
        workers=tuple(draw(workers(name)) for name in NAMES[: draw(st.integers(1, 2))]),
        held=tuple(held(draw(st.sampled_from(("active", "reserved", "scheduled", "ready"))), name) for name in NAMES)
        if draw(st.integers(0, 4)) == 0
        else (),
        broker=draw(brokers()),
        stored=None if stored is None else StoredResult(stored, draw(st.sampled_from((None, NOW - 1))), worker="a@t"),
        terminated=terminated,
        facts=draw(st.sampled_from((None, TaskFacts("1/h", True), TaskFacts(None, False)))),
        listening_since=draw(st.sampled_from((None, NOW - 200, NOW - 5))),
    )


@given(anything())
def test_an_answer_is_never_more_than_what_proves_it(given: Evidence) -> None:
    """An end was seen or stored; a lost task has a worker that is proven gone; a waiting one a place."""
    decision = decide(given)
    said = sentence(decision, given)
    assert said.en
    assert said.zh_tw
    assert "secret" not in said.en
    history, broker = given.history, given.broker
    assert len(decision.runs) <= MAX_RUNS + len(NAMES)
    if decision.verdict in FINAL:
        seen = any(run.outcome is not None for run in history.runs) or history.discarded is not None
        assert seen or given.stored is not None or history.expires is not None or len(given.held) > 1
    if decision.verdict == "lost":
        facts = given.workers[decision.worker or ""]
        other = facts.pid == 8 or facts.started_at == NOW - 3
        assert not facts.ambiguous
        assert other or (not facts.alive and not facts.answered and facts.connected is False)
    if decision.verdict == "queued":
        assert broker.waiting is not None or (broker.depth or 0) > 0
    if decision.verdict == "running":
        held_now = any(each.state == "active" for each in given.held)
        assert held_now or history.runs[-1].open
    if decision.verdict == "reserved":
        assert given.held or history.received is not None
    if decision.verdict == "ran_twice":
        ended = [run for run in history.runs if run.outcome in ("succeeded", "failed")]
        assert len(ended) + sum(each.state == "active" for each in given.held) > 1
