"""From evidence to words, without I/O: never more than is proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from celerymeter.control.revocation.memory import Trace
from celerymeter.control.revocation.models import Acknowledgements, Place, Result, Sighting, Status

FINISHED = frozenset({"SUCCESS", "FAILURE"})
_ENDS = {"task-succeeded": "SUCCESS", "task-failed": "FAILURE"}
_WAITS = {"task-sent": "sent", "task-received": "received", "task-retried": "waits for a retry"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was found, by task id. ``asked_at``: when the workers were asked (UTC seconds); ``states`` are older."""

    asked_at: float
    traces: Mapping[str, Trace] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    at_workers: Mapping[str, Sighting] = field(default_factory=dict)
    queued: Mapping[str, str] = field(default_factory=dict)
    """Queues of ids that were seen in the broker's lists."""
    told_to_die: Mapping[str, Result] = field(default_factory=dict)
    """What an earlier batch knows of these."""
    answered: frozenset[str] = frozenset()
    """Workers that said which of the ids they hold."""


def sighting(task_id: str, evidence: Evidence) -> Sighting:
    """Where a task is. What a worker holds now goes before what is stored, and later events before both."""
    trace, held = evidence.traces.get(task_id), evidence.at_workers.get(task_id)
    if held is not None and not (trace is not None and trace.at >= evidence.asked_at and _over(trace)):
        return held
    if trace is not None and _over(trace):
        return _of_trace(trace)
    if evidence.states.get(task_id) in FINISHED:
        name = trace.name if trace is not None else None
        return Sighting("finished", "its result is stored", name=name, state=evidence.states[task_id])
    if task_id in evidence.queued:
        name = trace.name if trace is not None else None
        return Sighting("waiting", f"queued in {evidence.queued[task_id]}", name=name, state="PENDING")
    return _of_hearsay(task_id, trace, evidence) if trace is not None else Sighting()


def _of_hearsay(task_id: str, trace: Trace, evidence: Evidence) -> Sighting:
    """What only an event tells. A worker hides tasks that wait for its rate limit, but none that it runs."""
    if trace.announced:
        return _of_announced(trace, evidence.told_to_die.get(task_id))
    if trace.kind == "task-started" and trace.worker in evidence.answered and trace.at < evidence.asked_at:
        return Sighting(how=f"began at {trace.worker}, which holds it no longer", name=trace.name)
    return _of_trace(trace)


def _of_announced(trace: Trace, before: Result | None) -> Sighting:
    """The event was sent at the command; an earlier batch may have seen the process die."""
    if before is not None and before.status == "terminated":
        why = "it had been terminated before: the process that ran it is gone"
        return Sighting("revoked", why, worker=trace.worker, name=trace.name, state="REVOKED")
    pid = before.pid if before is not None else None
    return Sighting("dying", "told to die before", worker=trace.worker, name=trace.name, state="STARTED", pid=pid)


def _over(trace: Trace) -> bool:
    return trace.kind in _ENDS or (trace.kind == "task-revoked" and not trace.announced)


def _of_trace(trace: Trace) -> Sighting:
    def seen(place: Place, how: str, state: str) -> Sighting:
        return Sighting(place, how, worker=trace.worker, name=trace.name, state=state)

    if trace.kind in _ENDS:
        return seen("finished", "an event says so", _ENDS[trace.kind])
    if trace.kind == "task-revoked":
        return seen("revoked", "it had been discarded before", "REVOKED")
    if trace.kind == "task-started":
        return seen("running", "began, by its event", "STARTED")
    if trace.kind in _WAITS:
        return seen("waiting", _WAITS[trace.kind], "PENDING")
    return Sighting(name=trace.name)


def untouched(task_id: str, seen: Sighting) -> Result | None:
    """The result of an id that is left alone, else None."""
    if seen.place == "finished":
        return _result(task_id, "already_finished", f"it had finished ({seen.state}): {seen.how}", seen)
    if seen.place == "revoked":
        return _result(task_id, "already_revoked", seen.how, seen)
    return None


def preview(task_id: str, seen: Sighting, *, terminate: bool) -> Result:
    """What is known without an act."""
    if (left := untouched(task_id, seen)) is not None:
        return left
    if seen.place == "running" and not terminate:
        return _result(task_id, "running_not_terminated", "it runs; without terminate it would run on", seen)
    if seen.place == "running":
        return _result(task_id, "pending", "it runs; it would be told to die", seen)
    if seen.place == "dying":
        return _dying(task_id, seen)
    if seen.place == "taken":
        return _result(task_id, "pending", f"it will run: {seen.how}, which looks at no flags", seen)
    if seen.place == "waiting":
        return _result(task_id, "pending", f"it waits ({seen.how}); it would be flagged", seen)
    return _result(task_id, "pending", "nobody has seen it; it would be discarded should it arrive", seen)


