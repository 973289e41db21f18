"""A shop: its tasks, how often they run, and its workers. What is random comes from dice with a seed."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

HOUR, DAY = 60, 1440
BATCH, BURSTS, PERIODIC = "batch", "bursts", "shop.every_ten_minutes"


@dataclass(frozen=True, slots=True)
class Shop:
    """Its size, and the hours that are evaluated, from an hour of a day of the week (0 is Monday)."""

    queues: int = 8
    tasks: int = 30
    workers: int = 20
    day: int = 0
    from_hour: int = 0
    hours: int = 24
    cluster: str = "shop"

    @property
    def minutes(self) -> range:
        """Minutes since Monday 00:00."""
        begin = self.day * DAY + self.from_hour * HOUR
        return range(begin, begin + self.hours * HOUR + 1)

    def load(self, minute: int) -> float:
        """Return the load of a minute: 1 at the height of a working day, 0.15 at night, half at the weekend."""
        height = 0.5 if minute // DAY % 7 >= 5 else 1.0
        return height * (0.15 + 0.85 * max(0.0, math.sin(math.pi * (minute % DAY / HOUR - 6) / 17)) ** 2)


@dataclass(frozen=True, slots=True)
class Task:
    """One task name; ``rate`` is runs per minute at the height of the day, ``runtime`` seconds."""

    name: str
    queue: str
    rate: float
    runtime: float
    failing: float
    retried: float


@dataclass(slots=True)
class Counts:
    """The numbers of one task in each minute."""

    sent: list[float]
    started: list[float]
    failed: list[float]
    retried: list[float]


def tasks_of(shop: Shop, dice: random.Random) -> list[Task]:
    """Return the tasks of a shop: few are frequent, some are long, and failures are part of life."""
    found = [Task(PERIODIC, "q0", 0.1, 20.0, 0.0, 0.0)]
    for number in range(shop.tasks - 3):
        rate = 10 ** dice.uniform(-2.5, 2.0)
        runtime = min(10 ** dice.uniform(-1.3, 2.0), 30 / rate)
        if dice.random() < 0.04:
            rate, runtime = 0.02, dice.uniform(600, 2400)
        queue = f"q{int((shop.queues - 2) * dice.random() ** 2)}"
        found.append(Task(f"shop.task{number}", queue, rate, runtime, dice.choice((0, 0, 0.001, 0.01, 0.02)), 0.02))
    return [*found, Task("shop.batch", BATCH, 30.0, 2.0, 0.001, 0.0), Task("shop.burst", BURSTS, 30.0, 1.0, 0.001, 0.0)]


def counts_of(task: Task, shop: Shop, dice: random.Random) -> Counts:
    """Return what happens to a task: random around its daily rhythm; a batch and bursts come at once."""
    counts = Counts([], [], [], [])
    for minute in shop.minutes:
        if task.queue == BATCH:
            sent = 3000.0 if minute % DAY == HOUR else 0.0
            started = 30.0 if HOUR <= minute % DAY < HOUR + 100 else 0.0
        elif task.queue == BURSTS:
            sent = 300.0 if minute % HOUR == 0 else 0.0
            started = 30.0 if minute % HOUR < 10 else 0.0
        else:
            steady = task.name == PERIODIC
            sent = started = float(minute % 10 == 0) if steady else _about(task.rate * shop.load(minute), dice)
        failed = float(sum(dice.random() < task.failing for _ in range(int(started)))) if task.failing else 0.0
        counts.sent.append(sent)
        counts.started.append(started)
        counts.failed.append(failed)
        counts.retried.append(float(sum(dice.random() < task.retried for _ in range(int(started - failed)))))
    return counts


def _about(mean: float, dice: random.Random) -> float:
    """Return a whole number around a mean; frequent ones vary by tenths, for each value costs memory."""
    if mean >= 20:
        return float(round(mean * dice.choice((0.9, 1.0, 1.1))))
    return float(int(mean) + (dice.random() < mean % 1))


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker in minutes since Monday; ``killed`` ones announce nothing."""

    hostname: str
    born: int
    gone: int
    killed: bool = False


def workers_of(shop: Shop, dice: random.Random) -> list[Worker]:
    """Return all workers: as many as the load needs, replaced by a deploy at 11:00, some killed and replaced."""
    first, number = shop.minutes[0], 0
    found: list[Worker] = []
    live: list[Worker] = []

    def start(minute: int) -> None:
        nonlocal number
        number += 1
        live.append(Worker(f"celery@pod-{number}", minute, 10**9))

    def stop(worker: Worker, minute: int, *, killed: bool = False) -> None:
        live.remove(worker)
        found.append(replace(worker, gone=minute, killed=killed))

    def wanted(minute: int) -> int:
        return max(2, round(shop.workers * max(0.3, shop.load(minute))))

    for _ in range(wanted(first)):
        start(first - 120)
    for minute in shop.minutes[1:]:
        if minute % 5 == 0:
            for _ in range(wanted(minute) - len(live)):
                start(minute)
            for worker in live[wanted(minute) :]:
                stop(worker, minute)
        if minute % DAY // HOUR == 11 and minute % DAY % HOUR < 10:
            for worker in [old for old in live if old.born < minute - minute % HOUR][: math.ceil(shop.workers / 10)]:
                stop(worker, minute)
                start(minute)
        if dice.random() < 0.01:
            stop(dice.choice(live), minute, killed=True)
            start(minute + 1)
    return [*found, *live]
