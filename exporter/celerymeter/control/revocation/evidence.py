"""Collects what is known about task ids: events, the result backend, the workers, and the lists of a Redis broker.

Celery has no look-up of a task by its id, hence all of these.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, Final

import redis
from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend

from celerymeter.broker import RedisBroker, connect_redis, reaching
from celerymeter.control.live_workers import LiveWorkers
from celerymeter.control.revocation import decide
from celerymeter.control.revocation.models import LastEvent, TaskEvidence, TaskResult
from celerymeter.control.revocation.workers import Workers
from celerymeter.errors import BrokerUnavailable, RequestRefused, SettingsError
from celerymeter.model import Event
from celerymeter.polling.redis_messages import parse_head
from celerymeter.settings import BrokerSettings
from celerymeter.urls import without_password

MAX_EVENTS: Final = 200_000
MAX_EVENT_AGE: Final = 86400.0
REPLIED: Final = 60.0
"""Seconds for which a worker that replied once is waited for."""
TASK_EVENTS: Final = frozenset(
    f"task-{kind}" for kind in ("sent", "received", "started", "succeeded", "failed", "rejected", "revoked", "retried")
)

LOOKUP_TIMEOUT: Final = 1.0
MAX_MESSAGES: Final = 10_000
PAGE: Final = 500
TAIL: Final = 1024
"""Bytes at a message's end that hold its properties, the task's id among them."""
_PAGE_SCRIPT: Final = """
local tails = {}
for index, message in ipairs(redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2])) do
  tails[index] = string.sub(message, -tonumber(ARGV[3]))
end
return tails
"""

log = logging.getLogger(__name__)


class EventCache:
    """Remembers the last event of each task; bounded in number and in age, thread-safe."""

    def __init__(self, *, most: int = MAX_EVENTS) -> None:
        self._most = most
        self._events: OrderedDict[str, LastEvent] = OrderedDict()
        self._lock = Lock()

    def add(self, events: Sequence[Event], at: float) -> None:
        """Remember events that were received at this time (UTC seconds)."""
        with self._lock:
            for event in events:
                if event.uuid is not None and event.type in TASK_EVENTS:
                    self._remember(event, event.uuid, at)
            self._forget(at)

    def last_events(self, task_ids: Collection[str]) -> Mapping[str, LastEvent]:
        """Return the last event of each of these tasks that is remembered."""
        with self._lock:
            return {task_id: self._events[task_id] for task_id in task_ids if task_id in self._events}

    def _remember(self, event: Event, task_id: str, at: float) -> None:
        before = self._events.pop(task_id, None)  # put back at the end: this id is young again
        last = LastEvent(
            type=event.type,
            at=at,
            worker=None if event.type == "task-sent" else event.hostname,
            name=event.name,
            queue=event.queue or event.routing_key,
            terminated=bool(event.terminated),
        )
        if before is not None:
            last = replace(last, name=last.name or before.name, queue=last.queue or before.queue)
            # A producer's task-sent often arrives after the worker's events; only a retry is really sent again.
            if event.type == "task-sent" and before.type != "task-retried":
                last = replace(before, name=last.name, queue=last.queue)
        self._events[task_id] = last

    def _forget(self, now: float) -> None:
        while self._events:
            oldest = next(iter(self._events.values()))
            if len(self._events) <= self._most and oldest.at >= now - MAX_EVENT_AGE:
                return
            self._events.popitem(last=False)


class ResultBackend:
    """A key-value result backend, asked by one MGET; raises `SettingsError` for one of another kind."""

    def __init__(self, url: str, broker: BrokerSettings) -> None:
        app = Celery("celerymeter", backend=url, set_as_current=False, fixups=[])
        app.conf.update(broker.celery_settings)
        # Pickled results are never loaded, and a dead backend must not use up the time of an answer.
        app.conf.update(
            accept_content=["json"],
            result_serializer="json",
            redis_socket_timeout=LOOKUP_TIMEOUT,
            redis_socket_connect_timeout=LOOKUP_TIMEOUT,
            redis_retry_on_timeout=False,
        )
        try:
            backend: Any = app.backend
        except Exception as error:  # a driver that is not installed raises what it likes
            raise SettingsError(f"--result-backend-url {without_password(url)}: cannot be used") from error
        if not isinstance(backend, BaseKeyValueStoreBackend):
            raise SettingsError(f"--result-backend-url {without_password(url)}: not a key-value backend (redis://, …)")
        self._backend: Any = backend

    def states(self, task_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the stored states; what cannot be read now is left out."""
        if not task_ids:
            return {}
        try:
            stored = self._backend.mget([self._backend.get_key_for_task(task_id) for task_id in task_ids])
        except Exception as error:  # noqa: BLE001 - every backend has errors of its own; other evidence must do
            log.warning("the result backend does not answer (%s)", type(error).__name__)
            return {}
        found = {task_id: self._state(value) for task_id, value in zip(task_ids, stored, strict=False) if value}
        return {task_id: state for task_id, state in found.items() if state}

    def _state(self, value: Any) -> str | None:
        try:
            meta = self._backend.decode(value)
        except Exception:  # noqa: BLE001 - not JSON, or compressed: it says nothing
            return None
        status = meta.get("status") if isinstance(meta, dict) else None
        return status if isinstance(status, str) else None


