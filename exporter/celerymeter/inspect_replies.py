"""Replies to remote-control commands (`celery.worker.control`), reduced to what this program uses.

Workers of several Celery versions, other pools and plugins reply, so a field of an unexpected type is treated as
absent and never rejects the reply. Arguments of tasks are skipped, not decoded.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from celerymeter.json_values import count_values
from celerymeter.tagged import id_text, untag

MAX_TEXT: Final = 512
"""Characters of a name; a longer one is treated as absent, as in events."""
MAX_WORKERS: Final = 10_000
"""Workers whose replies to a command are read."""
MAX_LOGGED: Final = 10
"""Replies that cannot be used and are logged, in one round of commands; all are counted."""
MAX_REPLY: Final = 32 * 1024 * 1024
"""Bytes of a reply. 20,000 reserved tasks are 8 MB."""
MAX_REPLIES: Final = 128 * 1024 * 1024
"""Bytes of all replies to one round of commands."""
MAX_VALUES: Final = 1_500_000
"""Values in a reply: as objects they may take twenty times the memory of their text."""
MAX_ALL_VALUES: Final = 4_000_000
"""Values in all replies to one round. A worker has some hundred, and each task in a reply about thirty."""
FEW_SIGNS: Final = 10_000
"""Commas and brackets of a reply up to which it does not matter how many of them are inside of texts."""
MAX_BINDINGS: Final = 100
"""Bindings of one queue that are read."""
MAX_ERROR: Final = 200
"""Characters of a worker's error text that are repeated."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """A reply to ``stats``; ``None`` where the worker did not say."""

    pid: int | None = None
    pool: str | None = None
    """As in ``--pool``: prefork, threads, gevent, eventlet, solo, or the module of a custom pool."""
    slots: int | None = None
    """Tasks that run at once. Prefork counts its processes: with autoscaling ``max-concurrency`` is the minimum."""
    processes: frozenset[int] | None = None
    """Pids of the pool's processes."""
    totals: Mapping[str, int] | None = None
    """Runs begun since the worker started, by task name."""
    prefetch_count: int | None = None
    """Messages that the worker may hold: grows by one for each task that waits for its ETA."""
    uptime: int | None = None
    """Seconds since the worker started."""


@dataclass(frozen=True, slots=True)
class ConsumedQueue:
    """A queue of a reply to ``active_queues``, with one of the bindings that the worker declared."""

    name: str
    exchange: str | None = None
    exchange_type: str | None = None
    routing_key: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """A task that a worker holds, as ``active``, ``reserved``, ``scheduled`` and ``query_task`` describe it."""

    id: str
    name: str | None = None
    """As in the worker's events: its shadow name, if it has one (`celery.app.task.Task.shadow_name`)."""
    registered_name: str | None = None
    started_at: float | None = None
    """UTC seconds by the worker's clock; ``None`` before the pool has taken the task (`Request.on_accepted`)."""
    worker_pid: int | None = None
    exchange: str | None = None
    routing_key: str | None = None
    redelivered: bool = False
    eta: str | None = None
    uuid_object: bool = False
    """True when the id is a UUID object or a number: Celery's own commands do not find it by its text."""


class _Stats(msgspec.Struct):
    pid: object = None
    total: object = None
    pool: object = None
    prefetch_count: object = None
    uptime: object = None


class _Queue(msgspec.Struct, gc=False):
    name: object = None
    exchange: object = None
    routing_key: object = None
    bindings: object = None


class _Request(msgspec.Struct, gc=False):
    id: object = None
    name: object = None
    type: object = None
    time_start: object = None
    worker_pid: object = None
    delivery_info: object = None


class _Scheduled(msgspec.Struct, gc=False):
    request: _Request | None = None
    eta: object = None


class _Error(msgspec.Struct):
    error: str | float | None


_TASKS: Final = dict[str, list[_Request]]
_TYPES: Final[Mapping[str, type]] = {
    "stats": dict[str, _Stats],
    "active_queues": dict[str, list[_Queue] | None],
    "query_task": dict[str, dict[str, tuple[str, _Request]]],
    "active": _TASKS,
    "reserved": _TASKS,
    "scheduled": dict[str, list[_Scheduled]],
    "conf": dict[str, dict[str, msgspec.Raw]],  # a schedule or routes may be large, and are not read
}
"""The replies of which only a part is decoded; to any other command a reply is decoded whole."""
_DECODERS: Final[Mapping[str, msgspec.json.Decoder[dict[str, object]]]] = {
    method: msgspec.json.Decoder(kind) for method, kind in _TYPES.items()
}
_ERRORS: Final = msgspec.json.Decoder(dict[str, _Error])


