"""When to ask which worker for its reserved and scheduled tasks.

These replies hold every task with its arguments, and a worker does nothing else while it writes them (measured: 23 µs
and 375 bytes a task). So a worker gives about a thousandth of its time to them, whatever it holds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from celerymeter.polling.replies import Replies, Stats

MAX_HELD = 20_000
"""Tasks in the replies to one round; a worker that holds more is not asked, its gauges stay absent."""
SECONDS_PER_TASK = 0.02
FEW = 1000
"""A worker that holds no more is asked at first sight; others some time within their interval."""


@dataclass(slots=True)
class Detail:
    """The last answer of one process, and when to ask it again."""

    pid: int | None
    due_at: float
    reserved: int | None = None
    scheduled: int | None = None


class Details:
    """What is known of each worker that answers; pure, ``jitter`` gives the factor of an interval."""

    def __init__(self, *, interval: float, jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2)) -> None:  # noqa: S311 - jitter needs no cryptography
        self._interval = interval
        self._jitter = jitter
        self._known: dict[str, Detail] = {}

    def due(self, workers: Mapping[str, Stats], *, now: float) -> list[str]:
        """Whom to ask now, the longest overdue first; forgets those who are gone or new processes."""
        self._known = {name: self._carry(name, stats, now) for name, stats in workers.items()}
        budget = MAX_HELD
        chosen: list[str] = []
        for name in sorted(workers, key=lambda name: self._known[name].due_at):
            held = _held(workers[name])
            if self._known[name].due_at <= now and held <= budget:
                budget -= held
                self._known[name].due_at = now + self._pause(held)
                chosen.append(name)
        return chosen

    def learn(self, replies: Replies, hostnames: list[str]) -> None:
        """Take the answers of those who were asked; who did not answer is unknown until next time."""
        for name in hostnames:
            self._known[name].reserved = replies.count("reserved", name)
            self._known[name].scheduled = replies.count("scheduled", name)

    def of(self, hostname: str) -> Detail | None:
        """The last answer."""
        return self._known.get(hostname)

    def _carry(self, name: str, stats: Stats, now: float) -> Detail:
        known, held = self._known.get(name), _held(stats)
        if known is None or known.pid != stats.pid:
            known = Detail(stats.pid, due_at=now if held <= FEW else now + self._pause(held) * random.random())  # noqa: S311 - see above
        elif held > MAX_HELD:
            known.reserved = known.scheduled = None
        return known

    def _pause(self, held: int) -> float:
        return max(self._interval, held * SECONDS_PER_TASK) * self._jitter()


def _held(stats: Stats) -> int:
    return max(0, stats.prefetch_count or 0)
