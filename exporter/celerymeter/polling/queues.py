"""The interface of queue pollers, and which names are queues of tasks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Protocol

import msgspec

from celerymeter.model import OTHER, UNKNOWN, QueuesSnapshot
from celerymeter.routing import is_copy
from celerymeter.settings import ExporterSettings

MAX_KNOWN = 10_000
MAX_LENGTH = 255
"""Bytes of a queue's name in AMQP: events may invent longer ones, which no client can even ask for."""
_DELAYED = re.compile(r"(?:.*_)?celery_delayed_\d{1,2}")


class KnownQueues:
    """Names of queues that workers or events have named, for brokers that list none; `--state-file` keeps them."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()

    def add(self, names: Iterable[str]) -> None:
        """Remember these too, as long as there is room."""
        queues = {name for name in self.names.union(names) if is_task_queue(name) and len(name.encode()) <= MAX_LENGTH}
        self.names = frozenset(sorted(queues)[:MAX_KNOWN])

    def keep(self, existing: Iterable[str]) -> None:
        """Forget all others."""
        self.names = self.names.intersection(existing)

    def dump(self) -> list[str]:
        """Return what `load` takes after a restart."""
        return sorted(self.names)

    def load(self, saved: msgspec.Raw) -> None:
        """Take the names of before; raises `msgspec.DecodeError`."""
        self.add(name for name in msgspec.json.decode(saved, type=list[str]) if len(name) <= MAX_LENGTH)


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


def is_remote_queue(name: str) -> bool:
    """Return whether events, or commands and replies of remote control, wait here for a client that reads them."""
    return name.endswith(".pidbox") or name.startswith("celeryev.")


def is_task_queue(name: str) -> bool:
    """Return whether tasks wait here: remote control, replies, events and broadcasts have queues of their own.

    ``bcast.…`` is a copy of a broadcast for one worker (`kombu.common.Broadcast`).
    """
    internal = is_remote_queue(name) or is_copy(name) or is_delay_level(name)
    return bool(name) and not internal and name not in (UNKNOWN, OTHER)


def chosen(settings: ExporterSettings, *known: Collection[str]) -> list[str]:
    """Return the queues to poll: those configured, else all that are known, without doubles and in order."""
    names = settings.queues or {name for some in known for name in some if is_task_queue(name)}
    return sorted(set(names))
