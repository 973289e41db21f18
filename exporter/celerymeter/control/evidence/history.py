"""The history of one task by its events: its messages, its runs and their ends. Pure.

Events of one task come over several connections: a `task-sent` may come after the worker's own events, and that of a
retry before the `task-retried` of the run that ends (`celery.app.task.Task.retry`). A retry, a redelivery and a task
that replaces another keep the id.

The values are structs of msgspec, whose `replace` is much quicker than that of dataclasses: each event makes one.
"""

from __future__ import annotations

import re
from sys import intern
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from celerymeter.exception_names import exception_name
from celerymeter.model import Event
from celerymeter.tracking.clocks import parse_eta

MAX_RUNS: Final = 10
"""Runs of one task that are kept, the newest; the others are counted."""
DELAYED: Final = 300.0
"""Seconds by which an event may come late and its own time is still taken: a busy solo worker sends late."""
OVERTAKEN: Final = 5.0
"""Seconds by which one worker's events may come after later ones of another: each sends its own in batches."""
MAX_RECEIVERS: Final = 4
Outcome = Literal[
    "succeeded", "failed", "retried", "rejected", "requeued", "revoked", "expired", "terminate_sent", "running", "lost",
    "replaced", "unknown",
]  # fmt: skip
"""``terminate_sent``: Celery announces a termination at the command; whether the process died is another question."""
_ENDS: Final[dict[str, Outcome]] = {
    "task-succeeded": "succeeded",
    "task-failed": "failed",
    "task-retried": "retried",
}
_DELAY = re.compile(r"(?:[01]\.){28}")


class PastRun(msgspec.Struct, frozen=True, gc=False):
    """One run by its events. ``pid`` is that of the worker's main process; ``started_at`` is absent if not seen."""

    worker: str
    pid: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    outcome: Outcome | None = None
    exception: str | None = None
    seen_at: float = 0.0
    """Time at which its last event was received."""

    @property
    def open(self) -> bool:
        """True when no end was seen; an announced termination is none."""
        return self.outcome in (None, "terminate_sent")


class Reception(msgspec.Struct, frozen=True, gc=False):
    """The newest `task-received`: a worker has taken the message from the broker."""

    worker: str
    pid: int
    at: float
    eta: float | None = None
    in_place: bool = False
    """True when the message is of a task that surely replaces a run."""
    retries: int = 0


class Discarded(msgspec.Struct, frozen=True, gc=False):
    """A worker discarded the message unrun: it was revoked, or had expired."""

    worker: str
    at: float
    outcome: Literal["revoked", "expired"]


