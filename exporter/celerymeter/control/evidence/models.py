"""The values of evidence about tasks. Times are UTC seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Location = Literal["running", "in_pool", "waiting", "dying", "finished", "revoked", "unknown"]
"""``in_pool``: not running yet, but in a pool that checks no flags (threads, gevent, eventlet), so that it will run.
``dying``: an earlier revoke terminated it; its worker no longer lists it, whether its process is dead or not.
"""


@dataclass(frozen=True, slots=True)
class LastEvent:
    """The last event of a task: its type, when it was received (UTC seconds), and the worker that sent it."""

    type: str
    at: float
    worker: str | None = None
    name: str | None = None
    queue: str | None = None
    terminated: bool = False

    @property
    def only_announces(self) -> bool:
        """True for the event that Celery sends when a task is to be terminated, not when its process dies."""
        return self.type == "task-revoked" and self.terminated


@dataclass(frozen=True, slots=True)
class TaskLocation:
    """The location of a task. ``detail`` is text for a person; ``pid`` is the pool process that runs the task."""

    location: Location = "unknown"
    detail: str = ""
    worker: str | None = None
    name: str | None = None
    state: str | None = None
    pid: int | None = None
    uuid_object: bool = False
    """True when its id is a UUID object or a number: workers compare ids as sent, so its text hits nothing."""


@dataclass(frozen=True, slots=True)
class Termination:
    """A terminate command: the pool process that it was for, and is that proven dead, or alive."""

    pid: int | None = None
    died: bool = False
    alive: bool = False


@dataclass(frozen=True, slots=True)
class TaskEvidence:
    """Everything found out about some ids before acting, by id. Times are UTC seconds."""

    asked_at: float
    """Time at which the workers were asked; the stored states are older."""
    workers: frozenset[str] = frozenset()
    """The live workers: those that replied and those that send heartbeats."""
    answered: frozenset[str] = frozenset()
    """Workers that said which of the ids they hold."""
    replied: bool = False
    """True when any worker replied, so that they are not only known by their heartbeats."""
    events: Mapping[str, LastEvent] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    """States in the result backend."""
    held: Mapping[str, TaskLocation] = field(default_factory=dict)
    """Tasks that workers hold."""
    queued: Mapping[str, str] = field(default_factory=dict)
    """Queues of the ids that the broker's lists contain."""
    uuid_objects: frozenset[str] = frozenset()
    """Those among them whose id is a UUID object or a number."""
    previously_terminated: Mapping[str, Termination] = field(default_factory=dict)
    """Terminate commands of earlier batches for these."""
