"""The commands of a revoke, with time-outs that add up to less than what a client waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from celerymeter.control.evidence import memory
from celerymeter.control.evidence.models import LastEvent
from celerymeter.control.evidence.workers import SILENCE, WorkerInspector
from celerymeter.control.live_workers import destinations
from celerymeter.control.revocation.models import Acknowledgements, Signal, TerminateResult
from celerymeter.remote_control import Command, RemoteControl

LAST_SILENCE: Final = 2.0
"""Seconds without a reply after which silent workers are given up where nothing else is to be sent."""

FOLLOW_TIMEOUT: Final = 0.4
MAX_FOLLOWED_FOR: Final = 86400.0


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


class Workers(WorkerInspector):
    """Asks and commands workers; see `WorkerInspector`."""

    def __init__(self, connections: Sequence[RemoteControl], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(connections, clock=clock)
        self._batch_size = BatchSize()

    def flag(
        self, task_ids: Sequence[str], *, expected: frozenset[str], until: float, only: Collection[str] | None = None
    ) -> FlagResult:
        """Flag the ids at all workers, or ``only`` at some, unless these are too many to be named.

        A worker executes all commands that wait for it without a break, so each command is sent when the one before
        is done, and only to the workers that have done it.
        """
        by_id: dict[str, Acknowledgements] = {}
        errors: dict[str, str] = {}
        confirmed, listening = frozenset[str](), frozenset[str]()
        awaited, rest = expected, list(task_ids)
        only = None if only is None else destinations(only)
        while rest and awaited and (not by_id or self.clock() < until):
            size = self._batch_size.next
            part = rest[:size]
            # Celery's own `control.revoke` gives up after 1 s, although the worker has applied it a moment later.
            silence = SILENCE if len(rest) > size else LAST_SILENCE
            command = _revoke(part, only if awaited == expected else awaited)
            began = self.clock()
            replies = self.ask([command], expected=awaited, until=until, silence=silence)
            replied, flagged = replies.settled("revoke"), replies.answered("revoke")
            self._batch_size.learn(len(part), self.clock() - began if awaited <= replied else None)
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

    def follow(self, task_ids: Sequence[str], *, seconds: float, only: Collection[str] | None = None) -> None:
        """Make aggregating workers publish the events of these too; the state of those that do not reply is asked."""
        workers = self.aggregating() if only is None else self.aggregating().intersection(only)
        if workers and task_ids:
            arguments = {"ids": list(task_ids), "seconds": min(seconds, MAX_FOLLOWED_FOR)}
            command = Command("celerymeter_follow", arguments, destination=workers)
            self.ask([command], expected=workers, until=self.clock() + FOLLOW_TIMEOUT)

    def remembered(self, task_ids: Sequence[str], *, only: Collection[str]) -> list[tuple[str, LastEvent]]:
        """Return what some workers would have sent last of these tasks, if they aggregate."""
        workers = self.aggregating().intersection(only)
        if not workers or not task_ids:
            return []
        command = Command(memory.COMMAND, {"ids": list(task_ids)}, destination=workers)
        replies = self.ask([command], expected=workers, until=self.clock() + FOLLOW_TIMEOUT)
        answers = [
            memory.parse(replies.answer(memory.COMMAND, worker), worker) for worker in replies.answered(memory.COMMAND)
        ]
        known = [(task_id, memory.last_event(task)) for tasks in answers for task_id, task in tasks.items()]
        return [(task_id, event) for task_id, event in known if event is not None]

    def terminate(self, task_ids: Sequence[str], *, worker: str, signal: Signal, until: float) -> TerminateResult:
        """Have a worker signal the processes that run these. Sent only once: a process may run another task by then."""
        # To the one worker that runs them: all others would reply "tasks unknown", and flag the ids once more.
        command = _revoke(task_ids, [worker], terminate=True, signal=signal)
        replies = self.ask([command], expected=frozenset({worker}), until=until, once=True)
        return TerminateResult(replied=worker in replies.settled("revoke"), error=replies.errors.get(worker))


def _revoke(
    task_ids: Sequence[str], only: Collection[str] | None, *, terminate: bool = False, signal: Signal = "SIGTERM"
) -> Command:
    return Command("revoke", {"task_id": list(task_ids), "terminate": terminate, "signal": signal}, destination=only)