class RedisQueues:
    """The lists in which Redis keeps queues, of all priorities: at most 10,000 messages, and one second."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._settings = broker
        self._broker: RedisBroker | None = None

    def find(self, task_ids: Collection[str], queues: Collection[str]) -> Mapping[str, str]:
        """Return the queue of each id that waits; none while the broker is away."""
        try:
            with reaching(self._settings):
                self._broker = self._broker or connect_redis(self._settings)
                return self._search(self._broker, set(task_ids), sorted(queues))
        except BrokerUnavailable as error:
            self._broker = None
            log.warning("the queues' lists cannot be read: %s", error)
            return {}

    def _search(self, broker: RedisBroker, wanted: set[str], queues: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        end, budget = time.monotonic() + LOOKUP_TIMEOUT, MAX_MESSAGES
        for queue, key in [(name, key) for name in queues for key in broker.keys.queue(name)]:
            start = 0
            while budget > 0 and len(found) < len(wanted) and time.monotonic() < end:
                # Backwards: kombu pushes on the left and workers take from the right (`kombu.transport.redis`).
                try:
                    tails: Any = broker.client.eval(_PAGE_SCRIPT, 1, key, -start - PAGE, -start - 1, TAIL)
                except redis.ResponseError as error:  # not a list, or the account may not run scripts
                    log.warning("the list %s cannot be read: %s", key, error)
                    break
                ids = (parse_head(tail).uuid for tail in tails)
                found.update({task_id: queue for task_id in ids if task_id in wanted})
                start, budget = start + PAGE, budget - len(tails)
                if len(tails) < PAGE:
                    break
        return found


class EvidenceCollector:
    """Collects evidence; thread-safe. ``until`` is of `time.monotonic`."""

    def __init__(
        self,
        workers: Workers,
        event_cache: EventCache,
        live_workers: LiveWorkers,
        *,
        result_backend: ResultBackend | None,
        queues: RedisQueues | None,
        previously_terminated: Callable[[Sequence[str]], Mapping[str, TaskResult]],
    ) -> None:
        self._workers = workers
        self.event_cache = event_cache
        self._live_workers = live_workers
        self._result_backend = result_backend
        self._queues = queues
        self._previously_terminated = previously_terminated
        self._replied_at: dict[str, float] = {}

    def collect(self, task_ids: Sequence[str], *, until: float) -> TaskEvidence:
        """Find the live workers and the ids; raises `BrokerUnavailable`, or `RequestRefused` when no worker lives."""
        # The result backend first: what a worker holds goes before a stored state, so it must be the newer answer.
        states = self._result_backend.states(task_ids) if self._result_backend is not None else {}
        asked_at = time.time()
        inspection = self._workers.inspect(task_ids, expected=self._expected(asked_at), until=until)
        self._replied_at = {**self._replied_at, **dict.fromkeys(inspection.replied, asked_at)}
        # Heartbeats as well: a worker that is busy, or has not reconnected yet, does not reply and still counts.
        workers = inspection.replied | self._live_workers.alive()
        if not workers:
            raise RequestRefused("no_workers", "no worker is alive: a revoke would be lost", retry_after=5.0)
        events = self.event_cache.last_events(task_ids)
        # Reading lists is the dearest look-up, so only for ids that nothing else knows.
        unseen = [task_id for task_id in task_ids if task_id not in inspection.held and task_id not in states]
        queues = inspection.queues | {event.queue for event in events.values() if event.queue}
        announced = [task_id for task_id, event in events.items() if decide.only_announces(event)]
        return TaskEvidence(
            asked_at,
            workers=workers,
            answered=inspection.answered,
            replied=bool(inspection.replied),
            events=events,
            states=states,
            held=inspection.held,
            queued=self._queues.find(unseen, queues) if self._queues is not None and unseen else {},
            previously_terminated=self._previously_terminated(announced) if announced else {},
        )

    def _expected(self, now: float) -> frozenset[str]:
        """Return the workers to wait for; none in particular until every one has had the time to send a heartbeat."""
        self._replied_at = {worker: at for worker, at in self._replied_at.items() if now - at < REPLIED}
        if not self._live_workers.informed:
            return frozenset()
        return self._live_workers.alive().union(self._replied_at)


def open_result_backend(url: str | None, broker: BrokerSettings) -> ResultBackend | None:
    """Return the configured backend, if any; raises `SettingsError`."""
    return ResultBackend(url, broker) if url else None
