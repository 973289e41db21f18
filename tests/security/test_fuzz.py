"""Anything into every parser: it returns a value or its own error, soon. `tools.fuzz` runs each for minutes."""

from __future__ import annotations

import base64
import json
import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from amqp.basic_message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.transport import pyamqp
from kombu.transport.virtual import exchange as virtual
from tests.scrape import text_of
from tests.tracking.cluster import START, WORKER, Cluster

from celerymeter import escaping
from celerymeter.errors import BrokerUnavailable, SettingsError
from celerymeter.events import amqp
from celerymeter.events.decode import HEAD as ENVELOPE_HEAD
from celerymeter.events.decode import TAIL, Decoder
from celerymeter.exception_names import exception_class
from celerymeter.exporter.polls import SharedTracker
from celerymeter.exporter.pushed import taker
from celerymeter.exporter.service import open_state_file
from celerymeter.exposition.page import Page
from celerymeter.exposition.scrape import Build
from celerymeter.httpd.protocol import Malformed, parse_head
from celerymeter.httpd.web_config import BasicAuth, credentials, load_web_config
from celerymeter.inspect_replies import Replies
from celerymeter.model import Event
from celerymeter.polling import redis_messages
from celerymeter.polling.amqp_queues import ListedQueue, ManagementBinding, Node, TaskQueueFinder, broker_memory
from celerymeter.polling.queues import KnownQueues
from celerymeter.polling.workers import worker_state
from celerymeter.rate_limit import network
from celerymeter.routing import RoutingTable

thorough = settings(max_examples=20)
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


CHANGES = st.lists(st.tuples(st.integers(0, 5000), st.just("remove") | JSON), max_size=6)
"""Places in a document, and what stands there instead."""
BODY = st.binary(max_size=200) | (JSON | st.lists(EVENT, max_size=5)).map(lambda body: json.dumps(body).encode())
LINE = re.compile(r"# (HELP|TYPE) .*|[a-z_]+(\{[^\n]*\})? (-?\d[-+.e\d]*|nan|inf)")
TOTALS: dict[str, Any] = {
    "version": 1,
    "instance": "i1",
    "sequence": 1,
    "age": 1.0,
    "begun": 5,
    "processed": 4,
    "started": 4,
    "series": {"k1": ["shop.pay", "celery", 4, 4, 2, 1, 1, 0.5, 1, [1.0, 0, 2, 1, 1], [2.0, 0, 3]]},
    "full": True,
    "runtime_bounds": [0.1, 1.0],
    "wait_bounds": [1.0],
    "unmeasured": {"eta": 1},
    "duplicates": {"task-failed": 1},
    "folded": {"name": 1},
}


