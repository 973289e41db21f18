"""Numbers and amounts that nobody has, from RabbitMQ's management API, a state file and Prometheus."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.security.hostile_server import HostileServer, answers, says
from tests.security.process import peak_of
from tests.security.test_fuzz import SAVED, assert_shown
from tests.tracking.cluster import Cluster

from celerymeter.control.cluster.promql import firing_alerts
from celerymeter.errors import PollError, PrometheusUnavailable
from celerymeter.exporter.polls import SharedTracker
from celerymeter.exporter.service import open_state_file
from celerymeter.polling import amqp_queues
from celerymeter.polling.amqp_queues import AmqpQueuePoller, ListedQueue, Management, Node
from celerymeter.polling.queues import KnownQueues
from celerymeter.prometheus import Sample, Vector, values
from celerymeter.settings import BrokerSettings, ExporterSettings

HUGE = ["9" * 30, "9" * 400, "-" + "9" * 400, "18446744073709551616", "1e999", "9" * 5000]


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A server that can say anything."""
    with HostileServer(says(b"")) as started:
        yield started


@pytest.mark.parametrize("number", [*HUGE, "-1", "1.5", "true", '"5"', "[]", "NaN"], ids=lambda number: number[:9])
def test_no_number_of_rabbitmq_ends_the_page(number: str) -> None:
    """One that no float holds stood on the page, which Prometheus then refused as a whole; memory ended the poll."""
    for field in ("messages", "messages_unacknowledged", "message_bytes"):
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(f'[{{"name": "q", "{field}": {number}}}]', type=list[ListedQueue])
    for field in ("mem_used", "mem_limit"):
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(f'[{{"{field}": {number}}}]', type=list[Node])


AMOUNTS = {
    "a million queues": b"[" + b'{"name":"q"},' * 1_000_000 + b'{"name":"q"}]',
    "empty lists": b"[" + b"[]," * 8_000_000 + b"[]]",
    "arguments": b'[{"name":"q","arguments":{' + b'"a":[],' * 2_000_000 + b'"a":[]}}]',
}


@pytest.mark.parametrize("body", AMOUNTS.values(), ids=AMOUNTS)
def test_a_reply_of_very_many_values_is_not_read(server: HostileServer, body: bytes) -> None:
    """As objects they take many times the memory of their text."""
    server.speak = answers(body)

    def refused() -> None:
        with pytest.raises(PollError, match="values"):
            Management(server.url, broker_url="amqp://h//", timeout=60).queues()

    assert peak_of(refused)[1] < 130


def test_queues_beyond_a_number_are_not_polled(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody who may declare queues may declare very many: each would be a question to the broker at every poll."""
    monkeypatch.setattr(amqp_queues, "MAX_KNOWN", 1000)
    names = [f"q{number}" for number in range(1200)]
    queues = json.dumps([{"name": name, "messages": 1} for name in names]).encode()
    bindings = json.dumps([{"source": name, "destination": name} for name in names]).encode()

    def speak(client: socket.socket) -> None:
        answers(bindings if b"/bindings/" in server.heads[-1] else queues)(client)

    server.speak = speak
    settings = ExporterSettings(BrokerSettings(url="memory://"), rabbitmq_management_url=server.url)
    poller = AmqpQueuePoller(settings)
    snapshot = poller.poll([], now=1.0)
    poller.close()
    assert snapshot.incomplete == "1200 queues of tasks: the first 1000 are polled"


@pytest.mark.parametrize("text", ["abc", "", "0x10", "1 2", "\x1b[2J", "--1"])
@pytest.mark.parametrize("kind", ["vector", "matrix", "scalar"])
def test_a_text_that_is_no_number_is_no_answer_of_prometheus(kind: str, text: str) -> None:
    """It was an unexpected error."""
    point = [1.0, text]
    items = {"vector": [{"value": point}], "matrix": [{"values": [point]}], "scalar": point}
    _is_refused(kind, items[kind])


@pytest.mark.parametrize("at", [-1, 1e300, 253402300800, "1", None, True, []], ids=repr)
@pytest.mark.parametrize("kind", ["vector", "matrix", "scalar"])
def test_a_time_beyond_the_years_is_no_answer_of_prometheus(kind: str, at: object) -> None:
    """It could not be written down."""
    point = [at, "1"]
    items = {"vector": [{"value": point}], "matrix": [{"values": [point]}], "scalar": point}
    _is_refused(kind, items[kind])


def _is_refused(kind: str, result: object) -> None:
    body = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
    response = values.decode(body)
    assert response is not None
    with pytest.raises(PrometheusUnavailable):
        (values.matrix if kind == "matrix" else values.vector)(response)


@pytest.mark.parametrize("since", [1e300, -1e300, float("nan"), float("inf"), 253402300800.0, -1.0])
def test_an_alert_fires_since_some_time_that_there_is(since: float) -> None:
    """Any target may expose a series of that name: every snapshot was an unexpected error then."""
    labels = {"alertname": "CeleryWorkerDown"}
    found = {
        "alerts": Vector((Sample(labels, 1.0, 1000.0),)),
        "alerts_since": Vector((Sample(labels, since, 1000.0),)),
    }
    [alert] = firing_alerts(found)
    assert 0 <= alert.timestamp.timestamp() <= 1000


# The state file


def continued(path: Path, content: bytes) -> Cluster:
    """An exporter that continues from it, and has a page."""
    cluster = Cluster()
    path.write_bytes(content)
    path.chmod(0o600)
    file = open_state_file(path, SharedTracker(cluster.tracker), KnownQueues())
    try:
        cluster.run("new")
        assert_shown(cluster)
        file.save()
    finally:
        file.close()
    return cluster


@pytest.mark.parametrize("depth", [1_000, 100_000])
@pytest.mark.parametrize("section", ["counters", "queues", "another"])
def test_a_state_file_that_is_nested_deeply_starts_anew(tmp_path: Path, section: str, depth: int) -> None:
    """It ended the program at every start."""
    begin = b'{"version": 1, "saved_at": 1, "sections": {"' + section.encode() + b'": '
    for content in (begin + b"[" * depth, begin + b"[" * depth + b"]" * depth + b"}}"):
        assert continued(tmp_path / "state", content).series().succeeded == 1


@pytest.mark.parametrize("number", [10**30, 10**400, -(10**400)], ids=["10^30", "10^400", "-10^400"])
def test_no_number_of_a_state_file_ends_the_page(tmp_path: Path, number: int) -> None:
    """Counts of series, exceptions, buckets and events."""
    for way in (("counters", "events"), ("series", 0, "runtime", "counts"), ("lag", "counts")):
        document = json.loads(json.dumps(SAVED))
        place = document["sections"]["counters"]
        for key in way:
            place = place[key]
        key = 0 if isinstance(place, list) else "task-failed"
        place[key] = number
        cluster = continued(tmp_path / "state", json.dumps(document).encode())
        assert cluster.series().failed == 0, way


def test_a_state_file_without_an_end_is_not_read_whole(tmp_path: Path) -> None:
    """Of 2 GB, all zeros on a disk that stores none."""
    path = tmp_path / "state"
    path.touch(mode=0o600)
    os.truncate(path, 2 * 10**9)

    def start() -> None:
        open_state_file(path, SharedTracker(Cluster().tracker), KnownQueues()).close()

    assert peak_of(start)[1] < 100
    assert path.with_name("state.unusable").exists()