class Replies:
    """The replies to one round of commands. A reply that cannot be used is counted and spoils no other reply."""

    def __init__(self) -> None:
        self.malformed = 0
        self.unread: list[tuple[str, bytes]] = []
        """Content types of replies that are not JSON, each with the begin of its body, which names the worker."""
        self._bytes = self._values = 0
        self._answers: dict[str, dict[str, object]] = defaultdict(dict)
        self._errors: dict[str, dict[str, str]] = defaultdict(dict)

    def receive(self, method: str, body: bytes | str) -> None:
        """Add one reply, ``{hostname: answer}``; of two processes with one name the first counts."""
        if not self._has_room(body):
            self.reject(method, "it is too large")
            return
        before = len(self._answers[method]) + len(self._errors[method])
        try:
            failed = _of_one_worker(_ERRORS.decode(body), before)
            self._errors[method].update({hostname: _first_line(error.error) for hostname, error in failed.items()})
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # the usual case: the reply is not an error
        try:
            answers = _of_one_worker(_decode(method, body), before)
        except (ValueError, RecursionError) as error:
            self.reject(method, str(error))
            return
        for hostname, answer in answers.items():
            if answer is not None and hostname:
                self._answers[method].setdefault(hostname, answer)

    def receive_other(self, method: str, content_type: object, body: bytes | str) -> None:
        """Note a reply that is not JSON."""
        kind = str(content_type)[:MAX_TEXT]
        if len(self.unread) < MAX_WORKERS:
            self.unread.append((kind, _encoded(body[:MAX_TEXT])))
        self.reject(method, f"it is {kind!r}, and only JSON is read")

    def reject(self, method: str, reason: str) -> None:
        """Count a reply that cannot be used, and log the first ones."""
        self.malformed += 1
        level = logging.WARNING if self.malformed <= MAX_LOGGED else logging.DEBUG
        log.log(level, "a worker's reply to %s cannot be used: %s", method, reason)

    def _has_room(self, body: bytes | str) -> bool:
        """Count a reply's size; return False, and do not, when it is too large or one too many."""
        size = len(body)
        if size > min(MAX_REPLY, MAX_REPLIES - self._bytes):
            return False
        values = _count_values(_encoded(body))
        if values > min(MAX_VALUES, MAX_ALL_VALUES - self._values):
            return False
        self._bytes += size
        self._values += values
        return True

    @property
    def hostnames(self) -> frozenset[str]:
        """Return the workers that answered anything, errors aside."""
        return frozenset(hostname for answers in self._answers.values() for hostname in answers)

    @property
    def errors(self) -> dict[str, str]:
        """Return the workers that replied with an error, each with the first line of its text."""
        return {hostname: text for errors in self._errors.values() for hostname, text in errors.items()}

    def answered(self, method: str) -> frozenset[str]:
        """Return the workers that answered this command, errors aside."""
        return frozenset(self._answers[method])

    def settled(self, method: str) -> frozenset[str]:
        """Return the workers that replied to this command, with an answer or an error."""
        return self.answered(method) | self._errors[method].keys()

    def answer(self, method: str, hostname: str) -> object:
        """Return a worker's answer to a command that has no method of its own here, as plain JSON values."""
        return self._answers[method].get(hostname)

    def stats(self, hostname: str) -> WorkerStats | None:
        """Return what a worker says about itself."""
        answer = self._answers["stats"].get(hostname)
        return _stats(answer) if isinstance(answer, _Stats) else None

    def queues(self, hostname: str) -> tuple[ConsumedQueue, ...] | None:
        """Return the queues that a worker consumes; one with several bindings comes several times."""
        answer = self._answers["active_queues"].get(hostname)
        if not isinstance(answer, list):
            return None
        return tuple(queue for found in answer for queue in _queues(found))

    def tasks(self, method: str, hostname: str) -> list[WorkerTask] | None:
        """Return the tasks of a reply to ``active``, ``reserved`` or ``scheduled``."""
        answer = self._answers[method].get(hostname)
        if not isinstance(answer, list):
            return None
        requests = ((found.request, found.eta) if isinstance(found, _Scheduled) else (found, None) for found in answer)
        return [task for request, eta in requests if (task := _task(request, eta)) is not None]

    def count(self, method: str, hostname: str) -> int | None:
        """Return the number of tasks in a reply to ``active``, ``reserved`` or ``scheduled``."""
        answer = self._answers[method].get(hostname)
        return len(answer) if isinstance(answer, list) else None

    def registered(self, hostname: str) -> frozenset[str] | None:
        """Return the names of the tasks that a worker knows, Celery's own aside."""
        answer = self._answers["registered"].get(hostname)
        return None if not isinstance(answer, list) else frozenset(filter(None, map(text, answer)))

    def queried(self, hostname: str) -> list[tuple[str, WorkerTask]]:
        """Return the tasks of a reply to ``query_task``, each with its state (active, reserved, scheduled, ready)."""
        answer = self._answers["query_task"].get(hostname)
        found = answer.values() if isinstance(answer, dict) else ()
        return [(state, task) for state, request in found if (task := _task(request)) is not None]