class Sink(SharedTracker):
    """Lets errors of the tracker through, which an exporter would log."""

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Apply events."""
        with self.locked() as tracker:
            tracker.apply(batch, at)


def changed(document: Any, changes: list[tuple[int, Any]]) -> Any:
    """Return a JSON document with other values in places, some removed."""
    document = json.loads(json.dumps(document))
    for number, value in changes:
        places = list(_places(document))
        container, key = places[number % len(places)] if places else (None, None)
        if container is None:
            return value
        if value == "remove":
            del container[key]
        else:
            container[key] = value
    return document


def _places(document: Any) -> Any:
    keys = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in list(keys):
        yield document, key
        yield from _places(document[key])


def assert_shown(cluster: Cluster) -> None:
    """Let time pass; then the page has whole lines only."""
    cluster.tracker.tick(START + 100)
    page = text_of(Page(cluster.tracker, build=Build(version="1", python="3", celery="5")), START + 100)
    assert page.endswith("\n")
    for line in page[:-1].split("\n"):
        assert LINE.fullmatch(line), line


@thorough
@given(st.lists(EVENT, max_size=12))
def test_events(events: list[dict[str, Any]]) -> None:
    """Through decoder and tracker, to a tick and a page."""
    cluster = Cluster()
    decoder = Decoder(lambda reason, count: None)
    body = json.dumps(events).encode()
    for event in decoder.bare(body, content_type="application/json", content_encoding="utf-8"):
        cluster.tracker.apply([event], START)
        cluster.tracker.tick(START + 100)
    cluster.tracker.in_progress(START)
    assert_shown(cluster)


@thorough
@given(
    st.lists(
        st.binary(max_size=300)
        | st.binary(max_size=200).map(lambda body: ENVELOPE_HEAD + body + TAIL + b"}}")
        | CHANGES.map(
            lambda changes: json.dumps(
                changed(
                    {
                        "body": "eyJ0eXBlIjogIngifQ==",
                        "content-encoding": "utf-8",
                        "content-type": "application/json",
                        "headers": {"hostname": "h"},
                        "properties": {"body_encoding": "base64"},
                    },
                    changes,
                )
            ).encode()
        ),
        max_size=4,
    )
)
def test_envelopes(messages: list[bytes]) -> None:
    """Events, or so many rejections."""
    rejected: list[int] = []
    events = Decoder(lambda reason, count: rejected.append(count)).messages(messages)
    assert all(event.type for event in events)
    assert all(count > 0 for count in rejected)


class AmqpConnection:
    """Delivers messages whose headers are bytes as py-amqp reads them."""

    def __init__(self, frames: list[tuple[bytes, bytes]], stop: threading.Event) -> None:
        self.default_channel = self
        self._frames, self._stop = frames, stop
        self._take: Callable[[object], None] = lambda _: None

    def basic_consume(self, *, callback: Callable[[object], None], **_: object) -> None:
        """Remember who takes messages."""
        self._take = callback

    def drain_events(self, timeout: float) -> None:
        """Deliver the next message."""
        if not self._frames:
            self._stop.set()
            raise TimeoutError
        header, body = self._frames.pop()
        message: Any = Message(body)
        message._load_properties(60, header, 0)
        message.delivery_tag, message.delivery_info = 1, {}
        delivered: Any = pyamqp.Message
        self._take(delivered(message, channel=None))

    def heartbeat_check(self) -> None:
        """Nothing is late."""


class AmqpQueue:
    """A queue of that connection."""

    name = "q"

    def __call__(self, channel: object) -> AmqpQueue:
        """Return itself, bound."""
        return self

    def declare(self) -> None:
        """It exists."""

    def delete(self) -> None:
        """It is gone."""


SHORT = st.binary(max_size=40).map(lambda text: bytes([len(text)]) + text)
TABLE = st.lists(st.tuples(SHORT, st.sampled_from(b"tbBsuIilLfdDSAFTVxU"), st.binary(max_size=12)), max_size=3).map(
    lambda rows: b"".join(name + bytes([kind]) + value for name, kind, value in rows)
)
PROPERTIES = st.binary(max_size=80) | st.tuples(SHORT, SHORT, TABLE, st.binary(max_size=20)).map(
    lambda parts: b"\xe0\x00" + parts[0] + parts[1] + len(parts[2]).to_bytes(4, "big") + parts[2] + parts[3]
)
JSON_PROPERTIES = st.just(b"\xc0\x00\x10application/json\x05utf-8")


@thorough
@given(st.lists(st.tuples(PROPERTIES | JSON_PROPERTIES, BODY), max_size=4))
def test_amqp(frames: list[tuple[bytes, bytes]]) -> None:
    """Events, rejections, or a lost connection, after which another one is opened."""
    cluster, stop = Cluster(), threading.Event()
    connection = AmqpConnection(list(frames), stop)
    subscription = amqp.AmqpSubscription(connection, AmqpQueue())
    with suppress(BrokerUnavailable):
        subscription.deliver(Sink(cluster.tracker), stop)
    assert_shown(cluster)


@thorough
@given(CHANGES, CHANGES, CHANGES)
def test_management_api(queues: list[Any], bindings: list[Any], nodes: list[Any]) -> None:
    """Refused as a whole, or numbers of the right kind."""
    try:
        listed = msgspec.convert(
            changed(
                [{"name": "a", "messages": 1, "message_bytes": 5, "arguments": {"x-queue-type": "quorum"}}], queues
            ),
            list[ListedQueue],
        )
        known = msgspec.convert(changed([{"source": "x", "destination": "a"}], bindings), list[ManagementBinding])
        members = msgspec.convert(changed([{"mem_used": 5, "mem_limit": 9, "mem_alarm": False}], nodes), list[Node])
    except msgspec.ValidationError:
        return
    found = TaskQueueFinder().find({queue.name: queue for queue in listed}, ["a"], lambda: known, now=1.0)
    assert found <= {queue.name for queue in listed}
    assert broker_memory(members, listed).orphaned is not None


def busy() -> Cluster:
    """A cluster of which every section of the state file has something."""
    cluster = Cluster()
    cluster.send("worker-online", WORKER, pid=1, processed=0, active=0)
    cluster.publish("a")
    cluster.send("task-received", uuid="a", name="add")
    cluster.send("task-started", uuid="a")
    cluster.send("task-failed", uuid="a", exception="KeyError('x')", traceback="x")
    take_totals(cluster, TOTALS)
    cluster.tracker.tick(START + 1)
    return cluster


def take_totals(cluster: Cluster, totals: object, hostname: str = "celery@two") -> None:
    """Take a message of an aggregating worker, as it would come over HTTP."""
    event = {"type": "celerymeter-totals", "hostname": hostname, "pid": 1, "timestamp": START, "totals": totals}
    taker(Sink(cluster.tracker))(json.dumps([event]).encode())


def saved_state() -> dict[str, Any]:
    """The state file of a busy cluster."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        file = open_state_file(path, SharedTracker(busy().tracker), KnownQueues())
        file.save()
        file.close()
        return dict(json.loads(path.read_bytes()))


