"""Anything into every parser: it returns a value or its own error, soon. ``FUZZ_EXAMPLES=100000`` tries for longer."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.transport.virtual import exchange as virtual
from tests.tracking.cluster import START, Cluster

from celerymeter import escaping
from celerymeter.errors import SettingsError
from celerymeter.events.decode import Decoder
from celerymeter.exception_names import exception_class
from celerymeter.httpd.protocol import Malformed, parse_head
from celerymeter.httpd.throttle import network
from celerymeter.httpd.web_config import BasicAuth, credentials, load_web_config
from celerymeter.inspect_replies import Replies
from celerymeter.polling import redis_messages
from celerymeter.polling.workers import worker_state
from celerymeter.routing import RoutingTable

thorough = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
FIELDS = st.sampled_from(
    [
        "type",
        "hostname",
        "timestamp",
        "uuid",
        "name",
        "queue",
        "exchange",
        "routing_key",
        "retries",
        "eta",
        "runtime",
        "exception",
        "traceback",
        "clock",
        "pid",
        "processed",
        "active",
        "freq",
        "loadavg",
        "parent_id",
        "totals",
        "beat",
    ]
)
KINDS = st.sampled_from(
    [
        "task-sent",
        "task-received",
        "task-started",
        "task-succeeded",
        "task-failed",
        "task-retried",
        "task-revoked",
        "task-rejected",
        "task-cancelled",
        "worker-heartbeat",
        "worker-online",
        "worker-offline",
        "beat-schedule",
        "my",
    ]
)
EVENT = st.builds(
    lambda kind, fields, uuid, at: {"timestamp": at, "hostname": "h@a", "uuid": uuid, **fields, "type": kind},
    KINDS,
    st.dictionaries(FIELDS, JSON, max_size=5),
    st.sampled_from("abc"),
    st.floats(1, 1e10),
)
WORDS = st.lists(st.sampled_from(["a", "b", "#", "*", ""]), min_size=1, max_size=6).map(".".join)
HEAD = st.lists(st.sampled_from([b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b":", b"Host", b"x", b"\x00"]))


@thorough
@given(st.lists(EVENT, max_size=12))
def test_events(events: list[dict[str, Any]]) -> None:
    """Through decoder and tracker, to a tick and a sum."""
    cluster = Cluster()
    decoder = Decoder(lambda reason, count: None)
    body = json.dumps(events).encode()
    for event in decoder.bare(body, content_type="application/json", content_encoding="utf-8"):
        cluster.tracker.apply([event], START)
        cluster.tracker.tick(START + 100)
    cluster.tracker.in_progress(START)


@thorough
@given(st.binary(max_size=300) | HEAD.map(b"".join))
def test_heads(head: bytes) -> None:
    """A request, or a refusal; a request has no character that ends a line."""
    try:
        request = parse_head(head + b"\r\n\r\n")
    except Malformed:
        return
    assert request.host is not None
    parts = [request.method, request.path, *request.headers, *request.headers.values()]
    assert not [part for part in parts if set(part) & set("\r\n\x00")]


@thorough
@given(WORDS, st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=7).map(".".join))
def test_bindings_as_kombu_has_them(pattern: str, key: str) -> None:
    """The same answer as its regular expression."""
    topic: Any = virtual.TopicExchange
    expected = bool(topic(None)._match(topic(None).key_to_pattern(pattern), key))
    assert (RoutingTable(topic=[(pattern, "q")], some=True).queue(key) == "q") == expected


@thorough
@given(st.lists(st.binary(max_size=40) | st.text(max_size=40), max_size=5), st.text(max_size=30))
def test_bindings_of_any_bytes(members: list[bytes | str], key: str) -> None:
    """What somebody wrote into the sets of Redis."""
    redis_messages.Routes({"x": redis_messages.parse_bindings(members, "\x06\x16")}).queue("x", key)


@thorough
@given(st.binary(max_size=200), st.binary(max_size=60))
def test_ends_of_messages(begin: bytes, end: bytes) -> None:
    """Cut anywhere."""
    redis_messages.parse_head(begin + b'"correlation_id": "' + end)
    redis_messages.parse_destination(begin + b'}, "' + end)


@thorough
@given(
    st.sampled_from(["stats", "active", "active_queues", "reserved", "scheduled", "query_task", "conf", "ping"]), JSON
)
def test_replies(method: str, answer: object) -> None:
    """Of workers that nobody knows."""
    replies = Replies()
    replies.receive(method, json.dumps({"h@a": answer}).encode())
    replies.receive(method, json.dumps(answer).encode())
    for hostname in replies.hostnames:
        worker_state(replies, hostname)


@thorough
@given(st.text(max_size=200) | JSON.map(json.dumps))
def test_web_configs(content: str) -> None:
    """One line for whatever is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "web.yml"
        path.write_bytes(content.encode(errors="replace"))
        problem = ""
        try:
            load_web_config(path)
        except SettingsError as error:
            problem = str(error)
        assert "\n" not in problem


@thorough
@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_credentials(header: str) -> None:
    """A name and a password, or an empty name."""
    credentials(header)
    credentials(f"Basic {header}")
    BasicAuth({"a": "$2b$04$abcdefghijklmnopqrstuuO0CnfWg.cXHbU1QE7Tr1QYoDOn2rGdW"}).remembers(header)
    network(header)


@thorough
@given(st.text(max_size=300))
def test_texts(text: str) -> None:
    """Every escape, of anything."""
    assert "\n" not in escaping.markdown(text)
    assert "\n" not in str(escaping.csv_cell(text))
    assert '"' not in escaping.promql(text)[1:-1].replace('\\"', "").replace("\\\\", "")
    assert len(exception_class(text)) <= 200


@pytest.mark.parametrize("text", ["0" * 1_000_000, "[" * 100_000, '{"a":' * 50_000, '"' + "\\u0000" * 100_000 + '"'])
def test_large_nonsense_takes_no_time(text: str) -> None:
    """No parser is quadratic."""
    replies = Replies()
    replies.receive("stats", text)
    Decoder(lambda reason, count: None).bare(text.encode(), content_type="application/json", content_encoding="utf-8")
