"""From evidence to status, without a cluster: never more than is proven."""

from __future__ import annotations

from dataclasses import replace

import pytest

from celerymeter.control.evidence.events import EventCache
from celerymeter.control.evidence.models import LastEvent, TaskEvidence, TaskLocation, Termination
from celerymeter.control.revocation.decide import (
    acknowledged,
    after_check,
    after_event,
    by_status,
    decide,
    is_settled,
    locate,
    totals,
    unconfirmed,
)
from celerymeter.control.revocation.models import (
    COUNTS_AS,
    Acknowledgements,
    Status,
    TaskResult,
    TerminateResult,
)
from celerymeter.control.revocation.service import is_task_id, revoke_request
from celerymeter.model import Event

ALL = Acknowledgements(frozenset({"a@t", "b@t"}))
ONE_SILENT = Acknowledgements(frozenset({"a@t"}), missing=frozenset({"b@t"}))
RUNS = TaskLocation("running", "runs", worker="a@t", name="tests.sleep", state="STARTED", pid=7)
WAITS = TaskLocation("waiting", "reserved at a@t")
NOW = 1000.0


def event(kind: str, *, at: float = NOW - 10, terminated: bool = False) -> LastEvent:
    """Return the last event of a task, by default from before the workers were asked."""
    return LastEvent(kind, at, "a@t", "tests.sleep", terminated=terminated)


@pytest.mark.parametrize(
    ("seen", "flags", "terminate", "terminated", "status"),
    [
        (TaskLocation(), ALL, False, None, "flagged_unknown"),
        (WAITS, ALL, False, None, "flagged"),
        (WAITS, ONE_SILENT, False, None, "partial"),
        (TaskLocation(), ONE_SILENT, False, None, "partial"),
        (WAITS, Acknowledgements(), False, None, "partial"),
        (WAITS, None, False, None, "pending"),
        (RUNS, None, True, None, "pending"),
        (WAITS, replace(ALL, errors={"a@t": "no"}), False, None, "error"),
        (TaskLocation("finished", state="FAILURE"), ALL, True, None, "already_finished"),
        (TaskLocation("revoked"), ALL, True, None, "already_revoked"),
        (TaskLocation("in_pool"), ALL, False, None, "error"),
        (RUNS, ALL, False, None, "running_not_terminated"),
        (RUNS, ALL, True, TerminateResult(replied=True), "terminate_sent"),
        (RUNS, ALL, True, TerminateResult(replied=True, died=True), "terminated"),
        (RUNS, ALL, True, TerminateResult(replied=True, error="NotImplementedError"), "error"),
        (RUNS, ALL, True, TerminateResult(), "partial"),
        (RUNS, ONE_SILENT, True, None, "partial"),
    ],
)
def test_what_is_said_after_the_act(
    seen: TaskLocation,
    flags: Acknowledgements | None,
    terminate: bool,
    terminated: TerminateResult | None,
    status: Status,
) -> None:
    """Each row of evidence has its word."""
    assert decide("x", seen, flags, terminate=terminate, terminated=terminated).status == status


def test_partial_names_who_is_silent() -> None:
    """So that somebody can look after it."""
    assert "b@t" in decide("x", WAITS, ONE_SILENT).detail


def test_what_a_worker_holds_goes_before_what_is_stored() -> None:
    """A task that runs again after its result was stored does run."""
    evidence = TaskEvidence(NOW, states={"x": "SUCCESS"}, held={"x": RUNS})
    assert locate("x", evidence) == RUNS


def test_an_end_that_came_after_the_question_goes_before_the_answer() -> None:
    """It ended while the worker's answer was on its way."""
    evidence = TaskEvidence(NOW, events={"x": event("task-succeeded", at=NOW + 1)}, held={"x": RUNS})
    assert locate("x", evidence).location == "finished"


def test_a_stored_revoked_proves_nothing() -> None:
    """Celery stores it for ids that never were, and for tasks that run on."""
    assert locate("x", TaskEvidence(NOW, states={"x": "REVOKED"})).location == "unknown"


