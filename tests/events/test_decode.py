"""Decoding: everything that real workers write, and nothing of what they never would."""

from __future__ import annotations

import base64
import json
from collections import Counter
from datetime import date, datetime, time, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils import json as kombu_json
from tests.events.malformed import MALFORMED
from tests.events.messages import RECORDED, event, message, recorded

from celerymeter.events import decode as envelope
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
    """Messages of kombu 5.3 to 5.7 are cut, not parsed, and the cut gives the same body."""
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


@pytest.mark.parametrize("field", ["exception", "traceback"])
def test_half_a_surrogate_pair_in_the_text_of_an_error_costs_no_event(field: str) -> None:
    """Python puts it where a file name is not UTF-8, and json writes it; a pair is one character."""
    failed = event(type="task-failed", **{field: "caf\udce9 \ud83d\ude00"})
    events, rejections = decode(message([event(), failed]))
    assert [getattr(one, field) for one in events] == [None, "caf? \U0001f600"]
    assert not rejections


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


@pytest.mark.parametrize("kind", ["task-progress", "worker-drained", "shop-opened"])
def test_custom_events_pass_whatever_their_own_fields(kind: str) -> None:
    """They need no uuid, and their fields may clash with the types of Celery's; then these are left out."""
    clash = event(type=kind, uuid=..., name=5, active="yes", queue=[])
    worse = event(type=kind, uuid=7, hostname=["a"], timestamp="yesterday", pid="none", runtime={"of": 3})

    events, rejections = decode(message(event(type=kind, uuid=...)), message([clash, event(), worse]))

    assert [(got.type, got.hostname, got.name) for got in events] == [
        (kind, "w1@host1", "shop.pay"),
        (kind, "w1@host1", None),
        ("task-received", "w1@host1", "shop.pay"),
        (kind, "unknown", None),
    ]
    assert not rejections


TASK_ID = "3c4c4d0f-5d4b-4b0e-9c1a-0f7b1d1c2b3a"


def tagged(kind: object, value: object) -> dict[str, object]:
    """A value as `kombu.utils.json` writes it."""
    return {"__type__": kind, "__value__": value}


def test_ids_that_are_uuid_objects_are_read_as_their_text() -> None:
    """`apply_async(task_id=uuid.uuid4())`; the digits are written in two ways."""
    digits = TASK_ID.replace("-", "")
    several = [
        event(uuid=tagged("uuid", value), parent_id=tagged("uuid", value)) for value in (digits, {"hex": digits})
    ]
    for data in (message(several), message(several[0]), message([event(), several[1]])):
        events, rejections = decode(data)
        assert {got.uuid for got in events} == {TASK_ID}
        assert not rejections
    assert decode(message(several))[0][0].parent_id == TASK_ID


def test_ids_that_are_numbers_are_read_as_their_text() -> None:
    """`apply_async(task_id=order.pk)`; a number in the text of an argument stays as it is."""
    several = [event(uuid=5, parent_id=-12, args='["uuid": 7]'), event(uuid=2**70, queue='{"uuid": 7}')]
    for data in (message(several), message([event(), *several])):
        events, rejections = decode(data)
        assert [(got.uuid, got.parent_id) for got in events[-2:]] == [("5", "-12"), (str(2**70), None)]
        assert events[-1].queue == '{"uuid": 7}'
        assert not rejections


def test_values_as_kombu_itself_writes_them() -> None:
    """Every type that it tags, in a field that is read."""
    content = event(
        uuid=UUID(TASK_ID),
        eta=datetime(2030, 1, 2, tzinfo=timezone.utc),
        name=b"shop.pay",
        runtime=Decimal("1.25"),
        queue=date(2030, 1, 2),
        routing_key=time(12, 30),
    )
    written: str = kombu_json.dumps(content)
    events, rejections = decode(message(written.encode()))
    assert not rejections
    got = events[0]
    assert (got.uuid, got.name, got.runtime) == (TASK_ID, "shop.pay", 1.25)
    assert (got.eta, got.queue, got.routing_key) == ("2030-01-02T00:00:00+00:00", "2030-01-02", "12:30:00")


@pytest.mark.parametrize(
    "value",
    [tagged("uuid", "x"), tagged("uuid", 5), tagged("uuid", {}), tagged("uuid", None), tagged("rational", "1/2")],
)
def test_tagged_values_of_no_known_type_are_refused(value: object) -> None:
    """As any other object in the place of an id."""
    events, rejections = decode(message([event(uuid=value), event()]))
    assert len(events) == 1
    assert rejections == {"fields": 1}


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


@pytest.mark.parametrize("field", ["name", "hostname", "queue", "exchange", "routing_key", "type"])
def test_a_name_that_is_too_long_costs_no_event(field: str) -> None:
    """It is cut, so that a task of a long name still counts; only an id cannot be cut."""
    rejected: Counter[str] = Counter()
    decoder = Decoder(lambda reason, count: rejected.update({reason: count}))
    (found,) = decoder.messages([message(event(**{field: "n" * 100_000}))])
    assert 200 < len(getattr(found, field)) <= 512
    assert not rejected
