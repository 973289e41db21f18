"""Queues of an AMQP broker, which shows how many messages a queue and the delay levels hold, never which.

Queues are declared passively, which changes nothing. A worker's own queue of remote control exists while the worker is
connected, so that it proves whether a silent worker is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any, Final

from celerymeter.broker import HeldConnection
from celerymeter.connection_errors import UNREACHABLE
from celerymeter.settings import BrokerSettings

LEVELS: Final = {f"celery_delayed_{level}": level for level in range(27, -1, -1)}
"""The queues of native delayed delivery (`kombu.transport.native_delayed_delivery`, which older releases lack)."""
RESOURCE_LOCKED: Final = 405
"""The reply code for a queue that exists and is exclusive to another connection."""


class AmqpQueues:
    """Asks the broker over a connection of its own; thread-safe. Its methods raise `BrokerUnavailable`."""

    def __init__(self, broker: BrokerSettings) -> None:
        self._held = HeldConnection(broker)
        self._lock = Lock()

    def depths(self, queues: Collection[str]) -> Mapping[str, int]:
        """Return the number of ready messages of the queues that exist."""
        with self._lock:
            found = self._held.use(lambda connection: _declare(connection, queues))
        return {queue: depth for queue, depth in found.items() if depth is not None}

    def delay_levels(self) -> Mapping[int, int]:
        """Return the number of messages of each delay level that exists."""
        return {LEVELS[name]: depth for name, depth in self.depths(LEVELS).items()}

    def connected(self, workers: Collection[str]) -> Mapping[str, bool]:
        """Return for each worker whether the broker has a connection of it."""
        with self._lock:
            return self._held.use(lambda connection: self._connected(connection, workers))

    def _connected(self, connection: Any, workers: Collection[str]) -> dict[str, bool]:
        mailbox = self._held.app.control.mailbox(connection)
        names = {worker: mailbox.get_queue(worker).name for worker in workers}
        found = _declare(connection, names.values())
        return {worker: name in found for worker, name in names.items()}


def _declare(connection: Any, queues: Collection[str]) -> dict[str, int | None]:
    """Return the depth of each queue that exists, None where it is another connection's own."""
    found: dict[str, int | None] = {}
    channel: Any = None
    for queue in queues:
        channel = channel or connection.channel()
        try:
            found[queue] = channel.queue_declare(queue=queue, passive=True).message_count
        except connection.channel_errors as error:
            channel = None  # the broker closes the channel on which a declaration failed
            if getattr(error, "reply_code", None) == RESOURCE_LOCKED:
                found[queue] = None
    if channel is not None:
        with suppress(*UNREACHABLE):
            channel.close()
    return found