@pytest.mark.parametrize(
    ("kind", "location"),
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
def test_what_an_event_tells(kind: str, location: str) -> None:
    """The event decides only if no worker holds the task."""
    assert locate("x", TaskEvidence(NOW, events={"x": event(kind)})).location == location


def test_an_announced_termination_is_no_end() -> None:
    """The event is sent at the command, whatever becomes of the process."""
    seen = locate("x", TaskEvidence(NOW, events={"x": event("task-revoked", terminated=True)}))
    assert decide("x", seen, ALL).status == decide("x", seen, ALL, terminate=True).status == "terminate_sent"
    result = TaskResult("x", "terminate_sent")
    assert after_event(result, event("task-revoked", terminated=True)) == result
    assert after_event(result, event("task-succeeded")).status == "ran_anyway"


@pytest.mark.parametrize(("died", "location"), [(False, "dying"), (True, "revoked")])
def test_what_an_earlier_batch_knows_of_a_death_is_not_forgotten(died: bool, location: str) -> None:
    """The process that is to be gone, or that it is; unless the task is seen somewhere again."""
    events, earlier = {"x": event("task-revoked", terminated=True)}, {"x": Termination(7, died=died)}
    seen = locate("x", TaskEvidence(NOW, events=events, previously_terminated=earlier))
    assert (seen.location, seen.pid) == (location, 7 if location == "dying" else None)
    assert locate("x", TaskEvidence(NOW, events=events, previously_terminated=earlier, held={"x": RUNS})) == RUNS
    assert (
        locate("x", TaskEvidence(NOW, events=events, previously_terminated=earlier, queued={"x": "q"})).location
        == "waiting"
    )


def test_a_run_that_its_worker_does_not_know_of_is_over() -> None:
    """A worker shows all that it runs; it may hide what waits for its rate limit."""
    seen = {"x": event("task-started"), "y": event("task-received")}
    evidence = TaskEvidence(NOW, events=seen, answered=frozenset({"a@t"}))
    assert (locate("x", evidence).location, locate("y", evidence).location) == ("unknown", "waiting")


def test_what_is_settled_stays() -> None:
    """Nothing that comes later changes it."""
    done = TaskResult("x", "terminated")
    assert after_event(done, event("task-succeeded")) == done


@pytest.mark.parametrize("status", ["flagged", "flagged_unknown", "partial", "pending"])
def test_a_discarded_task_is_revoked_and_one_that_finished_ran_anyway(status: Status) -> None:
    """Whatever was known of it before."""
    assert after_event(TaskResult("x", status), event("task-revoked")).status == "revoked"
    assert after_event(TaskResult("x", status), event("task-failed")).status == "ran_anyway"


def test_every_status_counts_as_one_thing() -> None:
    """Their sum is the total."""
    results = [TaskResult(status, status) for status in COUNTS_AS]
    assert sum(totals(results).values()) == len(results)
    assert by_status(results[:2]) == {"terminated": 1, "revoked": 1}
    assert not is_settled([acknowledged(TaskResult("x", "partial", waiting=True))])
    assert is_settled([unconfirmed(TaskResult("x", "flagged"), "late")])
    dying = TaskResult("x", "terminate_sent", worker="a@t", pid=7)
    assert after_check(dying, gone=lambda pid, worker: (pid, worker) == (7, "a@t")).status == "terminated"
    assert after_check(dying, gone=lambda pid, worker: False).status == "terminate_sent"


@pytest.mark.parametrize("task_id", ["", "a b", "a\n", "a\x00", "x" * 256, "\N{ZERO WIDTH SPACE}"])
def test_what_is_no_id(task_id: str) -> None:
    """Blank, invisible or endless."""
    assert not is_task_id(task_id)
    assert revoke_request([task_id]).task_ids == ()


def test_doubles_are_merged_and_counted() -> None:
    """In the order of their first appearance."""
    request = revoke_request(["b", "a", "b", "b"])
    assert (request.task_ids, request.merged) == (("b", "a"), 2)


def test_the_event_cache_is_bounded_and_keeps_what_is_young() -> None:
    """A new event of an id makes it young again."""
    cache = EventCache(most=2)
    for number, uuid in enumerate(("a", "b", "a", "c")):
        received = Event(type="task-received", hostname="a@t", timestamp=NOW, uuid=uuid, name=f"n{number}")
        cache.add([received], NOW)
    assert set(cache.last_events(["a", "b", "c"])) == {"a", "c"}


def test_a_task_whose_id_is_a_uuid_object_cannot_be_revoked_by_its_text() -> None:
    """Workers acknowledge the flag all the same, and then run it."""
    held = replace(WAITS, uuid_object=True)
    queued = TaskEvidence(NOW, queued={"x": "q", "y": "q"}, uuid_objects=frozenset({"x"}))
    assert decide("x", held, ALL).status == decide("x", locate("x", queued), ALL).status == "error"
    assert decide("y", locate("y", queued), ALL).status == "flagged"
