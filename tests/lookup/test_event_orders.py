"""A task is heard over several connections: in whatever order, its history is the same in the end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest
from tests.lookup.evidence import ID, NOW

from celerymeter.control.evidence.history import NO_HISTORY, TaskHistory
from celerymeter.model import Event


def event(kind: str, host: str, *, in_place: bool = False) -> Event:
    """An event of the replaced task, or of the one in its place."""
    name, queue, parent = ("new", "other", ID) if in_place else ("old", "first", None)
    made = Event(type=f"task-{kind}", hostname=host, timestamp=NOW, pid=7, uuid=ID)
    if kind in ("sent", "received"):
        made.name, made.parent_id = name, parent
    if kind == "sent":
        made.queue = queue
    return made


PRODUCER = (event("sent", "producer"),)
WORKER = (event("received", "a@t"), event("started", "a@t"))
POOL = (event("sent", "a@t", in_place=True),)
RUN = [event(kind, "b@t", in_place=True) for kind in ("received", "started", "succeeded")]
AGAIN = [event(kind, "a@t", in_place=True) for kind in ("received", "started", "succeeded")]


def orders(*connections: tuple[Event, ...]) -> Iterator[TaskHistory]:
    """The histories by every order in which these connections can be heard; on each, events stay in order."""
    turns = [number for number, connection in enumerate(connections) for _ in connection]
    for order in sorted(set(permutations(turns))):
        left = [iter(connection) for connection in connections]
        history = NO_HISTORY
        for place, number in enumerate(order):
            history = history.add(next(left[number]), NOW + place)
        yield history


@pytest.mark.parametrize(("connections", "number"), [((PRODUCER, WORKER, POOL), 12), ((WORKER, POOL), 3)])
def test_it_waits_under_its_new_name(connections: tuple[tuple[Event, ...], ...], number: int) -> None:
    """Of 12 orders 7 kept the old name, for good."""
    found = list(orders(*connections))
    assert len(found) == number
    for history in found:
        assert (history.name, history.queue) == ("new", "other")
        assert (history.new_message, history.replaced, len(history.runs)) == (True, True, 1)


@pytest.mark.parametrize(
    ("connections", "number"),
    [((PRODUCER, WORKER, POOL, tuple(RUN)), 420), ((PRODUCER, (*WORKER, *AGAIN), POOL), 42)],
    ids=["another worker", "the same worker"],
)
def test_it_ran_under_its_new_name(connections: tuple[tuple[Event, ...], ...], number: int) -> None:
    """Its run is the last, whatever is heard late of the one before."""
    found = list(orders(*connections))
    assert len(found) == number
    for history in found:
        assert (history.name, history.queue) == ("new", "other")
        assert [run.outcome for run in history.runs][-1] == "succeeded"
        assert (len(history.runs), history.new_message) == (2, False)


@pytest.mark.parametrize("parent", [None, ID])
@pytest.mark.parametrize("sent", [True, False])
def test_another_worker_ran_its_retry(parent: str | None, sent: bool) -> None:
    """A retry of a task without a parent is its own parent. Of 280 orders 104 ended with the run before."""

    def second(kind: str, host: str) -> Event:
        made = event(kind, host)
        if kind in ("sent", "received"):
            made.retries, made.parent_id = 1, parent
        return made

    first = (*WORKER, *([second("sent", "a@t")] if sent else []), event("retried", "a@t"))
    retry = tuple(second(kind, "b@t") for kind in ("received", "started", "succeeded"))
    found = list(orders(first, retry, PRODUCER if sent else ()))
    assert len(found) == (280 if sent else 20)
    for history in found:
        assert [(run.worker, run.outcome) for run in history.runs] == [("a@t", "retried"), ("b@t", "succeeded")]
        assert (history.name, history.retries, history.new_message, history.replaced) == ("old", 1, False, False)


def test_another_worker_ran_what_was_requeued() -> None:
    """Of 140 orders 70 ended with the run that gave the message back, as if it still waited."""
    requeued = event("rejected", "a@t")
    requeued.requeue = True
    ran = tuple(event(kind, "b@t") for kind in ("received", "started", "succeeded"))
    found = list(orders((*WORKER, requeued), ran, PRODUCER))
    assert len(found) == 140
    for history in found:
        assert [(run.worker, run.outcome) for run in history.runs] == [("a@t", "requeued"), ("b@t", "succeeded")]
        assert not history.new_message
