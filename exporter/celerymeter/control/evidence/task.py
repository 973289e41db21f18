"""Everything found out about one task for a look-up, as plain values. Times are UTC seconds by our clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from celerymeter.control.evidence.history import NO_HISTORY, TaskHistory
from celerymeter.control.evidence.memory import Remembered
from celerymeter.control.evidence.models import Termination

Source = Literal[
    "events", "workers", "worker memory", "redis queues", "redis unacked", "rabbitmq queues", "rabbitmq delay levels",
    "result backend", "revocations", "prometheus",
]  # fmt: skip


MAX_NAMED: Final = 10


def named(workers: Collection[str]) -> str:
    """Return the first names for a text of any language; anybody who may publish events can invent many workers."""
    shown = ", ".join(sorted(workers)[:MAX_NAMED])
    return shown if len(workers) <= MAX_NAMED else f"{shown} (+{len(workers) - MAX_NAMED})"


@dataclass(frozen=True, slots=True)
class Note:
    """A statement of a source, or why it says nothing; ``at`` is when it was asked."""

    source: Source
    text: str
    at: float | None = None


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A task's entry in the result backend, without its result."""

    state: str
    ended_at: float | None = None
    exception: str | None = None
    name: str | None = None
    worker: str | None = None
    """The worker that ran it, if results are extended or the start is stored (`task_track_started`)."""


@dataclass(frozen=True, slots=True)
class HeldTask:
    """The task as one worker lists it. ``state``: active, reserved, scheduled, or ready (received, listed nowhere)."""

    worker: str
    state: str
    name: str | None = None
    queue: str | None = None
    started_at: float | None = None
    eta: float | None = None
    redelivered: bool = False
    uuid_object: bool = False
    """True when its id is a UUID object or a number, which Celery's own commands do not find by its text."""
    reserved: int | None = None
    """Tasks in that worker's list, this one included."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker of the cluster at the time of the look-up; ``None`` where nobody knows."""

    hostname: str
    alive: bool = True
    """True while it sends heartbeats, or when it answered."""
    answered: bool = True
    pid: int | None = None
    started_at: float | None = None
    last_seen: float | None = None
    connected: bool | None = None
    """False when the broker shows that it holds no connection."""
    sends_task_events: bool | None = None
    ambiguous: bool = False
    """True when several processes use this name: whichever answered is not all of them."""
    left_at: float | None = None
    """Time of its `worker-offline`: it finishes what it runs, and answers nothing any more."""
    pool: str | None = None
    slots: int | None = None
    active: int | None = None
    reserved: int | None = None
    """Tasks that wait in it; only asked of the worker that holds the task."""
    queues: frozenset[str] | None = None

    @property
    def gone(self) -> bool:
        """True when it is neither heard nor connected, and no other process uses its name."""
        return not (self.ambiguous or self.alive or self.answered) and self.connected is False


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """The task's message in a queue's lists: ``position`` from the head, over all priorities, of ``total``."""

    queue: str
    position: int
    total: int
    priority: int = 0
    uuid_object: bool = False


@dataclass(frozen=True, slots=True)
class UnackedMessage:
    """The task's message among the unacknowledged ones: some worker took it then, or held it when it died."""

    delivered_at: float
    redelivered_at: float
    """Earliest time at which another worker gets it, if it is not acknowledged before."""


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """A task at the broker. ``lists_read`` and ``unacked_read`` are False when not everything could be read."""

    kind: Literal["redis", "rabbitmq", "other"] = "redis"
    reachable: bool = True
    """True when workers could be asked at all."""
    waiting: WaitingMessage | None = None
    unacked: UnackedMessage | None = None
    lists_read: bool = False
    unacked_read: bool = False
    depth: int | None = None
    """Messages in the task's queue, as far as the queue is known."""
    delay_level: int | None = None
    """The delay level that holds a message which may be this one (RabbitMQ)."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """Attributes of the task's class, as a worker has it registered."""

    rate_limit: str | None = None
    acks_late: bool | None = None


@dataclass(frozen=True, slots=True)
class Usual:
    """From Prometheus: the usual run time of such tasks, and how long the queue needs to get empty."""

    runtime_p95: float | None = None
    drain_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything about one task."""

    task_id: str
    asked_at: float
    history: TaskHistory = NO_HISTORY
    listening_since: float | None = None
    """Since when events have been received without a break; ``None`` while they are not."""
    remembered: tuple[Remembered, ...] = ()
    stored: StoredResult | None = None
    held: tuple[HeldTask, ...] = ()
    workers: Mapping[str, WorkerFacts] = field(default_factory=dict)
    broker: BrokerFacts = BrokerFacts()
    terminated: Termination | None = None
    """A terminate command of an earlier batch, with what became of the process."""
    facts: TaskFacts | None = None
    usual: Usual = Usual()
    says: tuple[Note, ...] = ()
    not_asked: tuple[Note, ...] = ()
    unreachable: tuple[Note, ...] = ()
