"""A stream of events in the bytes that real workers put on Redis (see ``tests/events/recorded``)."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

BATCH_SIZES = (1, 2, 3)
BATCH_WEIGHTS = (36, 35, 29)
"""Per cent, from prefork workers under load."""
HEARTBEAT_EVERY = 500
"""Tasks of one worker between two heartbeats."""


@dataclass(frozen=True, slots=True)
class Load:
    """The size of a stream: four events a task, and the workers' heartbeats."""

    tasks: int = 50_000
    batched: bool = True
    names: int = 50
    workers: int = 10
    queues: int = 5
    spacing: float = 0.0001
    """Seconds between two tasks, by the events' own timestamps."""
    began: float = 1_700_000_000.0
    seed: int = 1


@dataclass(slots=True)
class Stream:
    """Channel and message of each publication, and what a reader must have counted in the end."""

    messages: list[tuple[bytes, bytes]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    ends: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Runs by (type of the end, task name, queue)."""

    @property
    def total(self) -> int:
        """All events."""
        return self.events.total()


class _Worker:
    """One worker: collects its events into batches and counts its runs."""

    def __init__(self, number: int) -> None:
        self.hostname = f"celery@worker-{number}.example.com"
        self.pid = 1000 + number
        self.clock = 0
        self.processed = 0
        self.pending: list[dict[str, Any]] = []

    def event(self, kind: str, at: float, **fields: Any) -> dict[str, Any]:
        """An event of this worker with the next value of its clock."""
        self.clock += 1
        head = {"hostname": self.hostname, "utcoffset": 0, "pid": self.pid, "clock": self.clock}
        return {**head, **fields, "timestamp": at, "type": kind}


class Cluster:
    """Workers that go on from one stream to the next."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._dice = random.Random(load.seed)
        self._workers = [_Worker(number) for number in range(load.workers)]
        self._next = 0

    def stream(self, tasks: int) -> Stream:
        """So many more tasks: sent, received, started and (95 %) succeeded, over all names, queues and workers."""
        load, dice = self._load, self._dice if self._load.batched else None
        stream = Stream()
        if self._next == 0:
            for worker in self._workers:
                publish(stream, "worker.online", worker.event("worker-online", load.began, **_health(worker)))
        at = load.began
        for number in range(self._next, self._next + tasks):
            at = load.began + number * load.spacing
            worker = self._workers[number % load.workers]
            sent, *run = _task(worker, number, load, at, self._dice)
            publish(stream, "task.sent", sent)
            stream.ends[run[-1]["type"], sent["name"], sent["queue"]] += 1
            worker.pending += run
            _flush(stream, worker, dice)
            if worker.processed % HEARTBEAT_EVERY == 0:
                _flush(stream, worker, dice, keep=0)
                publish(stream, "worker.heartbeat", worker.event("worker-heartbeat", at, **_health(worker)))
        self._next += tasks
        for worker in self._workers:
            _flush(stream, worker, dice, keep=0)
            for _ in range(2):  # a count of what was missed takes two heartbeats
                publish(stream, "worker.heartbeat", worker.event("worker-heartbeat", at, **_health(worker)))
        return stream


def make_stream(load: Load) -> Stream:
    """All of a load at once."""
    return Cluster(load).stream(load.tasks)


def _task(worker: _Worker, number: int, load: Load, at: float, dice: random.Random) -> list[dict[str, Any]]:
    uuid = f"{number:08x}-5d4b-4b0e-9c1a-{dice.getrandbits(48):012x}"
    name, queue = f"shop.tasks.work_{number % load.names}", f"queue-{number % load.queues}"
    words = {"args": repr((number, "a customer's order")), "kwargs": repr({"priority": 5, "notify": True})}
    family = {"root_id": uuid, "parent_id": None}
    plan = {"retries": 0, "eta": None, "expires": None}
    sent = {"hostname": "gen4711@web-1.example.com", "utcoffset": 0, "pid": 4711, "clock": number}
    sent |= {
        "uuid": uuid,
        **family,
        "name": name,
        **words,
        **plan,
        "queue": queue,
        "exchange": "",
        "routing_key": queue,
    }
    sent |= {"timestamp": at, "type": "task-sent"}
    received = worker.event("task-received", at + 0.01, uuid=uuid, name=name, **words, **family, **plan)
    started = worker.event("task-started", at + 0.02, uuid=uuid)
    worker.processed += 1
    if number % 20:
        end = worker.event("task-succeeded", at + 0.05, uuid=uuid, result="'done'", runtime=0.03 * dice.random())
    else:
        trace = 'Traceback (most recent call last):\n  File "trace.py", line 453, in trace_task\nValueError: no order\n'
        end = worker.event("task-failed", at + 0.05, uuid=uuid, exception="ValueError('no order')", traceback=trace)
    return [sent, received, started, end]


def _health(worker: _Worker) -> dict[str, Any]:
    system = {"sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux"}
    return {"freq": 2.0, "active": 1, "processed": worker.processed, "loadavg": [0.5, 0.4, 0.3], **system}


def _flush(stream: Stream, worker: _Worker, dice: random.Random | None, keep: int = 3) -> None:
    """Publish what is pending, in batches (or singly without ``dice``), down to ``keep`` events."""
    pending = worker.pending
    while len(pending) > keep or (pending and dice is None):
        if dice is None:
            event = pending.pop(0)
            publish(stream, str(event["type"]).replace("-", ".", 1), event)
            continue
        size = dice.choices(BATCH_SIZES, BATCH_WEIGHTS)[0]
        batch, pending[:size] = pending[:size], []
        publish(stream, "task.multi", batch)


def publish(stream: Stream, routing_key: str, body: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Add a message with one event or several."""
    events = body if isinstance(body, list) else [body]
    stream.events.update(event["type"] for event in events)
    headers = {"hostname": events[0]["hostname"]}
    stream.messages.append((f"/0.celeryev/{routing_key}".encode(), envelope(body, routing_key, headers)))


def envelope(body: Any, routing_key: str, headers: dict[str, str]) -> bytes:
    """kombu's message around a body."""
    message = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "delivery_mode": 1,
            "delivery_info": {"exchange": "celeryev", "routing_key": routing_key},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "92dc3c2e-6b0d-4a53-9c0f-3f6f8f0a7d11",
        },
    }
    return json.dumps(message).encode()


def commands(messages: Iterable[tuple[bytes, bytes]], size: int = 256 * 1024) -> Iterator[bytes]:
    """PUBLISH commands in the Redis protocol, in pieces of about ``size`` bytes."""
    piece = bytearray()
    for channel, message in messages:
        piece += b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(message), message)
        if len(piece) >= size:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
