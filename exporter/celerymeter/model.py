"""The values that several packages share: events off the wire, and the results of polls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from celerymeter.totals_message import WorkerTotals

UNKNOWN = "unknown"
OTHER = "__other__"
CELERY_EVENTS = frozenset(
    {
        "task-sent",
        "task-received",
        "task-started",
        "task-succeeded",
        "task-failed",
        "task-retried",
        "task-rejected",
        "task-revoked",
        "task-cancelled",
        "worker-online",
        "worker-heartbeat",
        "worker-offline",
    }
)
"""The types that Celery sends itself; applications send others, with fields of their own (`Task.send_event`)."""

MAX_TEXT = 512
"""Characters of an id or a name as the decoder lets it through; the tracker keeps fewer of a name."""
MAX_TYPE = 256
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]
_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]
_Load = Annotated[float, msgspec.Meta(ge=0)]


class ScheduleRow(msgspec.Struct, kw_only=True):
    """One entry of beat's schedule as `celerymeter.schedule` reports it; times are beat's clock in UTC seconds.

    The counts are those since this beat began.
    """

    schedule: _Word
    name: _Word
    words: _Text = ""
    every: _Seconds | None = None
    last_run_at: _Seconds | None = None
    next_due_at: _Seconds | None = None
    enabled: bool = True
    due: _Count = 0
    sent: _Count = 0
    failed: _Count = 0


class BeatReport(msgspec.Struct, kw_only=True):
    """One event of `celerymeter.schedule`: a heartbeat, the whole ``schedule``, or the one entry that was due."""

    instance: _Word
    started_at: _Seconds
    skew: Annotated[float, msgspec.Meta(ge=-1e10, le=1e10)] | None = None
    """Beat's clock minus one that nobody sets."""
    lag: _Seconds = 0.0
    count: _Count = 0
    left_out: _Count = 0
    dropped: _Count = 0
    schedule: Annotated[list[ScheduleRow], msgspec.Meta(max_length=2000)] = []
    due_at: _Seconds | None = None
    uuid: _Word | None = None


class Event(msgspec.Struct, gc=False, kw_only=True):
    """One Celery event, with the fields that metrics need (`celery.events`, `celery.worker.request`).

    Anything else on the wire (arguments, results, tracebacks) is skipped by the decoder and never kept.
    ``timestamp`` is the sender's clock in UTC seconds, ``clock`` its Lamport clock. The decoder enforces the bounds;
    building an event in Python does not.
    """

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TYPE)]
    hostname: _Word
    timestamp: Annotated[float, msgspec.Meta(gt=0, le=1e10)]
    clock: _Count = 0
    pid: _Count = 0
    # task events
    uuid: _Word | None = None
    parent_id: _Text | None = None
    name: _Word | None = None
    queue: _Text | None = None
    exchange: _Text | None = None
    routing_key: _Text | None = None
    retries: _Count | None = None
    eta: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    expires: object = None
    """Read only where it is an ISO 8601 text, so that no other value spoils the event."""
    runtime: _Seconds | None = None
    exception: str | None = None
    traceback: str | None = None
    requeue: bool | None = None
    terminated: bool | None = None
    expired: bool | None = None
    celerymeter_counted: object = None
    """True if the worker counts this step in its totals too (`celerymeter.aggregate`)."""
    # worker events
    freq: _Seconds | None = None
    active: _Count | None = None
    processed: _Count | None = None
    loadavg: Annotated[tuple[_Load, ...], msgspec.Meta(max_length=8)] | None = None
    sw_ver: _Text | None = None
    application_version: object = None
    """The version of the application, a text, from workers that were given one (`celerymeter.aggregate.install`)."""
    totals: WorkerTotals | None = None
    """Of `celerymeter-totals`."""
    # beat events
    beat: BeatReport | None = None