@dataclass(frozen=True, slots=True)
class Killing:
    """What came of telling a worker to end a task: whether it ``answered``, its ``error``, and whether it ``died``."""

    answered: bool = False
    error: str | None = None
    died: bool = False


def verdict(
    task_id: str, seen: Sighting, flags: Acknowledgements, *, terminate: bool = False, killing: Killing | None = None
) -> Result:
    """The result after the act."""
    if (left := untouched(task_id, seen)) is not None:
        return left
    if seen.place == "running":
        return _of_running(task_id, seen, flags, terminate=terminate, killing=killing or Killing())
    if seen.place == "dying":
        return _dying(task_id, seen)
    if seen.place == "taken":
        return _result(task_id, "error", f"it will run: {seen.how}, which looks at no flags", seen)
    return _of_flag(task_id, seen, flags)


def _dying(task_id: str, seen: Sighting) -> Result:
    """Celery cannot be told to end it again: for its worker it has ended."""
    return _result(task_id, "terminate_sent", "told to die before; not proven dead yet", seen)


def _of_running(task_id: str, seen: Sighting, flags: Acknowledgements, *, terminate: bool, killing: Killing) -> Result:
    if not terminate:
        return _result(task_id, "running_not_terminated", "it runs on: terminate was false", seen)
    if killing.died:
        return _result(task_id, "terminated", "the process that ran it is gone", seen)
    if killing.error is not None:
        return _result(task_id, "error", f"it runs on: {killing.error}", seen)
    if killing.answered:
        return _result(task_id, "terminate_sent", "told to die; not proven dead yet", seen)
    silent = sorted({seen.worker} - {None} | flags.missing)  # type: ignore[type-var]  # None is taken out
    return _result(task_id, "partial", f"no acknowledgement from {', '.join(map(str, silent))}", seen)


def _of_flag(task_id: str, seen: Sighting, flags: Acknowledgements) -> Result:
    if flags.errors:
        worker, words = min(flags.errors.items())
        return _result(task_id, "error", f"{worker}: {words}", seen)
    if flags.missing or not flags.expected:
        return _result(task_id, "partial", f"no acknowledgement from {', '.join(sorted(flags.missing))}", seen)
    return flagged(_result(task_id, "pending", seen.how, seen))


def flagged(result: Result) -> Result:
    """What is said of an id that every worker acknowledged."""
    if result.waiting:
        detail = "every worker will discard it when its turn comes"
        return _changed(result, "flagged", detail)
    return _changed(result, "flagged_unknown", "nobody has seen it; it is discarded should it arrive")


def after_event(result: Result, trace: Trace) -> Result:
    """The result after an event of that task, which is the same result when the event proves nothing."""
    if result.settled:
        return result
    if trace.kind in _ENDS:
        return ran_anyway(result, _ENDS[trace.kind], worker=trace.worker, name=trace.name)
    if trace.kind == "task-revoked" and not trace.terminated and result.status != "terminate_sent":
        told = _changed(result, "revoked", "a worker discarded it")
        return _filled(told, state="REVOKED", worker=trace.worker, name=trace.name)
    return result


def ran_anyway(result: Result, state: str, *, worker: str | None = None, name: str | None = None) -> Result:
    """It finished although it was flagged."""
    told = _changed(result, "ran_anyway", f"it finished ({state}) although it was flagged")
    return _filled(told, state=state, worker=worker, name=name)


def given_up(result: Result, why: str) -> Result:
    """It is followed no longer."""
    return _changed(result, "unconfirmed", why)


def died(result: Result) -> Result:
    """Its process is gone."""
    return _changed(result, "terminated", "the process that ran it is gone")


def _result(task_id: str, status: Status, detail: str, seen: Sighting) -> Result:
    return Result(
        task_id=task_id,
        status=status,
        detail=detail,
        worker=seen.worker,
        name=seen.name,
        state=seen.state,
        pid=seen.pid,
        waiting=seen.place == "waiting",
    )


def _changed(result: Result, status: Status, detail: str) -> Result:
    return replace(result, status=status, detail=detail)


def _filled(result: Result, *, state: str, worker: str | None, name: str | None) -> Result:
    return replace(result, state=state, worker=worker or result.worker, name=name or result.name)
