"""The sources of evidence, as one value: revocations and look-ups ask the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from celerymeter.control.evidence.amqp_queues import AmqpQueues
from celerymeter.control.evidence.events import EventCache
from celerymeter.control.evidence.models import Termination
from celerymeter.control.evidence.redis_queues import RedisQueues
from celerymeter.control.evidence.result_backend import ResultBackend
from celerymeter.control.evidence.workers import WorkerInspector
from celerymeter.control.live_workers import LiveWorkers


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that can be asked about a task."""

    workers: WorkerInspector
    event_cache: EventCache
    live_workers: LiveWorkers
    result_backend: ResultBackend | None
    broker: RedisQueues | AmqpQueues | None
    previously_terminated: Callable[[Sequence[str]], Mapping[str, Termination]]
    control_exchange: str = "celery"
    """The exchange of remote control, as `control_exchange` names it."""