@dataclass(frozen=True, slots=True)
class ActiveTask:
    """A task that a worker runs, as `inspect active` lists it; ``started_at`` is UTC seconds by the worker's clock."""

    uuid: str
    name: str
    started_at: float | None
    queue_name: str | None
    worker_pid: int | None = None
    registered_name: str | None = None
    """Its own name, where the worker calls it by a shadow name (`celery.app.task.Task.shadow_name`)."""


@dataclass(frozen=True, slots=True)
class QueueBinding:
    """A queue that a worker consumes, and how it is bound to its exchange."""

    queue: str
    exchange: str
    exchange_type: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker's replies to `inspect`; ``None`` where it did not reply."""

    hostname: str
    pool: str | None = None
    slots: int | None = None
    pid: int | None = None
    reserved: int | None = None
    scheduled: int | None = None
    queues: tuple[str, ...] | None = None
    bindings: tuple[QueueBinding, ...] = ()
    broadcasts: frozenset[str] = frozenset()
    """The exchanges whose every message all their workers get (`kombu.common.Broadcast`)."""
    active: tuple[ActiveTask, ...] | None = None
    held: tuple[ActiveTask, ...] = ()
    """Tasks that waited in it when it was asked for the first time (`inspect reserved` and `scheduled`)."""
    totals: Mapping[str, int] | None = None
    """Runs begun since the worker started, by task name (`inspect stats`, ``total``)."""
    uptime: int | None = None
    """Seconds since the worker started."""
    visibility_timeout: float | None = None
    """In seconds, of its own configuration; ``None`` while that is not known."""
    registered: frozenset[str] | None = None
    """The names of the tasks that it knows, Celery's own aside (`inspect registered`)."""


@dataclass(frozen=True, slots=True)
class WorkersSnapshot:
    """One poll of the workers, by full node name; workers that did not reply are missing."""

    at: float
    workers: Mapping[str, WorkerState] = field(default_factory=dict)
    replied_at: float | None = None
    """Receipt of the last reply: a worker that was busy may reply to several polls at once."""
    silent: frozenset[str] = frozenset()
    """Workers that send heartbeats and did not reply to something that they were asked."""


@dataclass(frozen=True, slots=True)
class QueueHead:
    """The oldest ready message of a queue, with what is known of its age (UTC seconds)."""

    uuid: str | None
    stamped_at: float | None
    """From the header that `celerymeter.stamp` adds."""
    seen_since: float
    """Since when this message has been the head, as far as the poller saw."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue at one poll."""

    name: str
    length: int
    unacked: int | None = None
    head: QueueHead | None = None
    oldest_unacked_at: float | None = None
    consumers: int | None = None
    """Only where the broker itself knows (AMQP); on Redis it follows from the workers' own lists."""


@dataclass(frozen=True, slots=True)
class BrokerMemory:
    """The memory of the broker in bytes, of the node that is nearest to its limit; ``None`` is not known."""

    used: int | None = None
    limit: int | None = None
    blocked: bool | None = None
    """True while the broker takes no new messages, for lack of memory or disk."""
    evicted: int | None = None
    """Keys that Redis deleted for lack of memory since this process first asked."""
    orphaned: int | None = None
    """Size of messages for event receivers and remote control that nobody reads."""


@dataclass(frozen=True, slots=True)
class QueuesSnapshot:
    """One poll of the broker's queues."""

    at: float
    queues: tuple[QueueState, ...] = ()
    unacked_other: int | None = None
    """Unacknowledged messages beyond the scan limit, whose queue was not read."""
    unacked_unknown: int = 0
    """Unacknowledged messages that were read, but whose queue is not known to the broker."""
    visibility_timeout: float | None = None
    delayed: int | None = None
    """Messages that the broker holds until their ETA; ``None`` where it does not, or does not say."""
    memory: BrokerMemory = BrokerMemory()
    incomplete: str | None = None
    """The reason why the poll has not returned everything that it asked for."""


@dataclass(frozen=True, slots=True)
class PollOutcome:
    """The outcome of one poll; ``duration`` in seconds."""

    collector: Literal["queues", "workers"]
    success: bool
    at: float
    duration: float
