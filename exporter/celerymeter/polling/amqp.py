"""Queue depths on RabbitMQ, by declaring queues passively; other transports of kombu answer the same question.

Classic and quorum queues tell their ready messages and consumers. Unacknowledged messages are known to the management
API alone, and the head of a queue to nobody without taking it out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from celerymeter.broker import UNREACHABLE, HeldConnection
from celerymeter.model import QueuesSnapshot, QueueState
from celerymeter.polling.management import Management
from celerymeter.polling.queues import chosen
from celerymeter.settings import ExporterSettings


class AmqpQueuePoller:
    """A `QueuePoller` over a kombu connection."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._settings = settings
        self._held = HeldConnection(settings.broker)
        url = settings.rabbitmq_management_url
        self._management = Management(url, broker_url=settings.broker.url) if url else None

    def poll(self, names: Collection[str], *, now: float) -> QueuesSnapshot:
        """See `QueuePoller.poll`; a queue that does not exist, or is another connection's own, is left out."""
        unacked = self._management.unacked() if self._management else {}
        queues = chosen(self._settings, names, unacked)
        states = self._held.use(lambda connection: _states(connection, queues, unacked))
        return QueuesSnapshot(at=now, queues=tuple(states))

    def close(self) -> None:
        """See `QueuePoller.close`."""
        self._held.close()


def _states(connection: Any, queues: Collection[str], unacked: Mapping[str, int | None]) -> list[QueueState]:
    states = []
    counts_consumers = connection.transport.driver_type == "amqp"
    with _Declarer(connection) as declarer:
        for queue in queues:
            found = declarer.look(queue)
            if found is not None:
                length, consumers = found
                consumers_known = consumers if counts_consumers else None
                states.append(QueueState(queue, length, unacked=unacked.get(queue), consumers=consumers_known))
    return states


class _Declarer:
    """One channel after another: a broker closes the channel on which a queue was missing."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel: Any = None

    def look(self, queue: str) -> tuple[int, int] | None:
        """Ready messages and consumers, or ``None`` for a queue that is not there or not for us."""
        if self._channel is None:
            self._channel = self._connection.channel()
        try:
            declared = self._channel.queue_declare(queue=queue, passive=True)
        except self._connection.channel_errors:
            self._channel = None
            return None
        return declared.message_count, declared.consumer_count

    def __enter__(self) -> _Declarer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel is not None:
            with suppress(*UNREACHABLE):
                self._channel.close()
