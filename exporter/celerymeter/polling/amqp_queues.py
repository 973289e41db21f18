"""Polls queues on RabbitMQ by declaring them passively; kombu's other transports answer the same question.

Classic and quorum queues report their ready messages and consumers. Only the management API knows unacknowledged
messages, and nobody knows the head of a queue without taking it out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec
import requests

from celerymeter.broker import UNREACHABLE, HeldConnection
from celerymeter.errors import PollError, SettingsError
from celerymeter.model import QueuesSnapshot, QueueState
from celerymeter.polling.queues import chosen
from celerymeter.settings import ExporterSettings
from celerymeter.urls import without_password

MANAGEMENT_TIMEOUT = 5.0
MAX_PAGE = 32 * 2**20
"""Bytes of a reply of the management API; more than 100,000 queues fit."""


class AmqpQueuePoller:
    """A `QueuePoller` over a kombu connection."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._settings = settings
        self._held = HeldConnection(settings.broker)
        url = settings.rabbitmq_management_url
        self._management = Management(url, broker_url=settings.broker.url) if url else None

    def poll(self, names: Collection[str], *, now: float) -> QueuesSnapshot:
        """See `QueuePoller.poll`; a queue that does not exist, or is exclusive to its connection, is left out."""
        unacked: Mapping[str, int | None] = {}
        incomplete = None
        if self._management is not None:
            try:
                unacked = self._management.unacked()
            except PollError as error:
                incomplete = str(error)
        queues = chosen(self._settings, names, unacked)
        states = self._held.use(lambda connection: _states(connection, queues, unacked))
        if self._management is not None and states and incomplete is None and not unacked:
            incomplete = f"{self._management} lists no queue: is it the right virtual host?"
        return QueuesSnapshot(at=now, queues=tuple(states), incomplete=incomplete)

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
    """RabbitMQ's management API, in one request for all queues.

    The URL is that of the server, of its API or of its web interface, and may end with a virtual host; without one it
    is the broker URL's. Raises `SettingsError` for a URL that cannot be right.
    """

    def __init__(self, url: str, *, broker_url: str) -> None:
        parts = urlsplit(url)
        path = [part for part in parts.path.split("/") if part]
        # What people paste: `/api/`, `/api/queues/VHOST`, `/#/queues`. A virtual host of the name api is `/api/api`.
        if path[:1] == ["api"]:
            path = path[2:] if path[1:2] == ["queues"] else path[1:]
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or len(path) > 1:
            raise SettingsError(
                "--rabbitmq-management-url: expected http://USER:PASSWORD@HOST:15672 or the same with /VHOST,"
                f" not {without_password(url)}"
            )
        broker_vhost = urlsplit(broker_url.split(";", maxsplit=1)[0]).path[1:]
        vhost = unquote("".join(path) or broker_vhost) or "/"
        host = parts.netloc.rpartition("@")[2]
        self._api = f"{parts.scheme}://{host}/api/queues/{quote(vhost, safe='')}"
        self._auth = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))

    def __str__(self) -> str:
        return self._api

    def unacked(self) -> dict[str, int | None]:
        """Return unacknowledged messages by queue; raises `PollError`.

        ``None`` where the broker collects no statistics, which newer releases let one turn off.
        """
        # Not `enable_queue_totals`: with it RabbitMQ 3.10 says 0 for every quorum queue.
        url = f"{self._api}?columns=name,messages_unacknowledged"
        try:
            with requests.get(url, auth=self._auth, timeout=MANAGEMENT_TIMEOUT, stream=True) as response:
                response.raise_for_status()
                queues = msgspec.json.decode(response.raw.read(MAX_PAGE, decode_content=True), type=list[_Queue])
        except (requests.RequestException, msgspec.DecodeError, OSError) as error:
            raise PollError(f"no unacknowledged messages: {self}: {error}") from error
        return {queue.name: queue.messages_unacknowledged for queue in queues}
