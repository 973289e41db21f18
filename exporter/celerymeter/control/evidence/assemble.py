"""One look at some tasks while it fills, and the evidence about each that it makes in the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from celerymeter.control.evidence import memory
from celerymeter.control.evidence.history import NO_HISTORY, TaskHistory
from celerymeter.control.evidence.models import Termination
from celerymeter.control.evidence.notes import notes
from celerymeter.control.evidence.redis_queues import RedisLook
from celerymeter.control.evidence.task import (
    BrokerFacts,
    Evidence,
    HeldTask,
    Note,
    StoredResult,
    TaskFacts,
    WorkerFacts,
)
from celerymeter.control.live_workers import LiveWorkers
from celerymeter.inspect_replies import Replies, WorkerTask
from celerymeter.tracking.clocks import parse_eta

Broker = Literal["redis", "rabbitmq", "other"]
_STATES: Final = ("active", "reserved", "scheduled")


@dataclass(slots=True)
class Look:
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


def has_ended(history: TaskHistory) -> bool:
    """Return True when events show an end after which nothing else was sent or received."""
    if history.new_message:
        return False
    return history.discarded is not None or (bool(history.runs) and not history.runs[-1].open)


def last_workers(look: Look, task_id: str) -> set[str]:
    history, stored = look.history(task_id), look.stored.get(task_id)
    received = history.received
    workers = {received.worker} if received is not None and not has_ended(history) else set()
    workers |= {run.worker for run in history.runs if run.open}
    return workers | ({stored.worker} if stored is not None and stored.worker and stored.state == "STARTED" else set())


def hold(look: Look, worker: str, state: str, task: WorkerTask, *, reserved: int | None = None) -> None:
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


def evidence_of(look: Look, live_workers: LiveWorkers, broker: Broker) -> Iterator[Evidence]:
    """Yield the evidence about each task."""
    alive = live_workers.alive()
    hosts = look.replies.hostnames | alive
    workers = {host: _worker_facts(look, host, live_workers, alive) for host in sorted(hosts)}
    for task_id in look.task_ids:
        history, held = look.history(task_id), tuple(look.held.get(task_id, ()))
        gone = last_workers(look, task_id).difference(hosts)
        others = {host: _worker_facts(look, host, live_workers, alive) for host in gone}
        evidence = Evidence(
            task_id,
            look.asked_at,
            history=history,
            listening_since=live_workers.connected_at,
            remembered=tuple(look.memories.get(task_id, ())),
            stored=look.stored.get(task_id),
            held=tuple(sorted(held, key=lambda each: _STATES.index(each.state) if each.state in _STATES else 3)),
            workers={**workers, **others, **_reserved(held, workers)},
            broker=_broker_facts(look, task_id, broker),
            terminated=look.terminated.get(task_id),
            facts=look.facts.get(history.name or ""),
            not_asked=tuple(look.not_asked),
            unreachable=tuple(look.unreachable),
        )
        yield replace(evidence, says=notes(evidence))


def _reserved(held: Sequence[HeldTask], workers: Mapping[str, WorkerFacts]) -> dict[str, WorkerFacts]:
    counted = [each for each in held if each.reserved is not None and each.worker in workers]
    return {each.worker: replace(workers[each.worker], reserved=each.reserved) for each in counted}


def _worker_facts(look: Look, host: str, live_workers: LiveWorkers, alive: frozenset[str]) -> WorkerFacts:
    replies, live = look.replies, live_workers.get(host)
    stats, queues, active = replies.stats(host), replies.queues(host), replies.tasks("active", host)
    uptime = stats.uptime if stats is not None else None
    shows = live is not None and (live.task_event_seen or live.aggregates)
    return WorkerFacts(
        host,
        alive=host in replies.hostnames or host in alive,
        answered=host in replies.answered("query_task"),
        pid=(stats.pid if stats is not None else None) or (live.pid if live is not None else None),
        started_at=None if uptime is None else look.asked_at - uptime,
        last_seen=live.last_seen if live is not None else None,
        connected=look.connected.get(host),
        sends_task_events=True if shows else False if live is not None and live.mute else None,
        ambiguous=live is not None and live.duplicate,
        left_at=live_workers.left_at(host),
        pool=stats.pool if stats is not None else None,
        slots=stats.slots if stats is not None else None,
        active=None if active is None else len(active),
        queues=None if queues is None else frozenset(queue.name for queue in queues),
    )


def _broker_facts(look: Look, task_id: str, broker: Broker) -> BrokerFacts:
    levels = [level for level, depth in look.levels.items() if depth]
    return BrokerFacts(
        broker,
        reachable=look.reachable,
        waiting=look.redis.waiting.get(task_id),
        unacked=look.redis.unacked.get(task_id),
        lists_read=look.redis.lists_read,
        unacked_read=look.redis.unacked_read,
        depth=look.depths.get(look.history(task_id).queue or ""),
        delay_level=max(levels, default=None),
    )