class TaskHistory(msgspec.Struct, frozen=True, gc=False):
    """Everything that events said about a task. ``sent_at`` and ``eta`` are of its newest message."""

    name: str | None = None
    queue: str | None = None
    retries: int = 0
    sent_at: float | None = None
    eta: float | None = None
    expires: float | None = None
    delayed_by_broker: bool = False
    """True when it was sent through RabbitMQ's native delayed delivery."""
    received: Reception | None = None
    received_before: tuple[Reception, ...] = ()
    """The last receptions by other workers, the newest last; most tasks have none."""
    new_message: bool = False
    """True when a message was sent or received after the newest run began."""
    received_again: bool = False
    """True when a worker received that message."""
    replaced: bool = False
    """True when that message is of a task that replaces the run, which then ends without an event."""
    in_place: bool = False
    """True when a message was sent or received of a task that surely replaces a run: the run is its parent."""
    runs: tuple[PastRun, ...] = ()
    earlier_runs: int = 0
    discarded: Discarded | None = None

    def add(self, event: Event, at: float) -> TaskHistory:
        """Return the history with one event more, received at this time (UTC seconds)."""
        if event.type == "task-sent":
            return self._sent(event, at)
        if event.type == "task-received":
            return self._received(event, at)
        if event.type == "task-started":
            run = PastRun(intern(event.hostname), event.pid, _time(event, at), seen_at=at)
            if (outcome := self._overtaken(run.worker)) is not None:
                return self._with_overtaken(run, outcome)
            # A pool process may send the task in its place before its worker says that it began.
            replaced = self.replaced and not self.runs and self._receiver_in_place is None
            return replace(
                self._with_run(run), new_message=replaced, received_again=False, replaced=replaced, discarded=None
            )
        return self._ended(event, at)

    def _sent(self, event: Event, at: float) -> TaskHistory:
        if self._is_of_replaced(event):
            return self
        name, queue = self._named(event), _queue(event)
        if self._receiver_in_place is not None and name == self.name and (event.retries or 0) <= self.retries:
            return replace(self, queue=queue or self.queue)
        in_place = _is_in_place(event)
        # Workers that aggregate show no runs: there it is the second message that differs from the first.
        follows = in_place or ((bool(self.runs) or self.sent_at is not None) and self._follows(event))
        if self.sent_at is not None and not follows and self.runs:
            return replace(self, name=self.name or name, queue=self.queue or queue)
        received_first = self.received is not None and not self.runs
        return replace(
            self,
            name=name if follows or not self.name else self.name,
            queue=queue or self.queue,
            retries=max(self.retries, event.retries or 0),
            sent_at=at if self.sent_at is None or not received_first or follows else self.sent_at,
            eta=_eta(event) if follows or self.received is None else self.eta,
            expires=_expires(event),
            delayed_by_broker=_is_delayed(event),
            new_message=self.new_message or follows,
            runs=self._retried_runs(event),
            replaced=self.replaced or (follows and self._is_replacement(event)),
            in_place=self.in_place or in_place,
        )

    def _received(self, event: Event, at: float) -> TaskHistory:
        if self._is_of_replaced(event):
            return self
        received = Reception(
            intern(event.hostname), event.pid, at, _eta(event), _is_in_place(event), event.retries or 0
        )
        if self._is_of_earlier_try(received):
            return self._with_reception_before(received)
        before = self.received
        return replace(
            self if before is None or before.worker == received.worker else self._with_reception_before(before),
            name=self._named(event),
            queue=self.queue or _queue(event),
            retries=max(self.retries, event.retries or 0),
            eta=received.eta,
            received=received,
            new_message=bool(self.runs),
            runs=self._retried_runs(event),
            received_again=bool(self.runs),
            replaced=self.replaced or ((bool(self.runs) or received.in_place) and self._is_replacement(event)),
            discarded=None,
            in_place=self.in_place or received.in_place,
        )

    def _ended(self, event: Event, at: float) -> TaskHistory:
        if event.type == "task-revoked" and not event.terminated:
            ended: Literal["revoked", "expired"] = "expired" if event.expired else "revoked"
            return replace(self, discarded=Discarded(intern(event.hostname), at, ended), new_message=False)
        outcome, index = _outcome(event), self._run_of(event)
        if outcome is None:
            return self
        if index is None:
            run = PastRun(intern(event.hostname), event.pid, seen_at=at)
            return self._with_run(_end(run, outcome, event, at))._after(outcome)
        run = _end(self.runs[index], outcome, event, at)
        if outcome == "requeued" and (place := self._taken_over(index)) is not None:
            return replace(self, runs=(*self.runs[:index], *self.runs[index + 1 :]))._with_run_at(place, run)
        history = self._with(index, run)
        return history._after(outcome) if index == len(self.runs) - 1 else history

    def _taken_over(self, index: int) -> int | None:
        """Return the place of the run that took the message which this later one requeued, if its events came first."""
        run = self.runs[index]
        for place, other in enumerate(self.runs[:index]):
            if other.worker != run.worker and other.outcome != "requeued" and _began_together(other, run):
                return place
        return None

    def _after(self, outcome: Outcome) -> TaskHistory:
        """A retry and a requeued message are new messages, whether or not anybody says that they were sent."""
        return replace(self, new_message=True) if outcome in ("retried", "requeued") else self

    def _run_of(self, event: Event) -> int | None:
        """Return the run that an end is of: the newest open one of this worker, or the one that it ends once more."""
        own = [(n, run) for n, run in enumerate(self.runs) if run.worker == event.hostname]
        retried = [n for n, run in own if run.outcome == "retried" and run.ended_at is None]
        if event.type == "task-retried" and retried:
            return retried[0]
        open_runs = [n for n, run in own if run.open]
        if open_runs:
            return open_runs[-1]
        # A rejected task sends `task-failed` and `task-rejected`; a hard time limit sends `task-failed` twice.
        again = event.type in ("task-rejected", "task-failed")
        if again and self.runs and self.runs[-1].worker == event.hostname and self.runs[-1].outcome == "failed":
            return len(self.runs) - 1
        return None

    def _retried_runs(self, event: Event) -> tuple[PastRun, ...]:
        """Return the runs; this may be the retry of the last, whose `task-retried` may come after the next start."""
        if (event.retries or 0) <= self.retries or not self.runs or self.runs[-1].outcome is not None:
            return self.runs
        return (*self.runs[:-1], replace(self.runs[-1], outcome="retried"))

    def _with(self, index: int, run: PastRun) -> TaskHistory:
        return replace(self, runs=(*self.runs[:index], run, *self.runs[index + 1 :]))

    def _with_run(self, run: PastRun) -> TaskHistory:
        return self._with_run_at(len(self.runs), run)

    def _with_run_at(self, place: int, run: PastRun) -> TaskHistory:
        runs = (*self.runs[:place], run, *self.runs[place:])
        dropped = max(len(runs) - MAX_RUNS, 0)
        return replace(self, runs=runs[dropped:], earlier_runs=self.earlier_runs + dropped)

    @property
    def _receiver_in_place(self) -> str | None:
        """The worker of the newest reception, if that is of a task that surely replaces a run."""
        return self.received.worker if self.received is not None and self.received.in_place else None

    def _is_of_earlier_try(self, received: Reception) -> bool:
        """Return True for a message that another worker received before the retry that was heard just now."""
        newest = self.received
        if newest is None or newest.worker == received.worker or received.in_place:
            return False
        return received.retries < newest.retries and received.at - newest.at < OVERTAKEN

    def _with_reception_before(self, received: Reception) -> TaskHistory:
        return replace(self, received_before=(*self.received_before, received)[-MAX_RECEIVERS:])

    def _overtaken(self, worker: str) -> Outcome | None:
        """Return how a run ended that begins now at this worker, if another has received what follows that run."""
        newest = self.received
        if newest is None or newest.worker == worker:
            return None
        if newest.in_place:
            return "replaced"
        own = next((one for one in reversed(self.received_before) if one.worker == worker), None)
        return "retried" if own is not None and own.retries < newest.retries else None

    def _with_overtaken(self, run: PastRun, outcome: Outcome) -> TaskHistory:
        """Return the history with a run that is heard after another worker has received what follows it."""
        begun = [n for n, other in enumerate(self.runs) if self.received and other.worker == self.received.worker]
        if begun:
            return self._with_run_at(begun[-1], replace(run, outcome=outcome))
        replaced = outcome == "replaced"
        run = run if replaced else replace(run, outcome=outcome)
        return replace(self._with_run(run), new_message=True, received_again=True, replaced=replaced or self.replaced)

    def _is_of_replaced(self, event: Event) -> bool:
        """Return True for a message, heard late, of the run that another task has replaced."""
        return self.in_place and not _is_in_place(event) and (event.retries or 0) <= self.retries

    def _follows(self, event: Event) -> bool:
        return (event.retries or 0) > self.retries or self._is_replacement(event)

    def _is_replacement(self, event: Event) -> bool:
        """A task that a run sends in its place has the run as its parent, or another name."""
        if (event.retries or 0) > self.retries:
            return False
        return _is_in_place(event) or (None not in (event.name, self.name) and event.name != self.name)

    def _named(self, event: Event) -> str | None:
        return intern(event.name) if event.name else self.name


