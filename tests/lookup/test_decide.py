"""From evidence to a verdict, without a cluster: never more than is proven."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.lookup.evidence import (
    FAILED,
    ID,
    NOW,
    RECEIVED,
    RETRIED,
    SENT,
    STARTED,
    SUCCEEDED,
    dead,
    event,
    evidence,
    held,
    silent,
    worker,
)

from celerymeter.control.evidence.models import Termination
from celerymeter.control.evidence.task import (
    BrokerFacts,
    Evidence,
    StoredResult,
    TaskFacts,
    UnackedMessage,
    Usual,
    WaitingMessage,
)
from celerymeter.control.lookup.decide import decide
from celerymeter.control.lookup.sentences import sentence
from celerymeter.model import Event

READ = BrokerFacts("redis", lists_read=True, unacked_read=True, depth=0)
PARTLY = BrokerFacts("redis", lists_read=False, unacked_read=True, depth=1_000_000)
RABBIT = BrokerFacts("rabbitmq", depth=5)
EMPTY_RABBIT = BrokerFacts("rabbitmq", depth=0)
AWAY = BrokerFacts("redis", reachable=False)
WAITS = BrokerFacts("redis", waiting=WaitingMessage("q", 3, 9, 6), lists_read=True, unacked_read=True, depth=9)
UNACKED = BrokerFacts("redis", unacked=UnackedMessage(NOW - 20, NOW + 3580), lists_read=True, unacked_read=True)
LATER = "2033-05-18T03:33:20+00:00"
ETA = 2_000_000_000.0
LIMITED = TaskFacts(rate_limit="1/h", acks_late=False)
AGAIN = event("received", 4, worker="b@t", name="tests.add", retries=0)
AGAIN_STARTED = event("started", 3, worker="b@t")
AGAIN_DONE = event("succeeded", 1, worker="b@t")
RETRY_SENT = event("sent", 6, worker="gen2@t", name="tests.add", queue="q", retries=1, eta=LATER, parent_id=None)
RETRY_RECEIVED = event("received", 4, name="tests.add", retries=1, eta=LATER)
TERMINATED = event("revoked", 2, terminated=True)
BEHIND = (Event(type="task-started", hostname="a@t", timestamp=NOW - 100, pid=7, uuid=ID), NOW - 10)
"""Of a worker whose clock is a minute and a half behind ours."""
EXPIRED = "1970-01-12T13:46:30+00:00"
"""Ten seconds before `NOW`."""
EXPIRING_SENT = event("sent", 30, worker="gen1@t", name="tests.add", queue="q", expires=EXPIRED)
DELAYED_SENT = event(
    "sent", 30, worker="gen1@t", name="tests.add", routing_key=".".join("0" * 28) + ".q", eta=LATER, retries=0
)

CASES: list[tuple[str, str, Evidence]] = [
    # what exists now
    ("running", "active", evidence(SENT, RECEIVED, STARTED, held=(held(started_at=NOW - 9),))),
    ("running", "active", evidence(held=(held(),))),
    ("reserved", "held", evidence(SENT, RECEIVED, held=(held("reserved", reserved=3),))),
    ("reserved", "held", evidence(held=(held("ready"),))),
    ("scheduled", "worker", evidence(held=(held("scheduled", eta=ETA),))),
    ("queued", "list", evidence(SENT, broker=WAITS)),
    ("queued", "list", evidence(broker=WAITS, workers=(worker(queues=frozenset({"other"})),))),
    ("running", "active", evidence(SENT, RECEIVED, STARTED, held=(held(),), stored=StoredResult("SUCCESS", NOW - 99))),
    # what waits for a retry
    ("retrying", "held", evidence(RECEIVED, STARTED, RETRIED, RETRY_RECEIVED, held=(held("scheduled", eta=ETA),))),
    ("retrying", "held", evidence(RECEIVED, STARTED, RETRY_SENT, RETRY_RECEIVED, RETRIED, held=(held("scheduled"),))),
    ("retrying", "held", evidence(held=(held("scheduled", eta=ETA),), stored=StoredResult("RETRY"))),
    ("retrying", "queued", evidence(RECEIVED, STARTED, RETRIED, broker=WAITS)),
    ("retrying", "held", evidence(RETRY_RECEIVED, held=(held("scheduled"),))),
    ("running", "active", evidence(RETRY_RECEIVED, held=(held(),))),
    ("retrying", "queued", evidence(RECEIVED, STARTED, RETRY_SENT, RETRIED, broker=RABBIT)),
    ("running", "active", evidence(RECEIVED, STARTED, RETRIED, RETRY_RECEIVED, event("started", 2), held=(held(),))),
    # ends
    ("succeeded", "event", evidence(SENT, RECEIVED, STARTED, SUCCEEDED)),
    ("succeeded", "event", evidence(SUCCEEDED)),
    ("succeeded", "event", evidence(RECEIVED, STARTED, SUCCEEDED, SENT)),
    ("succeeded", "event", evidence(RECEIVED, STARTED, event("succeeded", -1), held=(held(),))),
    ("failed", "event", evidence(RECEIVED, STARTED, FAILED)),
    ("failed", "event", evidence(RECEIVED, STARTED, FAILED, event("failed", 4, exception="TimeLimitExceeded(1)"))),
    ("rejected", "event", evidence(RECEIVED, STARTED, event("rejected", 5, requeue=False))),
    (
        "rejected",
        "event",
        evidence(RECEIVED, STARTED, event("failed", 5, exception="Reject('x', False)"), event("rejected", 5)),
    ),
    ("revoked", "discarded", evidence(SENT, RECEIVED, event("revoked", 5, terminated=False, expired=False))),
    ("expired", "discarded", evidence(SENT, RECEIVED, event("revoked", 5, terminated=False, expired=True))),
    ("succeeded", "stored", evidence(stored=StoredResult("SUCCESS", NOW - 5))),
    ("succeeded", "stored", evidence(RECEIVED, STARTED, stored=StoredResult("SUCCESS", NOW - 5))),
    ("failed", "stored", evidence(stored=StoredResult("FAILURE", NOW - 5, "ValueError"))),
    ("rejected", "stored", evidence(stored=StoredResult("FAILURE", NOW - 5, "Reject"))),
    # terminated
    ("unknown", "terminate_sent", evidence(RECEIVED, STARTED, TERMINATED)),
    ("revoked", "terminated", evidence(RECEIVED, STARTED, TERMINATED, terminated=Termination(9, died=True))),
    ("running", "survives", evidence(RECEIVED, STARTED, TERMINATED, terminated=Termination(9, alive=True))),
    ("unknown", "terminate_sent", evidence(RECEIVED, STARTED, TERMINATED, terminated=Termination(9))),
    ("revoked", "terminated", evidence(RECEIVED, STARTED, TERMINATED, workers=(worker(pid=8),))),
    ("succeeded", "event", evidence(RECEIVED, STARTED, TERMINATED, event("succeeded", 1))),
    ("succeeded", "stored", evidence(RECEIVED, STARTED, TERMINATED, stored=StoredResult("SUCCESS", NOW - 1))),
    ("unknown", "terminate_sent", evidence(RECEIVED, STARTED, TERMINATED, stored=StoredResult("REVOKED", NOW - 1))),
    # lost
    ("lost", "redelivered", evidence(RECEIVED, STARTED, workers=(dead(),), broker=UNACKED)),
    ("lost", "redelivered", evidence(RECEIVED, workers=(dead(),), broker=UNACKED)),
    ("lost", "redelivered", evidence(RECEIVED, STARTED, workers=(worker(pid=8),), broker=UNACKED)),
    ("lost", "redelivered", evidence(RECEIVED, STARTED, workers=(worker(started_at=NOW - 3),), broker=UNACKED)),
    ("lost", "never", evidence(RECEIVED, STARTED, workers=(dead(),), broker=READ)),
    ("lost", "unknown", evidence(RECEIVED, STARTED, workers=(dead(),), broker=PARTLY)),
    ("lost", "never", evidence(RECEIVED, STARTED, workers=(dead(),), broker=RABBIT, facts=TaskFacts(acks_late=False))),
    ("lost", "requeued", evidence(RECEIVED, STARTED, workers=(dead(),), broker=RABBIT, facts=TaskFacts(None, True))),
    ("lost", "requeued", evidence(RECEIVED, workers=(dead(),), broker=RABBIT)),
    ("lost", "unknown", evidence(RECEIVED, STARTED, workers=(dead(),), broker=RABBIT)),
    ("running", "active", evidence(RECEIVED, STARTED, AGAIN, AGAIN_STARTED, workers=(dead(), worker("b@t")),
                                   held=(held("active", "b@t"),))),
    ("queued", "list", evidence(RECEIVED, STARTED, workers=(dead(),), broker=WAITS)),
    # nothing proves that it is gone
    ("unknown", "ended_unseen", evidence(RECEIVED, BEHIND, workers=(worker(started_at=NOW - 15),), broker=UNACKED)),
    ("unknown", "worker_silent", evidence(RECEIVED, STARTED, workers=(dead(connected=None),), broker=UNACKED)),
    ("unknown", "worker_silent", evidence(RECEIVED, STARTED, workers=(dead(connected=True),), broker=UNACKED)),
    ("unknown", "worker_silent", evidence(RECEIVED, STARTED, workers=(worker("b@t"),), broker=READ)),
    ("unknown", "worker_silent", evidence(RECEIVED, STARTED, workers=(worker(pid=8, ambiguous=True),), broker=READ)),
    ("unknown", "left", evidence(RECEIVED, STARTED, workers=(dead(left_at=NOW - 5),), broker=READ)),
    ("running", "by_event", evidence(RECEIVED, STARTED, workers=(silent(),), broker=READ)),
    ("running", "by_event", evidence(RECEIVED, event("started", -1), broker=READ)),
    ("unknown", "worker_silent", evidence(RECEIVED, STARTED, workers=(silent(),), broker=READ, listening_since=NOW - 5)),
    ("unknown", "worker_silent", evidence(RECEIVED, STARTED, workers=(silent(),), broker=READ, listening_since=None)),
    ("reserved", "by_event", evidence(RECEIVED, workers=(silent(),), broker=UNACKED)),
    ("unknown", "worker_silent", evidence(RECEIVED, workers=(dead(connected=None),), broker=UNACKED)),
    ("unknown", "ended_unseen", evidence(RECEIVED, STARTED, broker=READ)),
    ("unknown", "ended_unseen", evidence(RECEIVED, broker=READ)),
    # held, and listed by nobody
    ("reserved", "rate_limited", evidence(RECEIVED, broker=UNACKED, facts=LIMITED)),
    ("unknown", "ended_unseen", evidence(RECEIVED, broker=READ, facts=LIMITED)),
    ("reserved", "rate_limited", evidence(RECEIVED, broker=RABBIT, facts=LIMITED)),
    ("unknown", "ended_unseen", evidence(RECEIVED, broker=RABBIT, facts=TaskFacts())),
    ("scheduled", "by_event", evidence(event("received", 9, name="n", eta=LATER), broker=UNACKED)),
    ("unknown", "held_by_nobody", evidence(broker=UNACKED)),
    ("unknown", "held_by_silent", evidence(broker=UNACKED, workers=(worker(), silent("b@t")))),
    # twice
    ("ran_twice", "at_once", evidence(held=(held(), held("active", "b@t")))),
    ("ran_twice", "again", evidence(RECEIVED, STARTED, SUCCEEDED, AGAIN, AGAIN_STARTED, held=(held("active", "b@t"),))),
    ("ran_twice", "ended_twice", evidence(RECEIVED, STARTED, SUCCEEDED, AGAIN, AGAIN_STARTED, AGAIN_DONE)),
    ("ran_twice", "ended_twice", evidence(RECEIVED, STARTED, AGAIN, AGAIN_STARTED, AGAIN_DONE, event("succeeded", 0.5))),
    ("succeeded", "event", evidence(RECEIVED, STARTED, RETRIED, RETRY_RECEIVED, event("started", 2), event("succeeded", 1))),
    ("succeeded", "event", evidence(RECEIVED, STARTED, AGAIN, AGAIN_STARTED, AGAIN_DONE, workers=(dead(), worker("b@t")))),
    # where it was sent
    ("scheduled", "delay_level", evidence(DELAYED_SENT, broker=BrokerFacts("rabbitmq", delay_level=5))),
    ("scheduled", "delayed", evidence(DELAYED_SENT, broker=BrokerFacts("rabbitmq"))),
    ("queued", "depth", evidence(SENT, broker=RABBIT)),
    ("unknown", "gone", evidence(SENT, broker=EMPTY_RABBIT)),
    ("expired", "in_queue", evidence(EXPIRING_SENT, broker=EMPTY_RABBIT)),
    ("expired", "in_queue", evidence(EXPIRING_SENT, broker=RABBIT)),
    ("unknown", "mute", evidence(EXPIRING_SENT, broker=EMPTY_RABBIT, workers=(worker(sends_task_events=False),))),
    ("queued", "list", evidence(EXPIRING_SENT, broker=WAITS)),
    ("unknown", "mute", evidence(SENT, broker=RABBIT, workers=(worker(sends_task_events=False),))),
    ("unknown", "silent", evidence(SENT, broker=RABBIT, workers=(worker(), silent("b@t")))),
    ("unknown", "silent", evidence(SENT, broker=READ, workers=(worker(), silent("b@t")))),
    ("unknown", "not_read", evidence(SENT, broker=BrokerFacts("other"))),
    ("unknown", "gone", evidence(SENT, broker=READ)),
    ("unknown", "not_read", evidence(SENT, broker=PARTLY)),
    ("unknown", "gone", evidence(RECEIVED, STARTED, RETRIED, broker=READ)),
    # nothing
    ("unknown", "never_seen", evidence(broker=READ)),
    ("unknown", "never_seen", evidence(broker=READ, listening_since=None)),
    ("unknown", "never_seen_closed", evidence(broker=RABBIT)),
    ("unknown", "not_read", evidence(broker=PARTLY)),
    ("unknown", "silent", evidence(broker=READ, workers=(silent(),))),
    ("unknown", "broker", evidence(SENT, broker=AWAY)),
    ("unknown", "stored_revoked", evidence(broker=READ, stored=StoredResult("REVOKED"))),
    ("unknown", "stored_other", evidence(broker=READ, stored=StoredResult("RETRY"))),
    ("unknown", "ended_unseen", evidence(broker=READ, stored=StoredResult("STARTED", worker="a@t"))),
    ("lost", "never", evidence(broker=READ, stored=StoredResult("STARTED", worker="a@t"), workers=(dead(),))),
    ("unknown", "worker_silent", evidence(broker=READ, stored=StoredResult("STARTED", worker="z@t"))),
    ("unknown", "worker_silent", evidence(broker=READ, stored=StoredResult("STARTED", worker="a@t"),
                                          workers=(dead(ambiguous=True),))),
    ("unknown", "ended_unseen", evidence(RECEIVED, STARTED, stored=StoredResult("SUCCESS", NOW - 99), broker=READ)),
]  # fmt: skip


@pytest.mark.parametrize(("verdict", "reason", "given"), CASES, ids=[f"{n}-{c[0]}-{c[1]}" for n, c in enumerate(CASES)])
def test_each_evidence_has_its_verdict(verdict: str, reason: str, given: Evidence) -> None:
    """The verdict, and the reason that its sentence gives."""
    decision = decide(given)
    assert (decision.verdict, decision.reason) == (verdict, reason)


@pytest.mark.parametrize("given", [case[2] for case in CASES])
def test_each_verdict_has_a_sentence_in_both_languages(given: Evidence) -> None:
    """Complete, without a placeholder, and never with the text of an exception."""
    said = sentence(decide(given), given)
    for text in (said.en, said.zh_tw):
        assert not set("{}") & set(text)
        assert "secret" not in text
        assert "None" not in text
    assert said.en.endswith(".")
    assert said.zh_tw.endswith("\N{IDEOGRAPHIC FULL STOP}")


USUAL = "7be01c6d-4dc2-4b58-9fc5-6a1d5a8f1c11"


@pytest.mark.parametrize("broker", [READ, RABBIT])
@pytest.mark.parametrize("spelling", [USUAL.upper(), USUAL.replace("-", ""), f"{{{USUAL}}}"])
def test_an_unseen_id_in_another_spelling_is_said(broker: BrokerFacts, spelling: str) -> None:
    """Ids are compared as they are written; the hint names the usual spelling, and ids without one get none."""
    given = replace(evidence(broker=broker), task_id=spelling)
    said = sentence(decide(given), given)
    assert said.en.endswith(f". Celery would write this id as {USUAL}.")
    assert said.zh_tw.endswith(f"Celery 會把此 id 寫成 {USUAL}。")
    for usual in (USUAL, "order-17"):
        given = replace(given, task_id=usual)
        assert "Celery" not in sentence(decide(given), given).en


def outcomes(given: Evidence) -> list[tuple[str, str, str | None]]:
    """Return worker, outcome and exception of each run."""
    return [(run.worker, run.outcome, run.exception) for run in decide(given).runs]


@pytest.mark.parametrize(
    ("given", "runs"),
    [
        (evidence(RECEIVED, STARTED, FAILED), [("a@t", "failed", "ValueError")]),
        (evidence(RECEIVED, STARTED, workers=(dead(),), broker=UNACKED), [("a@t", "lost", None)]),
        (
            evidence(
                RECEIVED, STARTED, AGAIN, AGAIN_STARTED,
                workers=(dead(), worker("b@t")), held=(held("active", "b@t"),),
            ),
            [("a@t", "lost", None), ("b@t", "running", None)],
        ),
        (
            evidence(RECEIVED, STARTED, RETRIED, RETRY_RECEIVED, event("started", 2), event("succeeded", 1)),
            [("a@t", "retried", "RuntimeError"), ("a@t", "succeeded", None)],
        ),
        (
            evidence(RECEIVED, STARTED, event("received", 4, name="tests.other", retries=0), broker=UNACKED,
                     held=(held("reserved"),)),
            [("a@t", "replaced", None)],
        ),
        (  # a pool process sends it before its worker says that the run began
            evidence(SENT, RECEIVED, event("sent", 11, name="tests.other", queue="r", retries=0), STARTED, broker=WAITS),
            [("a@t", "replaced", None)],
        ),
        (
            evidence(RECEIVED, STARTED, TERMINATED, terminated=Termination(9, died=True)),
            [("a@t", "terminated", None)],
        ),
        (evidence(held=(held(started_at=NOW - 5),)), [("a@t", "running", None)]),
        (
            evidence(stored=StoredResult("FAILURE", NOW - 5, "ValueError", "tests.add", "a@t")),
            [("a@t", "failed", "ValueError")],
        ),
        (evidence(SENT, broker=WAITS), []),
    ],
)  # fmt: skip
def test_every_run_is_shown_with_what_is_proven_of_it(given: Evidence, runs: list[Any]) -> None:
    """The class of an exception, never its text."""
    assert outcomes(given) == runs


def test_a_waiting_task_shows_its_place_and_who_would_run_it() -> None:
    """Free slots are those of the workers that consume its queue."""
    others = (worker("b@t", active=0), worker("c@t", queues=frozenset({"other"})))
    decision = decide(evidence(SENT, broker=WAITS, workers=(worker(), *others), usual=Usual(drain_seconds=12.5)))
    assert decision.position is not None
    assert (decision.position.number, decision.position.total, decision.position.priority) == (3, 9, 6)
    assert (decision.consumers, decision.free_slots, decision.drain_seconds) == (("a@t", "b@t"), 3, 12.5)
    assert (decision.name, decision.queue, decision.since) == ("tests.add", "q", NOW - 30)


def test_a_queue_that_nobody_consumes_is_named() -> None:
    """Unless a worker that did not answer may consume it."""
    nobody = evidence(SENT, broker=WAITS, workers=(worker(queues=frozenset()),))
    assert decide(nobody).consumers == ()
    assert "no live worker consumes it" in sentence(decide(nobody), nobody).en
    assert decide(evidence(SENT, broker=WAITS, workers=(worker(queues=frozenset()), silent("b@t")))).consumers is None


def test_a_long_run_is_compared_with_the_usual_one() -> None:
    """By the 95th percentile of its own name."""
    given = evidence(held=(held(started_at=NOW - 50),), usual=Usual(runtime_p95=10.0))
    assert "5.0 times the 95th percentile" in sentence(decide(given), given).en


def test_a_reserved_task_says_what_is_before_it() -> None:
    """At most: what runs at its worker, and the others that wait there."""
    given = evidence(RECEIVED, held=(held("reserved", reserved=3),), workers=(worker(reserved=3),))
    assert (decide(given).behind, decide(given).slots) == (3, 2)


def test_a_task_that_is_delivered_again_says_when() -> None:
    """The earliest time."""
    assert decide(evidence(RECEIVED, STARTED, workers=(dead(),), broker=UNACKED)).redelivered_at == NOW + 3580