def text(value: object) -> str | None:
    """Return a name or id of usual length, also one that kombu tagged."""
    value = untag(value)
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT else None


def mapping(value: object) -> Mapping[str, object]:
    """Return the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _of_one_worker(reply: dict[str, T], before: int) -> dict[str, T]:
    """Return a reply as it is; raises `msgspec.ValidationError` for what speaks for others too, or is one too many."""
    if len(reply) > 1 or any(len(hostname) > MAX_TEXT for hostname in reply):
        raise msgspec.ValidationError("it is not that of one worker")
    if before >= MAX_WORKERS:
        raise msgspec.ValidationError("there are too many of them")
    return reply


def _encoded(body: bytes | str) -> bytes:
    return body.encode(errors="replace") if isinstance(body, str) else bytes(body)


def _count_values(body: bytes) -> int:
    signs = body.count(b",") + body.count(b"[") + body.count(b"{")
    return signs if signs <= FEW_SIGNS else count_values(body, most=MAX_VALUES)


def _decode(method: str, body: bytes | str) -> dict[str, object]:
    kind = _TYPES.get(method, dict[str, object])
    decoder = _DECODERS.get(method)
    try:
        return decoder.decode(body) if decoder else msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if isinstance(error, msgspec.ValidationError):
            raise
    # Python's json writes NaN and lone surrogates, and a task's arguments may hold them.
    parsed = json.loads(body if isinstance(body, str) else body.decode("utf-8", "surrogateescape"))
    return msgspec.convert(parsed, kind)


def _stats(found: _Stats) -> WorkerStats:
    pool = mapping(found.pool)
    processes = pool.get("processes")
    pids = frozenset(pid for pid in processes if _count(pid) is not None) if isinstance(processes, list) else None
    limit = _count(pool.get("max-concurrency")) or None
    return WorkerStats(
        pid=_count(found.pid),
        pool=_pool_name(text(pool.get("implementation"))),
        slots=None if found.pool is None else len(pids) if pids else limit,
        processes=pids,
        totals=_totals(found.total),
        prefetch_count=_count(found.prefetch_count),
        uptime=_count(found.uptime),
    )


def _pool_name(implementation: str | None) -> str | None:
    if implementation is None:
        return None
    module = implementation.partition(":")[0].rpartition(".")[2]
    return "threads" if module == "thread" else module


def _totals(found: object) -> Mapping[str, int] | None:
    if not isinstance(found, dict):
        return None
    return {name: count for name, value in found.items() if (count := _count(value)) is not None}


def _queues(found: _Queue) -> Iterator[ConsumedQueue]:
    """Yield a queue once for each of its bindings; with a list of them it has no exchange (`kombu.entity.Queue`)."""
    name = text(found.name)
    if name is None:
        return
    bindings = found.bindings if isinstance(found.bindings, list) else []
    for binding in map(mapping, bindings[:MAX_BINDINGS]):
        exchange = mapping(binding.get("exchange"))
        yield ConsumedQueue(
            name, text(exchange.get("name")), text(exchange.get("type")), text(binding.get("routing_key"))
        )
    if not bindings:
        exchange = mapping(found.exchange)
        yield ConsumedQueue(name, text(exchange.get("name")), text(exchange.get("type")), text(found.routing_key))


def _task(found: _Request | None, eta: object = None) -> WorkerTask | None:
    task_id = text(id_text(found.id)) if found is not None else None
    if found is None or task_id is None:
        return None
    delivery = mapping(found.delivery_info)
    return WorkerTask(
        id=task_id,
        name=text(found.name),
        registered_name=text(found.type),
        started_at=_time(found.time_start),
        worker_pid=_count(found.worker_pid),
        exchange=text(delivery.get("exchange")),
        routing_key=text(delivery.get("routing_key")),
        redelivered=delivery.get("redelivered") is True,
        eta=text(eta),
        uuid_object=not isinstance(found.id, str),
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if 0 < value < 1e10 else None


def _first_line(error: str | float | None) -> str:
    return (str(error).strip().splitlines() or ["error"])[0][:MAX_ERROR]
