"""Two hours of a shop, canned: what each scrape showed, and what a report must say of them, computed beside PromQL."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.engines import Canned

NOON = 1_700_000_000.0 - 1_700_000_000.0 % 86_400 + 43_200
EVERY = 15.0
BEGIN, END = NOON - 3600, NOON + 3600
BOUNDS = (0.1, 0.5, 1.0, 5.0, math.inf)
ENTRY = {"schedule": "five-minutes", "name": "mail.digest"}
REDELIVERED = {"name": "order.pay", "queue_name": "orders"}
TARGET = {"cluster": "shop", "job": "celerymeter", "instance": "a"}


@dataclass
class Task:
    """A task of steady habits: so many runs each scrape, so many of them failing, and what a run takes (s)."""

    name: str
    queue: str
    runs: int
    failing_every: int = 0
    retried_every: int = 0
    expired_every: int = 0
    takes: tuple[float, ...] = (0.3,)
    waits: tuple[float, ...] = (0.02,)
    """Run times and waits, in turn."""
    rush: tuple[float, float] = (0.0, 0.0)
    """Between these times there are ten times as many."""


TASKS = (
    Task(
        "order.pay",
        "orders",
        4,
        failing_every=20,
        retried_every=10,
        takes=(0.05, 0.2, 0.3, 0.7),
        waits=(0.2, 0.02, 7.0),
    ),
    Task("mail.send", "mail", 6, expired_every=50, takes=(0.05, 0.05, 0.05, 4.0), rush=(NOON + 1200, NOON + 1260)),
    Task("report.make", "orders", 1, failing_every=5, takes=(3.0,)),
)


@dataclass
class Shop:
    """Everything that ended, each at the scrape that showed it."""

    ended: list[tuple[float, Task, str, float]] = field(default_factory=list)
    """(scrape, task, outcome, run time)"""
    waited: list[tuple[float, Task, float]] = field(default_factory=list)
    """(scrape, task, wait), of every run; a task that expired has none"""

    def __post_init__(self) -> None:
        count = dict.fromkeys((task.name for task in TASKS), 0)
        for at in self.scrapes():
            for task in TASKS:
                for _ in range(task.runs * (10 if task.rush[0] < at <= task.rush[1] else 1)):
                    count[task.name] += 1
                    outcome, takes = _outcome(task, count[task.name])
                    self.ended.append((at, task, outcome, takes))
                    if outcome != "expired":
                        self.waited.append((at, task, task.waits[count[task.name] % len(task.waits)]))

    def scrapes(self) -> Iterator[float]:
        """Yield the times at which Prometheus scraped."""
        at = BEGIN
        while at <= END:
            yield at
            at += EVERY

    def within(self, start: float, end: float, outcome: str, *, name: str | None = None) -> list[float]:
        """Run times of what ended so in (start, end]."""
        return [
            takes
            for at, task, ended, takes in self.ended
            if start < at <= end and ended == outcome and name in (None, task.name)
        ]

    def busy(self, start: float, end: float, *, name: str) -> float:
        """Seconds that runs of a task took a slot."""
        return sum(
            takes
            for at, task, ended, takes in self.ended
            if start < at <= end and task.name == name and ended != "expired"
        )

    def series(self) -> list[Canned]:
        """For an engine; the exporter starts just before the first scrape."""
        return [
            self._steady("celerymeter_start_time_seconds", {}, BEGIN - 5),
            self._steady("celerymeter_build_info", {}, 1),
            *(one for task in TASKS for one in self._task(task)),
            self._recorded(),
            self._steady("celery_queue_length", {"queue_name": "mail"}, 3),
            self._busy(),
            self._steady("celery_queue_pool_slots", {"queue_name": "orders"}, 4),
            self._steady("celery_queue_pool_slots", {"queue_name": "mail"}, 1),
            Canned("celery:wait_target:effective", {"cluster": "shop", "queue_name": "orders"}, self._every(5.0)),
            Canned("celery:wait_target:effective", {"cluster": "shop", "queue_name": "mail"}, self._every(math.inf)),
            self._counted("celery_task_redelivered_total", REDELIVERED, [NOON - 600, NOON + 90, NOON + 900], 1.0),
            self._alert("CeleryQueueHeadOld", "critical", queue_name="orders"),
            self._alert("CeleryTaskSlow", "warning", name="mail.send"),
            self._steady("celery_worker_pool_size", {"hostname": "w1"}, 4),
            *self._schedule(),
        ]

    def _schedule(self) -> Iterator[Canned]:
        """An entry that is due every five minutes from the window's start on; beat is away for the last three times."""
        due = [NOON + 300.0 * number + 1 for number in range(10)]
        sent = [at for at in due if at < NOON + 2100]
        counts = {"due": due, "sent": sent, "failed": due[7:8], "runs_succeeded": sent[:-2], "runs_failed": sent[-2:]}
        for what, times in counts.items():
            yield self._counted(f"celery_schedule_{what}_total", ENTRY, times, 1.0)
        yield from self._histogram("celery_schedule_lateness_seconds", ENTRY, [(at, 0.2) for at in sent])

    def _every(self, value: float) -> list[tuple[float, float]]:
        return [(at, value) for at in self.scrapes()]

    def _alert(self, alert: str, severity: str, **subject: str) -> Canned:
        """It fires for ten minutes, and again from ten minutes before the end on."""
        labels = {"alertname": alert, "alertstate": "firing", "severity": severity, "cluster": "shop", **subject}
        fires = [at for at in self.scrapes() if NOON + 600 <= at <= NOON + 1200 or at >= NOON + 2400]
        return Canned("ALERTS", labels, [(at, 1.0) for at in fires])

    def _task(self, task: Task) -> Iterator[Canned]:
        labels = {"name": task.name, "queue_name": task.queue}
        for outcome in ("succeeded", "failed", "retried"):
            times = [at for at, of, ended, _ in self.ended if of is task and ended == outcome]
            yield self._counted(f"celery_task_{outcome}_total", labels, times, 1.0)
        expired = [at for at, of, ended, _ in self.ended if of is task and ended == "expired"]
        yield self._counted("celery_task_revoked_total", {**labels, "reason": "expired"}, expired, 1.0)
        yield self._counted("celery_task_revoked_total", {**labels, "reason": "revoked"}, [], 1.0)
        runs = [(at, takes) for at, of, ended, takes in self.ended if of is task and ended == "succeeded"]
        yield from self._histogram("celery_task_runtime_seconds", labels, runs)
        every = [(at, takes) for at, of, ended, takes in self.ended if of is task and ended != "expired"]
        yield self._summed("celery_task_busy_seconds_total", labels, every)
        waits = [(at, wait) for at, of, wait in self.waited if of is task]
        yield from self._histogram("celery_task_wait_seconds", labels, waits)

    def _histogram(self, name: str, labels: dict[str, str], measured: list[tuple[float, float]]) -> Iterator[Canned]:
        yield self._summed(f"{name}_sum", labels, measured)
        yield self._counted(f"{name}_count", labels, [at for at, _ in measured], 1.0)
        for bound in BOUNDS:
            le = "+Inf" if math.isinf(bound) else f"{bound}"
            times = [at for at, seconds in measured if seconds <= bound]
            yield self._counted(f"{name}_bucket", {**labels, "le": le}, times, 1.0)

    def ends_in(self, start: float, end: float) -> int:
        """Return how many came to an end in (start, end]."""
        return sum(1 for at, _, outcome, _ in self.ended if start < at <= end and outcome != "retried")

    def _recorded(self) -> Canned:
        """As the shipped rules record it: tasks per second over the five minutes before."""
        rates = [(at, self.ends_in(at - 300, at) / 300) for at in self.scrapes()]
        return Canned("celery:tasks_ended:rate5m", {"cluster": TARGET["cluster"]}, rates)

    def _busy(self) -> Canned:
        """One of the worker's four slots runs all the time, and a second one for half of it."""
        samples = [(at, 1.5 * (at - BEGIN)) for at in self.scrapes()]
        return Canned("celery_worker_busy_seconds_total", {**TARGET, "hostname": "w1"}, samples)

    def _steady(self, name: str, labels: dict[str, str], value: float) -> Canned:
        return Canned(name, {**TARGET, **labels}, [(at, value) for at in self.scrapes()])

    def _counted(self, name: str, labels: dict[str, str], times: list[float], unit: float) -> Canned:
        return Canned(name, {**TARGET, **labels}, [(at, unit * bisect_right(times, at)) for at in self.scrapes()])

    def _summed(self, name: str, labels: dict[str, str], runs: list[tuple[float, float]]) -> Canned:
        samples, total, position = [], 0.0, 0
        for at in self.scrapes():
            while position < len(runs) and runs[position][0] <= at:
                total += runs[position][1]
                position += 1
            samples.append((at, total))
        return Canned(name, {**TARGET, **labels}, samples)


def _outcome(task: Task, number: int) -> tuple[str, float]:
    takes = task.takes[number % len(task.takes)]
    if task.failing_every and number % task.failing_every == 0:
        return "failed", takes
    if task.retried_every and number % task.retried_every == 1:
        return "retried", takes
    if task.expired_every and number % task.expired_every == 0:
        return "expired", takes
    return "succeeded", takes
