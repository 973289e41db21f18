"""One aggregating worker process: what Celery reports goes in, `celerymeter-totals` messages come out."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celery.worker import state as worker_state

from celerymeter.aggregate.counting import Fields, RunCounter
from celerymeter.aggregate.queues import MessageQueues
from celerymeter.buckets import RUNTIME_BUCKETS, WAIT_BUCKETS
from celerymeter.stamp import HEADER

log = logging.getLogger(__name__)

VERSION = 1
"""Of the message; the exporter refuses those that it does not know."""
FULL_INTERVAL = 30.0
"""Seconds after which a message has all series again, changed or not."""
MAX_FOLLOWED = 10_000
ENDS = frozenset({"task-succeeded", "task-failed", "task-revoked"})
"""Events after which a followed task is not followed any more; a retry is not its end, and neither is a terminate."""
PUBLISHED = frozenset({"task-revoked", "task-rejected"})
"""Task events that are always published: they are rare, and the client that revoked a task waits for the first."""


@dataclass(frozen=True)
class Options:
    """The arguments of `install`."""

    runtime_buckets: tuple[float, ...] = RUNTIME_BUCKETS
    wait_buckets: tuple[float, ...] = WAIT_BUCKETS
    push_url: str | None = None
    token_file: str | None = None


class Member:
    """Totals of one worker process; survives reconnects, which make a new event dispatcher.

    ``worker`` is Celery's `WorkController` (untyped). Nothing here raises into a task: see `guarded`. Its totals are
    timed by ``steady``, so that a clock that is set changes no duration; what goes out is UTC by ``clock``.
    """

    def __init__(
        self,
        worker: Any,
        options: Options,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.instance = uuid.uuid4().hex
        self.failed = False
        """True after an error of ours: from then on the worker sends its events as it would without us."""
        self.draining = False
        """True once the worker has said that it goes offline: there are no more heartbeats, but tasks still end."""
        self.followed: dict[str, float] = {}
        """Ids whose events are published too, and until when (``steady``)."""
        self.worker = worker
        self._clock = clock
        self._steady = steady
        self._options = options
        self.totals = RunCounter(runtime_buckets=options.runtime_buckets, wait_buckets=options.wait_buckets)
        self._queues = MessageQueues()
        self._silent: dict[str, bool] = {}
        """True for tasks that send no events, by name."""
        self._began = steady()
        self._processed_before = worker_state.all_total_count[0]
        self._full_at = 0.0
        self._sequence = 0
        self._message_lock = threading.RLock()
        self._counters: Mapping[str, Callable[[str, Fields, float], object]] = {
            "task-started": lambda uuid, _, now: self.totals.started(uuid, now),
            "task-succeeded": self.totals.succeeded,
            "task-failed": self.totals.failed,
            "task-retried": self.totals.retried,
            "task-rejected": self.totals.rejected,
            "task-revoked": self.totals.revoked,
            "task-cancelled": self.totals.cancelled,
            "task-received": lambda *_: None,  # counted by the signal, which has the request
        }

    # Celery reports

    def count(self, event: str, fields: Fields) -> bool:
        """Take a step of a run; return False if this is an event that we do not count."""
        counter = self._counters.get(event)
        if counter is None:
            return False
        counter(fields["uuid"], fields, self._steady())
        return True

    def wants(self, event: str, fields: Fields) -> bool:
        """Return True if an event that is counted is to be published as well."""
        task_id = fields["uuid"]
        if task_id in self.followed:
            if event in ENDS and not fields.get("terminated"):
                self.followed.pop(task_id, None)
            return True
        return event in PUBLISHED

    def received(self, request: Any) -> None:
        """Take a request (`celery.worker.request.Request`) that was just received."""
        if self.failed or not request.task.send_events:
            return
        headers = request.request_dict
        queue = self._queues.find(request.delivery_info)
        run = self.totals.received(
            request.id, request.type, queue, now=self._steady(), retries=headers.get("retries") or 0
        )
        sent, to_utc = _number(headers.get(HEADER)), self._to_utc()
        run.sent = None if sent is None else sent - to_utc
        run.eta = None if request.eta is None else request.eta.timestamp() - to_utc

    def _to_utc(self) -> float:
        """Return what makes a time of the totals UTC by the clock as it is now."""
        return self._clock() - self._steady()

    def revoked(self, context: Any, name: str) -> None:
        """Take Celery's signal about a revoked task: it has the name of one that was never received."""
        self.totals.name_revoked(context.id, name, self._queues.find(context.delivery_info or {}))

    def guarded(self, work: Callable[[], object]) -> bool:
        """Do something that must never hurt the worker; return False if it failed, now or before."""
        if self.failed:
            return False
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on as if we were not there
            self.give_up(error)
            return False
        return True

    def give_up(self, error: Exception) -> None:
        """Stop counting: events take over, and the last message tells the exporter."""
        if not self.failed:
            self.failed = True
            log.error("celerymeter: counting failed, this worker sends task events from now on", exc_info=error)

    # Messages

    def reconnected(self) -> None:
        """The worker has a new connection to its broker."""
        self.draining = False
        self.totals.reconnected()
        self.send_all_next()

    def send_all_next(self) -> None:
        """Put every series into the next message, because the last one may be lost."""
        self._full_at = 0.0

    @property
    def has_news(self) -> bool:
        """True if something was counted since the last message."""
        return not self.failed and self.totals.has_news

    def message(self, *, final: bool = False) -> dict[str, Any]:
        """Return the next message: the field ``totals`` of a `celerymeter-totals` event."""
        with self._message_lock:
            now = self._steady()
            full = final or now >= self._full_at
            if full:
                self._full_at = now + FULL_INTERVAL
                self._queues.refresh(self._consumed())
                self._forget_followed(now)
            processed = worker_state.all_total_count[0] - self._processed_before - self._silently_begun()
            totals, active = self.totals, _active()
            rows = totals.rows(now, active=active, full=full, final=final, to_utc=self._to_utc())
            processed -= totals.unstarted(active or ())
            self._sequence += 1
            return {
                "version": VERSION,
                "instance": self.instance,
                "sequence": self._sequence,
                "full": full,
                "failed": self.failed,
                "age": round(now - self._began, 3),
                "begun": worker_state.all_total_count[0],
                "processed": max(0, processed),
                "started": totals.started_total,
                "runtime_bounds": self._options.runtime_buckets,
                "wait_bounds": self._options.wait_buckets,
                "series": rows,
                "unmeasured": dict(totals.unmeasured),
                "duplicates": dict(totals.duplicates),
                "folded": dict(totals.series.folded),
            }

    def _consumed(self) -> Iterable[Any]:
        consumer = getattr(getattr(self.worker, "consumer", None), "task_consumer", None)
        return list(consumer.queues) if consumer is not None else self.worker.app.amqp.queues.consume_from.values()

    def _silently_begun(self) -> int:
        """Runs of tasks that send no events (``send_events=False``), which are counted nowhere."""
        silent = 0
        for name, count in list(worker_state.total_count.items()):
            if name not in self._silent:
                task = self.worker.app.tasks.get(name)
                self._silent[name] = task is not None and not task.send_events
            if self._silent[name]:
                silent += count
        return silent

    # For remote control

    def follow(self, ids: Collection[str], seconds: float) -> int:
        """Publish the events of these tasks too, until they end or the time is over; return how many are accepted."""
        now = self._steady()
        self._forget_followed(now)
        room = MAX_FOLLOWED - len(self.followed)
        known = [task_id for task_id in ids if task_id in self.followed]
        new = [task_id for task_id in ids if task_id not in self.followed][:room]
        self.followed.update(dict.fromkeys([*known, *new], now + seconds))
        return len(known) + len(new)

    def task(self, task_id: str) -> dict[str, Any] | None:
        """Return what this worker knows of a task, see `celerymeter.aggregate.commands`."""
        run = self.totals.lookup(task_id)
        if run is None:
            return None
        request = worker_state.requests.get(task_id)
        known: dict[str, Any] = {"state": run.state, "name": run.series.name, "queue": run.series.queue}
        times = {"received": run.received, "started": run.started, "ended": run.ended, "eta": run.eta}
        to_utc = self._to_utc()
        known |= {step: at + to_utc if at else None for step, at in times.items()}
        known["retries"] = run.retries
        return known | {"pid": request.worker_pid if request is not None and not run.ended else None}

    def _forget_followed(self, now: float) -> None:
        for task_id in [task_id for task_id, until in list(self.followed.items()) if until <= now]:
            self.followed.pop(task_id, None)


def _active() -> frozenset[str] | None:
    """Return the uuids that Celery runs now; ``None`` if another thread has just changed them."""
    try:
        return frozenset(request.id for request in worker_state.active_requests)
    except RuntimeError:
        return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
