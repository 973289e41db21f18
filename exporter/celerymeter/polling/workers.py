"""Polls what workers say about themselves over remote control. A silent worker is missing from the result."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from celerymeter.inspect_replies import ConsumedQueue, Replies, WorkerStats, WorkerTask
from celerymeter.model import ActiveTask, WorkersSnapshot, WorkerState
from celerymeter.remote_control import Command, RemoteControl
from celerymeter.settings import ExporterSettings

POLL = (Command("stats"), Command("active_queues"), Command("active", {"safe": True}))
"""Sent at every poll; ``safe`` makes the worker cut the tasks' arguments, which nobody reads."""
LISTS = ("reserved", "scheduled")
LISTS_SILENCE = 3.0

MAX_HELD = 20_000
"""Tasks in the replies to one round of `LISTS`; a worker that holds more is not asked, its gauges stay absent."""
SECONDS_PER_TASK = 0.02
FEW = 1000
"""A worker that holds no more is asked at once; others at a random time within their interval."""


class WorkerPoller:
    """Asks all workers at once; raises `BrokerUnavailable`. Thread-safe, one poll at a time."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._control = RemoteControl(settings.broker)
        self._schedule = ListSchedule(interval=settings.inspect_interval)
        self._answered: frozenset[str] = frozenset()

    def poll(self, *, now: float, expected: Collection[str]) -> WorkersSnapshot:
        """Return every worker that answers. Waits for the ``expected`` ones, or for a second if there are none.

        Those are the workers that send heartbeats; others may answer too, so those of the last poll are waited for as
        well. Reserved and scheduled tasks are as of the worker's last answer, see `ListSchedule`.
        """
        wanted = self._answered.union(expected) if expected else ()
        replies = self._control.ask(POLL, expected=wanted)
        self._answered = replies.answered("stats")
        self._ask_lists(replies, now)
        last_answer = self._schedule.last_answer
        states = {name: worker_state(replies, name, last_answer(name)) for name in replies.hostnames}
        return WorkersSnapshot(at=now, workers=states)

    def enable_events(self, hostnames: Collection[str]) -> None:
        """Make these workers send task events."""
        self._control.send(Command("enable_events", destination=hostnames))

    def close(self) -> None:
        """Drop the connection; the next poll opens another."""
        self._control.close()

    def _ask_lists(self, replies: Replies, now: float) -> None:
        workers = {name: stats for name in self._answered if (stats := replies.stats(name)) is not None}
        due = self._schedule.due(workers, now=now)
        if due:
            commands = [Command(method, destination=due) for method in LISTS]
            self._schedule.learn(self._control.ask(commands, expected=due, silence=LISTS_SILENCE), due)


@dataclass(slots=True)
class ListAnswer:
    """The last answer of one worker process to `LISTS`, and when to ask it again."""

    pid: int | None
    due_at: float
    reserved: int | None = None
    scheduled: int | None = None


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
            held = _held(workers[name])
            if self._answers[name].due_at <= now and held <= budget:
                budget -= held
                self._answers[name].due_at = now + self._pause(held)
                chosen.append(name)
        return chosen

    def learn(self, replies: Replies, hostnames: list[str]) -> None:
        """Take the answers of those who were asked; a worker that did not answer is unknown until next time."""
        for name in hostnames:
            self._answers[name].reserved = replies.count("reserved", name)
            self._answers[name].scheduled = replies.count("scheduled", name)

    def last_answer(self, hostname: str) -> ListAnswer | None:
        """Return the last answer of a worker."""
        return self._answers.get(hostname)

    def _carry_over(self, name: str, stats: WorkerStats, now: float) -> ListAnswer:
        answer, held = self._answers.get(name), _held(stats)
        if answer is None or answer.pid != stats.pid:
            answer = ListAnswer(stats.pid, due_at=now if held <= FEW else now + self._pause(held) * random.random())  # noqa: S311 - see above
        elif held > MAX_HELD:
            answer.reserved = answer.scheduled = None
        return answer

    def _pause(self, held: int) -> float:
        return max(self._interval, held * SECONDS_PER_TASK) * self._jitter()


def worker_state(replies: Replies, hostname: str, lists: ListAnswer | None = None) -> WorkerState:
    """Return all that a worker answered; ``lists`` is its last answer about reserved and scheduled tasks."""
    stats = replies.stats(hostname) or WorkerStats()
    consumed, running = replies.queues(hostname), replies.tasks("active", hostname)
    # A broadcast's queue is each worker's own, with a new name at every start: no task waits there.
    queues = None if consumed is None else [queue for queue in consumed if queue.exchange_type != "fanout"]
    return WorkerState(
        hostname,
        pool=stats.pool,
        slots=stats.slots,
        pid=stats.pid,
        reserved=lists.reserved if lists else None,
        scheduled=lists.scheduled if lists else None,
        queues=None if queues is None else tuple(sorted({queue.name for queue in queues})),
        active=None if running is None else tuple(_active_task(task, queues or ()) for task in running if task.name),
        totals=stats.totals,
    )


def _held(stats: WorkerStats) -> int:
    return stats.prefetch_count or 0


def _active_task(task: WorkerTask, queues: Collection[ConsumedQueue]) -> ActiveTask:
    return ActiveTask(task.id, task.name or "", task.started_at, _queue_of(task, queues), task.worker_pid)


def _queue_of(task: WorkerTask, queues: Collection[ConsumedQueue]) -> str | None:
    """Return the queue that a task came from: the nameless exchange routes by queue name; else the worker's own
    bindings tell, or its only queue.
    """
    if task.routing_key and not task.exchange:
        return task.routing_key
    bound = {queue.name for queue in queues if (queue.exchange, queue.routing_key) == (task.exchange, task.routing_key)}
    names = bound or {queue.name for queue in queues}
    return names.pop() if len(names) == 1 else None
