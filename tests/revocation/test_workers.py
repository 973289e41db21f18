"""Commands to workers: never so many ids at once that a worker is blocked for long; and what their replies mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import pytest
from tests.fake_remote_control import FakeRemoteControl, Wait, add_reply

from celerymeter.control.evidence.workers import SILENCE
from celerymeter.control.revocation.workers import BatchSize, Workers
from celerymeter.inspect_replies import Replies
from celerymeter.remote_control import Command

IDS = [f"id-{number}" for number in range(1000)]


@dataclass
class Cluster(FakeRemoteControl):
    """Workers that need so many seconds for an id, one command after the other; only they make time go by."""

    seconds: Mapping[str, float]
    now: float = 0.0
    free_at: dict[str, float] = field(default_factory=dict)
    held: list[float] = field(default_factory=list)
    """For how long workers had something to do without a break."""
    commands: list[frozenset[str]] = field(default_factory=list)
    """The workers that each was sent to."""

    @property
    def everybody(self) -> frozenset[str]:
        """By name."""
        return frozenset(self.seconds)

    @property
    def workers(self) -> Workers:
        """The object under test."""
        return Workers([self], clock=lambda: self.now)

    def deliver(self, commands: Sequence[Command], replies: Replies, wait: Wait) -> None:
        """Hand over replies until all are there or none came for so long."""
        (command,) = commands
        self._take(command)
        last = self.now
        for worker in sorted(self.commands[-1], key=self.free_at.__getitem__):
            if self.free_at[worker] > last + wait.silence:
                break
            self.now = last = max(last, self.free_at[worker])
            add_reply(replies, command, worker, {"ok": "flagged"})
        if not wait.expected <= replies.settled("revoke"):
            self.now = last + min(wait.silence, wait.timeout)

    def _take(self, command: Command) -> None:
        task_ids = command.arguments["task_id"]
        assert isinstance(task_ids, list)
        self.commands.append(frozenset(command.destination or self.seconds))
        for worker in self.commands[-1]:
            begin = max(self.now, self.free_at.get(worker, 0.0))
            self.free_at[worker] = begin + len(task_ids) * self.seconds[worker]
            self.held.append(self.free_at[worker] - self.now)


@pytest.mark.parametrize("seconds", [0.0, 0.0006, 0.003, 0.015])
def test_no_worker_is_held_for_a_second(seconds: float) -> None:
    """Each command waits for the one before, however far the result backend is; a quick worker gets large ones."""
    cluster = Cluster({"a@t": seconds, "b@t": seconds / 2})
    result = cluster.workers.flag(IDS, expected=cluster.everybody, until=inf)
    assert result.combined.acknowledged == cluster.everybody
    assert list(result.by_id) == IDS
    assert max(cluster.held) < 1.0
    assert sum(cluster.held) == pytest.approx(sum(len(IDS) * each for each in cluster.seconds.values()))


def test_who_is_silent_is_waited_for_once() -> None:
    """The others are sent the rest without it, and it has not acknowledged any."""
    cluster = Cluster({"a@t": 0.0006, "stopped@t": inf})
    result = cluster.workers.flag(IDS, expected=cluster.everybody, until=inf)
    assert cluster.now < 2 * SILENCE
    assert cluster.commands[0] == cluster.everybody
    assert set(cluster.commands[1:]) == {frozenset({"a@t"})}
    assert {flags.missing for flags in result.by_id.values()} == {frozenset({"stopped@t"})}
    assert result.combined.missing == {"stopped@t"}
    assert result.listening == {"a@t"}
    assert not result.no_reply


def test_what_there_was_no_time_for_is_acknowledged_by_nobody() -> None:
    """It is not even sent, or they are still at it."""
    cluster = Cluster({"a@t": 0.01})
    result = cluster.workers.flag(IDS, expected=cluster.everybody, until=1.5)
    assert not result.no_reply
    assert result.combined.missing == {"a@t"}
    assert BatchSize.FIRST < len(result.by_id) < len(IDS)
    assert all(flags.acknowledged == {"a@t"} for flags in result.by_id.values())


def test_to_those_who_are_all_silent_no_more_is_sent() -> None:
    """One command, and no reply."""
    cluster = Cluster({"a@t": inf})
    result = cluster.workers.flag(IDS, expected=cluster.everybody, until=inf)
    assert (len(cluster.commands), result.no_reply, len(result.by_id)) == (1, True, BatchSize.FIRST)


def test_the_batch_size_is_learned_for_the_next_batch() -> None:
    """Slow workers get ever fewer ids and quick ones ever more, within bounds."""
    size = BatchSize()
    for _ in range(10):
        size.learn(size.next, BatchSize.MAX_SECONDS / 10)
    assert size.next == BatchSize.MOST
    size.learn(1, 10 * BatchSize.MAX_SECONDS)
    assert size.next == BatchSize.MOST, "a short command says nothing about the ids"
    for _ in range(10):
        size.learn(size.next, None)
    assert size.next == BatchSize.LEAST


@dataclass
class Answering(FakeRemoteControl):
    """A worker that answers what it is given."""

    answers: Mapping[str, object]
    commands: list[tuple[Command, bool]] = field(default_factory=list)

    def deliver(self, commands: Sequence[Command], replies: Replies, wait: Wait) -> None:
        """Reply to what there is an answer for."""
        for command in commands:
            self.commands.append((command, wait.once))
            if command.method in self.answers:
                add_reply(replies, command, "a@t", self.answers[command.method])


@pytest.mark.parametrize(
    ("module", "location"), [("prefork", "waiting"), ("solo", "waiting"), ("thread", "in_pool"), ("gevent", "in_pool")]
)
def test_what_reserved_means_depends_on_the_pool(module: str, location: str) -> None:
    """Some pools take all that their worker has reserved, and it cannot be taken back."""
    pool = {"implementation": f"celery.concurrency.{module}:TaskPool"}
    worker = Answering({"stats": {"pool": pool}, "query_task": {"x": ["reserved", {"id": "x"}]}})
    inspection = Workers([worker]).inspect(["x"], expected=frozenset({"a@t"}), until=inf)
    assert inspection.held["x"].location == location


def test_only_a_pool_without_the_process_proves_its_death() -> None:
    """A worker that does not answer, or whose pool has no processes, proves nothing."""
    worker = Answering({"stats": {"pool": {"processes": [7, 8]}}})
    inspection = Workers([worker]).recheck([], expected=frozenset({"a@t"}), until=inf)
    assert [inspection.is_gone(pid, "a@t") for pid in (7, 9, None)] == [False, True, False]
    assert not inspection.is_gone(9, "b@t")


@pytest.mark.parametrize(
    ("answers", "replied", "error"),
    [({"revoke": {"ok": "terminate"}}, True, None), ({"revoke": {"error": "no"}}, True, "no"), ({}, False, None)],
)
def test_terminate_is_sent_once(answers: Mapping[str, object], replied: bool, error: str | None) -> None:
    """Its process may run another task by the time of a repetition."""
    worker = Answering(answers)
    result = Workers([worker]).terminate(["x"], worker="a@t", signal="SIGTERM", until=inf)
    assert (result.replied, result.error) == (replied, error)
    assert [once for _, once in worker.commands] == [True]
