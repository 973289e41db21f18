"""Decoding: everything that real workers write, and nothing of what they never would."""

from __future__ import annotations

import base64
import codecs
import gzip
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.events.messages import RECORDED, event, message, recorded

from celerymeter.events import envelope
from celerymeter.events.decode import REASONS, Decoder
from celerymeter.model import Event


def decode(*messages: bytes) -> tuple[list[Event], Counter[str]]:
    """The events of these messages, and what was rejected for which reason."""
    rejections: Counter[str] = Counter()
    decoder = Decoder(lambda reason, count: rejections.update({reason: count}))
    return decoder.messages(messages), rejections


def body_of(data: bytes) -> Any:
    """The body by way of the standard library alone."""
    parsed = json.loads(base64.b64decode(json.loads(data)["body"]))
    return parsed if isinstance(parsed, list) else [parsed]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_real_messages_decode_to_their_fields(path: Path) -> None:
    """Every recorded event comes out, in order, with the values that the worker wrote."""
    messages = [data for _, data in recorded(path)]
    written = [item for data in messages for item in body_of(data)]

    events, rejections = decode(*messages)

    assert not rejections
    assert len(events) == len(written) > 50
    for got, wrote in zip(events, written, strict=True):
        for field in Event.__struct_fields__:
            want = wrote.get(field, getattr(Event(type="x", hostname="y", timestamp=1), field))
            assert getattr(got, field) == (tuple(want) if isinstance(want, list) else want)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_real_messages_take_the_fast_path(path: Path) -> None:
    """What kombu 5.3 to 5.7 write is cut, not parsed, and the cut gives the same body."""
    for _, data in recorded(path):
        end = data.find(b'"', envelope.START)
        assert data.startswith(envelope.HEAD)
        assert data.startswith(envelope.TAIL, end)
        assert base64.b64decode(data[envelope.START : end]) == envelope.unwrap(data)


def test_the_recordings_hold_both_kinds() -> None:
    """Batches from prefork and threads, single events from gevent: both are tried above."""
    sizes = {path.stem: max(len(body_of(data)) for _, data in recorded(path)) for path in RECORDED}
    assert sizes["kombu-5.7-gevent"] == 1
    assert sizes["kombu-5.7-prefork"] > 1


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(json.loads(message(event())), separators=(",", ":")).encode(),
        json.dumps(json.loads(message(event())), indent=2).encode(),
        json.dumps(dict(reversed(json.loads(message(event())).items()))).encode(),
        message(event(), content_encoding="UTF-8"),
        message(event(), content_encoding=...),
        message(event(), properties=..., body=json.dumps(event())),
        message(event(), properties={}, body=json.dumps(event())),
        message(event()).replace(b'"body": "eyJ', b'"body": "\\u0065yJ'),
    ],
    ids=["compact", "indented", "reversed", "upper-case", "no-charset", "bare", "bare-too", "escaped"],
)
def test_unusual_envelopes_are_understood(data: bytes) -> None:
    """Other writers of the same format may order, space and escape differently."""
    events, rejections = decode(data)
    assert [got.name for got in events] == ["shop.pay"]
    assert not rejections


