"""Polls queues on RabbitMQ by declaring them passively; kombu's other transports answer the same question.

Classic and quorum queues report their ready messages and consumers. Only the management API knows unacknowledged
messages, and nobody knows the head of a queue without taking it out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec
import requests

from celerymeter.broker import UNREACHABLE, HeldConnection
from celerymeter.model import QueuesSnapshot, QueueState
from celerymeter.polling.queues import chosen
from celerymeter.settings import ExporterSettings
from celerymeter.urls import without_password

MANAGEMENT_TIMEOUT = 5.0
MAX_PAGE = 32 * 2**20
"""Bytes of a reply of the management API; more than 100,000 queues fit."""

log = logging.getLogger(__name__)


class AmqpQueuePoller:
    """A `QueuePoller` over a kombu connection."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._settings = settings
        self._held = HeldConnection(settings.broker)
        url = settings.rabbitmq_management_url
        self._management = Management(url, broker_url=settings.broker.url) if url else None

    def poll(self, names: Collection[str], *, now: float) -> QueuesSnapshot:
        """See `QueuePoller.poll`; a queue that does not exist, or is exclusive to its connection, is left out."""
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
    channel: Any = None
    for queue in queues:
        channel = channel or connection.channel()
        try:
            declared = channel.queue_declare(queue=queue, passive=True)
        except connection.channel_errors:
            channel = None  # the broker closes the channel on which a queue was missing
            continue
        consumers = declared.consumer_count if counts_consumers else None
        states.append(QueueState(queue, declared.message_count, unacked=unacked.get(queue), consumers=consumers))
    if channel is not None:
        with suppress(*UNREACHABLE):
            channel.close()
    return states


class _Queue(msgspec.Struct):
    name: str
    messages_unacknowledged: int | None = None


class Management:
    """RabbitMQ's management API at ``http://user:password@host:15672/vhost``; without a path the broker's vhost."""

    def __init__(self, url: str, *, broker_url: str) -> None:
        parts = urlsplit(url)
        vhost = unquote(parts.path[1:] or urlsplit(broker_url.split(";", maxsplit=1)[0]).path[1:]) or "/"
        host = parts.netloc.rpartition("@")[2]
        # Not `enable_queue_totals`: with it RabbitMQ 3.10 says 0 for every quorum queue.
        self._url = f"{parts.scheme}://{host}/api/queues/{quote(vhost, safe='')}?columns=name,messages_unacknowledged"
        self._auth = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
        self._failing = False

    def unacked(self) -> dict[str, int | None]:
        """Return unacknowledged messages by queue in one request; empty, and logged once, while the API fails.

        ``None`` where the broker collects no statistics, which newer releases let one turn off.
        """
        try:
            with requests.get(self._url, auth=self._auth, timeout=MANAGEMENT_TIMEOUT, stream=True) as response:
                response.raise_for_status()
                queues = msgspec.json.decode(response.raw.read(MAX_PAGE, decode_content=True), type=list[_Queue])
        except (requests.RequestException, msgspec.DecodeError, OSError) as error:
            if not self._failing:
                log.warning("no unacknowledged messages: %s: %s", without_password(self._url), error)
            self._failing = True
            return {}
        self._failing = False
        return {queue.name: queue.messages_unacknowledged for queue in queues}
