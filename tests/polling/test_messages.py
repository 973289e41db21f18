"""Reading the end of a message: whole, cut, from other producers, or not a message at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celerymeter.polling.redis_messages import HEAD_TAIL, UNACKED_TAIL, HeadMessage, parse_destination, parse_head
from celerymeter.stamp import HEADER


def message(*, body: str = "W10=", stamp: object = None, note: str = "") -> dict[str, Any]:
    """A message in the order in which kombu writes it."""
    return {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": "tests.add",
            "id": "u-1",
            "argsrepr": '("correlation_id": "x",)',
            "note": note,
            HEADER: stamp,
        },
        "properties": {"correlation_id": "u-1", "delivery_info": {"exchange": ""}, "delivery_tag": "t-1"},
    }


def test_a_whole_message_tells_who_it_is() -> None:
    """Task id, delivery tag and, with the producer's hook, when it was sent."""
    raw = json.dumps(message(stamp=1700000000.25)).encode()
    assert parse_head(raw) == HeadMessage("u-1", "t-1", 1700000000.25)


def test_an_id_that_is_a_uuid_object_is_text() -> None:
    """kombu writes it as a tagged value."""
    raw = message()
    raw["headers"]["id"] = {"__type__": "uuid", "__value__": {"hex": "0" * 31 + "7"}}
    assert parse_head(json.dumps(raw).encode()).uuid == "00000000-0000-0000-0000-000000000007"


@pytest.mark.parametrize("cut", [0, 30])
def test_an_id_that_is_a_number_is_text(cut: int) -> None:
    """In a whole message and in the end of one."""
    raw = message()
    raw["headers"]["id"] = raw["properties"]["correlation_id"] = 5
    assert parse_head(json.dumps(raw).encode()[cut:]).uuid == "5"


def test_the_end_of_a_large_message_is_enough() -> None:
    """Ten megabytes of arguments change nothing."""
    raw = json.dumps(message(body="x" * 100_000, stamp=1700000000.25)).encode()
    assert parse_head(raw[-HEAD_TAIL:]) == HeadMessage("u-1", "t-1", 1700000000.25)


def test_compact_json_of_other_producers() -> None:
    """Not everybody writes a space after a colon."""
    raw = json.dumps(message(body="x" * 10_000), separators=(",", ":")).encode()
    assert parse_head(raw[-HEAD_TAIL:]) == HeadMessage("u-1", "t-1", None)


@pytest.mark.parametrize("stamp", [None, "soon", True, -1, 0, 1e30, float("nan"), [1], {"a": 1}])
def test_a_stamp_that_is_no_time_is_none(stamp: object) -> None:
    """Whatever a producer writes into the header."""
    assert parse_head(json.dumps(message(stamp=stamp)).encode()).stamped_at is None


def test_where_an_unacknowledged_message_came_from() -> None:
    """Exchange and routing key follow the message, whatever is in it."""
    raw = json.dumps([message(body="x" * 9999, note='}, "fake", "fake"]'), "mäil", "to.go"]).encode()
    assert parse_destination(raw[-UNACKED_TAIL:]) == ("mäil", "to.go")


@pytest.mark.parametrize("raw", [b"", b"]", b'[{}, "a"]', b"null", b'[{"a": 1}, 1, 2]', b'\xff\xfe}, "'])
def test_a_message_that_does_not_tell_where_it_came_from(raw: bytes) -> None:
    """Counted as unknown by the caller, never an error."""
    assert parse_destination(raw) is None


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_anything_may_lie_in_a_list(raw: bytes) -> None:
    """Bytes that are no message have no sender and no age."""
    assert parse_head(raw).stamped_at is None
    assert parse_destination(raw) is None


@given(st.integers(min_value=0, max_value=700))
def test_wherever_the_cut_goes_through(length: int) -> None:
    """A cut message tells the truth or nothing."""
    raw = json.dumps(message(stamp=1700000000.25)).encode()
    head = parse_head(raw[max(0, len(raw) - length) :])
    assert head.uuid in (None, "u-1")
    assert head.delivery_tag in (None, "t-1")
    assert head.stamped_at in (None, 1700000000.25)
