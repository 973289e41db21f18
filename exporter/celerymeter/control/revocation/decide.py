"""Pure decisions: from evidence to a location, from location and replies to a status. Never claim more than is proven.

====================  ==================================================  =================================
location              condition                                           status
====================  ==================================================  =================================
finished              --                                                  already_finished
any, its id a UUID    --                                                  error
revoked               --                                                  already_revoked
running               ``terminate`` was false                             running_not_terminated
running               its process is gone from the worker's pool          terminated
running               the worker replied to terminate with an error       error
running               the worker acknowledged terminate                   terminate_sent
running               no reply to terminate                               partial
running               no reply to terminate, and no time to flag          pending
dying                 --                                                  terminate_sent
in_pool               --                                                  error
waiting, unknown      no time to flag, or all workers are busy            pending
waiting, unknown      a worker replied to the flag with an error          error
waiting, unknown      a live worker did not acknowledge the flag          partial
waiting               every live worker acknowledged the flag             flagged
unknown               every live worker acknowledged the flag             flagged_unknown
*later* (open ids)    task-succeeded, task-failed, or such a result       ran_anyway
*later*               task-revoked that is not merely announced           revoked
*later*               the terminated process is gone from the pool        terminated
*later*               not settled by the deadline                         unconfirmed
====================  ==================================================  =================================

Text that is not a task id is ``invalid`` (`celerymeter.control.revocation.service`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from celerymeter.control.evidence.models import LastEvent, Location, TaskEvidence, TaskLocation, Termination
from celerymeter.control.revocation.models import (
    COUNTS_AS,
    OPEN,
    Acknowledgements,
    Count,
    Status,
    TaskResult,
    TerminateResult,
)

FINISHED: Final = frozenset({"SUCCESS", "FAILURE"})
_STATE_AFTER: Final = {"task-succeeded": "SUCCESS", "task-failed": "FAILURE"}
_WAITING_AFTER: Final = {
    "task-sent": "sent",
    "task-received": "received by a worker",
    "task-retried": "waiting for a retry",
}
# Sent as an object it would be flagged, with an error for an answer; but before Celery 5.7 that worker then answers no
# `hello` any more, since JSON has no such keys, and those that start get no flags of others from it (mingle).
_UUID_OBJECT: Final = (
    "its id is not text (a UUID object or a number): workers compare ids as they were sent, and cannot be told to "
    "revoke it"
)
_PROGRESS: Final[tuple[Location, ...]] = ("unknown", "waiting", "in_pool", "running")


def locate(task_id: str, evidence: TaskEvidence) -> TaskLocation:
    """Return where a task is: what a worker holds now goes before stored states, and later events before both."""
    event, held = evidence.events.get(task_id), evidence.held.get(task_id)
    ended = event is not None and (
        event.type in _STATE_AFTER or (event.type == "task-revoked" and not event.terminated)
    )
    if held is not None and not (ended and event is not None and event.at >= evidence.asked_at):
        return held
    if ended and event is not None:
        return _after(event)
    name = event.name if event is not None else None
    # The state REVOKED proves nothing: Celery stores it for ids that never existed and for tasks that run on.
    if (state := evidence.states.get(task_id)) in FINISHED:
        return TaskLocation("finished", "its result is stored", name=name, state=state)
    if task_id in evidence.queued:
        is_object = task_id in evidence.uuid_objects
        detail = f"queued in {evidence.queued[task_id]}"
        return TaskLocation("waiting", detail, name=name, state="PENDING", uuid_object=is_object)
    return _known_by_event(task_id, event, evidence) if event is not None else TaskLocation()


def _known_by_event(task_id: str, event: LastEvent, evidence: TaskEvidence) -> TaskLocation:
    if event.only_announces:
        return _previously_terminated(event, evidence.previously_terminated.get(task_id))
    # A worker lists every task that it runs; it hides only those that wait for their rate limit.
    if event.type == "task-started" and event.worker in evidence.answered and event.at < evidence.asked_at:
        return TaskLocation(detail=f"started at {event.worker}, which no longer holds it", name=event.name)
    return _after(event)


def _previously_terminated(event: LastEvent, before: Termination | None) -> TaskLocation:
    if before is not None and before.died:
        detail = "already terminated: the process that ran it is gone"
        return TaskLocation("revoked", detail, worker=event.worker, name=event.name, state="REVOKED")
    pid = before.pid if before is not None else None
    detail = "terminate was already sent"
    return TaskLocation("dying", detail, worker=event.worker, name=event.name, state="STARTED", pid=pid)


def _after(event: LastEvent) -> TaskLocation:
    def located(location: Location, detail: str, state: str) -> TaskLocation:
        return TaskLocation(location, detail, worker=event.worker, name=event.name, state=state)

    if event.type in _STATE_AFTER:
        return located("finished", f"event {event.type}", _STATE_AFTER[event.type])
    if event.type == "task-revoked":
        return located("revoked", "a worker already discarded it", "REVOKED")
    if event.type == "task-started":
        return located("running", "running, by its event", "STARTED")
    if event.type in _WAITING_AFTER:
        return located("waiting", _WAITING_AFTER[event.type], "PENDING")
    return TaskLocation(name=event.name)


def is_later(now: TaskLocation, before: TaskLocation) -> bool:
    """Return True when a task that had not ended has moved on towards running."""
    return before.location in _PROGRESS and _PROGRESS.index(now.location) > _PROGRESS.index(before.location)


def leave_alone(task_id: str, where: TaskLocation) -> TaskResult | None:
    """Return the result of an id that must not be sent, or to no effect, else None.

    Celery 5.6.2 to 5.6.x overwrites a stored FAILURE with REVOKED when it flags a finished task.
    """
    if where.location == "finished":
        return _result(task_id, "already_finished", f"already finished ({where.state}): {where.detail}", where)
    if where.location == "revoked":
        return _result(task_id, "already_revoked", where.detail, where)
    if where.uuid_object:
        return _result(task_id, "error", f"{_UUID_OBJECT} ({where.detail})", where)
    return None


def preview(task_id: str, where: TaskLocation, *, terminate: bool) -> TaskResult:
    """Return the result of a dry run."""
    if (result := leave_alone(task_id, where)) is not None:
        return result
    if where.location == "running" and not terminate:
        return _result(task_id, "running_not_terminated", "running; it would run on", where)
    if where.location == "dying":
        return _result(task_id, "terminate_sent", _DYING, where)
    detail = {
        "running": "running; it would be terminated",
        "in_pool": f"it will run: {where.detail}, and that pool checks no flags",
        "waiting": f"waiting ({where.detail}); it would be flagged",
    }.get(where.location, "not seen anywhere; it would be discarded on arrival")
    return _result(task_id, "pending", detail, where)


def decide(
    task_id: str,
    where: TaskLocation,
    flags: Acknowledgements | None,
    *,
    terminate: bool = False,
    terminated: TerminateResult | None = None,
) -> TaskResult:
    """Return the result after the act; see the table at the top. ``flags`` is None where there was no time to flag."""
    if (result := leave_alone(task_id, where)) is not None:
        return result
    if where.location == "running":
        return _decide_running(
            task_id, where, flags, terminated=(terminated or TerminateResult()) if terminate else None
        )
    if where.location == "dying":
        return _result(task_id, "terminate_sent", _DYING, where)
    if where.location == "in_pool":
        return _result(task_id, "error", f"it will run: {where.detail}, and that pool checks no flags", where)
    if flags is None:
        return _result(task_id, "pending", _NO_TIME, where)
    if flags.errors:
        worker, text = min(flags.errors.items())
        return _result(task_id, "error", f"{worker}: {text}", where)
    if flags.missing or not flags.acknowledged:
        return _result(task_id, "partial", _no_reply_from(flags.missing), where)
    return acknowledged(_result(task_id, "pending", where.detail, where))


def _decide_running(
    task_id: str, where: TaskLocation, flags: Acknowledgements | None, *, terminated: TerminateResult | None
) -> TaskResult:
    if terminated is None:
        return _result(task_id, "running_not_terminated", "it runs on: terminate was false", where)
    if terminated.died:
        return _result(task_id, "terminated", _PROCESS_GONE, where)
    if terminated.error is not None:
        return _result(task_id, "error", f"it runs on: {terminated.error}", where)
    if terminated.replied:
        return _result(task_id, "terminate_sent", TERMINATE_SENT, where)
    if flags is None:
        return _result(task_id, "pending", _NO_TIME, where)
    silent = flags.missing if where.worker is None else flags.missing | {where.worker}
    return _result(task_id, "partial", _no_reply_from(silent), where)


TERMINATE_SENT: Final = "terminate sent; its process may still live"
_DYING: Final = "terminate was already sent; its process may still live"
_PROCESS_GONE: Final = "the process that ran it is gone"
_NO_TIME: Final = "no worker has acknowledged it yet"


def acknowledged(result: TaskResult) -> TaskResult:
    """Return the result of an id that every live worker has flagged."""
    if result.waiting:
        return replace(result, status="flagged", detail="every worker will discard it when its turn comes")
    detail = "not seen anywhere; it is discarded on arrival"
    return replace(result, status="flagged_unknown", detail=detail)


def after_event(result: TaskResult, event: LastEvent) -> TaskResult:
    """Return the result after an event of that task; an event that proves nothing changes nothing."""
    if result.status not in OPEN:
        return result
    if event.type in _STATE_AFTER:
        return ran_anyway(result, _STATE_AFTER[event.type], worker=event.worker, name=event.name)
    if event.type == "task-revoked" and not event.terminated and result.status != "terminate_sent":
        changed = replace(result, status="revoked", detail="a worker discarded it", state="REVOKED")
        return replace(changed, worker=event.worker or result.worker, name=event.name or result.name)
    return result


def ran_anyway(result: TaskResult, state: str, *, worker: str | None = None, name: str | None = None) -> TaskResult:
    """Return the result of a task that finished although it was flagged."""
    detail = f"it finished ({state}) although it was flagged"
    changed = replace(result, status="ran_anyway", detail=detail, state=state)
    return replace(changed, worker=worker or result.worker, name=name or result.name)


def after_check(result: TaskResult, *, gone: Callable[[int | None, str | None], bool]) -> TaskResult:
    """Return the result after its worker was asked for its processes; ``gone(pid, worker)``."""
    if result.status != "terminate_sent" or not gone(result.pid, result.worker):
        return result
    return replace(result, status="terminated", detail=_PROCESS_GONE)


def found_running(result: TaskResult) -> TaskResult:
    """Return the result of a task that a worker turns out to run, where ``terminate`` was false.

    A task that was flagged lost its flag with a worker; its events will tell what becomes of it.
    """
    if result.status not in ("partial", "pending"):
        return result
    return replace(result, status="running_not_terminated", detail="it runs on: terminate was false")


def terminate_sent(result: TaskResult, where: TaskLocation) -> TaskResult:
    """Return the result of a task to whose worker terminate has just been sent."""
    return replace(result, status="terminate_sent", detail=TERMINATE_SENT, worker=where.worker, pid=where.pid)


def unconfirmed(result: TaskResult, detail: str) -> TaskResult:
    """Return the result of an id that is no longer followed."""
    return replace(result, status="unconfirmed", detail=detail)


def _no_reply_from(workers: Iterable[str]) -> str:
    return f"no acknowledgement from {', '.join(sorted(workers))}"


def _result(task_id: str, status: Status, detail: str, where: TaskLocation) -> TaskResult:
    return TaskResult(
        task_id=task_id,
        status=status,
        detail=detail,
        worker=where.worker,
        name=where.name,
        state=where.state,
        pid=where.pid,
        waiting=where.location == "waiting",
    )


def is_settled(results: Iterable[TaskResult]) -> bool:
    """Return True when every id has its final status."""
    return all(result.status not in OPEN for result in results)


def totals(results: Iterable[TaskResult]) -> dict[Count, int]:
    """Return how many ids count as successful, failed and unverified."""
    found = Counter(COUNTS_AS[result.status] for result in results)
    return {"successful": found["successful"], "failed": found["failed"], "unverified": found["unverified"]}


def by_status(results: Iterable[TaskResult]) -> dict[str, int]:
    """Return how many ids have which status, in the order of `COUNTS_AS`."""
    found = Counter(result.status for result in results)
    return {status: found[status] for status in COUNTS_AS if found[status]}
