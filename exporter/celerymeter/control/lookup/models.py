"""The answer to "where is my task?". What the API serves are these values themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from celerymeter.control.routing import utc

Verdict = Literal[
    "queued",
    "scheduled",
    "reserved",
    "running",
    "succeeded",
    "failed",
    "retrying",
    "revoked",
    "expired",
    "rejected",
    "lost",
    "ran_twice",
    "unknown",
]
FINAL: Final[frozenset[Verdict]] = frozenset({"succeeded", "failed", "revoked", "expired", "rejected", "ran_twice"})
"""Verdicts of tasks that are over: `celerymeter task --follow` ends with them."""
_PRESENT: Final = ConfigDict(json_schema_serialization_defaults_required=True)


def _iso(at: float | None) -> str | None:
    return None if at is None else utc(at).isoformat().replace("+00:00", "Z")


Time = Annotated[
    float | None,
    PlainSerializer(_iso, return_type=str | None),
    Field(json_schema_extra={"format": "date-time"}),
]


@dataclass(frozen=True, slots=True)
class Run:
    """One run: how it ended, or `running`. `lost`: its worker died; `replaced`: it sent another task in its place."""

    __pydantic_config__ = _PRESENT

    worker: str
    started: Time = None
    ended: Time = None
    outcome: str = "running"
    exception: Annotated[str | None, Field(description="Class of the exception, without its text")] = None


@dataclass(frozen=True, slots=True)
class Position:
    """Place in the queue over all priorities: 1 is taken next. `number` is null where the broker shows only a depth."""

    __pydantic_config__ = _PRESENT

    number: int | None
    total: int
    priority: Annotated[int | None, Field(description="Priority step of the list that holds it, 0 is taken first")] = (
        None
    )


@dataclass(frozen=True, slots=True)
class Source:
    """A source of evidence: what it says, or why it was not asked or not reached."""

    __pydantic_config__ = _PRESENT

    source: str
    says: str
    asked_at: Time = None


@dataclass(frozen=True, slots=True)
class Silent:
    """A source that says nothing, and why."""

    __pydantic_config__ = _PRESENT

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """The verdict in one sentence for people."""

    __pydantic_config__ = ConfigDict(json_schema_serialization_defaults_required=True, populate_by_name=True)

    en: str
    zh_tw: Annotated[str, Field(serialization_alias="zh-TW")]


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on a task, never more than is proven; `unknown` gives the reason in its sentence."""

    verdict: Verdict
    reason: str = ""
    """Key of the sentence, where a verdict has several."""
    since: float | None = None
    name: str | None = None
    queue: str | None = None
    worker: str | None = None
    position: Position | None = None
    eta: float | None = None
    redelivered_at: float | None = None
    behind: int | None = None
    slots: int | None = None
    free_slots: int | None = None
    consumers: tuple[str, ...] | None = None
    drain_seconds: float | None = None
    usual_seconds: float | None = None
    runs: tuple[Run, ...] = ()
    words: tuple[tuple[str, str], ...] = field(default=())
    """Further values of the sentence."""


class TaskReply(BaseModel):
    """The place of a task, by evidence. `unknown` is an answer: its sentence says what cannot be known, and why."""

    task_id: str
    verdict: Verdict
    final: bool = Field(description="True when nothing more will happen to the task by itself")
    since: Time = Field(description="Time since when it has been there")
    name: str | None
    queue: str | None
    worker: str | None
    position: Position | None
    eta: Time = Field(description="Earliest time at which it runs")
    redelivered_at: Time = Field(
        description="`lost`: earliest time at which another worker gets it; null when never, or when nobody knows"
    )
    behind: int | None = Field(description="`reserved`: tasks that its worker runs or holds, at most, before it")
    consumers: tuple[str, ...] | None = Field(description="`queued`: live workers that consume its queue")
    free_slots: int | None = Field(description="`queued`: free slots of those workers")
    drain_seconds: float | None = Field(description="`queued`: seconds until the queue is empty at its present pace")
    usual_seconds: float | None = Field(description="95th percentile of the run time of such tasks, by Prometheus")
    runs: tuple[Run, ...]
    evidence: tuple[Source, ...]
    not_asked: tuple[Silent, ...]
    unreachable: tuple[Silent, ...]
    sentence: Sentence
    timestamp: Time
