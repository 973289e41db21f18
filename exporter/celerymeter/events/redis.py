"""The fast reader for Redis: redis-py's connection, our own frames, no kombu between a message and its events."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import Any

import redis

from celerymeter.broker import RedisBroker, connect_redis
from celerymeter.errors import BrokerUnavailable
from celerymeter.events.pubsub import PATIENCE, Patience, PubSub
from celerymeter.events.stream import EventSink
from celerymeter.events.subscribe import stay_subscribed
from celerymeter.settings import BrokerSettings

CONNECT_TIMEOUT = 3.0
HANDSHAKE_TIMEOUT = 5.0

_GLOB = re.compile(r"[*?\[\\]")


class RedisReader:
    """Reads events from Redis: over TCP, TLS or a unix socket, alone or under Sentinel."""

    def __init__(self, broker: BrokerSettings, sink: EventSink, *, patience: Patience = PATIENCE) -> None:
        timeouts = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": HANDSHAKE_TIMEOUT}
        self._settings = replace(broker, transport_options={**timeouts, **broker.transport_options})
        self._exchange = str(broker.celery_settings.get("event_exchange", "celeryev"))
        self._sink = sink
        self._patience = patience
        self._stop = threading.Event()
        self._broker: RedisBroker | None = None

    def run(self) -> None:
        """Read until `stop`."""
        stay_subscribed(self._subscribe, self._sink, self._stop)

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()

    def _subscribe(self) -> PubSub:
        """Connect as last time if that works; else find out anew where the broker is (the next URL of several).

        With Sentinel every connection asks for the master.
        """
        broker, self._broker = self._broker, None
        try:
            broker = broker or connect_redis(self._settings)
            subscription = self._open(broker)
        except redis.RedisError as error:
            raise BrokerUnavailable(f"{self._settings.safe_url}: {error}") from error
        self._broker = broker
        return subscription

    def _open(self, broker: RedisBroker) -> PubSub:
        connection: Any = broker.client.connection_pool.make_connection()
        try:
            connection.connect()
            return PubSub(connection, self._patterns(broker), self._patience)
        except BaseException:
            connection.disconnect()
            raise

    def _patterns(self, broker: RedisBroker) -> tuple[str, ...]:
        """The exchange's channels, one for each routing key (or a single one without `fanout_patterns`)."""
        name = _GLOB.sub(r"\\\g<0>", broker.keys.topic(self._exchange))
        return (f"{name}/*" if broker.keys.fanout_patterns else name,)