SAVED = saved_state()


@thorough
@given(CHANGES.map(lambda changes: json.dumps(changed(SAVED, changes)).encode()) | st.binary(max_size=100))
def test_state_files(content: bytes) -> None:
    """Whatever it says, the exporter starts, and can save again."""
    cluster = Cluster()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        path.write_bytes(content)
        file = open_state_file(path, SharedTracker(cluster.tracker), KnownQueues())
        cluster.send("task-received", uuid="a", name="add")
        cluster.send("worker-heartbeat", WORKER, pid=1, processed=1, active=0)
        take_totals(cluster, TOTALS)
        assert_shown(cluster)
        file.save()
        file.close()
        json.loads(path.read_bytes())


@thorough
@given(st.lists(st.tuples(st.sampled_from(["celery@one", "celery@two"]), CHANGES), min_size=1, max_size=4))
def test_totals(messages: list[tuple[str, list[Any]]]) -> None:
    """Of one process or several, in any order."""
    cluster = Cluster()
    for number, (hostname, changes) in enumerate(messages):
        take_totals(cluster, changed({**TOTALS, "sequence": number + 1, "begun": 5 + number}, changes), hostname)
        cluster.tracker.totals.add_up(everything=True)
    assert_shown(cluster)


@thorough
@given(BODY)
def test_pushes(body: bytes) -> None:
    """Only what workers push is taken, everything else is counted."""
    cluster = Cluster()
    taken = taker(Sink(cluster.tracker))(body)
    assert taken == sum(cluster.tracker.event_counts.values()), "no event of another type"
    assert_shown(cluster)


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
    """Anybody with access to Redis may have written into its sets of bindings."""
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


LATIN = st.text(st.characters(max_codepoint=255), max_size=60)
"""The text that a header may hold."""
BASE64 = st.lists(st.binary(max_size=40), max_size=3).map(b":".join).map(base64.b64encode).map(bytes.decode)
HEADERS = st.tuples(
    st.sampled_from(["Basic", "basic", "BASIC", "Bearer", ""]) | LATIN, st.sampled_from([" ", "  ", "\t", ""]), BASE64
).map("".join)
ADDRESSES = st.lists(st.sampled_from([":", "::", ".", "%", "/", "ffff", "fe80", "0", "1", "255", "eth0"])).map("".join)


@thorough
@given(LATIN | HEADERS)
def test_credentials(header: str) -> None:
    """A name and a password, or an empty name."""
    name, _ = credentials(header)
    assert ":" not in name
    BasicAuth({"a": "$2b$04$abcdefghijklmnopqrstuuO0CnfWg.cXHbU1QE7Tr1QYoDOn2rGdW"}).remembers(header)


@thorough
@given(LATIN | ADDRESSES)
def test_addresses(address: str) -> None:
    """One key for each, which is its own key unless it is a network."""
    key = network(address)
    assert network(key) == key or key.endswith("/64") or "%" in key


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
