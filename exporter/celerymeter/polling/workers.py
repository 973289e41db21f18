"""What the workers themselves say: pools, queues, running tasks, counts by task name (`celery inspect`)."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from celerymeter.broker import HeldConnection
from celerymeter.errors import PollError
from celerymeter.model import ActiveTask, WorkersSnapshot, WorkerState
from celerymeter.settings import ExporterSettings

log = logging.getLogger(__name__)

TIMEOUT = 1.0
"""Seconds that a question waits for the slowest answer; busy solo workers do not answer at all."""
HEAVY = 1000
"""Tasks in a reply above which the next question for waiting tasks is put off, in proportion."""

Replies = Mapping[str, Any]


class WorkerPoller:
    """Asks all workers at once. Replies are JSON, checked field by field; tasks' arguments are dropped at once.

    Waiting tasks (`reserved`, `scheduled`) come with all their arguments, so they are asked for seldom, with jitter,
    and the more seldom the more there are.
    """

    def __init__(self, settings: ExporterSettings) -> None:
        self._held = HeldConnection(settings.broker)
        self._inspect_interval = settings.inspect_interval
        self._waiting: dict[str, tuple[int | None, int | None]] = {}
        self._next_waiting = 0.0

    def poll(self, *, now: float, expected: int | None = None) -> WorkersSnapshot:
        """Everybody's state; ``expected`` answers end the wait. Raises `BrokerUnavailable` or `PollError`."""
        stats = self._ask("stats", expected)
        answered = len(stats) or expected
        queues = self._ask("active_queues", answered) if stats else {}
        active = self._ask("active", answered) if stats else {}
        if stats and now >= self._next_waiting:
            self._ask_waiting(answered, now)
        states = (
            _state(hostname, reply, queues.get(hostname), active.get(hostname), self._waiting.get(hostname))
            for hostname, reply in stats.items()
        )
        return WorkersSnapshot(at=now, workers={state.hostname: state for state in states if state is not None})

    def enable_events(self, hostnames: Iterable[str]) -> None:
        """Ask these workers to send task events (`celery control enable_events`); raises `BrokerUnavailable`."""
        names = sorted(hostnames)
        log.info("asking %d workers to send task events", len(names))
        self._held.use(
            lambda connection: self._held.app.control.broadcast(
                "enable_events", destination=names, connection=connection
            )
        )

    def close(self) -> None:
        """Drop the connection."""
        self._held.close()

    def _ask_waiting(self, expected: int | None, now: float) -> None:
        reserved, scheduled = self._ask("reserved", expected), self._ask("scheduled", expected)
        self._waiting = {name: (_length(reserved.get(name)), _length(scheduled.get(name))) for name in reserved}
        total = sum(count or 0 for counts in self._waiting.values() for count in counts)
        pause = self._inspect_interval * max(1.0, total / HEAVY)
        self._next_waiting = now + pause * random.uniform(0.9, 1.1)  # noqa: S311 - jitter is no secret

    def _ask(self, command: str, limit: int | None) -> Replies:
        """Replies by node name."""
        control = self._held.app.control
        action: Callable[[Any], Any] = lambda connection: control.broadcast(  # noqa: E731 - `use` takes an action
            command, reply=True, timeout=TIMEOUT, limit=limit, connection=connection
        )
        replies = self._held.use(action)
        if replies is not None and not isinstance(replies, list):
            raise PollError(f"{command}: the replies are no list")
        return {
            hostname: answer
            for reply in replies or ()
            if isinstance(reply, dict)
            for hostname, answer in reply.items()
            if isinstance(hostname, str) and not _refused(answer)
        }


def _refused(answer: Any) -> bool:
    return isinstance(answer, dict) and "error" in answer


def _state(hostname: str, stats: Any, queues: Any, active: Any, waiting: Any) -> WorkerState | None:
    """One worker's replies; what it said wrongly is ``None``, and without a pool it is no worker (beat answers too)."""
    if not isinstance(stats, dict) or not isinstance(pool := stats.get("pool"), dict):
        return None
    reserved, scheduled = waiting or (None, None)
    return WorkerState(
        hostname=hostname,
        pool=_pool_name(pool),
        slots=_slots(pool),
        pid=_count(stats.get("pid")),
        reserved=reserved,
        scheduled=scheduled,
        queues=_queues(queues),
        active=_active(active),
        totals=_totals(stats.get("total")),
    )


def _pool_name(pool: Mapping[str, Any]) -> str | None:
    """``prefork`` of ``celery.concurrency.prefork:TaskPool``; the thread pool's module is named ``thread``."""
    implementation = pool.get("implementation")
    if not isinstance(implementation, str):
        return None
    name = implementation.partition(":")[0].rpartition(".")[2][:64]
    return {"thread": "threads"}.get(name, name)


def _slots(pool: Mapping[str, Any]) -> int | None:
    """Prefork and threads tell their concurrency, the green pools their limit; solo has one slot."""
    for key in ("max-concurrency", "limit"):
        if (slots := _count(pool.get(key))) is not None:
            return slots
    return 1 if _pool_name(pool) == "solo" else None


def _queues(reply: Any) -> tuple[str, ...] | None:
    if not isinstance(reply, list):
        return None
    return tuple(queue["name"] for queue in reply if isinstance(queue, dict) and isinstance(queue.get("name"), str))


def _active(reply: Any) -> tuple[ActiveTask, ...] | None:
    if not isinstance(reply, list):
        return None
    return tuple(task for task in map(_task, reply) if task is not None)


def _task(item: Any) -> ActiveTask | None:
    if not isinstance(item, dict) or not isinstance(uuid := item.get("id"), str):
        return None
    name, started = item.get("name"), item.get("time_start")
    delivery = item.get("delivery_info")
    return ActiveTask(
        uuid=uuid,
        name=name if isinstance(name, str) else "unknown",
        started_at=float(started) if isinstance(started, (int, float)) else None,
        queue_name=_routed(delivery) if isinstance(delivery, dict) else None,
        worker_pid=_count(item.get("worker_pid")),
    )


def _routed(delivery: Mapping[str, Any]) -> str | None:
    """On the default exchange the routing key is the queue."""
    key = delivery.get("routing_key")
    return key if isinstance(key, str) and key and delivery.get("exchange") == "" else None


def _totals(reply: Any) -> Mapping[str, int] | None:
    if not isinstance(reply, dict):
        return None
    return {name: count for name, count in reply.items() if isinstance(name, str) and _count(count) is not None}


def _length(reply: Any) -> int | None:
    return len(reply) if isinstance(reply, list) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
