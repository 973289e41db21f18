"""The values of a batch revoke. What the API serves and the store keeps are these values themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from celerymeter.control.store import Time

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
MAX_IDS_BYTES: Final = 300_000
"""Bytes of all ids of a batch as JSON, as its rows of the audit trail have them: 1,000 of the longest in ASCII fit."""
MAX_SHOWN: Final = 200
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

    def shortened(self) -> Acknowledgements:
        """Return it as a reply shows it: of the workers that did not reply, or with an error, the first 200.

        Anybody who may publish events can invent workers, but not acknowledgements.
        """
        missing, errors = sorted(self.missing)[:MAX_SHOWN], sorted(self.errors.items())[:MAX_SHOWN]
        return Acknowledgements(self.acknowledged, frozenset(missing), dict(errors))


@dataclass(frozen=True, slots=True)
class TerminateResult:
    """The result of a terminate command: did the worker reply, its error, and did the process die."""

    replied: bool = False
    error: str | None = None
    died: bool = False


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
    at: Time
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
    workers: Acknowledgements = Field(description="`missing` names at most 200; `missing_workers` counts all of them")
    missing_workers: int
    dry_run: bool
    settled: bool = Field(description="True when every status is final")
    follow_up: str | None = Field(description="Path of the batch, as long as it is not settled")
    look_up: str = Field(description="Path that says where one of the tasks is, with its id in place of {task_id}")
    timestamp: datetime


class RevocationMessage(BaseModel):
    """Message of the feed: tasks of a batch changed their status."""

    batch_id: str
    settled: bool
    successful: int
    failed: int
    unverified: int
    changes: list[TaskResult]
