"""Evidence for decisions: histories made of real events, and workers as they answer."""

from __future__ import annotations

from typing import Any

from celerymeter.control.evidence.history import NO_HISTORY, TaskHistory
from celerymeter.control.evidence.task import Evidence, HeldTask, WorkerFacts
from celerymeter.model import Event

NOW = 1_000_000.0
"""The time at which the workers are asked."""
ID = "one"


def event(kind: str, ago: float, *, worker: str = "a@t", **fields: Any) -> tuple[Event, float]:
    """Return an event of the task that came so many seconds before `NOW`."""
    at = NOW - ago
    return Event(type=f"task-{kind}", hostname=worker, timestamp=at, pid=7, uuid=ID, **fields), at


def history(*events: tuple[Event, float]) -> TaskHistory:
    """Return what these events leave."""
    made = NO_HISTORY
    for each, at in events:
        made = made.add(each, at)
    return made


SENT = event("sent", 30, worker="gen1@t", name="tests.add", queue="q", retries=0)
RECEIVED = event("received", 20, name="tests.add", retries=0)
STARTED = event("started", 10)
SUCCEEDED = event("succeeded", 5, runtime=5.0)
FAILED = event("failed", 5, exception="ValueError('secret')")
RETRIED = event("retried", 5, exception="RuntimeError('not yet')")


def worker(name: str = "a@t", **fields: Any) -> WorkerFacts:
    """Return a worker that consumes ``q`` and answers."""
    facts = {"pid": 7, "started_at": NOW - 1000, "slots": 2, "active": 1, "queues": frozenset({"q"})}
    return WorkerFacts(name, **{**facts, **fields})


def silent(name: str = "a@t", **fields: Any) -> WorkerFacts:
    """Return a worker that sends heartbeats and does not answer."""
    facts = {"answered": False, "pid": 7, "slots": None, "active": None, "queues": None, "started_at": None}
    return worker(name, **{**facts, **fields})


def dead(name: str = "a@t", **fields: Any) -> WorkerFacts:
    """Return a worker that is not heard any more; by the broker it is connected no more."""
    return silent(name, **{"alive": False, "connected": False, "last_seen": NOW - 40, **fields})


def held(state: str = "active", name: str = "a@t", **fields: Any) -> HeldTask:
    """Return the task as a worker lists it."""
    return HeldTask(name, state, name="tests.add", **fields)


def evidence(*events: tuple[Event, float], workers: tuple[WorkerFacts, ...] = (), **fields: Any) -> Evidence:
    """Return evidence with these events, from a subscription that is older than they are."""
    facts = {each.hostname: each for each in workers or (worker(),)}
    return Evidence(ID, NOW, **{"history": history(*events), "listening_since": NOW - 100, "workers": facts, **fields})
