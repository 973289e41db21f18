"""Any client of the broker can reply to a command: no reply makes the program large, or costs others theirs."""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
import redis
from amqp import basic_message
from kombu.transport import pyamqp
from kombu.transport.virtual import base as virtual
from tests.security.process import peak_of

from celerymeter.demo.servers import Redis
from celerymeter.inspect_replies import Replies
from celerymeter.remote_control import Command, RemoteControl, _keep_as_they_come
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration

Envelope = dict[str, Any]
GOOD = json.dumps({"good@host": {"pid": 5}}).encode()


class Compressor(Protocol):
    """Of the standard library."""

    def compress(self, data: bytes, /) -> bytes:
        """Compress some more."""

    def flush(self) -> bytes:
        """End."""


def bomb(compressor: Compressor, megabytes: int = 120) -> bytes:
    """Return little that becomes much."""
    return b"".join([*(compressor.compress(b" " * 1_000_000) for _ in range(megabytes)), compressor.flush()])


BOMBS: dict[str, Callable[[], bytes]] = {
    "application/x-gzip": lambda: bomb(zlib.compressobj(9)),
    "gzip": lambda: bomb(zlib.compressobj(1, wbits=31)),
    "bzip2": lambda: bomb(bz2.BZ2Compressor(1)),
    "lzma": lambda: bomb(lzma.LZMACompressor(preset=0)),
}


def envelope(ticket: object, body: bytes = GOOD, **headers: object) -> Envelope:
    """Return a reply as kombu writes it."""
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"ticket": ticket, **headers},
        "properties": {"body_encoding": "base64", "delivery_tag": "t", "delivery_info": {}, "priority": 0},
    }


@contextmanager
def replying(server: Redis, hostile: Callable[[str], str | int]) -> Iterator[RemoteControl]:
    """Have every command answered with something hostile (a number: so many bytes), and then by a worker."""
    client = redis.Redis(port=server.port)
    commands = client.pubsub()
    commands.psubscribe("/0.celery.pidbox*")
    ended = threading.Event()

    def reply() -> None:
        while not ended.is_set():
            message = commands.get_message(timeout=0.1)
            if message is None or message["type"] != "pmessage":
                continue
            command = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
            queue = f"{command['reply_to']['routing_key']}.reply.celery.pidbox"
            made = hostile(command["ticket"])
            if isinstance(made, int):
                client.setrange("long", made - 1, "x")  # made there, so that it takes no memory here
                client.eval("redis.call('LPUSH', KEYS[1], redis.call('GET', KEYS[2]))", 2, queue, "long")
            else:
                client.lpush(queue, made.encode(errors="surrogateescape"))
            client.lpush(queue, json.dumps(envelope(command["ticket"])))

    thread = threading.Thread(target=reply)
    thread.start()
    control = RemoteControl(BrokerSettings(url=server.url))
    try:
        yield control
    finally:
        control.close()
        ended.set()
        thread.join()
        client.close()


@pytest.mark.parametrize("compression", BOMBS)
def test_no_reply_is_decompressed(shared_redis: Redis, compression: str) -> None:
    """kombu would decompress any reply: 3,659 bytes were 1.2 GB and eleven seconds."""
    compressed = BOMBS[compression]()

    def ask() -> Replies:
        with replying(
            shared_redis, lambda ticket: json.dumps(envelope(ticket, compressed, compression=compression))
        ) as control:
            return control.ask([Command("stats")], expected=["good@host"])

    replies, megabytes = peak_of(ask)
    assert replies.hostnames == {"good@host"}
    assert replies.malformed == 1
    assert megabytes < 40


@pytest.mark.parametrize("size", [50_000_000, 100_000_000])
def test_of_a_reply_that_is_too_long_little_is_kept(shared_redis: Redis, size: int) -> None:
    """Else it is read whole, and copied four times, before its length is known."""

    def ask() -> Replies:
        with replying(shared_redis, lambda _: size) as control:
            return control.ask([Command("stats")], expected=["good@host"], silence=9.0)

    replies, megabytes = peak_of(ask)
    assert replies.hostnames == {"good@host"}
    assert replies.malformed == 1
    assert megabytes < 10


