"""How workers are told of many ids: never so many at once that they are kept from their work."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import inf

import pytest

from celerymeter.control.revocation.pace import FIRST, LEAST, LONGEST, MOST, Pace
from celerymeter.control.revocation.workers import PATIENCE, CeleryWorkers
from celerymeter.polling.control import Command, Receive

IDS = [f"id-{number}" for number in range(1000)]


@dataclass
class Cluster:
    """Workers that need so many seconds for an id, one command after the other; only they make time go by."""

    seconds: Mapping[str, float]
    now: float = 0.0
    free_at: dict[str, float] = field(default_factory=dict)
    held: list[float] = field(default_factory=list)
    """For how long workers had something to do without a break."""
    commands: list[frozenset[str]] = field(default_factory=list)
    """To whom each went."""

    @property
    def everybody(self) -> frozenset[str]:
        """By name."""
        return frozenset(self.seconds)

    @property
    def workers(self) -> CeleryWorkers:
        """What is tried."""
        return CeleryWorkers([self], clock=lambda: self.now)

    def ask(
        self, commands: Collection[Command], receive: Receive, *, enough: Callable[[], bool], patience: float
    ) -> None:
        """As long as somebody answers."""
        for command in commands:
            self._take(command)
        last = self.now
        for worker in sorted(self.commands[-1], key=self.free_at.__getitem__):
            if enough() or self.free_at[worker] > last + patience:
                break
            self.now = last = max(last, self.free_at[worker])
            receive("revoke", json.dumps({worker: {"ok": "flagged"}}))
        if not enough():
            self.now = last + patience

    def _take(self, command: Command) -> None:
        task_ids = command.arguments["task_id"]
        assert isinstance(task_ids, list)
        self.commands.append(frozenset(command.destination or self.seconds))
        for worker in self.commands[-1]:
            begin = max(self.now, self.free_at.get(worker, 0.0))
            self.free_at[worker] = begin + len(task_ids) * self.seconds[worker]
            self.held.append(self.free_at[worker] - self.now)

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("seconds", [0.0, 0.0006, 0.003, 0.015])
def test_no_worker_is_held_for_a_second(seconds: float) -> None:
    """Each command waits for the one before, however far the result backend is; a quick worker gets large ones."""
    cluster = Cluster({"a@t": seconds, "b@t": seconds / 2})
    told = cluster.workers.flag(IDS, expected=cluster.everybody, until=inf)
    assert told.together.acknowledged == cluster.everybody
    assert list(told.by_id) == IDS
    assert max(cluster.held) < 1.0
    assert sum(cluster.held) == pytest.approx(sum(len(IDS) * each for each in cluster.seconds.values()))


def test_who_is_silent_is_waited_for_once() -> None:
    """The others are told of the rest without it, and it has not acknowledged any."""
    cluster = Cluster({"a@t": 0.0006, "stopped@t": inf})
    told = cluster.workers.flag(IDS, expected=cluster.everybody, until=inf)
    assert cluster.now < 2 * PATIENCE
    assert cluster.commands[0] == cluster.everybody
    assert set(cluster.commands[1:]) == {frozenset({"a@t"})}
    assert {flags.missing for flags in told.by_id.values()} == {frozenset({"stopped@t"})}
    assert told.together.missing == {"stopped@t"}
    assert told.listening == {"a@t"}
    assert not told.unheard


def test_what_there_was_no_time_for_is_acknowledged_by_nobody() -> None:
    """It is not even sent, or they are still at it."""
    cluster = Cluster({"a@t": 0.01})
    told = cluster.workers.flag(IDS, expected=cluster.everybody, until=1.5)
    assert (told.complete, told.unheard) == (False, False)
    assert told.together.missing == {"a@t"}
    assert FIRST < len(told.by_id) < len(IDS)
    assert all(flags.acknowledged == {"a@t"} for flags in told.by_id.values())


def test_to_those_who_are_all_silent_no_more_is_sent() -> None:
    """One command; nobody was heard."""
    cluster = Cluster({"a@t": inf})
    told = cluster.workers.flag(IDS, expected=cluster.everybody, until=inf)
    assert (len(cluster.commands), told.unheard, told.complete) == (1, True, False)


def test_the_pace_is_learned_for_the_next_batch() -> None:
    """Slow workers get ever fewer ids and quick ones ever more, within bounds."""
    pace = Pace()
    for _ in range(10):
        pace.took(pace.size, LONGEST / 10)
    assert pace.size == MOST
    pace.took(1, 10 * LONGEST)
    assert pace.size == MOST, "a short command tells nothing of the ids"
    for _ in range(10):
        pace.took(pace.size, None)
    assert pace.size == LEAST
