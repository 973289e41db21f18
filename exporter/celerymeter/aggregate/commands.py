"""Two remote-control commands of aggregating workers, for those who need the truth about single tasks.

Other workers log an error for commands that they do not know: send these only to workers whose mode is ``aggregate``.

``celerymeter_follow {"ids": [ID, …], "seconds": S}``: the worker publishes the events of these tasks too, until each
ends or the time is over. The reply is ``{"ok": {"followed": N, "refused": M}}``: a worker follows at most 10,000.

``celerymeter_task {"ids": [ID, …]}``: the reply is ``{"ok": {ID: TASK, …}}`` with the tasks that this worker knows, at
most 1,000. A TASK has

    state     received, started, succeeded, failed, retried, rejected, requeued, revoked, terminated (which was only
              announced: the process may still live), cancelled or vanished (it ended without an event)
    name, queue
    received, started, ended, eta    UTC seconds by the worker's clock, null for what has not happened
    retries   number of the run: 0 is the first
    pid       the process that runs it now, else null

It knows all tasks that it holds, and at least the last 10,000 that ended.
"""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command, inspect_command, nok, ok

from celerymeter.aggregate.member import Member

MAX_SECONDS = 86400.0
MAX_ASKED = 1000
_NOT_COUNTING = "this worker does not aggregate"


@control_command(name="celerymeter_follow", signature="[seconds [id1 [id2 …]]]")  # type: ignore[untyped-decorator]  # Celery has no types
def follow(state: Any, ids: Any = (), seconds: Any = 60.0, **_: Any) -> Any:
    """Publish the events of these tasks too."""
    member = _member(state)
    if member is None:
        return nok(_NOT_COUNTING)
    wanted = _ids(ids)
    if wanted is None or not isinstance(seconds, (int, float)) or not 0 < seconds <= MAX_SECONDS:
        return nok(f"expected ids and seconds, at most {MAX_SECONDS:g}")
    followed = member.follow(wanted, float(seconds))
    return ok({"followed": followed, "refused": len(wanted) - followed})


@inspect_command(name="celerymeter_task", signature="[id1 [id2 …]]")  # type: ignore[untyped-decorator]  # Celery has no types
def task(state: Any, ids: Any = (), **_: Any) -> Any:
    """Reply what this worker knows of tasks."""
    member = _member(state)
    if member is None:
        return nok(_NOT_COUNTING)
    wanted = _ids(ids)
    if wanted is None or len(wanted) > MAX_ASKED:
        return nok(f"expected at most {MAX_ASKED} ids")
    known = {task_id: member.task(task_id) for task_id in wanted}
    return ok({task_id: what for task_id, what in known.items() if what is not None})


def _member(state: Any) -> Member | None:
    member = getattr(state.consumer.event_dispatcher, "member", None)
    return member if isinstance(member, Member) else None


def _ids(ids: Any) -> list[str] | None:
    ids = [ids] if isinstance(ids, str) else ids
    if not isinstance(ids, (list, tuple)) or not all(isinstance(task_id, str) for task_id in ids):
        return None
    return list(dict.fromkeys(ids))
