"""From evidence to status, without a cluster: never more than is proven."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from celerymeter.control.revocation.memory import EventMemory, Trace
from celerymeter.control.revocation.models import (
    COUNTS_AS,
    Acknowledgements,
    Result,
    Sighting,
    Status,
    ordered,
    summary,
    totals,
    visible,
)
from celerymeter.control.revocation.replies import Replies
from celerymeter.control.revocation.verdict import (
    Evidence,
    Killing,
    after_event,
    died,
    flagged,
    given_up,
    sighting,
    verdict,
)
from celerymeter.model import Event

ALL = Acknowledgements(frozenset({"a@t", "b@t"}), frozenset({"a@t", "b@t"}))
ONE_SILENT = Acknowledgements(frozenset({"a@t", "b@t"}), frozenset({"a@t"}))
RUNS = Sighting("running", "runs", worker="a@t", name="tests.sleep", state="STARTED", pid=7)
WAITS = Sighting("waiting", "reserved at a@t")
NOW = 1000.0


def trace(kind: str, *, at: float = NOW - 10, terminated: bool = False) -> Trace:
    """The last event of a task, before the workers were asked unless told otherwise."""
    return Trace(kind, at, "a@t", "tests.sleep", terminated=terminated)


@pytest.mark.parametrize(
    ("seen", "flags", "terminate", "killing", "status"),
    [
        (Sighting(), ALL, False, None, "flagged_unknown"),
        (WAITS, ALL, False, None, "flagged"),
        (WAITS, ONE_SILENT, False, None, "partial"),
        (Sighting(), ONE_SILENT, False, None, "partial"),
        (WAITS, Acknowledgements(), False, None, "partial"),
        (WAITS, replace(ALL, errors={"a@t": "no"}), False, None, "error"),
        (Sighting("finished", state="FAILURE"), ALL, True, None, "already_finished"),
        (Sighting("revoked"), ALL, True, None, "already_revoked"),
        (Sighting("taken"), ALL, False, None, "error"),
        (RUNS, ALL, False, None, "running_not_terminated"),
        (RUNS, ALL, True, Killing(answered=True), "terminate_sent"),
        (RUNS, ALL, True, Killing(answered=True, died=True), "terminated"),
        (RUNS, ALL, True, Killing(answered=True, error="NotImplementedError"), "error"),
        (RUNS, ALL, True, Killing(), "partial"),
        (RUNS, ONE_SILENT, True, None, "partial"),
    ],
)
def test_what_is_said_after_the_act(
    seen: Sighting, flags: Acknowledgements, terminate: bool, killing: Killing | None, status: Status
) -> None:
    """Each row of evidence has its word."""
    assert verdict("x", seen, flags, terminate=terminate, killing=killing).status == status


def test_partial_names_who_is_silent() -> None:
    """So that somebody can look after it."""
    assert "b@t" in verdict("x", WAITS, ONE_SILENT).detail


def test_what_a_worker_holds_goes_before_what_is_stored() -> None:
    """A task that runs again after its result was stored does run."""
    evidence = Evidence(NOW, states={"x": "SUCCESS"}, at_workers={"x": RUNS})
    assert sighting("x", evidence) == RUNS


def test_an_end_that_came_after_the_question_goes_before_the_answer() -> None:
    """It ended while the worker's answer was on its way."""
    evidence = Evidence(NOW, traces={"x": trace("task-succeeded", at=NOW + 1)}, at_workers={"x": RUNS})
    assert sighting("x", evidence).place == "finished"


def test_a_stored_revoked_proves_nothing() -> None:
    """Celery stores it for ids that never were, and for tasks that run on."""
    assert sighting("x", Evidence(NOW, states={"x": "REVOKED"})).place == "unknown"


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("task-sent", "waiting"),
        ("task-received", "waiting"),
        ("task-retried", "waiting"),
        ("task-started", "running"),
        ("task-succeeded", "finished"),
        ("task-failed", "finished"),
        ("task-revoked", "revoked"),
        ("task-rejected", "unknown"),
    ],
)
def test_what_an_event_tells(kind: str, place: str) -> None:
    """Where no worker holds the task."""
    assert sighting("x", Evidence(NOW, traces={"x": trace(kind)})).place == place


def test_an_announced_termination_is_no_end() -> None:
    """The event is sent at the command, whatever becomes of the process."""
    seen = sighting("x", Evidence(NOW, traces={"x": trace("task-revoked", terminated=True)}))
    assert verdict("x", seen, ALL).status == verdict("x", seen, ALL, terminate=True).status == "terminate_sent"
    told = Result("x", "terminate_sent")
    assert after_event(told, trace("task-revoked", terminated=True)) == told
    assert after_event(told, trace("task-succeeded")).status == "ran_anyway"