NESTED = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "envelope"),
    "not JSON": (b"hello", "envelope"),
    "binary": (bytes(range(256)), "envelope"),
    "a list": (b"[]", "envelope"),
    "null": (b"null", "envelope"),
    "a string": (b'"celery"', "envelope"),
    "cut within the body": (message(event())[:100], "envelope"),
    "trailing bytes": (message(event(type=5)) + b"}", "envelope"),
    "nested envelope": (NESTED, "envelope"),
    "no body": (message(event(), body=...), "envelope"),
    "body null": (message(event(), body=None), "envelope"),
    "body an object": (message(event(), body=event()), "envelope"),
    "no content type": (message(event(), content_type=...), "envelope"),
    "headers a string": (message(event(), headers="x"), "envelope"),
    "properties a list": (message(event(), properties=[], body=json.dumps(event())), "envelope"),
    "pickle": (message(pickle.dumps(event()), content_type="application/x-python-serialize"), "content_type"),
    "yaml": (message(b"type: task-sent", content_type="application/x-yaml"), "content_type"),
    "msgpack": (message(b"\x81\xa4type", content_type="application/x-msgpack"), "content_type"),
    "pickle called JSON": (message(pickle.dumps(event())), "body"),
    "binary charset": (message(event(), content_encoding="binary"), "encoding"),
    "utf-16": (message(json.dumps(event()).encode("utf-16"), content_encoding="utf-16"), "encoding"),
    "compressed": (
        message(gzip.compress(b"{}"), headers={"compression": "application/x-gzip"}),
        "encoding",
    ),
    "unknown body encoding": (
        message(event(), properties={"body_encoding": "rot13"}, body=codecs.encode(json.dumps(event()), "rot13")),
        "encoding",
    ),
    "bad base64": (message(event(), body="!!!!"), "encoding"),
    "base64 cut short": (message(event(), body="eyJ0e"), "encoding"),
    "empty body": (message(b""), "body"),
    "body not JSON": (message(b"task-sent"), "body"),
    "body a number": (message(b"5"), "body"),
    "body null in JSON": (message(b"null"), "body"),
    "body a string in JSON": (message(b'"x"'), "body"),
    "nested body": (message(NESTED), "body"),
    "body with a byte order mark": (message(b"\xef\xbb\xbf" + json.dumps(event()).encode()), "body"),
    "too large": (message(event(args="x" * envelope.MAX_MESSAGE)), "too_large"),
    "empty object": (message({}), "fields"),
    "list of numbers": (message([5]), "fields"),
    "list of null": (message([None]), "fields"),
    "list in a list": (message([[event()]]), "fields"),
    "no type": (message(event(type=...)), "fields"),
    "type null": (message(event(type=None)), "fields"),
    "type a number": (message(event(type=5)), "fields"),
    "type empty": (message(event(type="")), "fields"),
    "type too long": (message(event(type="x" * 1000)), "fields"),
    "no hostname": (message(event(hostname=...)), "fields"),
    "hostname empty": (message(event(hostname="")), "fields"),
    "hostname too long": (message(event(hostname="h" * 1000)), "fields"),
    "hostname a lone surrogate": (message(event(hostname="\udcff")), "fields"),
    "hostname not UTF-8": (message(b'{"type":"worker-online","hostname":"\xff","timestamp":1}'), "fields"),
    "worker without hostname": (message(event(type="worker-online", hostname=...)), "fields"),
    "no uuid": (message(event(uuid=...)), "fields"),
    "uuid null": (message(event(uuid=None)), "fields"),
    "uuid empty": (message(event(uuid="")), "fields"),
    "uuid a number": (message(event(uuid=5)), "fields"),
    "uuid too long": (message(event(uuid="u" * 1000)), "fields"),
    "name too long": (message(event(name="n" * 1000)), "fields"),
    "name an object": (message(event(name={"__type__": "bytes"})), "fields"),
    "queue a list": (message(event(queue=["a"])), "fields"),
    "no timestamp": (message(event(timestamp=...)), "fields"),
    "timestamp a string": (message(event(timestamp="1700000000")), "fields"),
    "timestamp true": (message(event(timestamp=True)), "fields"),
    "timestamp NaN": (message(event(timestamp=float("nan"))), "fields"),
    "timestamp infinite": (message(event(timestamp=float("inf"))), "fields"),
    "timestamp past every float": (message(b'{"type":"worker-online","hostname":"h","timestamp":1e999}'), "fields"),
    "timestamp in milliseconds": (message(event(timestamp=1.7e12)), "fields"),
    "timestamp negative": (message(event(timestamp=-5)), "fields"),
    "timestamp zero": (message(event(timestamp=0)), "fields"),
    "clock negative": (message(event(clock=-1)), "fields"),
    "clock true": (message(event(clock=True)), "fields"),
    "clock beyond 64 bits": (message(event(clock=2**64)), "fields"),
    "pid a string": (message(event(pid="7")), "fields"),
    "runtime NaN": (message(event(type="task-succeeded", runtime=float("nan"))), "fields"),
    "runtime infinite": (message(event(type="task-succeeded", runtime=float("inf"))), "fields"),
    "runtime negative": (message(event(type="task-succeeded", runtime=-0.5)), "fields"),
    "runtime a string": (message(event(type="task-succeeded", runtime="fast")), "fields"),
    "retries negative": (message(event(retries=-1)), "fields"),
    "retries true": (message(event(retries=True)), "fields"),
    "processed negative": (message(event(type="worker-heartbeat", processed=-1)), "fields"),
    "processed a fraction": (message(event(type="worker-heartbeat", processed=1.5)), "fields"),
    "active a string": (message(event(type="worker-heartbeat", active="2")), "fields"),
    "loadavg of strings": (message(event(type="worker-heartbeat", loadavg=["a"])), "fields"),
    "loadavg endless": (message(event(type="worker-heartbeat", loadavg=[0] * 1000)), "fields"),
    "requeue a string": (message(event(type="task-rejected", requeue="yes")), "fields"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_messages_are_counted_by_reason(kind: str) -> None:
    """Each kind gives no event and exactly one rejection, and its neighbours on the channel are not touched."""
    data, reason = MALFORMED[kind]

    events, rejections = decode(message(event()), data, message(event(uuid="after")))

    assert [got.uuid for got in events] == [event()["uuid"], "after"]
    assert rejections == {reason: 1}


@pytest.mark.parametrize(
    "bad",
    [
        5,
        event(uuid=...),
        event(timestamp=float("nan")),
        event(hostname="\udcff"),
        event(clock="x"),
        event(type="worker-online", hostname=...),
    ],
    ids=str,
)
def test_a_bad_event_in_a_batch_does_not_cost_its_neighbours(bad: Any) -> None:
    """The others of the batch come out, in order, and the bad one is counted."""
    events, rejections = decode(message([event(uuid="a"), bad, event(uuid="b"), bad, event(uuid="c")]))

    assert [got.uuid for got in events] == ["a", "b", "c"]
    assert rejections == {"fields": 2}


@pytest.mark.parametrize(
    "harmless",
    [
        event(args=float("nan")),
        event(args="\udcff"),
        event(args={"deep": [[[[]]]]}),
        event(unheard_of=["of", {}]),
        event(runtime=None, retries=None, eta=None, queue=""),
        event(clock=...),
        event(timestamp=1_700_000_000),
        event(exception="E" * 100_000),
    ],
    ids=lambda value: str(value)[:60],
)
def test_oddities_outside_of_what_metrics_need_do_no_harm(harmless: dict[str, Any]) -> None:
    """Fields that are not used are not judged, and optional ones may be null."""
    events, rejections = decode(message(harmless), message([harmless, harmless]))
    assert (len(events), rejections) == (3, {})


def test_custom_events_pass_whatever_their_own_fields() -> None:
    """A custom event needs no uuid, and its fields may clash with the types of Celery's."""
    clash = event(type="shop-opened", uuid=..., name=5, active="yes", queue=[])

    events, rejections = decode(message(event(type="shop-opened", uuid=...)), message([clash]))

    assert [(got.type, got.hostname, got.name) for got in events] == [
        ("shop-opened", "w1@host1", "shop.pay"),
        ("shop-opened", "w1@host1", None),
    ]
    assert not rejections


def test_bare_bodies_are_judged_by_what_amqp_says_of_them() -> None:
    """Without an envelope the content type comes from the AMQP properties; only JSON is opened."""
    rejections: Counter[str] = Counter()
    decoder = Decoder(lambda reason, count: rejections.update({reason: count}))
    body = json.dumps([event(), event(uuid=...)]).encode()

    good = decoder.bare(body, content_type="application/json", content_encoding="utf-8")
    bad = [
        decoder.bare(body, content_type=kind, content_encoding=charset)
        for kind, charset in [(None, "utf-8"), ("application/x-python-serialize", "binary"), ("application/json", "x")]
    ]

    assert [got.uuid for got in good] == [event()["uuid"]]
    assert bad == [[], [], []]
    assert rejections == {"fields": 1, "content_type": 2, "encoding": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(Event.__struct_fields__), JSON, max_size=6)
SPOILED = st.builds(lambda fields: event(**fields), FIELDS)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_rejected_once(data: bytes) -> None:
    """Nothing raises; one message that is no message is one rejection."""
    events, rejections = decode(data)
    assert events == []
    assert rejections.total() == 1
    assert set(rejections) <= set(REASONS)


@settings(deadline=None)
@given(st.lists(SPOILED | JSON, max_size=6))
def test_every_event_of_a_batch_is_delivered_or_counted(batch: list[Any]) -> None:
    """Whatever the fields hold, events and rejections add up to what was sent."""
    events, rejections = decode(message(batch))
    assert len(events) + rejections.total() == len(batch)
    assert set(rejections) <= {"fields"}
    assert all(got.uuid or not got.type.startswith("task-") for got in events)


@settings(deadline=None)
@given(st.data())
def test_damage_anywhere_raises_nothing(data: st.DataObject) -> None:
    """A message with a few bytes changed decodes or is counted."""
    damaged = bytearray(message([event(), event()]))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    events, rejections = decode(bytes(damaged))
    assert len(events) + rejections.total() >= 1
