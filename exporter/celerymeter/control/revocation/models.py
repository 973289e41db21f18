"""The values of a batch revoke. What the API serves and the store keeps are these values themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

Status = Literal[
    "terminated",
    "revoked",
    "flagged",
    "terminate_sent",
    "pending",
    "unconfirmed",
    "flagged_unknown",
    "already_finished",
    "already_revoked",
    "running_not_terminated",
    "partial",
    "ran_anyway",
    "error",
    "invalid",
]
Count = Literal["successful", "failed", "unverified"]
Signal = Literal["SIGTERM", "SIGKILL", "SIGQUIT", "SIGINT"]
Location = Literal["running", "in_pool", "waiting", "dying", "finished", "revoked", "unknown"]
"""``in_pool``: not running yet, but in a pool that checks no flags (threads, gevent, eventlet), so that it will run.
``dying``: an earlier revoke terminated it; its worker no longer lists it, whether its process is dead or not.
"""

COUNTS_AS: Final[Mapping[Status, Count]] = {
    "terminated": "successful",
    "revoked": "successful",
    "flagged": "successful",
    "terminate_sent": "unverified",
    "pending": "unverified",
    "unconfirmed": "unverified",
    "flagged_unknown": "unverified",
    "already_finished": "failed",
    "already_revoked": "failed",
    "running_not_terminated": "failed",
    "partial": "failed",
    "ran_anyway": "failed",
    "error": "failed",
    "invalid": "failed",
}
OPEN: Final[frozenset[Status]] = frozenset(
    {"terminate_sent", "pending", "flagged", "flagged_unknown", "partial", "error"}
)
"""Statuses that may still change; the others are final."""
MAX_IDS: Final = 1000
MAX_ID_LENGTH: Final = 255
_ALWAYS_PRESENT: Final = ConfigDict(json_schema_serialization_defaults_required=True)

Names = Annotated[frozenset[str], PlainSerializer(sorted, return_type=list[str])]


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """A checked request: ``task_ids`` are unique and valid, ``invalid`` the others; ``merged`` counts duplicates."""

    task_ids: tuple[str, ...]
    invalid: tuple[str, ...] = ()
    merged: int = 0
    terminate: bool = False
    signal: Signal = "SIGTERM"
    reason: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class LastEvent:
    """The last event of a task: its type, when it was received (UTC seconds), and the worker that sent it."""

    type: str
    at: float
    worker: str | None = None
    name: str | None = None
    queue: str | None = None
    terminated: bool = False


@dataclass(frozen=True, slots=True)
class TaskLocation:
    """The location of a task. ``detail`` is text for a person; ``pid`` is the pool process that runs the task."""

    location: Location = "unknown"
    detail: str = ""
    worker: str | None = None
    name: str | None = None
    state: str | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The status of one task id."""

    __pydantic_config__ = _ALWAYS_PRESENT

    task_id: str
    status: Status
    detail: str = ""
    worker: str | None = None
    name: str | None = None
    state: str | None = None
    pid: Annotated[int | None, Field(exclude=True)] = None
    """The pool process that ran it; for the follow-up only, as ``waiting``."""
    waiting: Annotated[bool, Field(exclude=True)] = False
    """True when a worker or a queue held it."""


@dataclass(frozen=True, slots=True)
class Acknowledgements:
    """The workers that acknowledged a command, those that did not reply, and those that replied with an error."""

    __pydantic_config__ = _ALWAYS_PRESENT

    acknowledged: Names = frozenset()
    missing: Names = frozenset()
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TerminateResult:
    """The result of a terminate command: did the worker reply, its error, and did the process die."""

    replied: bool = False
    error: str | None = None
    died: bool = False


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
    previously_terminated: Mapping[str, TaskResult] = field(default_factory=dict)
    """Results of earlier batches that terminated these."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of acting on a request; ``no_reply``: ids were sent and no worker replied at all."""

    results: tuple[TaskResult, ...]
    workers: Acknowledgements = Acknowledgements()
    no_reply: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """The state of a batch. ``at`` is when it was accepted (UTC seconds), ``intent`` its row in the audit trail."""

    id: str
    at: float
    intent: int
    request: RevokeRequest
    results: tuple[TaskResult, ...]
    workers: Acknowledgements = Acknowledgements()


class BatchReply(BaseModel):
    """A batch: `total` unique ids are `successful`, `failed` or `unverified`; nothing unproven counts as successful."""

    batch_id: str | None = Field(description="null for a dry run, which is not stored")
    total: int
    successful: int
    failed: int
    unverified: int
    merged: int = Field(description="Duplicates among the given ids")
    summary: str
    results: tuple[TaskResult, ...]
    workers: Acknowledgements
    dry_run: bool
    settled: bool = Field(description="True when every status is final")
    follow_up: str | None = Field(description="Path of the batch, as long as it is not settled")
    timestamp: datetime


class RevocationMessage(BaseModel):
    """Message of the feed: tasks of a batch changed their status."""

    batch_id: str
    settled: bool
    successful: int
    failed: int
    unverified: int
    changes: list[TaskResult]
