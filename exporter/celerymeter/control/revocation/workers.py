"""The commands of a revoke, with time-outs that add up to less than a client's patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, LifoQueue
from typing import Protocol

from celerymeter.control.revocation.models import CHUNK, Acknowledgements, Signal
from celerymeter.control.revocation.replies import Replies
from celerymeter.errors import RequestRefused
from celerymeter.polling.control import LONGEST, Command, RemoteControl
from celerymeter.settings import BrokerSettings

LINES = 4
"""Batches that are acted on at the same time; others wait a moment and are then refused."""
PATIENCE = 0.8
"""Seconds without a reply after which those who are silent are given up."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of flagging: by id, who acknowledged the command that it was in."""

    by_id: dict[str, Acknowledgements] = field(default_factory=dict)

    @property
    def together(self) -> Acknowledgements:
        """Over all commands: only who acknowledged every one of them has acknowledged."""
        parts = list(self.by_id.values())
        expected = frozenset[str]().union(*(part.expected for part in parts))
        silent = frozenset[str]().union(*(part.missing for part in parts))
        errors = {worker: words for part in parts for worker, words in part.errors.items()}
        return Acknowledgements(expected, expected - silent - errors.keys(), errors)


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


class CeleryWorkers:
    """Over a few connections of its own; thread-safe."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._lines: LifoQueue[RemoteControl] = LifoQueue()
        for _ in range(LINES):
            self._lines.put(RemoteControl(broker))

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
        """See `Workers`. A worker answers in order, so the number of its replies tells which of them it took."""
        chunks = [list(task_ids[start : start + CHUNK]) for start in range(0, len(task_ids), CHUNK)]
        replies = Replies()

        def enough() -> bool:
            return bool(expected) and all(replies.counts[worker] >= len(chunks) for worker in expected)

        self._send([_revoke(chunk, only) for chunk in chunks], replies, enough, until=until, patience=LONGEST)
        told, errors = Told(), dict(replies.errors)
        for number, chunk in enumerate(chunks, start=1):
            took = frozenset(worker for worker, count in replies.counts.items() if count >= number) - errors.keys()
            told.by_id.update(dict.fromkeys(chunk, Acknowledgements(expected | took, took, errors)))
        return told

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

        self._send(commands, replies, enough, until=until, patience=PATIENCE)
        return replies

    def _send(
        self,
        commands: Sequence[Command],
        replies: Replies,
        enough: Callable[[], bool],
        *,
        until: float,
        patience: float,
    ) -> None:
        """Together, and wait for what comes until then at the latest."""
        with self._line() as line:
            left = max(until - time.monotonic(), 0.05)
            late = time.monotonic() + left
            line.ask(
                commands,
                replies.receive,
                enough=lambda: enough() or time.monotonic() >= late,
                patience=min(patience, left),
            )

    @contextmanager
    def _line(self) -> Iterator[RemoteControl]:
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
