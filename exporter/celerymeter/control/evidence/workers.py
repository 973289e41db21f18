"""Asks workers which tasks they hold, over a few connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, LifoQueue
from typing import Final

from celerymeter.control.evidence import memory
from celerymeter.control.evidence.models import LastEvent, Location, TaskLocation
from celerymeter.errors import RequestRefused
from celerymeter.inspect_replies import Replies, WorkerTask
from celerymeter.remote_control import Command, RemoteControl

CONNECTIONS: Final = 4
"""Batches that are acted on at the same time; others wait for a second and are then refused."""
SILENCE: Final = 0.8
"""Seconds without a reply after which the workers that are still silent are given up."""
MIN_TIMEOUT: Final = 0.05

_CHECK_NO_FLAGS: Final = frozenset({"threads", "gevent", "eventlet"})
"""Pools that take all reserved tasks at once, and a worker checks its flags for the last time before that
(`celery.concurrency`: only prefork has ``uses_semaphore``).
"""
MAX_ASKED: Final = 1000
"""Ids that an aggregating worker is asked about at once (`celerymeter.aggregate.commands`)."""
_STATES: Final = {"active": "STARTED", "reserved": "RECEIVED", "scheduled": "RECEIVED"}


@dataclass(frozen=True, slots=True)
class Inspection:
    """The workers' replies about some ids."""

    replied: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()
    """Workers that said which of the ids they hold."""
    held: Mapping[str, TaskLocation] = field(default_factory=dict)
    queues: frozenset[str] = frozenset()
    processes: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Pids of each prefork pool."""
    remembered: Mapping[str, LastEvent] = field(default_factory=dict)
    """The events that aggregating workers have not published but remember, by id."""

    def is_gone(self, pid: int | None, worker: str | None) -> bool:
        """Return True when a worker says that this process is no longer in its pool: the only proof of its death."""
        processes = self.processes.get(worker) if worker is not None else None
        return pid is not None and processes is not None and pid not in processes


class WorkerInspector:
    """Asks workers over a few connections; thread-safe. Times are of `time.monotonic`.

    Its methods raise `BrokerUnavailable`, and `RequestRefused` when all connections are in use.
    """

    def __init__(self, connections: Sequence[RemoteControl], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.aggregating: Callable[[], frozenset[str]] = frozenset
        """Returns the live workers that know the commands of `celerymeter.aggregate`; others log an error for them."""
        self.unread: Callable[[int], object] = lambda _: None
        """Is called with the number of replies that could not be used."""
        self._connections: LifoQueue[RemoteControl] = LifoQueue()
        for connection in connections:
            self._connections.put(connection)

    def inspect(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Inspection:
        """Ask which of the ids the workers hold, their queues and their processes."""
        # `query_task` alone does not know tasks that wait for their ETA (Celery before 5.7), and says nothing about
        # pools; ``safe`` has arguments cut to their short form.
        lists = (Command("active", {"safe": True}), Command("reserved"), Command("scheduled"))
        commands = (Command("stats"), Command("active_queues"), *lists, _query(task_ids), *self._remembered(task_ids))
        return _read(self.ask(commands, expected=expected, until=until))

    def recheck(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Inspection:
        """Ask again which of the ids the workers hold, and their processes."""
        return _read(self.ask((Command("stats"), _query(task_ids)), expected=expected, until=until))

    def look(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Replies:
        """Ask which of the ids the workers hold, what they run and consume; unlike `inspect` for none of their lists.

        A list costs a worker 23 µs for each task that it holds, and it does nothing else meanwhile.
        """
        commands = (Command("stats"), Command("active_queues"), Command("active", {"safe": True}), _query(task_ids))
        return self.ask((*commands, *self._remembered(task_ids)), expected=expected, until=until)

    def _remembered(self, task_ids: Sequence[str]) -> list[Command]:
        """Return the questions to aggregating workers about these ids."""
        if not (workers := self.aggregating()):
            return []
        parts = [list(task_ids[start : start + MAX_ASKED]) for start in range(0, len(task_ids), MAX_ASKED)]
        return [Command(memory.COMMAND, {"ids": part}, destination=workers) for part in parts]

    def ask(
        self,
        commands: Sequence[Command],
        *,
        expected: frozenset[str],
        until: float,
        silence: float = SILENCE,
        once: bool = False,
    ) -> Replies:
        """Send the commands together and return the replies; see `RemoteControl.ask`."""
        with self._connection() as connection:
            timeout = max(until - self.clock(), MIN_TIMEOUT)
            replies = connection.ask(
                commands, expected=expected, silence=min(silence, timeout), timeout=timeout, once=once
            )
        self.unread(replies.malformed)
        return replies

    @contextmanager
    def _connection(self) -> Iterator[RemoteControl]:
        try:
            connection = self._connections.get(timeout=1.0)
        except Empty:
            raise RequestRefused(
                "too_many_requests", "the workers are busy with other batches; try again", retry_after=2.0
            ) from None
        try:
            yield connection
        finally:
            self._connections.put(connection)


def _query(task_ids: Sequence[str]) -> Command:
    return Command("query_task", {"ids": list(task_ids)})


def _read(replies: Replies) -> Inspection:
    stats = {worker: found for worker in replies.answered("stats") if (found := replies.stats(worker)) is not None}
    queues = (queue.name for worker in replies.answered("active_queues") for queue in replies.queues(worker) or ())
    held: dict[str, TaskLocation] = {}
    for worker, state, task in _tasks(replies):
        if held.get(task.id, TaskLocation()).location != "running":  # a task that runs may be listed as waiting too
            pool = stats[worker].pool if worker in stats else None
            held[task.id] = _location(worker, state, task, pool=pool)
    return Inspection(
        replied=replies.hostnames,
        answered=replies.answered("query_task"),
        held=held,
        queues=frozenset(queues),
        processes={worker: each.processes for worker, each in stats.items() if each.processes is not None},
        remembered=_remembered(replies),
    )


def _remembered(replies: Replies) -> dict[str, LastEvent]:
    """Return what aggregating workers remember, by id; of a task that several know the newest."""
    found: dict[str, LastEvent] = {}
    for worker in replies.answered(memory.COMMAND):
        for task_id, known in memory.parse(replies.answer(memory.COMMAND, worker), worker).items():
            event = memory.last_event(known)
            if event is not None and event.at >= found.get(task_id, event).at:
                found[task_id] = event
    return found


def _tasks(replies: Replies) -> Iterator[tuple[str, str, WorkerTask]]:
    """Yield worker, state and task; the surest list last."""
    for method in ("scheduled", "reserved"):
        for worker in replies.answered(method):
            yield from ((worker, method, task) for task in replies.tasks(method, worker) or ())
    for worker in replies.answered("query_task"):
        yield from ((worker, state, task) for state, task in replies.queried(worker))
    for worker in replies.answered("active"):
        yield from ((worker, "active", task) for task in replies.tasks("active", worker) or ())


def _location(worker: str, state: str, task: WorkerTask, *, pool: str | None) -> TaskLocation:
    location: Location = "waiting"
    detail = f"{state} at {worker}"
    if state == "active":
        location, detail = "running", f"running at {worker}"
    elif state == "reserved" and pool in _CHECK_NO_FLAGS:
        location, detail = "in_pool", f"in the {pool} pool of {worker}"
    return TaskLocation(
        location,
        detail,
        worker=worker,
        name=task.name,
        state=_STATES.get(state, "RECEIVED"),
        pid=task.worker_pid if state == "active" else None,
        uuid_object=task.uuid_object,
    )
