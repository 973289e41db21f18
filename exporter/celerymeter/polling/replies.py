"""What workers answer to `inspect` (`celery.worker.control`), reduced to what we use: arguments are never decoded."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Annotated

import msgspec

from celerymeter.model import ActiveTask, WorkerState

_log = logging.getLogger(__name__)

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Pool(msgspec.Struct, frozen=True):
    implementation: str | None = None
    max_concurrency: object = msgspec.field(default=None, name="max-concurrency")
    processes: object = None


class Stats(msgspec.Struct, frozen=True):
    """``inspect stats``; the others' pool sections differ, so that much is taken as it comes."""

    pid: _Count | None = None
    total: dict[str, _Count] | None = None
    pool: _Pool | None = None
    prefetch_count: int | None = None
    """How many messages the worker may hold: grows by one for each task that waits for its ETA."""

    @property
    def pool_name(self) -> str | None:
        """As in ``--pool``: prefork, threads, gevent, eventlet, solo, or the module of a pool of one's own."""
        implementation = self.pool.implementation if self.pool is not None else None
        if not implementation:
            return None
        module = implementation.partition(":")[0].rpartition(".")[2]
        return "threads" if module == "thread" else module

    @property
    def slots(self) -> int | None:
        """Tasks at once. Prefork counts its processes: with autoscaling ``max-concurrency`` stays at the minimum."""
        if self.pool is None:
            return None
        if isinstance(self.pool.processes, list) and self.pool.processes:
            return len(self.pool.processes)
        limit = self.pool.max_concurrency
        return limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None


class _Exchange(msgspec.Struct, frozen=True):
    name: str | None = None
    type: str | None = None


class _Queue(msgspec.Struct, frozen=True):
    name: str | None = None
    exchange: _Exchange | None = None
    routing_key: str | None = None


class _Delivery(msgspec.Struct, frozen=True):
    exchange: str | None = None
    routing_key: str | None = None


class _Active(msgspec.Struct, frozen=True):
    id: str | None = None
    name: str | None = None
    time_start: float | None = None
    worker_pid: int | None = None
    delivery_info: _Delivery | None = None


class _Counted(msgspec.Struct, gc=False):
    """A task of which only the number matters."""


_DECODERS: Mapping[str, msgspec.json.Decoder[dict[str, object]]] = {
    "stats": msgspec.json.Decoder(dict[str, Stats]),
    "active_queues": msgspec.json.Decoder(dict[str, list[_Queue] | None]),
    "active": msgspec.json.Decoder(dict[str, list[_Active]]),
    "reserved": msgspec.json.Decoder(dict[str, list[_Counted]]),
    "scheduled": msgspec.json.Decoder(dict[str, list[_Counted]]),
}


class Replies:
    """Gathers the replies to one round of questions; what one worker garbles spoils nothing of the others."""

    def __init__(self) -> None:
        self.malformed = 0
        self._by_method: dict[str, dict[str, object]] = defaultdict(dict)

    def receive(self, method: str, body: bytes | str) -> None:
        """One reply, ``{hostname: answer}``; an error answer (``{"error": …}``) is no answer."""
        try:
            answers = _DECODERS[method].decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.malformed += 1
            _log.warning("a worker's answer to %s cannot be used: %s", method, error)
            return
        for hostname, answer in answers.items():
            if answer is not None and hostname and answer != _NO_STATS:
                self._by_method[method].setdefault(hostname, answer)

    def answered(self, method: str) -> Collection[str]:
        """Who answered."""
        return self._by_method[method].keys()

    @property
    def hostnames(self) -> set[str]:
        """Who answered anything."""
        return {hostname for answers in self._by_method.values() for hostname in answers}

    def stats(self, hostname: str) -> Stats | None:
        """What a worker says of itself."""
        answer = self._by_method["stats"].get(hostname)
        return answer if isinstance(answer, Stats) else None

    def count(self, method: str, hostname: str) -> int | None:
        """How many tasks a worker lists."""
        answer = self._by_method[method].get(hostname)
        return len(answer) if isinstance(answer, list) else None

    def state(self, hostname: str) -> WorkerState:
        """All that this worker answered, without reserved and scheduled tasks."""
        stats = self.stats(hostname) or Stats()
        queues = self._queues(hostname)
        return WorkerState(
            hostname,
            pool=stats.pool_name,
            slots=stats.slots,
            pid=stats.pid,
            queues=None if queues is None else tuple(sorted({queue.name for queue in queues if queue.name})),
            active=self._active(hostname, queues or ()),
            totals=stats.total,
        )

    def _queues(self, hostname: str) -> tuple[_Queue, ...] | None:
        """The queues that tasks come from; a broadcast's queue is each worker's own and no place to wait in."""
        answer = self._by_method["active_queues"].get(hostname)
        if not isinstance(answer, list):
            return None
        return tuple(queue for queue in answer if queue.exchange is None or queue.exchange.type != "fanout")

    def _active(self, hostname: str, queues: Collection[_Queue]) -> tuple[ActiveTask, ...] | None:
        answer = self._by_method["active"].get(hostname)
        if not isinstance(answer, list):
            return None
        return tuple(_active_task(task, queues) for task in answer if task.id and task.name)


_NO_STATS = Stats()


def _active_task(task: _Active, queues: Collection[_Queue]) -> ActiveTask:
    """``time_start`` is the worker's wall clock (`Request.on_accepted`), null before the pool has taken the task."""
    plausible = task.time_start is not None and 0 < task.time_start < 1e10
    return ActiveTask(
        uuid=task.id or "",
        name=task.name or "",
        started_at=task.time_start if plausible else None,
        queue_name=_queue_of(task.delivery_info, queues),
        worker_pid=task.worker_pid,
    )


def _queue_of(delivery: _Delivery | None, queues: Collection[_Queue]) -> str | None:
    """The nameless exchange routes by queue name; else the worker's own bindings tell, or its only queue."""
    if delivery is not None and delivery.routing_key and not delivery.exchange:
        return delivery.routing_key
    fitting = {
        queue.name
        for queue in queues
        if delivery is not None
        and queue.exchange is not None
        and (queue.exchange.name, queue.routing_key) == (delivery.exchange, delivery.routing_key)
    }
    names = fitting or {queue.name for queue in queues}
    return names.pop() if len(names) == 1 else None
