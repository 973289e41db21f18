"""When to ask which worker for the tasks that it holds. Pure, but for the randomness of its pauses."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from celerymeter.inspect_replies import Replies, WorkerStats

LISTS = ("reserved", "scheduled")
MAX_HELD = 20_000
"""Tasks in the replies to one round of `LISTS`; a worker that holds more is not asked, its gauges stay absent."""
SECONDS_PER_TASK = 0.02
FEW = 1000
"""A worker that holds no more is asked at once; others at a random time within their interval."""


@dataclass(slots=True)
class ListAnswer:
    """The last answer of one worker process to `LISTS`, and when to ask it again."""

    pid: int | None
    due_at: float
    reserved: int | None = None
    scheduled: int | None = None
    held: int = 0
    """Tasks in the last answer: without a prefetch limit the worker's ``prefetch_count`` says nothing."""


class ListSchedule:
    """Decides which worker is asked when for its reserved and scheduled tasks.

    These replies hold every task with its arguments, and a worker does nothing else while it writes them (measured:
    23 µs and 375 bytes a task). So a worker spends about a thousandth of its time on them, whatever it holds. Pure;
    ``jitter`` gives the factor of an interval.
    """

    def __init__(self, *, interval: float, jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2)) -> None:  # noqa: S311 - jitter needs no cryptography
        self._interval = interval
        self._jitter = jitter
        self._answers: dict[str, ListAnswer] = {}

    def due(self, workers: Mapping[str, WorkerStats], *, now: float) -> list[str]:
        """Return the workers to ask now, the longest overdue first; forgets those that are gone or have restarted."""
        self._answers = {name: self._carry_over(name, stats, now) for name, stats in workers.items()}
        budget = MAX_HELD
        chosen: list[str] = []
        for name in sorted(workers, key=lambda name: self._answers[name].due_at):
            held = self._held(name, workers[name])
            if self._answers[name].due_at <= now and held <= budget:
                budget -= held
                self._answers[name].due_at = now + self._pause(held)
                chosen.append(name)
        return chosen

    def learn(self, replies: Replies, hostnames: list[str]) -> None:
        """Take the answers of those who were asked; a worker that did not answer is unknown until next time."""
        for name in hostnames:
            answer = self._answers[name]
            answer.reserved, answer.scheduled = replies.count("reserved", name), replies.count("scheduled", name)
            answer.held = (answer.reserved or 0) + (answer.scheduled or 0)

    def has_answered(self, hostname: str) -> bool:
        """Return True if this process of the worker has answered before."""
        return self._answers[hostname].reserved is not None

    def last_answer(self, hostname: str) -> ListAnswer | None:
        """Return the last answer of a worker."""
        return self._answers.get(hostname)

    def _carry_over(self, name: str, stats: WorkerStats, now: float) -> ListAnswer:
        answer, held = self._answers.get(name), self._held(name, stats)
        if answer is None or answer.pid != stats.pid:
            answer = ListAnswer(stats.pid, due_at=now if held <= FEW else now + self._pause(held) * random.random())  # noqa: S311 - see above
        elif held > MAX_HELD:
            answer.reserved = answer.scheduled = None
        return answer

    def _held(self, name: str, stats: WorkerStats) -> int:
        answer = self._answers.get(name)
        return max(stats.prefetch_count or 0, answer.held if answer is not None and answer.pid == stats.pid else 0)

    def _pause(self, held: int) -> float:
        return max(self._interval, held * SECONDS_PER_TASK) * self._jitter()
