"""Messages from RabbitMQ are handed over before they take much memory."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from tests.events.messages import message
from tests.events.sinks import RecordingSink

from celerymeter.events import decode
from celerymeter.events.amqp import BATCH, BATCH_BYTES, AmqpSubscription
from celerymeter.inspect_replies import MAX_ALL_VALUES, MAX_REPLIES, Replies
from celerymeter.remote_control import Command, _Inbox

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

    sink.events = events  # type: ignore[method-assign]  # in place of keeping them
    AmqpSubscription(broker, broker).deliver(sink, stop)
    assert broker.most <= BATCH_BYTES + len(body)
    assert sum(handed) == (40 if size < decode.MAX_MESSAGE else 0)
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


BOMBS = {
    "lists": b'{"type":5,"x":[' + b"[]," * 260_000 + b"[]]}",
    "in a batch": b'[{"type":5,"x":[' + b"[]," * 260_000 + b"[]]}]",
    "objects": b'{"type":5,"x":[' + b"{}," * 260_000 + b"{}]}",
    "keys": b'{"type":5' + b"".join(b',"%d":1' % number for number in range(260_000)) + b"}",
    "numbers": b'{"type":5,"x":[' + b"1," * 2_000_000 + b"1]}",
    "no events": b"[" + b"1," * 260_000 + b"1]",
    "texts": b"[" + b'"",' * 260_000 + b"1]",
    "an event's expiry": TINY[:-1] + b',"expires":[' + b"[]," * 260_000 + b"[]]}",
    "totals": TINY[:-1] + b',"totals":{' + b",".join(b'"%d":1' % number for number in range(260_000)) + b"}}",
    "quotes escaped": TINY[:-1] + rb',"x":"\\\"","expires":[' + b"[]," * 260_000 + b"[]]}",
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
def test_a_message_of_many_values_is_refused_before_it_is_objects(body: bytes) -> None:
    """16 MB of empty lists were 540 MB, and kept the interpreter for 1.3 s."""
    rejected: Counter[str] = Counter()
    decoder = decode.Decoder(lambda reason, number: rejected.update({reason: number}))
    tracemalloc.start()
    try:
        events = decoder.bare(body, content_type="application/json", content_encoding="utf-8")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (events, rejected) == ([], {"too_large": 1})
    assert peak < 6 * len(body)


@pytest.mark.parametrize(
    ("bomb", "encode"), [(b"[]", bytes), (b"{}", bytes.decode), (b"1", memoryview), (b'""', bytes)]
)
def test_a_reply_of_many_values_is_not_read(bomb: bytes, encode: Any) -> None:
    """Anybody who saw the question can answer; replies of real workers, of however many tasks, are read."""
    body = b'{"h@a":{"total":[' + (bomb + b",") * 1_600_000 + b"1]}}"
    inbox = _Inbox((), Replies())
    inbox.tickets = {"t": Command("stats")}
    tracemalloc.start()
    try:
        for text in (body, b'{"h@b":{"pid":5}}'):
            inbox.take(SimpleNamespace(headers={"ticket": "t"}, content_type="application/json", body=encode(text)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (inbox.replies.malformed, set(inbox.replies.hostnames)) == (1, {"h@b"})
    assert peak < 6 * len(body)


HELD = {
    "id": "0" * 36,
    "name": "shop.tasks.send",
    "args": ["a", 1],
    "kwargs": {"b": 2},
    "type": "shop.tasks.send",
    "hostname": "h",
    "time_start": None,
    "acknowledged": False,
    "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False},
    "worker_pid": None,
}


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        pytest.param(b"[" + b"[]," * 700_000 + b"1]", MAX_ALL_VALUES // 1_400_000, id="values"),
        pytest.param(b'{"pid":5,"x":"' + b"x" * 20_000_000 + b'"}', MAX_REPLIES // 20_000_000, id="bytes"),
    ],
)
def test_all_replies_together_are_bounded(answer: bytes, read: int) -> None:
    """However many workers somebody invents."""
    replies = Replies()
    for worker in range(9):
        replies.receive("hello", b'{"h@%d":%b}' % (worker, answer))
    assert (len(replies.hostnames), replies.malformed) == (read, 9 - read)


def test_what_a_large_cluster_holds_is_read() -> None:
    """100,000 tasks that wait for their time, at a hundred workers."""
    replies, answer = Replies(), json.dumps([HELD] * 1000).encode()
    for worker in range(100):
        replies.receive("reserved", b'{"h@%d":%b}' % (worker, answer))
    assert (len(replies.hostnames), replies.malformed) == (100, 0)


def test_the_largest_totals_of_a_worker_are_few_enough_values() -> None:
    """5,000 series, each with all that a series can have."""
    series = [f"shop.tasks.a_task_with_a_name_{'x' * 20}", "celery", 5, 5, 4, 1, 0, 1.5, 0, [1.5, 0, 3, 1, 2, 2, 1]]
    totals = {f"k{number}": [*series, [0.5, 0, 5, 3, 1]] for number in range(5000)}
    body = json.dumps({"type": "x", "hostname": "h", "timestamp": 1, "args": totals}).encode()
    assert len(body) > decode.LARGE
    assert len(decode.Decoder(lambda *_: None).messages([message(json.loads(body))])) == 1


@pytest.mark.parametrize("batch", [False, True])
def test_a_large_traceback_is_no_reason_to_refuse_its_event(batch: bool) -> None:
    """Whatever it looks like."""
    rejected: Counter[str] = Counter()
    decoder = decode.Decoder(lambda reason, number: rejected.update({reason: number}))
    event = {"type": "task-failed", "hostname": "h", "timestamp": 1, "uuid": "u", "traceback": '[{"a": 1}, ' * 60_000}
    assert len(decoder.messages([message([event] * 3 if batch else event)])) == (3 if batch else 1)
    assert not rejected
