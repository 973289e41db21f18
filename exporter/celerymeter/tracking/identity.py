"""Which run an event with a task's uuid is of: one that is known, a retry of it, or a task that replaces it.

A worker's `task-received` and the `task-sent` of the same message name the same parent and the same number of retries;
they may name the task differently (`celery.app.task.Task.shadow_name`).
"""

from __future__ import annotations

from collections.abc import Sequence

from celerymeter.model import OTHER, UNKNOWN, Event
from celerymeter.tracking.run import Run


def is_called(run: Run, name: str | None) -> bool:
    """Return True if this may be the run's name; names of runs beyond the limit are not known."""
    return name is None or run.name in (None, name, UNKNOWN, OTHER) or run.shadow == name


def is_own(run: Run, event: Event) -> bool:
    """Return True if a `task-sent` or `task-received` may be of this run: both name the same parent."""
    if run.parent_id != "":
        return run.parent_id == event.parent_id
    follows = (run.sent_ahead is not None or run.replaced) and event.parent_id == event.uuid
    return not follows and is_called(run, event.name)


def is_replacement(run: Run, event: Event) -> bool:
    """Return True if another `task-sent` or `task-received` is of a task that replaces ``run`` and keeps its id.

    A task that a run sends has that run as its parent. In a chain or a chord only the last has the uuid, and another
    parent, perhaps under the same name. A retry of a task without a parent is its own parent too.
    """
    if (event.retries or 0) > run.retries:
        return False
    other_parent = event.parent_id == event.uuid or run.parent_id not in ("", event.parent_id)
    return other_parent or not is_called(run, event.name)


def replaces(run: Run, event: Event) -> bool:
    """Return True if a `task-received` begins a replacement; else it is of ``run``, perhaps by its shadow name."""
    if run.replaced and run.sent_ahead and (run.received or run.name is None):
        following = run.sent_ahead[0]
        return (following.name, following.parent_id) == (event.name, event.parent_id)
    if is_own(run, event) and (not run.received or is_called(run, event.name)):
        return False
    return is_replacement(run, event) and not is_of_earlier_try(run, event)


def is_of_earlier_try(run: Run, event: Event) -> bool:
    """Return True if a `task-sent` or `task-received` is of a try before ``run``.

    A retry of a task without a parent is its own parent, and so is a replacement, which begins with no retries.
    """
    parent = run.parent_id if run.parent_id != run.uuid else None
    return (event.retries or 0) < run.retries and event.parent_id == parent and is_called(run, event.name)


def is_of_next(run: Run, event: Event) -> bool:
    """Return True if a `task-sent` is of a run that follows ``run``; else it is its own and late."""
    if (event.retries or 0) > run.retries:
        return True
    if not run.addressed and is_own(run, event):
        return False
    return run.addressed or run.sent_ahead is not None or is_replacement(run, event)


def place_ahead(ahead: Sequence[Event], event: Event) -> int:
    """Return the place of a `task-sent` among those kept for later runs: tries of a task stand in their order.

    Each try is sent by another process or thread of a worker, and that of an earlier one may have had to wait.
    """
    later = (index for index, sent in enumerate(ahead) if sent.name == event.name and is_later_try(sent, event))
    return next(later, len(ahead))


def is_later_try(one: Event, other: Event) -> bool:
    """Return True if ``one`` is of a later try than ``other``, which is a retry too."""
    return (one.retries or 0) > (other.retries or 0) > 0


MAX_BEFORE = 8
"""Runs of a task that are remembered until their `task-sent` come."""


def link(following: Run, run: Run) -> None:
    """Remember, newest first, the runs before ``following`` whose `task-sent` have not come; ``run`` is the last."""
    following.before, last = run.before if run.addressed else run, following
    for _ in range(MAX_BEFORE):
        if last.before is None:
            return
        last = last.before
    last.before = None


def late_run(run: Run, event: Event) -> Run | None:
    """Return the run before ``run`` whose `task-sent` this is, and forget it; a later one was sent or received before.

    Retries of a quick task may all be over when the client's own `task-sent` comes.
    """
    following = run
    while (before := following.before) is not None:
        if is_late_for(before, event):
            following.before = before.before
            return before
        following = before
    return None


def is_late_for(run: Run, event: Event) -> bool:
    """Return True if a `task-sent` is of ``run``, although the run that follows was sent or received before."""
    unknown = not run.addressed and (event.retries or 0) == run.retries
    return unknown and is_own(run, event) and is_called(run, event.name)