@pytest.mark.parametrize("kind", [pyamqp.Channel, virtual.Channel])
def test_no_transport_decompresses(kind: Any) -> None:
    """RabbitMQ's channel and that of all others are changed, each channel's class only once."""

    class Channel:
        Message: type = kind.Message

        def decode_body(self, body: bytes, _: object) -> bytes:
            return body

    channel: Any = Channel()
    for _ in range(3):
        _keep_as_they_come(channel)
    assert len(channel.Message.__mro__) == len(Channel.Message.__mro__) + 2
    small = zlib.compress(b"x" * 100)
    if kind is pyamqp.Channel:
        raw: Any = basic_message.Message(small, application_headers={"compression": "gzip"})
        raw.delivery_info = {"delivery_tag": 1}
    else:
        raw = {**envelope("t", compression="gzip"), "body": small}
    message = channel.Message(raw, channel=channel)
    assert (message.body, message.errors) == (small, [])


MALFORMED: dict[str, Callable[[str], object]] = {
    "nothing": lambda _: "",
    "no JSON": lambda _: "{",
    "no UTF-8": lambda _: "\udc80",
    "deep": lambda _: "[" * 100_000,
    "null": lambda _: None,
    "a number": lambda _: 5,
    "a list": lambda _: [],
    "an empty object": lambda _: {},
    "no properties": lambda ticket: {**envelope(ticket), "properties": None},
    "no delivery tag": lambda ticket: {**envelope(ticket), "properties": {"body_encoding": "base64"}},
    "an unknown encoding": lambda ticket: {
        **envelope(ticket),
        "properties": {"body_encoding": "rot13", "delivery_tag": "t", "delivery_info": {}},
    },
    "a body that is a number": lambda ticket: {**envelope(ticket), "body": 5},
    "a body that is a list": lambda ticket: {**envelope(ticket), "body": ["x"]},
    "a body that is no base64": lambda ticket: {**envelope(ticket), "body": "###"},
    "headers that are a list": lambda ticket: {**envelope(ticket), "headers": [ticket]},
    "headers that are a text": lambda ticket: {**envelope(ticket), "headers": ticket},
    "a ticket that is a list": lambda ticket: envelope([ticket]),
    "a ticket that is an object": lambda ticket: envelope({"t": ticket}),
    "a ticket of another call": lambda _: envelope("00000000-0000-0000-0000-000000000000"),
    "a UUID that is none": lambda _: envelope({"__type__": "uuid", "__value__": {"hex": "zz"}}),
    "a time that is none": lambda _: envelope({"__type__": "datetime", "__value__": "never"}),
    "a number that is none": lambda _: envelope({"__type__": "decimal", "__value__": "x"}),
    "a pickle": lambda ticket: {
        **envelope(ticket, b"cos\nabort\n(tR."),
        "content-type": "application/x-python-serialize",
    },
    "a charset that runs": lambda ticket: {**envelope(ticket, b"x"), "content-encoding": "hex"},
    "a content type that is a list": lambda ticket: {**envelope(ticket), "content-type": ["x"]},
}


@pytest.fixture(scope="module")
def asked(shared_redis: Redis) -> Iterator[Callable[[str], Replies]]:
    """A function that asks, and is replied to with something malformed first."""
    kinds: list[str] = []

    def hostile(ticket: str) -> str:
        made = MALFORMED[kinds[-1]](ticket)
        return made if isinstance(made, str) else json.dumps(made)

    with replying(shared_redis, hostile) as control:

        def ask(kind: str) -> Replies:
            kinds.append(kind)
            return control.ask([Command("stats")], expected=["good@host"])

        yield ask


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_no_reply_costs_no_other(asked: Callable[[str], Replies], kind: str) -> None:
    """One of a hostile worker ended the whole call, and every later one."""
    assert asked(kind).stats("good@host") is not None
