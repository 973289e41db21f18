"""The commands of a revoke, with time-outs that add up to less than what a client waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, LifoQueue
from typing import Final

from celerymeter.control.revocation.models import (
    Acknowledgements,
    Location,
    Signal,
    TaskLocation,
    TerminateResult,
)
from celerymeter.errors import RequestRefused
from celerymeter.inspect_replies import Replies, WorkerTask
from celerymeter.remote_control import Command, RemoteControl

CONNECTIONS: Final = 4
"""Batches that are acted on at the same time; others wait for a second and are then refused."""
SILENCE: Final = 0.8
"""Seconds without a reply after which the workers that are still silent are given up."""
LAST_SILENCE: Final = 2.0
"""The same where nothing else is to be sent."""
MIN_TIMEOUT: Final = 0.05

_CHECK_NO_FLAGS: Final = frozenset({"threads", "gevent", "eventlet"})
"""Pools that take all reserved tasks at once, and a worker checks its flags for the last time before that
(`celery.concurrency`: only prefork has ``uses_semaphore``).
"""
_STATES: Final = {"active": "STARTED", "reserved": "RECEIVED", "scheduled": "RECEIVED"}


class BatchSize:
    """The number of ids in one command, adjusted to the time that the workers took.

    A worker flags ids in its main loop, with one to three round trips to its result backend for each, and does nothing
    else meanwhile. At 0.2 s a command, four batches at once block a worker for less than a second.
    """

    MAX_SECONDS: Final = 0.2
    FIRST: Final = 50
    LEAST: Final = 10
    MOST: Final = 250

    def __init__(self) -> None:
        self.next = self.FIRST

    def learn(self, ids: int, seconds: float | None) -> None:
        """Note how long the slowest worker took for so many ids; None when one did not reply: it may be at it still."""
        if ids < self.next:
            return  # a short command measures the round trip, not the ids
        if seconds is None or seconds > self.MAX_SECONDS:
            self.next = max(ids // 2, self.LEAST)
        elif seconds < self.MAX_SECONDS / 2:
            self.next = min(2 * ids, self.MOST)


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

    def is_gone(self, pid: int | None, worker: str | None) -> bool:
        """Return True when a worker says that this process is no longer in its pool: the only proof of its death."""
        processes = self.processes.get(worker) if worker is not None else None
        return pid is not None and processes is not None and pid not in processes


@dataclass(frozen=True, slots=True)
class FlagResult:
    """The replies to the commands that flagged the ids."""

    by_id: Mapping[str, Acknowledgements] = field(default_factory=dict)
    """Absent is an id for which there was no time."""
    combined: Acknowledgements = field(default_factory=Acknowledgements)
    """All commands together: a worker has acknowledged only if it acknowledged every id."""
    listening: frozenset[str] = frozenset()
    """Workers that acknowledged at least one command."""
    no_reply: bool = False
    """True when ids were sent and no worker replied at all."""


class Workers:
    """Asks and commands workers over a few connections; thread-safe. Times are of `time.monotonic`.

    Its methods raise `BrokerUnavailable`, and `RequestRefused` when all connections are in use.
    """

    def __init__(self, connections: Sequence[RemoteControl], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._batch_size = BatchSize()
        self._connections: LifoQueue[RemoteControl] = LifoQueue()
        for connection in connections:
            self._connections.put(connection)

    def inspect(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Inspection:
        """Ask which of the ids the workers hold, their queues and their processes."""
        # `query_task` alone does not know tasks that wait for their ETA (Celery before 5.7), and says nothing about
        # pools; ``safe`` has arguments cut to their short form.
        lists = (Command("active", {"safe": True}), Command("reserved"), Command("scheduled"))
        commands = (Command("stats"), Command("active_queues"), *lists, _query(task_ids))
        return _read(self._ask(commands, expected=expected, until=until))

    def recheck(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Inspection:
        """Ask again which of the ids the workers hold, and their processes."""
        return _read(self._ask((Command("stats"), _query(task_ids)), expected=expected, until=until))

    def flag(
        self, task_ids: Sequence[str], *, expected: frozenset[str], until: float, only: Collection[str] | None = None
    ) -> FlagResult:
        """Flag the ids at all workers, or ``only`` at some.

        A worker executes all commands that wait for it without a break, so each command is sent when the one before
        is done, and only to the workers that have done it.
        """
        by_id: dict[str, Acknowledgements] = {}
        errors: dict[str, str] = {}
        confirmed, listening = frozenset[str](), frozenset[str]()
        awaited, rest = expected, list(task_ids)
        while rest and awaited and (not by_id or self._clock() < until):
            size = self._batch_size.next
            part = rest[:size]
            # Celery's own `control.revoke` gives up after 1 s, although the worker has applied it a moment later.
            silence = SILENCE if len(rest) > size else LAST_SILENCE
            command = _revoke(part, only if awaited == expected else awaited)
            began = self._clock()
            replies = self._ask([command], expected=awaited, until=until, silence=silence)
            replied, flagged = replies.settled("revoke"), replies.answered("revoke")
            self._batch_size.learn(len(part), self._clock() - began if awaited <= replied else None)
            if by_id and not replied:
                break  # they are still busy with the command before
            confirmed = confirmed & flagged if by_id else flagged
            listening |= flagged
            errors |= replies.errors
            by_id.update(dict.fromkeys(part, Acknowledgements(flagged, expected - replied, replies.errors)))
            awaited &= replied
            rest = rest[size:]
        confirmed = frozenset() if rest else confirmed - errors.keys()
        combined = Acknowledgements(confirmed, expected - confirmed - errors.keys(), errors)
        return FlagResult(by_id, combined, listening, no_reply=bool(task_ids) and not listening and not errors)

    def terminate(self, task_ids: Sequence[str], *, worker: str, signal: Signal, until: float) -> TerminateResult:
        """Have a worker signal the processes that run these. Sent only once: a process may run another task by then."""
        # To the one worker that runs them: all others would reply "tasks unknown", and flag the ids once more.
        command = _revoke(task_ids, [worker], terminate=True, signal=signal)
        replies = self._ask([command], expected=frozenset({worker}), until=until, once=True)
        return TerminateResult(replied=worker in replies.settled("revoke"), error=replies.errors.get(worker))

    def _ask(
        self,
        commands: Sequence[Command],
        *,
        expected: frozenset[str],
        until: float,
        silence: float = SILENCE,
        once: bool = False,
    ) -> Replies:
        with self._connection() as connection:
            timeout = max(until - self._clock(), MIN_TIMEOUT)
            return connection.ask(
                commands, expected=expected, silence=min(silence, timeout), timeout=timeout, once=once
            )

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


def _revoke(
    task_ids: Sequence[str], only: Collection[str] | None, *, terminate: bool = False, signal: Signal = "SIGTERM"
) -> Command:
    return Command("revoke", {"task_id": list(task_ids), "terminate": terminate, "signal": signal}, destination=only)


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
    )


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
    )
