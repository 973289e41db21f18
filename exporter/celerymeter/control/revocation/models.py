"""The words of a batch revoke. Values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

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
Place = Literal["running", "taken", "waiting", "dying", "finished", "revoked", "unknown"]
"""``taken``: not running yet, but in a pool that looks at no flags (threads, gevent, eventlet), so that it will run.
``dying``: told to die before; its worker shows it no longer, whatever became of it.
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
"""Statuses that events may still change; the others are final."""
MAX_IDS: Final = 1000
MAX_ID: Final = 255


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for; ``task_ids`` without doubles and all of them valid, ``invalid`` those that are not."""

    task_ids: tuple[str, ...]
    invalid: tuple[str, ...] = ()
    merged: int = 0
    terminate: bool = False
    signal: Signal = "SIGTERM"
    reason: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where a task was seen before the act. ``how`` is for a person; ``pid`` is the pool process that runs it."""

    place: Place = "unknown"
    how: str = ""
    worker: str | None = None
    name: str | None = None
    state: str | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What can be said of one id."""

    task_id: str
    status: Status
    detail: str = ""
    worker: str | None = None
    name: str | None = None
    state: str | None = None
    pid: int | None = None
    waiting: bool = False
    """Whether it was seen waiting, so that it is known what a flag is for."""

    @property
    def settled(self) -> bool:
        """Whether nothing will change it."""
        return self.status not in OPEN


@dataclass(frozen=True, slots=True)
class Acknowledgements:
    """Who was expected to answer a command, who did, and whose answer was an error."""

    expected: frozenset[str] = frozenset()
    acknowledged: frozenset[str] = frozenset()
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> frozenset[str]:
        """Who did not answer."""
        return self.expected - self.acknowledged - frozenset(self.errors)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it stands; ``at`` and ``changed_at`` in UTC seconds, ``intent`` its row in the audit trail."""

    id: str
    at: float
    intent: int
    order: Order
    results: tuple[Result, ...]
    workers: Acknowledgements = Acknowledgements()

    @property
    def settled(self) -> bool:
        """Whether every id is settled."""
        return all(result.settled for result in self.results)


def totals(results: Iterable[Result]) -> dict[Count, int]:
    """How many ids count as what."""
    found = Counter(COUNTS_AS[result.status] for result in results)
    return {"successful": found["successful"], "failed": found["failed"], "unverified": found["unverified"]}


def by_status(results: Iterable[Result]) -> dict[str, int]:
    """How many ids have which status, in the order of `COUNTS_AS`."""
    found = Counter(result.status for result in results)
    return {status: found[status] for status in COUNTS_AS if found[status]}


def summary(results: Iterable[Result]) -> str:
    """The same in words."""
    return ", ".join(f"{count} {status}" for status, count in by_status(results).items()) or "nothing to do"


def visible(task_id: str) -> bool:
    """Whether it can be an id: 1 to 255 characters, none of them blank or invisible."""
    return 0 < len(task_id) <= MAX_ID and task_id.isprintable() and " " not in task_id


def ordered(
    task_ids: Iterable[str],
    *,
    terminate: bool = False,
    signal: Signal = "SIGTERM",
    reason: str = "",
    dry_run: bool = False,
) -> Order:
    """An order of ids as a client gave them; what cannot be an id is kept apart, cut to a length that can be shown."""
    given = [task_id[: MAX_ID + 1] for task_id in task_ids]
    unique = tuple(dict.fromkeys(given))
    return Order(
        task_ids=tuple(task_id for task_id in unique if visible(task_id)),
        invalid=tuple(dict.fromkeys(task_id[:MAX_ID] for task_id in unique if not visible(task_id))),
        merged=len(given) - len(unique),
        terminate=terminate,
        signal=signal,
        reason=reason,
        dry_run=dry_run,
    )
