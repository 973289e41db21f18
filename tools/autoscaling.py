"""Simulate workers scaled by `celery:queue_slots:wanted`, and by length ÷ N as usual: ``python -m tools.autoscaling``.

One queue, one second a step. Both triggers go through the same autoscaler: values every 15 s, asked every 30 s, a pod
starts its slots after 30 s, replicas fall to the highest wish of the last 5 minutes, a stopped pod finishes its tasks.
`BySlots` computes what the recording rules record; tests/rules/test_autoscaling.py holds it against them.
"""

from __future__ import annotations

import math
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

SLOTS = 4
"""Slots of a pod."""
MOST_PODS = 50
RULES = 15
ASKED = 30
STARTUP = 30
STABLE = 300
"""Seconds between evaluations, between two looks of the autoscaler, until a pod works, and of its memory for less."""
WAIT_TARGET = 60.0
MOST_SLOTS = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """The metrics at one moment; counters are totals."""

    waiting: int
    running: int
    started: int
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one day."""

    waits: Sequence[float]
    pod_hours: float
    changes: int
    """Changes of the number of pods."""
    reversals: int
    """Times at which it went down and up again within half an hour."""

    def waited(self, share: float) -> float:
        """Return a quantile of the waits, in seconds."""
        return sorted(self.waits)[int(share * (len(self.waits) - 1))]

    @property
    def in_time(self) -> float:
        """Return the share of tasks that started within the target."""
        return sum(wait <= WAIT_TARGET for wait in self.waits) / len(self.waits)


class BySlots:
    """``celery:queue_slots:wanted`` ÷ slots of a pod, as the recording rules compute it every 15 s."""

    def __init__(self, *, target: float = WAIT_TARGET) -> None:
        self._target = target
        self._mean: float | None = None
        self._recent: deque[int] = deque(maxlen=300 // RULES)

    def needed(self, history: Sequence[Sample]) -> int:
        """Return the slots before they are damped; ``history``: a sample every 15 s."""
        now = history[-1]
        before = history[-1 - min(300 // RULES, len(history) - 1)]
        hour = history[-1 - min(3600 // RULES, len(history) - 1)]
        arrivals = max(0.0, now.started - before.started + now.waiting - before.waiting) / 300
        if now.started > hour.started:
            self._mean = (now.busy_seconds - hour.busy_seconds) / (now.started - hour.started)
        if self._mean is None:
            return max(int(now.waiting > 0), now.running)
        flow = 300 * arrivals * min(1.25 / 300 * self._mean, 1)
        backlog = now.waiting * min(2 * self._mean / self._target, 1)
        slots = math.ceil(round(flow + backlog, 9))
        return min(MOST_SLOTS, max(slots, now.running))

    def __call__(self, history: Sequence[Sample]) -> int:
        """Return how many pods there should be."""
        self._recent.append(self.needed(history))
        return math.ceil(self.slots / SLOTS)

    @property
    def slots(self) -> int:
        """Return what ``celery:queue_slots:wanted`` is now."""
        return max(self._recent)


def by_length(messages: int) -> Callable[[Sequence[Sample]], int]:
    """Return the usual trigger: a pod for so many messages that wait."""
    return lambda history: math.ceil(history[-1].waiting / messages)


@dataclass(slots=True)
class Cluster:
    """A queue, its pods and what they run."""

    runtimes: Iterator[float]
    waiting: deque[float] = field(default_factory=deque)
    running: list[float] = field(default_factory=list)
    """The end of each running task."""
    pods: int = 0
    starting: deque[tuple[float, int]] = field(default_factory=deque)
    waits: list[float] = field(default_factory=list)
    started: int = 0
    busy: float = 0.0

    def step(self, now: float, arrivals: int) -> None:
        """Let a second pass."""
        self.waiting.extend([now] * arrivals)
        while self.starting and self.starting[0][0] <= now:
            self.pods += self.starting.popleft()[1]
        self.running = [end for end in self.running if end > now]
        while self.waiting and len(self.running) < self.pods * SLOTS:
            self.waits.append(now - self.waiting.popleft())
            self.running.append(now + next(self.runtimes))
            self.started += 1
        self.busy += len(self.running)

    def scale(self, now: float, pods: int) -> None:
        """Start pods, or stop some: those that start first, and running tasks go on."""
        more = pods - self.pods - sum(count for _, count in self.starting)
        if more > 0:
            self.starting.append((now + STARTUP, more))
        elif more < 0:
            cancelled = sum(count for _, count in self.starting)
            self.starting.clear()
            self.pods = max(0, self.pods + min(0, more + cancelled))
            if more + cancelled > 0:
                self.starting.append((now + STARTUP, more + cancelled))

    @property
    def size(self) -> int:
        """Return the pods that exist or start."""
        return self.pods + sum(count for _, count in self.starting)


def simulate(arrivals: Sequence[int], runtimes: Iterator[float], trigger: Callable[[Sequence[Sample]], int]) -> Outcome:
    """Let one autoscaler serve these arrivals (messages in each second)."""
    cluster, history, wishes = Cluster(runtimes), [Sample(0, 0, 0, 0.0)], deque([0], maxlen=STABLE // ASKED)
    pod_seconds, changes, reversals, wish, fell = 0, 0, 0, 0, -math.inf
    for now, count in enumerate(arrivals):
        cluster.step(now, count)
        pod_seconds += max(cluster.size, math.ceil(len(cluster.running) / SLOTS))
        if now % RULES == 0:
            history.append(Sample(len(cluster.waiting), len(cluster.running), cluster.started, cluster.busy))
            wish = min(MOST_PODS, trigger(history))
        if now % ASKED == 0:
            wishes.append(wish)
            before, after = cluster.size, max(wishes) if wish < cluster.size else wish
            cluster.scale(now, after)
            changes += after != before
            reversals += after > before and now - fell < 1800
            fell = now if after < before else fell
    unserved = [len(arrivals) - since for since in cluster.waiting]
    return Outcome([*cluster.waits, *unserved], pod_seconds / 3600, changes, reversals)


def days() -> Iterator[tuple[str, list[int], float]]:
    """Yield a name, the arrivals of each second of a day, and the mean run time in seconds."""
    chance = random.Random(7)
    day = 86_400
    rhythm = [_poisson(chance, 1.2 + 1.1 * math.sin(2 * math.pi * (now / day - 0.3))) for now in range(day)]
    yield "daily rhythm, 0.1 to 2.3 tasks a second of 5 s", rhythm, 5.0
    yield "bursts of 300 tasks of 2 s each hour", [300 if now % 3600 == 900 else 0 for now in range(day)], 2.0
    yield "two batches of 3,000 tasks of 8 s", [3000 if now in {7200, 50_000} else 0 for now in range(day)], 8.0
    yield "one task of 30 min every two hours", [int(now % 7200 == 600) for now in range(day)], 1800.0


def _poisson(chance: random.Random, mean: float) -> int:
    count, product, limit = 0, chance.random(), math.exp(-mean)
    while product > limit:
        count, product = count + 1, product * chance.random()
    return count


def main() -> None:
    """Print the table of deploy/autoscaling/README.md."""
    sys.stdout.write(
        "| demand | trigger | in time | p95 wait | longest wait | pod hours | changes | down and up again |\n"
    )
    sys.stdout.write("| --- | --- | --- | --- | --- | --- | --- | --- |\n")
    for name, arrivals, mean in days():
        triggers: list[tuple[str, Callable[[Sequence[Sample]], int]]] = [
            ("celery:queue_slots:wanted", BySlots()),
            ("length ÷ 5", by_length(5)),
            ("length ÷ 20", by_length(20)),
        ]
        for label, trigger in triggers:
            chance = random.Random(11)
            runtimes = iter(lambda: chance.uniform(0.5, 1.5) * mean, None)
            outcome = simulate(arrivals, runtimes, trigger)
            waits = f"{outcome.in_time:.1%} | {outcome.waited(0.95):.0f} s | {max(outcome.waits):.0f} s"
            pods = f"{outcome.pod_hours:.1f} | {outcome.changes} | {outcome.reversals}"
            sys.stdout.write(f"| {name} | `{label}` | {waits} | {pods} |\n")


if __name__ == "__main__":
    main()
