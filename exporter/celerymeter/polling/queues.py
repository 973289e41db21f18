"""The interface of queue pollers, and which names are queues of tasks."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Protocol

from celerymeter.model import OTHER, UNKNOWN, QueuesSnapshot
from celerymeter.settings import ExporterSettings

_DELAYED = re.compile(r"(?:.*_)?celery_delayed_\d{1,2}")


class QueuePoller(Protocol):
    """Reads the broker's queues and changes nothing; connects when needed, anew after an error."""

    def poll(self, names: Collection[str], *, now: float) -> QueuesSnapshot:
        """Return the state of the configured queues, else of ``names`` and of those that the broker itself knows.

        Raises `BrokerUnavailable` when the broker cannot be reached, `PollError` when it refuses.
        """

    def close(self) -> None:
        """Drop the connection; the next poll opens one."""


def is_delay_level(name: str) -> bool:
    """Return whether RabbitMQ keeps tasks here until their ETA (`kombu.transport.native_delayed_delivery`)."""
    return _DELAYED.fullmatch(name) is not None


def is_task_queue(name: str) -> bool:
    """Return whether tasks wait here: remote control, replies, events and broadcasts have queues of their own.

    ``bcast.…`` is a copy of a broadcast for one worker (`kombu.common.Broadcast`).
    """
    internal = name.endswith(".pidbox") or name.startswith(("celeryev.", "bcast.")) or is_delay_level(name)
    return bool(name) and not internal and name not in (UNKNOWN, OTHER)


def chosen(settings: ExporterSettings, *known: Collection[str]) -> list[str]:
    """Return the queues to poll: those configured, else all that are known, without doubles and in order."""
    names = settings.queues or {name for some in known for name in some if is_task_queue(name)}
    return sorted(set(names))
