"""Collects what is known about many task ids before a revoke: events, results, workers, and the lists of Redis.

Celery has no look-up of a task by its id, hence all of these. `look` collects more about single tasks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from celerymeter.control.evidence.events import with_remembered
from celerymeter.control.evidence.models import TaskEvidence
from celerymeter.control.evidence.redis_queues import RedisQueues
from celerymeter.control.evidence.sources import Sources
from celerymeter.errors import RequestRefused


class EvidenceCollector:
    """Collects evidence; thread-safe. ``until`` is of `time.monotonic`."""

    def __init__(self, sources: Sources) -> None:
        self._workers = sources.workers
        self.event_cache = sources.event_cache
        self._live_workers = sources.live_workers
        self._result_backend = sources.result_backend
        self._queues = sources.broker if isinstance(sources.broker, RedisQueues) else None
        self._previously_terminated = sources.previously_terminated

    def collect(self, task_ids: Sequence[str], *, until: float) -> TaskEvidence:
        """Find the live workers and the ids; raises `BrokerUnavailable`, or `RequestRefused` when no worker lives."""
        # The result backend first: what a worker holds goes before a stored state, so it must be the newer answer.
        states = self._result_backend.states(task_ids) if self._result_backend is not None else {}
        asked_at = time.time()
        inspection = self._workers.inspect(task_ids, expected=self._live_workers.expected(), until=until)
        # Heartbeats as well: a worker that is busy, or has not reconnected yet, does not reply and still counts.
        self._live_workers.answered(inspection.replied)
        workers = inspection.replied | self._live_workers.alive()
        if not workers:
            raise RequestRefused(
                "no_workers",
                "no worker is alive: a revoke would be lost, so nothing was sent or stored; repeat it once one runs",
                retry_after=5.0,
            )
        events = with_remembered(self.event_cache.last_events(task_ids), inspection.remembered)
        # Reading lists is the dearest look-up, so only for ids that nothing else knows.
        unseen = [task_id for task_id in task_ids if task_id not in inspection.held and task_id not in states]
        queues = inspection.queues | {event.queue for event in events.values() if event.queue}
        announced = [task_id for task_id, event in events.items() if event.only_announces]
        queued = self._queues.find(unseen, queues) if self._queues is not None and unseen else {}
        return TaskEvidence(
            asked_at,
            workers=workers,
            answered=inspection.answered,
            replied=bool(inspection.replied),
            events=events,
            states=states,
            held=inspection.held,
            queued={task_id: waiting.queue for task_id, waiting in queued.items()},
            uuid_objects=frozenset(task_id for task_id, waiting in queued.items() if waiting.uuid_object),
            previously_terminated=self._previously_terminated(announced) if announced else {},
        )
