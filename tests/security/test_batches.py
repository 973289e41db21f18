"""Messages from RabbitMQ are handed over before they take much memory."""

from __future__ import annotations

import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from tests.events.messages import message
from tests.events.sinks import RecordingSink

from celerymeter.events import decode
from celerymeter.events.amqp import BATCH, BATCH_BYTES, AmqpSubscription

TINY = b'{"type":"x","hostname":"h","timestamp":1}'


class Broker:
    """A connection that always has another message, as pyamqp's gives them; it stops after ``total``."""

    def __init__(self, body: bytes, total: int, stop: threading.Event) -> None:
        self.body, self.left, self.stop = body, total, stop
        self.waiting = self.most = 0
        self.default_channel = self
        self.name = "q"
        self.auto_decode = True

    def __call__(self, _channel: object) -> Broker:
        return self

    def declare(self) -> None: ...

    def delete(self) -> None: ...

    def heartbeat_check(self) -> None: ...

    def basic_consume(self, *, callback: Any, **_: object) -> None:
        self.callback = callback

    def drain_events(self, *, timeout: float) -> None:
        if not self.left:
            self.stop.set()
            raise TimeoutError
        self.left -= 1
        self.waiting += len(self.body)
        self.most = max(self.most, self.waiting)
        properties = {"content_type": "application/json", "content_encoding": "utf-8"}
        self.callback(SimpleNamespace(body=self.body, properties=properties))


@pytest.mark.parametrize("size", [100, 10_000, 1_000_000, 3_000_000, 17_000_000])
def test_a_batch_is_bounded_in_bytes(size: int) -> None:
    """500 messages of 1.5 MB were 742 MB."""
    body = b'{"type":"x","hostname":"h","timestamp":1,"args":"' + b"a" * size + b'"}'
    stop = threading.Event()
    broker = Broker(body, 40, stop)
    sink = RecordingSink()
    handed: list[int] = []

    def events(batch: Any, at: float) -> None:
        handed.append(len(batch))
        broker.waiting = 0

    sink.events = events  # type: ignore[method-assign]
    AmqpSubscription(broker, broker).deliver(sink, stop)
    assert broker.most <= BATCH_BYTES + len(body)
    assert sum(handed) == (40 if size < 16_000_000 else 0)
    assert max(handed, default=0) <= BATCH


@pytest.mark.parametrize("count", [24, 1000, 20_000, 100_000])
@pytest.mark.parametrize("joint", [b",", b" ,\n "])
def test_a_message_of_many_events_is_refused_before_it_is_objects(count: int, joint: bytes) -> None:
    """16 MB of the smallest events were 120 MB."""
    rejected: Counter[str] = Counter()
    decoder = decode.Decoder(lambda reason, number: rejected.update({reason: number}))
    events = decoder.messages([message(b"[" + joint.join([TINY] * count) + b"]")])
    assert len(events) == (count if count <= 1000 else 0)
    assert rejected == ({} if count <= 1000 else {"too_large": 1})


@pytest.mark.parametrize("batch", [False, True])
def test_a_large_traceback_is_no_reason_to_refuse_its_event(batch: bool) -> None:
    """Whatever it looks like."""
    rejected: Counter[str] = Counter()
    decoder = decode.Decoder(lambda reason, number: rejected.update({reason: number}))
    event = {"type": "task-failed", "hostname": "h", "timestamp": 1, "uuid": "u", "traceback": '[{"a": 1}, ' * 100_000}
    assert len(decoder.messages([message([event] * 3 if batch else event)])) == (3 if batch else 1)
    assert not rejected