NO_HISTORY: Final = TaskHistory()


def _is_in_place(event: Event) -> bool:
    """A retry of a task without a parent is its own parent too."""
    return event.parent_id == event.uuid and not event.retries


def _began_together(one: PastRun, other: PastRun) -> bool:
    if one.started_at is None or other.started_at is None:
        return False
    return abs(one.started_at - other.started_at) < OVERTAKEN


def _end(run: PastRun, outcome: Outcome, event: Event, at: float) -> PastRun:
    if outcome == "terminate_sent":
        return replace(run, outcome=outcome, seen_at=at)
    ended, exception = _time(event, at), run.exception
    if event.exception:
        exception = intern(exception_name(event.exception, event.traceback))
    started = run.started_at
    if started is None and event.runtime is not None:
        started = ended - event.runtime
    return replace(run, started_at=started, ended_at=ended, outcome=outcome, exception=exception, seen_at=at)


def _outcome(event: Event) -> Outcome | None:
    if event.type == "task-rejected":
        return "requeued" if event.requeue else "rejected"
    if event.type == "task-failed" and (event.exception or "").startswith("Reject("):
        return "rejected"
    return "terminate_sent" if event.type == "task-revoked" else _ENDS.get(event.type)


def _time(event: Event, at: float) -> float:
    """Return the sender's time unless its clock is far off; by ours where it is."""
    return event.timestamp if 0 <= at - event.timestamp < DELAYED else at


def _eta(event: Event) -> float | None:
    return parse_eta(event.eta) if event.eta else None


def _expires(event: Event) -> float | None:
    return parse_eta(event.expires[:64]) if isinstance(event.expires, str) else None


def _is_delayed(event: Event) -> bool:
    return bool(event.routing_key and _DELAY.match(event.routing_key))


def _queue(event: Event) -> str | None:
    queue = event.queue or (_DELAY.sub("", event.routing_key, count=1) if event.routing_key else None)
    return intern(queue) if queue else None
