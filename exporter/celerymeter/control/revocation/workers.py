"""The commands of a revoke, with time-outs that add up to less than a client's patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, LifoQueue
from typing import Protocol

from celerymeter.control.revocation.models import Acknowledgements, Signal
from celerymeter.control.revocation.pace import Pace
from celerymeter.control.revocation.replies import Replies
from celerymeter.errors import RequestRefused
from celerymeter.polling.control import Command, Receive, RemoteControl
from celerymeter.settings import BrokerSettings

LINES = 4
"""Batches that are acted on at the same time; others wait a moment and are then refused."""
PATIENCE = 0.8
"""Seconds without a reply after which those who are silent are given up."""
LAST_PATIENCE = 2.0
"""The same where nothing else is to be sent."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of flagging: by id, who acknowledged the command that it was in. An id for which there was no time is
    not among them.
    """

    expected: frozenset[str] = frozenset()
    by_id: dict[str, Acknowledgements] = field(default_factory=dict)
    complete: bool = True
    """Whether there was time for every id."""

    @property
    def together(self) -> Acknowledgements:
        """Over all commands: only who acknowledged every one of them has acknowledged."""
        parts = list(self.by_id.values())
        expected = self.expected.union(*(part.expected for part in parts))
        silent = frozenset[str]().union(*(part.missing for part in parts)) if self.complete else expected
        errors = {worker: words for part in parts for worker, words in part.errors.items()}
        return Acknowledgements(expected, expected - silent - errors.keys(), errors)

    @property
    def listening(self) -> frozenset[str]:
        """Who acknowledged anything."""
        return frozenset[str]().union(*(part.acknowledged for part in self.by_id.values()))

    @property
    def unheard(self) -> bool:
        """Whether ids were sent and no worker answered at all."""
        return bool(self.expected) and not any(part.acknowledged or part.errors for part in self.by_id.values())


class Workers(Protocol):
    """How workers are asked and told; times are of `time.monotonic`. Raises `BrokerUnavailable`."""

    def look(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Replies:
        """Which of the ids the workers hold, their queues and their processes."""

    def recheck(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Replies:
        """Which of the ids the workers hold now, and their processes."""

    def flag(
        self, task_ids: Sequence[str], *, expected: frozenset[str], until: float, only: Collection[str] | None = None
    ) -> Told:
        """Flag the ids at all workers, or ``only`` at some."""

    def kill(self, task_ids: Sequence[str], *, worker: str, signal: Signal, until: float) -> Replies:
        """Have one worker end the processes that run these."""


class Line(Protocol):
    """A `RemoteControl`."""

    def ask(
        self, commands: Collection[Command], receive: Receive, *, enough: Callable[[], bool], patience: float
    ) -> None:
        """See `RemoteControl`."""

    def close(self) -> None:
        """See `RemoteControl`."""


def open_workers(broker: BrokerSettings) -> CeleryWorkers:
    """Those of a broker; nothing is connected yet."""
    return CeleryWorkers([RemoteControl(broker) for _ in range(LINES)])


class CeleryWorkers:
    """Over a few connections of its own; thread-safe."""

    def __init__(self, lines: Sequence[Line], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pace = Pace()
        self._lines: LifoQueue[Line] = LifoQueue()
        for line in lines:
            self._lines.put(line)

    def look(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Replies:
        """See `Workers`."""
        lists = (Command("active", {"safe": True}), Command("reserved"), Command("scheduled"))
        asked = (Command("stats"), Command("active_queues"), *lists, _query(task_ids))
        return self._ask(asked, expected=expected, until=until)

    def recheck(self, task_ids: Sequence[str], *, expected: frozenset[str], until: float) -> Replies:
        """See `Workers`."""
        return self._ask((Command("stats"), _query(task_ids)), expected=expected, until=until)

    def flag(
        self, task_ids: Sequence[str], *, expected: frozenset[str], until: float, only: Collection[str] | None = None
    ) -> Told:
        """See `Workers`. A worker does without a break all commands that wait for it, so each is sent when the one
        before is done, and only to those who have done it.
        """
        by_id: dict[str, Acknowledgements] = {}
        awaited, left = expected, list(task_ids)
        while left and awaited and (not by_id or self._clock() < until):
            size = self._pace.size
            part, left = left[:size], left[size:]
            destination = only if awaited == expected else awaited
            replies = self._flag(part, destination, awaited, until=until, patience=PATIENCE if left else LAST_PATIENCE)
            errors = dict(replies.errors)
            took = frozenset(replies.answered("revoke") - errors.keys())
            if by_id and not took and not errors:
                return Told(expected, by_id, complete=False)  # they are still at it
            by_id.update(dict.fromkeys(part, Acknowledgements(expected | took, took, errors)))
            awaited &= took | errors.keys()
        return Told(expected, by_id, complete=not left)

    def _flag(
        self,
        task_ids: Sequence[str],
        destination: Collection[str] | None,
        awaited: frozenset[str],
        *,
        until: float,
        patience: float,
    ) -> Replies:
        replies, began = Replies(), self._clock()
        answers: list[float] = []

        def receive(method: str, body: bytes | str) -> None:
            replies.receive(method, body)
            answers.append(self._clock() - began)

        def enough() -> bool:
            return awaited <= replies.answered("revoke") | replies.errors.keys()

        self._send([_revoke(task_ids, destination)], receive, enough, until=until, patience=patience)
        self._pace.took(len(task_ids), max(answers, default=None))
        return replies

    def kill(self, task_ids: Sequence[str], *, worker: str, signal: Signal, until: float) -> Replies:
        """See `Workers`."""
        command = _revoke(task_ids, [worker], terminate=True, signal=signal)
        return self._ask((command,), expected=frozenset({worker}), until=until)

    def close(self) -> None:
        """Give the connections back; what is lent just now goes with its thread."""
        while not self._lines.empty():
            self._lines.get_nowait().close()

    def _ask(self, commands: Sequence[Command], *, expected: frozenset[str], until: float) -> Replies:
        replies = Replies()

        def enough() -> bool:
            said = all(expected <= replies.answered(command.method) | replies.errors.keys() for command in commands)
            return bool(expected) and said

        self._send(commands, replies.receive, enough, until=until, patience=PATIENCE)
        return replies

    def _send(
        self,
        commands: Sequence[Command],
        receive: Receive,
        enough: Callable[[], bool],
        *,
        until: float,
        patience: float,
    ) -> None:
        """Together, and wait for what comes until then at the latest."""
        with self._line() as line:
            left = max(until - self._clock(), 0.05)
            late = self._clock() + left
            line.ask(commands, receive, enough=lambda: enough() or self._clock() >= late, patience=min(patience, left))

    @contextmanager
    def _line(self) -> Iterator[Line]:
        try:
            line = self._lines.get(timeout=1.0)
        except Empty:
            raise RequestRefused("too_many_requests", "other batches are being acted on", retry_after=2.0) from None
        try:
            yield line
        finally:
            self._lines.put(line)


def _query(task_ids: Sequence[str]) -> Command:
    return Command("query_task", {"ids": list(task_ids)})


def _revoke(
    task_ids: Sequence[str], only: Collection[str] | None, *, terminate: bool = False, signal: Signal = "SIGTERM"
) -> Command:
    return Command("revoke", {"task_id": list(task_ids), "terminate": terminate, "signal": signal}, destination=only)
