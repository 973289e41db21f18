"""Collects the evidence about tasks for a look-up, without acting; each question costs the cluster a bounded time.

Workers are asked first for what is cheap. Their lists, which cost them time for each task that they hold, are asked
for only where nothing else has shown the task, and only of workers that hold few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from celerymeter.control.evidence import memory
from celerymeter.control.evidence.assemble import Broker, Look, evidence_of, hold, last_workers
from celerymeter.control.evidence.history import NO_HISTORY, TaskHistory
from celerymeter.control.evidence.models import Termination
from celerymeter.control.evidence.redis_queues import RedisQueues
from celerymeter.control.evidence.sources import Sources
from celerymeter.control.evidence.task import Evidence, Note, Source, TaskFacts, named
from celerymeter.control.live_workers import INFORMED
from celerymeter.errors import BackendUnavailable, BrokerUnavailable
from celerymeter.inspect_replies import Replies
from celerymeter.remote_control import Command

FEW: Final = 500
"""Tasks that a worker may hold for its lists to be asked for: about 12 ms of its time."""
_STATES: Final = ("active", "reserved", "scheduled")


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
        look = Look(task_ids, until, time.time(), histories=self._event_cache.histories(task_ids))
        self._ask_backend(look)
        queues = self._queue_source
        look.reachable = _attempt(look, "workers", self._ask_workers)
        _attempt(look, queues, self._ask_broker)
        if look.reachable:
            _attempt(look, "workers", self._ask_lists)
            _attempt(look, queues, self._ask_about_silent)
            _attempt(look, "workers", self._ask_facts)
        look.terminated = self._terminations(look)
        # Last, so that events that came meanwhile count: a task that moved on was perhaps seen at neither place.
        look.histories = self._histories(look)
        return list(evidence_of(look, self._live_workers, self._kind))

    # The sources, one after the other

    def _ask_backend(self, look: Look) -> None:
        if self._result_backend is None:
            look.not_asked.append(Note("result backend", "no --result-backend-url is given"))
            return
        try:
            look.stored = self._result_backend.stored(look.task_ids)
        except BackendUnavailable as error:
            look.unreachable.append(Note("result backend", str(error)))

    def _ask_workers(self, look: Look) -> None:
        alive, expected = self._live_workers.alive(), self._live_workers.expected()
        informed = self._live_workers.informed
        look.replies = self._workers.look(look.task_ids, expected=expected, until=look.until)
        if not informed:
            text = f"those that do not answer are not known: events have been heard for less than {INFORMED:g} s"
            look.unreachable.append(Note("workers", text))
        for worker in look.replies.answered(memory.COMMAND):
            for task_id, remembered in memory.parse(look.replies.answer(memory.COMMAND, worker), worker).items():
                look.memories.setdefault(task_id, []).append(remembered)
        look.histories = self._histories(look)
        self._live_workers.answered(look.replies.hostnames)
        for worker in look.replies.answered("query_task"):
            for state, task in look.replies.queried(worker):
                hold(look, worker, state, task)
        for worker in look.replies.answered("active"):
            for task in look.replies.tasks("active", worker) or ():
                hold(look, worker, "active", task)
        if silent := sorted(alive.union(expected) - look.replies.answered("query_task")):
            look.unreachable.append(Note("workers", f"no answer from {named(silent)}"))

    def _ask_lists(self, look: Look) -> None:
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
            look.not_asked.append(Note("workers", f"the lists of {named(many)}: they hold many tasks"))
        commands = [Command(method, destination=workers - many) for method, workers in wanted.items() if workers - many]
        if not commands:
            return
        expected = frozenset(worker for command in commands for worker in command.destination or ())
        replies = self._workers.ask(commands, expected=expected, until=look.until)
        for command in commands:
            for worker in replies.answered(command.method):
                tasks = replies.tasks(command.method, worker) or []
                for task in tasks:
                    hold(look, worker, command.method, task, reserved=len(tasks))

    def _ask_broker(self, look: Look) -> None:
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

    def _ask_about_silent(self, look: Look) -> None:
        """Ask the broker whether it still has a connection of workers that had a task and are not heard any more."""
        silent = {
            worker
            for task_id in look.task_ids
            for worker in last_workers(look, task_id)
            if worker not in look.replies.hostnames and worker not in self._live_workers.alive()
        }
        if not silent:
            return
        if isinstance(self._broker, RedisQueues):
            # A worker that answered is connected. If there are no more connections than these, nobody else is.
            others = self._broker.listeners(self._control_exchange) > len(look.replies.hostnames)
            look.connected = {} if others else dict.fromkeys(silent, False)
        elif self._broker is not None:
            look.connected = self._broker.connected(silent)

    def _ask_facts(self, look: Look) -> None:
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

    def _terminations(self, look: Look) -> dict[str, Termination]:
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

    def _histories(self, look: Look) -> dict[str, TaskHistory]:
        """Return what events and the memories of aggregating workers tell."""
        found = dict(self._event_cache.histories(look.task_ids))
        for task_id, memories in look.memories.items():
            found[task_id] = memory.with_memories(found.get(task_id, NO_HISTORY), memories)
        return found

    @property
    def _queue_source(self) -> Source:
        return "redis queues" if isinstance(self._broker, RedisQueues) else "rabbitmq queues"

    @property
    def _kind(self) -> Broker:
        return "redis" if isinstance(self._broker, RedisQueues) else "other" if self._broker is None else "rabbitmq"


def _attempt(look: Look, source: Source, ask: Callable[[Look], None]) -> bool:
    """Ask a source; one that cannot be reached is noted, and the others must do."""
    try:
        ask(look)
    except BrokerUnavailable as error:
        look.unreachable.append(Note(source, str(error)))
        return False
    return True


def _is_announced(history: TaskHistory) -> bool:
    return bool(history.runs) and history.runs[-1].outcome == "terminate_sent"


def _is_stored(look: Look, task_id: str) -> bool:
    stored = look.stored.get(task_id)
    return stored is not None and stored.state in ("SUCCESS", "FAILURE")


def _holds_few(replies: Replies, worker: str) -> bool:
    stats = replies.stats(worker)
    return stats is not None and (stats.prefetch_count or 0) <= FEW


def _facts(answer: object, name: str) -> TaskFacts | None:
    """Return the attributes of one task of a reply to ``registered``, whose entries read ``name [attribute=value]``."""
    entries = answer if isinstance(answer, list) else []
    for entry in (entry for entry in entries if isinstance(entry, str) and entry.partition(" [")[0] == name):
        words = (word.partition("=") for word in entry.partition(" [")[2].rstrip("]").split())
        found = {attribute: value for attribute, _, value in words}
        limit, late = found.get("rate_limit"), found.get("acks_late")
        return TaskFacts(limit, None if late is None else late == "True")
    return None
