"""The memory of aggregating workers of a task (`celerymeter.aggregate.commands`), added to its history by events.

These workers publish no events of single tasks, but for revoked and rejected ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from celerymeter.control.evidence.history import Discarded, Outcome, PastRun, Reception, TaskHistory
from celerymeter.control.evidence.models import LastEvent
from celerymeter.inspect_replies import mapping, text

COMMAND: Final = "celerymeter_task"
_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "retried": "retried",
    "rejected": "rejected",
    "requeued": "requeued",
    "cancelled": "requeued",
    "terminated": "terminate_sent",
}
_EVENTS: Final[Mapping[str, str]] = {
    "received": "task-received",
    "started": "task-started",
    "succeeded": "task-succeeded",
    "failed": "task-failed",
    "retried": "task-retried",
    "rejected": "task-rejected",
    "revoked": "task-revoked",
    "terminated": "task-revoked",
}
"""The event that a worker would have sent last."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """One worker's memory of a task; times are UTC seconds by its clock."""

    worker: str
    state: str
    name: str | None = None
    queue: str | None = None
    received: float | None = None
    started: float | None = None
    ended: float | None = None
    eta: float | None = None
    retries: int = 0


def parse(answer: object, worker: str) -> dict[str, Remembered]:
    """Return a worker's answer, by task."""
    found = {}
    for task_id, task in mapping(mapping(answer).get("ok", answer)).items():
        fields = mapping(task)
        if (state := text(fields.get("state"))) is not None:
            retries = fields.get("retries")
            found[task_id] = Remembered(
                worker,
                state,
                text(fields.get("name")),
                text(fields.get("queue")),
                **{key: _time(fields.get(key)) for key in ("received", "started", "ended", "eta")},
                retries=retries if isinstance(retries, int) else 0,
            )
    return found


def last_event(known: Remembered) -> LastEvent | None:
    """Return the event that the worker would have sent last; ``None`` for what no event tells."""
    kind = _EVENTS.get(known.state)
    at = known.ended or known.started or known.received
    if kind is None or at is None:
        return None
    return LastEvent(kind, at, known.worker, known.name, known.queue, terminated=known.state == "terminated")


def with_memories(history: TaskHistory, memories: list[Remembered]) -> TaskHistory:
    """Return the history with what workers remember that events did not show."""
    for memory in sorted(memories, key=lambda each: each.started or each.received or 0.0):
        history = _with(history, memory)
    return history


def _with(history: TaskHistory, memory: Remembered) -> TaskHistory:
    if any(run.worker == memory.worker for run in history.runs):
        return history
    # A task that was sent after that run began, and in its place or to run again, is not the one that ran.
    later = history.new_message and (history.sent_at or 0.0) > (memory.started or memory.received or 0.0)
    history = replace(
        history,
        name=history.name if later else memory.name or history.name,
        queue=history.queue or memory.queue,
        retries=max(history.retries, memory.retries),
        eta=memory.eta,
        received=Reception(memory.worker, 0, memory.received or memory.started or 0.0, memory.eta),
    )
    if memory.started is None:
        again = bool(history.runs) or later
        if memory.state == "revoked" and memory.ended is not None and history.discarded is None:
            return replace(history, discarded=Discarded(memory.worker, memory.ended, "revoked"))
        return replace(history, new_message=again or history.new_message, received_again=again)
    outcome = _OUTCOMES.get(memory.state)
    run = PastRun(
        memory.worker,
        started_at=memory.started,
        ended_at=memory.ended if outcome is not None else None,
        outcome=outcome,
        seen_at=memory.ended or memory.started,
    )
    new_message = later or outcome in ("retried", "requeued")
    return replace(history, runs=(*history.runs, run), new_message=new_message)


def _time(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e10 else None
