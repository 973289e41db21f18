"""Collects the evidence about tasks for a look-up, without acting; each question costs the cluster a bounded time.

Workers are asked first for what is cheap. Their lists, which cost them time for each task that they hold, are asked
for only where nothing else has shown the task, and only of workers that hold few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from celerymeter.control.evidence import memory
from celerymeter.control.evidence.history import NO_HISTORY, TaskHistory
from celerymeter.control.evidence.models import Termination
from celerymeter.control.evidence.notes import notes
from celerymeter.control.evidence.redis_queues import RedisLook, RedisQueues
from celerymeter.control.evidence.sources import Sources
from celerymeter.control.evidence.task import (
    BrokerFacts,
    Evidence,
    HeldTask,
    Note,
    Source,
    StoredResult,
    TaskFacts,
    WorkerFacts,
)
from celerymeter.errors import BackendUnavailable, BrokerUnavailable
from celerymeter.inspect_replies import Replies, WorkerTask
from celerymeter.remote_control import Command
from celerymeter.tracking.clocks import parse_eta

FEW: Final = 500
"""Tasks that a worker may hold for its lists to be asked for: about 12 ms of its time."""
_STATES: Final = ("active", "reserved", "scheduled")


@dataclass(slots=True)
class _Look:
    """One look at some tasks, as it fills."""

    task_ids: Sequence[str]
    until: float
    asked_at: float
    histories: Mapping[str, TaskHistory] = field(default_factory=dict)
    stored: Mapping[str, StoredResult] = field(default_factory=dict)
    replies: Replies = field(default_factory=Replies)
    held: dict[str, list[HeldTask]] = field(default_factory=dict)
    redis: RedisLook = field(default_factory=RedisLook)
    depths: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[int, int] = field(default_factory=dict)
    connected: Mapping[str, bool] = field(default_factory=dict)
    facts: Mapping[str, TaskFacts] = field(default_factory=dict)
    terminated: Mapping[str, Termination] = field(default_factory=dict)
    memories: dict[str, list[memory.Remembered]] = field(default_factory=dict)
    reachable: bool = True
    not_asked: list[Note] = field(default_factory=list)
    unreachable: list[Note] = field(default_factory=list)

    def history(self, task_id: str) -> TaskHistory:
        return self.histories.get(task_id, NO_HISTORY)

    def open(self) -> list[str]:
        """Return the tasks that no worker lists and that are not known to have ended."""
        return [each for each in self.task_ids if each not in self.held and not has_ended(self.history(each))]


class TaskLooker:
    """Looks for tasks; thread-safe, except that looks at the broker wait for each other."""

    def __init__(self, sources: Sources) -> None:
        self._workers = sources.workers
        self._event_cache = sources.event_cache
        self._live_workers = sources.live_workers
        self._result_backend = sources.result_backend
        self._broker = sources.broker
        self._previously_terminated = sources.previously_terminated
        self._control_exchange = sources.control_exchange

    def look(self, task_ids: Sequence[str], *, until: float) -> list[Evidence]:
        """Return the evidence about each task; ``until`` is of `time.monotonic`. Raises `RequestRefused` when busy."""
        look = _Look(task_ids, until, time.time(), histories=self._event_cache.histories(task_ids))
        self._ask_backend(look)
        queues = self._queue_source
        asked = [_attempt(look, "workers", self._ask_workers), _attempt(look, queues, self._ask_broker)]
        look.reachable = any(asked)
        if look.reachable:
            _attempt(look, "workers", self._ask_lists)
            _attempt(look, queues, self._ask_about_silent)
            _attempt(look, "workers", self._ask_facts)
        look.terminated = self._terminations(look)
        # Last, so that events that came meanwhile count: a task that moved on was perhaps seen at neither place.
        look.histories = self._histories(look)
        return [self._evidence(look, task_id) for task_id in task_ids]

    # The sources, one after the other

    def _ask_backend(self, look: _Look) -> None:
        if self._result_backend is None:
            look.not_asked.append(Note("result backend", "no --result-backend-url is given"))
            return
        try:
            look.stored = self._result_backend.stored(look.task_ids)
        except BackendUnavailable as error:
            look.unreachable.append(Note("result backend", str(error)))

    def _ask_workers(self, look: _Look) -> None:
        alive = self._live_workers.alive()
        expected = alive if self._live_workers.informed else frozenset[str]()
        look.replies = self._workers.look(look.task_ids, expected=expected, until=look.until)
        for worker in look.replies.answered(memory.COMMAND):
            for task_id, remembered in memory.parse(look.replies.answer(memory.COMMAND, worker), worker).items():
                look.memories.setdefault(task_id, []).append(remembered)
        look.histories = self._histories(look)
        self._live_workers.answered(look.replies.hostnames)
        for worker in look.replies.answered("query_task"):
            for state, task in look.replies.queried(worker):
                _hold(look, worker, state, task)
        for worker in look.replies.answered("active"):
            for task in look.replies.tasks("active", worker) or ():
                _hold(look, worker, "active", task)
        if silent := sorted(alive - look.replies.answered("query_task")):
            look.unreachable.append(Note("workers", f"no answer from {', '.join(silent)}"))

    def _ask_lists(self, look: _Look) -> None:
        """Ask for lists where they may show what `query_task` hides: ids that are UUIDs, and ETAs before Celery 5.7."""
        wanted: dict[str, set[str]] = {method: set() for method in ("reserved", "scheduled")}
        for held in (held for found in look.held.values() for held in found):
            if held.state in wanted and (held.state == "reserved" or held.eta is None):
                wanted[held.state].add(held.worker)
        unseen = [each for each in look.open() if each not in look.redis.waiting and not _is_stored(look, each)]
        for task_id in unseen:
            received = look.history(task_id).received
            candidates = {received.worker} if received is not None else set(look.replies.hostnames)
            for asked in wanted.values():
                asked.update(candidates & look.replies.hostnames)
        many = {worker for workers in wanted.values() for worker in workers if not _holds_few(look.replies, worker)}
        if many:
            look.not_asked.append(Note("workers", f"the lists of {', '.join(sorted(many))}: they hold many tasks"))
        commands = [Command(method, destination=workers - many) for method, workers in wanted.items() if workers - many]
        if not commands:
            return
        expected = frozenset(worker for command in commands for worker in command.destination or ())
        replies = self._workers.ask(commands, expected=expected, until=look.until)
        for command in commands:
            for worker in replies.answered(command.method):
                tasks = replies.tasks(command.method, worker) or []
                for task in tasks:
                    _hold(look, worker, command.method, task, reserved=len(tasks))

    def _ask_broker(self, look: _Look) -> None:
        wanted = [task_id for task_id in look.open() if not _is_stored(look, task_id)]
        if not wanted:
            look.not_asked.append(Note(self._queue_source, "not needed"))
            return
        hinted = [queue for task_id in wanted if (queue := look.history(task_id).queue)]
        consumed = (queue.name for worker in look.replies.hostnames for queue in look.replies.queues(worker) or ())
        queues = list(dict.fromkeys([*hinted, *sorted(consumed)]))
        if isinstance(self._broker, RedisQueues):
            look.redis = self._broker.look(wanted, queues)
            look.depths = look.redis.lengths
        elif self._broker is not None:
            look.depths = self._broker.depths(dict.fromkeys(hinted))
            if any(look.history(task_id).delayed_by_broker for task_id in wanted):
                look.levels = self._broker.delay_levels()
        else:
            look.not_asked.append(Note("rabbitmq queues", "this broker shows nobody which messages wait"))

    def _ask_about_silent(self, look: _Look) -> None:
        """Ask the broker whether it still has a connection of workers that had a task and are not heard any more."""
        silent = {
            worker
            for task_id in look.open()
            for worker in _last_workers(look, task_id)
            if worker not in look.replies.hostnames and worker not in self._live_workers.alive()
        }
        if not silent:
            return
        if isinstance(self._broker, RedisQueues):
            # Whoever answered is connected. If there are no more connections than these, nobody else is.
            others = self._broker.listeners(self._control_exchange) > len(look.replies.hostnames)
            look.connected = {} if others else dict.fromkeys(silent, False)
        elif self._broker is not None:
            look.connected = self._broker.connected(silent)

    def _ask_facts(self, look: _Look) -> None:
        """Ask a worker for the rate limit and the kind of acknowledgement of tasks that nothing lists."""
        names: dict[str, str] = {}
        for task_id in look.open():
            history = look.history(task_id)
            if history.name is None or history.received is None or task_id in look.redis.waiting:
                continue
            first = history.received.worker
            candidates = [first] if first in look.replies.hostnames else sorted(look.replies.hostnames)
            if candidates:
                names[history.name] = candidates[0]
        if not names:
            return
        asked = frozenset(names.values())
        command = Command("registered", {"taskinfoitems": ["rate_limit", "acks_late"]}, destination=asked)
        replies = self._workers.ask([command], expected=asked, until=look.until)
        look.facts = {
            name: facts
            for name, worker in names.items()
            if (facts := _facts(replies.answer("registered", worker), name)) is not None
        }

    def _terminations(self, look: _Look) -> dict[str, Termination]:
        announced = [each for each in look.task_ids if _is_announced(look.history(each))]
        if not announced:
            return {}
        found = dict(self._previously_terminated(announced))
        for task_id, termination in found.items():
            worker = look.history(task_id).runs[-1].worker
            stats = look.replies.stats(worker)
            if not termination.died and termination.pid and stats is not None and stats.processes is not None:
                alive = termination.pid in stats.processes
                found[task_id] = replace(termination, died=not alive, alive=alive)
        return found

    def _histories(self, look: _Look) -> dict[str, TaskHistory]:
        """Return what events and the memories of aggregating workers tell."""
        found = dict(self._event_cache.histories(look.task_ids))
        for task_id, memories in look.memories.items():
            found[task_id] = memory.with_memories(found.get(task_id, NO_HISTORY), memories)
        return found

    # The evidence

    @property
    def _is_redis(self) -> bool:
        return isinstance(self._broker, RedisQueues)

    @property
    def _queue_source(self) -> Source:
        return "redis queues" if self._is_redis else "rabbitmq queues"

    def _evidence(self, look: _Look, task_id: str) -> Evidence:
        history, held = look.history(task_id), tuple(look.held.get(task_id, ()))
        hosts = look.replies.hostnames | self._live_workers.alive() | _last_workers(look, task_id)
        evidence = Evidence(
            task_id,
            look.asked_at,
            history=history,
            listening_since=self._live_workers.connected_at,
            remembered=tuple(look.memories.get(task_id, ())),
            stored=look.stored.get(task_id),
            held=tuple(sorted(held, key=lambda each: _STATES.index(each.state) if each.state in _STATES else 3)),
            workers={host: self._worker_facts(look, host, held) for host in sorted(hosts)},
            broker=self._broker_facts(look, task_id, history),
            terminated=look.terminated.get(task_id),
            facts=look.facts.get(history.name or ""),
            not_asked=tuple(look.not_asked),
            unreachable=tuple(look.unreachable),
        )
        return replace(evidence, says=notes(evidence))

    def _worker_facts(self, look: _Look, host: str, held: Iterable[HeldTask]) -> WorkerFacts:
        replies, live = look.replies, self._live_workers.get(host)
        stats, queues, active = replies.stats(host), replies.queues(host), replies.tasks("active", host)
        uptime = stats.uptime if stats is not None else None
        shows = live is not None and (live.task_event_seen or live.aggregates)
        sends = True if shows else False if live is not None and live.mute else None
        return WorkerFacts(
            host,
            alive=host in replies.hostnames or host in self._live_workers.alive(),
            answered=host in replies.answered("query_task"),
            pid=(stats.pid if stats is not None else None) or (live.pid if live is not None else None),
            started_at=None if uptime is None else look.asked_at - uptime,
            last_seen=live.last_seen if live is not None else None,
            connected=look.connected.get(host),
            sends_task_events=sends,
            ambiguous=live is not None and live.duplicate,
            left_at=self._live_workers.left_at(host),
            pool=stats.pool if stats is not None else None,
            slots=stats.slots if stats is not None else None,
            active=None if active is None else len(active),
            reserved=next((each.reserved for each in held if each.worker == host and each.reserved), None),
            queues=None if queues is None else frozenset(queue.name for queue in queues),
        )

    def _broker_facts(self, look: _Look, task_id: str, history: TaskHistory) -> BrokerFacts:
        kind = "redis" if self._is_redis else "other" if self._broker is None else "rabbitmq"
        levels = [level for level, depth in look.levels.items() if depth]
        return BrokerFacts(
            kind,  # type: ignore[arg-type]
            reachable=look.reachable,
            waiting=look.redis.waiting.get(task_id),
            unacked=look.redis.unacked.get(task_id),
            lists_read=look.redis.lists_read,
            unacked_read=look.redis.unacked_read,
            depth=look.depths.get(history.queue or ""),
            delay_level=max(levels, default=None),
        )


def _attempt(look: _Look, source: Source, ask: Callable[[_Look], None]) -> bool:
    """Ask a source; one that cannot be reached is noted, and the others must do."""
    try:
        ask(look)
    except BrokerUnavailable as error:
        look.unreachable.append(Note(source, str(error)))
        return False
    return True


def has_ended(history: TaskHistory) -> bool:
    """Return True when events show an end after which nothing else was sent or received."""
    if history.new_message:
        return False
    return history.discarded is not None or (bool(history.runs) and not history.runs[-1].open)


def _is_announced(history: TaskHistory) -> bool:
    return bool(history.runs) and history.runs[-1].outcome == "terminate_sent"


def _is_stored(look: _Look, task_id: str) -> bool:
    stored = look.stored.get(task_id)
    return stored is not None and stored.state in ("SUCCESS", "FAILURE")


def _last_workers(look: _Look, task_id: str) -> set[str]:
    history, stored = look.history(task_id), look.stored.get(task_id)
    workers = {history.received.worker} if history.received is not None else set()
    workers |= {run.worker for run in history.runs if run.open}
    return workers | ({stored.worker} if stored is not None and stored.worker and stored.state == "STARTED" else set())


def _holds_few(replies: Replies, worker: str) -> bool:
    stats = replies.stats(worker)
    return stats is not None and (stats.prefetch_count or 0) <= FEW


def _hold(look: _Look, worker: str, state: str, task: WorkerTask, *, reserved: int | None = None) -> None:
    """Note that a worker lists the task, once for each worker and with all that its lists say of it."""
    if task.id not in look.task_ids:
        return
    found = look.held.setdefault(task.id, [])
    before = next((each for each in found if each.worker == worker), None)
    held = HeldTask(
        worker,
        before.state if before is not None else state,
        name=task.name,
        queue=task.routing_key if not task.exchange else None,
        started_at=task.started_at or (before.started_at if before is not None else None),
        eta=parse_eta(task.eta) if task.eta else before.eta if before is not None else None,
        redelivered=task.redelivered,
        uuid_object=task.uuid_object,
        reserved=reserved if state == "reserved" else before.reserved if before is not None else None,
    )
    look.held[task.id] = [each for each in found if each is not before] + [held]


def _facts(answer: object, name: str) -> TaskFacts | None:
    """Return the attributes of one task of a reply to ``registered``, whose entries read ``name [attribute=value]``."""
    entries = answer if isinstance(answer, list) else []
    for entry in (entry for entry in entries if isinstance(entry, str) and entry.partition(" [")[0] == name):
        words = (word.partition("=") for word in entry.partition(" [")[2].rstrip("]").split())
        found = {attribute: value for attribute, _, value in words}
        limit, late = found.get("rate_limit"), found.get("acks_late")
        return TaskFacts(limit, None if late is None else late == "True")
    return None
