"""How deep the broker's queues are: what every broker's poller has in common, and which poller fits."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from celerymeter.broker import REDIS_TRANSPORTS
from celerymeter.model import OTHER, UNKNOWN, QueuesSnapshot
from celerymeter.settings import ExporterSettings


class QueuePoller(Protocol):
    """Looks at the broker's queues when asked; connects when needed, anew after a fault. Changes nothing."""

    def poll(self, names: Collection[str], *, now: float) -> QueuesSnapshot:
        """The state of the configured queues, else of ``names`` and of those that the broker itself knows.

        Raises `BrokerUnavailable` when the broker cannot be reached, `PollError` when it refuses.
        """

    def close(self) -> None:
        """Drop the connection; the next poll opens one."""


def open_queue_poller(settings: ExporterSettings) -> QueuePoller:
    """The poller for the broker's transport; does not connect yet."""
    if settings.broker.transport in REDIS_TRANSPORTS:
        from celerymeter.polling.redis.poller import RedisQueuePoller

        return RedisQueuePoller(settings)
    from celerymeter.polling.amqp import AmqpQueuePoller

    return AmqpQueuePoller(settings)


def is_task_queue(name: str) -> bool:
    """Whether tasks wait here: remote control, replies, events and broadcasts have queues of their own.

    ``bcast.…`` is a copy of a broadcast for one worker (`kombu.common.Broadcast`).
    """
    internal = name.endswith(".pidbox") or name.startswith(("celeryev.", "bcast."))
    return bool(name) and not internal and name not in (UNKNOWN, OTHER)


def chosen(settings: ExporterSettings, *known: Collection[str]) -> list[str]:
    """The queues to look at: those configured, else all that are known, without doubles and in order."""
    names = settings.queues or {name for some in known for name in some if is_task_queue(name)}
    return sorted(set(names))
