"""All events of a broker as they come, taken off it by kombu and kept: as plain as can be, to compare with."""

from __future__ import annotations

import base64
import json
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from celery.events.event import get_exchange
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer
from tests.events.sentinel import PASSWORD, SENTINEL_PASSWORD, SentinelCluster

ARRIVED = "celerymeter_arrived"
"""The key of a recorded event under which its time of arrival stands."""


class Recorder:
    """A thread that consumes the exchange ``celeryev`` while the context is open."""

    def __init__(self, broker_url: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._arrivals: list[float] = []
        self.last_task_event = time.monotonic()
        self._url = broker_url
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._consume, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(30)

    def save(self, path: Path) -> None:
        """Write one event a line, with the time of its arrival."""
        arrived = ({**event, ARRIVED: at} for (event, at) in zip(list(self.events), self._arrivals, strict=False))
        path.write_text("".join(json.dumps(event) + "\n" for event in arrived))

    def _consume(self) -> None:
        with Connection(self._url) as connection:
            exchange = get_exchange(connection)
            queue: Any = Queue("", exchange, routing_key="#", exclusive=True, auto_delete=True, durable=False)
            consumer: Any = Consumer(connection, [queue], callbacks=[self._take], no_ack=True, accept=["json"])
            with consumer:
                self._ready.set()
                while not self._over.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=1)

    def _take(self, body: Any, _message: object) -> None:
        for event in body if isinstance(body, list) else [body]:
            self._arrivals.append(time.time())
            self.events.append(event)
            if event["type"].startswith("task-"):
                self.last_task_event = time.monotonic()


class SentinelRecorder(Recorder):
    """The same for Redis under Sentinel: on the channels of every release of kombu, of one master after the other."""

    def __init__(self, cluster: SentinelCluster) -> None:
        super().__init__(cluster.url)
        self._sentinel_port = cluster.port
        self.connections = 0

    def _consume(self) -> None:
        while not self._over.is_set():
            with suppress(redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
                self._listen()
            self._over.wait(0.05)

    def _listen(self) -> None:
        with redis.Redis(port=self._sentinel_port, password=SENTINEL_PASSWORD) as sentinel:
            host, port = sentinel.sentinel_get_master_addr_by_name("shop")
        with redis.Redis(host=host, port=port, password=PASSWORD) as master, master.pubsub() as events:
            events.psubscribe("*celeryev*")
            while not self._over.is_set():
                message = events.get_message(timeout=1)
                if message is not None and message["type"] == "psubscribe":
                    self.connections += 1
                    self._ready.set()
                elif message is not None:
                    self._take(json.loads(base64.b64decode(json.loads(message["data"])["body"])), message)
