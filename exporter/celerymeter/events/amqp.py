"""Reads events from RabbitMQ through kombu: a queue for this process, bound to the event exchange.

The queue outlives a connection by ``event_queue_expires`` and keeps each message for ``event_queue_ttl``, so that a
short loss of the connection loses nothing. It is durable because newer RabbitMQ releases deprecate queues that are
neither durable nor exclusive; the messages in it are not persistent.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Any

from celery.events.event import get_exchange
from kombu.entity import Queue

from celerymeter.broker import celery_app, reaching
from celerymeter.errors import BrokerUnavailable
from celerymeter.events.decode import Decoder
from celerymeter.events.reader import EventSink, stay_subscribed
from celerymeter.model import Event
from celerymeter.settings import BrokerSettings

HEARTBEAT = 5.0
"""Seconds; a peer that misses two of them is gone."""
REPLY_TIMEOUT = 5.0
TICK = 0.25
"""Longest wait for a message, so that a stop is noticed."""
REST = 0.02
"""Pause after a delivery, so that a steady stream comes in batches."""
BATCH = 500
"""Messages that are handed over together."""
BATCH_BYTES = 1024 * 1024
"""Bytes of messages that end a batch: 500 of the largest would be many gigabytes."""


class KombuReader:
    """Reads events from an AMQP broker."""

    def __init__(self, broker: BrokerSettings, sink: EventSink, *, heartbeat: float = HEARTBEAT) -> None:
        timeouts = {"read_timeout": REPLY_TIMEOUT, "write_timeout": REPLY_TIMEOUT}
        self._settings = replace(broker, transport_options={**timeouts, **broker.transport_options})
        self._heartbeat = heartbeat
        self._queue_name = f"{broker.celery_settings.get('event_queue_prefix', 'celeryev')}.celerymeter.{uuid.uuid4()}"
        self._sink = sink
        self._stop = threading.Event()

    def run(self) -> None:
        """Read until `stop`."""
        stay_subscribed(self._subscribe, self._sink, self._stop)

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()

    def _subscribe(self) -> AmqpSubscription:
        app = celery_app(self._settings)
        connection = app.connection_for_read(heartbeat=self._heartbeat)
        try:
            with reaching(self._settings):
                attempts = max(1, len(connection.alt))
                connection.ensure_connection(max_retries=attempts, interval_start=0, interval_step=0)
                queue: Any = Queue(
                    self._queue_name,
                    exchange=get_exchange(connection, name=app.conf.event_exchange),
                    routing_key="#",
                    message_ttl=self._settings.event_queue_ttl,
                    expires=self._settings.event_queue_expires,
                )
                return AmqpSubscription(connection, queue)
        except BaseException:
            connection.collect()
            raise


class AmqpSubscription:
    """A consumer of ``queue`` on a kombu connection, which it takes over. Raises `BrokerUnavailable`."""

    def __init__(self, connection: Any, queue: Any) -> None:
        self._connection = connection
        self._messages: list[Any] = []
        self._bytes = 0
        self._waited_from = 0.0
        """The time before the last wait for the socket."""
        channel = connection.default_channel
        channel.auto_decode = False
        self._queue = queue(channel)
        self._queue.declare()
        channel.basic_consume(queue=queue.name, no_ack=True, callback=self._take)

    def deliver(self, sink: EventSink, stop: threading.Event) -> None:
        """Hand events to ``sink`` until ``stop`` is set, then delete the queue."""
        decoder = Decoder(sink.rejected)
        while not stop.is_set():
            try:
                self._drain()
            finally:  # what came before a loss counts
                self._hand_over(decoder, sink)
        with suppress(Exception):
            self._queue.delete()

    def close(self) -> None:
        """Close the connection without the closing handshake, for which a dead peer would make us wait."""
        with suppress(Exception):
            self._connection.collect()

    def _take(self, message: Any) -> None:
        self._messages.append(message)
        self._bytes += len(message.body)

    def _drain(self) -> None:
        """Take what has come, up to a batch, and keep the heartbeats going."""
        wait = TICK
        try:
            with suppress(TimeoutError):
                while len(self._messages) < BATCH and self._bytes < BATCH_BYTES:
                    self._waited_from = time.time()
                    self._connection.drain_events(timeout=wait)
                    wait = 0
            self._connection.heartbeat_check()
        except Exception as error:  # pyamqp raises anything, AttributeError too, when its connection is lost
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BrokerUnavailable(f"connection lost: {reason}") from error

    def _hand_over(self, decoder: Decoder, sink: EventSink) -> None:
        if not self._messages:
            sink.events([], self._waited_from)
            return
        at, full = time.time(), self._bytes >= BATCH_BYTES
        events: list[Event] = []
        messages, self._messages, self._bytes = self._messages, [], 0
        for message in messages:
            properties = message.properties
            events += decoder.bare(
                message.body,
                content_type=properties.get("content_type"),
                content_encoding=properties.get("content_encoding"),
            )
        sink.events(events, at)
        if not full:
            time.sleep(REST)