@pytest.mark.parametrize(("before", "place"), [("terminate_sent", "dying"), ("terminated", "revoked")])
def test_what_an_earlier_batch_knows_of_a_death_is_not_forgotten(before: Status, place: str) -> None:
    """The process that is to be gone, or that it is; unless the task is seen somewhere again."""
    traces, told = {"x": trace("task-revoked", terminated=True)}, {"x": Result("x", before, pid=7)}
    seen = sighting("x", Evidence(NOW, traces=traces, told_to_die=told))
    assert (seen.place, seen.pid) == (place, 7 if place == "dying" else None)
    assert sighting("x", Evidence(NOW, traces=traces, told_to_die=told, at_workers={"x": RUNS})) == RUNS
    assert sighting("x", Evidence(NOW, traces=traces, told_to_die=told, queued={"x": "q"})).place == "waiting"


def test_a_run_that_its_worker_does_not_know_of_is_over() -> None:
    """A worker shows all that it runs; it may hide what waits for its rate limit."""
    seen = {"x": trace("task-started"), "y": trace("task-received")}
    evidence = Evidence(NOW, traces=seen, answered=frozenset({"a@t"}))
    assert (sighting("x", evidence).place, sighting("y", evidence).place) == ("unknown", "waiting")


def test_what_is_settled_stays() -> None:
    """Nothing that comes later changes it."""
    done = Result("x", "terminated")
    assert after_event(done, trace("task-succeeded")) == done


@pytest.mark.parametrize("status", ["flagged", "flagged_unknown", "partial", "pending"])
def test_a_discarded_task_is_revoked_and_one_that_finished_ran_anyway(status: Status) -> None:
    """Whatever was known of it before."""
    assert after_event(Result("x", status), trace("task-revoked")).status == "revoked"
    assert after_event(Result("x", status), trace("task-failed")).status == "ran_anyway"


def test_every_status_counts_as_one_thing() -> None:
    """Their sum is the total."""
    results = [Result(status, status) for status in COUNTS_AS]
    assert sum(totals(results).values()) == len(results)
    assert summary(results[:2]) == "1 terminated, 1 revoked"
    assert not flagged(Result("x", "partial", waiting=True)).settled
    assert given_up(Result("x", "flagged"), "late").settled
    assert died(Result("x", "terminate_sent")).status == "terminated"


@pytest.mark.parametrize("task_id", ["", "a b", "a\n", "a\x00", "x" * 256, "\N{ZERO WIDTH SPACE}"])
def test_what_is_no_id(task_id: str) -> None:
    """Blank, invisible or endless."""
    assert not visible(task_id)
    assert ordered([task_id]).task_ids == ()


def test_doubles_are_merged_and_counted() -> None:
    """In the order of their first appearance."""
    order = ordered(["b", "a", "b", "b"])
    assert (order.task_ids, order.merged) == (("b", "a"), 2)


def test_the_memory_is_bounded_and_keeps_what_is_young() -> None:
    """An id that is heard of again is young again."""
    memory = EventMemory(most=2, clock=lambda: NOW)
    for number, uuid in enumerate(("a", "b", "a", "c")):
        event = Event(type="task-received", hostname="a@t", timestamp=NOW, uuid=uuid, name=f"n{number}")
        memory.events([event], NOW)
    assert set(memory.traces(["a", "b", "c"])) == {"a", "c"}


def test_a_worker_is_alive_for_half_a_minute_after_its_heartbeat() -> None:
    """Or until it says goodbye."""
    memory = EventMemory(clock=lambda: NOW)
    for name, at in (("old@t", NOW - 31), ("a@t", NOW - 29), ("b@t", NOW)):
        memory.events([Event(type="worker-heartbeat", hostname=name, timestamp=at)], at)
    memory.events([Event(type="worker-offline", hostname="b@t", timestamp=NOW)], NOW)
    assert memory.alive() == {"a@t"}


@pytest.mark.parametrize(
    ("module", "place"), [("prefork", "waiting"), ("solo", "waiting"), ("thread", "taken"), ("gevent", "taken")]
)
def test_what_reserved_means_depends_on_the_pool(module: str, place: str) -> None:
    """Some pools take all that their worker has reserved, and it cannot be had back."""
    replies = Replies()
    pool = {"implementation": f"celery.concurrency.{module}:TaskPool"}
    replies.receive("stats", json.dumps({"a@t": {"pool": pool}}))
    replies.receive("query_task", json.dumps({"a@t": {"x": ["reserved", {"id": "x"}]}}))
    assert replies.held()["x"].place == place
