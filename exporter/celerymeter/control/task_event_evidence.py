"""The state of a worker's task events: judged by the events that arrive, never by what the worker replies.

Pure: no I/O, ``now`` is an argument (UTC seconds of receipt). A reply proves nothing: ``enable_events`` (of
`celery.worker.control`) is acknowledged also by a worker whose event dispatcher is off and that will send nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

TaskEventState = Literal["enabled", "disabled", "always_on", "impossible", "unknown"]

FLUSH_TIME: Final = 1.5
"""Seconds for which a worker may still send the events that it had buffered when its events were turned off."""
PROOF_TIME: Final = 1.5
"""Seconds within which a worker that was asked for a heartbeat sends one, if it can send events at all."""
SILENT_HEARTBEATS: Final = 2
"""Heartbeats in a row that count runs without events, before that counts: a heartbeat may overtake an event."""


@dataclass(frozen=True, slots=True)
class WorkerTaskEvents:
    """A worker's task events. `always_on`: started with `-E`, so they cannot be turned off. `impossible`: the worker
    acknowledges the command but sends no events. `unknown`: no answer yet, or the event stream is not subscribed.
    """

    hostname: str
    task_events: TaskEventState
    confirmed: Annotated[bool, Field(description="True once events, or runs without events, have proven it")]
    last_task_event: datetime | None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The setting that a worker acknowledged, and when it first did (UTC seconds)."""

    enabled: bool
    at: float
    by_us: bool
    """True when its task events were off before we turned them on."""


@dataclass(slots=True)
class TaskEventEvidence:
    """A summary of one worker process's task events and heartbeats; mutable."""

    last_task_event: float | None = None
    _runs: int | None = None
    _silent_heartbeats: int = 0

    def note_task_event(self, now: float) -> None:
        """A task event came."""
        self.last_task_event = now
        self.start_anew()

    def note_heartbeat(self, runs: int | None) -> None:
        """A heartbeat came, with the number of runs that the worker has begun so far."""
        if runs is None:
            return
        if self._runs is None or runs < self._runs:
            self._runs, self._silent_heartbeats = runs, 0
        elif runs > self._runs:
            self._silent_heartbeats += 1

    def start_anew(self) -> None:
        """Count runs without events from the next heartbeat on."""
        self._runs, self._silent_heartbeats = None, 0

    @property
    def runs_silently(self) -> bool:
        """True when the worker has run tasks and sent no task event."""
        return self._silent_heartbeats >= SILENT_HEARTBEATS


def task_event_state(
    evidence: TaskEventEvidence, acknowledged: Acknowledgement | None, *, last_seen: float | None, now: float
) -> tuple[TaskEventState, bool]:
    """Return the state of one worker, and whether it is proven; ``last_seen`` is when any event of it came last."""
    last_task_event = evidence.last_task_event or 0.0
    if acknowledged is not None and not acknowledged.enabled:
        if last_task_event > acknowledged.at + FLUSH_TIME:
            return "always_on", True
        return "disabled", evidence.runs_silently
    if acknowledged is not None and not heard_since(acknowledged, last_seen):
        return ("impossible", True) if now - acknowledged.at >= PROOF_TIME else ("unknown", False)
    if evidence.runs_silently:
        return "disabled", True
    if acknowledged is None:
        return ("enabled", True) if evidence.last_task_event is not None else ("unknown", False)
    return "enabled" if acknowledged.by_us else "always_on", last_task_event > acknowledged.at


def heard_since(acknowledged: Acknowledgement, last_seen: float | None) -> bool:
    """Return whether the worker has sent any event since it acknowledged."""
    return last_seen is not None and last_seen >= acknowledged.at
