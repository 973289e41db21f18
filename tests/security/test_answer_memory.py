"""Prometheus may send anything: its answers together take no more memory than the control API may have."""

from __future__ import annotations

import gc
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from tests.security.hostile_server import HostileServer, answers
from tests.security.process import peak_of

from celerymeter.control.parts import LIVE_MEMORY, REPORT_MEMORY
from celerymeter.errors import AnswerTooLarge, PrometheusError
from celerymeter.prometheus import Matrix, PrometheusClient, PrometheusSettings, Scope, Vector
from celerymeter.prometheus.client import AnswerMemory
from celerymeter.prometheus.counters import Target
from celerymeter.reports import counting
from celerymeter.reports.counting import ScrapeRef, WindowCounter
from celerymeter.reports.request import ReportRequest, Window
from celerymeter.reports.service import ReportService

MEGABYTE = 1_000_000
SIZE = 12 * MEGABYTE
NOW = 1_700_000_000.0


def repeated(kind: str, item: bytes, *, size: int = SIZE, extra: bytes = b"") -> bytes:
    """An answer that repeats an item."""
    items = b",".join([item] * (size // (len(item) + 1)))
    return b'{"status":"success",%b"data":{"resultType":"%b","result":[%b]}}' % (extra, kind.encode(), items)


def points(size: int = SIZE) -> bytes:
    """One series of very many points."""
    values = b",".join([b'[1,"1"]'] * (size // 8))
    return repeated("matrix", b'{"metric":{},"values":[%b]}' % values, size=len(values) + 30)


BODIES: dict[str, Callable[[], bytes]] = {
    "points": points,
    "series": lambda: repeated("matrix", b'{"values":[]}'),
    "samples": lambda: repeated("vector", b'{"value":[1,"1"]}'),
    "nothing": lambda: repeated("vector", b"{}"),
    "labels": lambda: repeated("vector", b'{"metric":{"a":"b","c":"d","e":"f"},"value":[1,"1"]}'),
    "warnings": lambda: repeated("vector", b"", size=0, extra=b'"warnings":[' + b'"",' * (SIZE // 3) + b'""],'),
    "long labels": lambda: repeated("vector", b'{"metric":{"a":"' + b"x" * 100_000 + b'"},"value":[1,"1"]}'),
    "wide labels": lambda: repeated("vector", '{"metric":{"a":"\U0001f600aaaaaaaaaaaa"},"value":[1,"1"]}'.encode()),
}
"""Each was 100 to 500 MB; the largest answer may have five times as many bytes, and there are eight at once."""


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A server that says nothing yet."""
    with HostileServer(answers(b"")) as started:
        yield started


def client_of(server: HostileServer, memory: int) -> PrometheusClient:
    """A client with so much memory for answers."""
    return PrometheusClient(PrometheusSettings(server.url, max_memory=memory))


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("memory", [LIVE_MEMORY])
def test_eight_answers_at_once_take_bounded_memory(server: HostileServer, name: str, memory: int) -> None:
    """Whatever they are made of, and however long their readers keep them."""
    server.speak = answers(BODIES[name]())

    def ask() -> None:
        with client_of(server, memory) as client, ThreadPoolExecutor(8) as pool:
            kept = [pool.submit(client.samples if name in ("points", "series") else client.instant, "q", time=NOW)]
            kept += [pool.submit(client.instant, "q", time=NOW) for _ in range(15)]
            errors = [error for one in kept if (error := one.exception()) is not None]
            assert all(isinstance(error, PrometheusError) for error in errors)
            assert client.memory.used <= memory
            kept.clear()

    assert peak_of(ask)[1] < 3 * memory / MEGABYTE


def test_memory_is_given_back(server: HostileServer) -> None:
    """With the result; at once where there is none: by a refusal, a broken answer, another kind of answer."""
    body = repeated("vector", b'{"metric":{"a":"b"},"value":[1,"1"]}', size=100_000)
    with client_of(server, LIVE_MEMORY) as client:
        server.speak = answers(body)
        kept: list[Vector | Matrix] = [client.instant("q") for _ in range(3)]
        one = client.memory.used / 3
        assert 90 * len(kept[0]) < one < 2 * MEGABYTE
        kept.pop()
        gc.collect()
        assert client.memory.used == pytest.approx(2 * one)
        kept.clear()
        for hostile in (b"{", body[:-5], b"[" * 5000, points(100_000), b'{"status":"error"}'):
            server.speak = answers(hostile)
            with pytest.raises(PrometheusError):
                client.instant("q")
        gc.collect()
        assert client.memory.used == 0


def test_an_answer_that_does_not_fit_is_refused_clearly(server: HostileServer) -> None:
    """And the next one that fits is read."""
    with client_of(server, MEGABYTE) as client:
        server.speak = answers(repeated("vector", b'{"value":[1,"1"]}', size=100_000))
        with pytest.raises(AnswerTooLarge, match="more than 0 MiB of memory"):
            client.instant("q")
        server.speak = answers(repeated("vector", b'{"value":[1,"1"]}', size=1000))
        assert len(client.instant("q")) > 10


def take_and_give(memory: AnswerMemory) -> None:
    """Use a tenth of it for a moment."""
    memory.take(100)
    memory.give(100)


def test_what_is_used_is_counted_exactly() -> None:
    """From many threads."""
    memory = AnswerMemory(1000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take_and_give, [memory] * 1000))
    assert memory.used == 0
    with pytest.raises(AnswerTooLarge):
        memory.take(1001)
    assert memory.used == 0


def hostile_scrapes(number: int) -> bytes:
    """A scrape of very many counters, and so that it is also a series of starts."""
    items = [
        {"metric": {"__name__": "celery_task_succeeded_total", "name": f"t{n}"}, "value": [NOW, "1"]}
        for n in range(number)
    ]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": items}}).encode()


def test_a_report_of_a_hostile_prometheus_takes_bounded_memory(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new process at every scrape, each with as many counters as fit: all of them were kept until the end."""
    monkeypatch.setattr(counting, "HELD_COUNTERS", 10_000)
    starts = [[NOW - 3600 + 15 * n, str(NOW - 3600 + 15 * n)] for n in range(240)]
    target = {"metric": {"job": "j", "instance": "i"}, "values": starts}
    matrix = {"status": "success", "data": {"resultType": "matrix", "result": [target]}}
    scrape, found = answers(hostile_scrapes(4000)), answers(json.dumps(matrix).encode())

    def speak(client: socket.socket) -> None:
        head = server.heads[-1]
        (found if b"start_time" in head and b"%5B" in head else scrape)(client)

    server.speak = speak

    def report() -> None:
        with client_of(server, REPORT_MEMORY) as client, suppress(PrometheusError):
            ReportService(client, Scope(cluster="c")).report(ReportRequest(Window(NOW - 300, NOW)))

    assert peak_of(report)[1] < 60


def test_counters_of_few_scrapes_are_held(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as of a large cluster; more are read again."""
    monkeypatch.setattr(counting, "HELD_COUNTERS", 3000)
    server.speak = answers(hostile_scrapes(1000))
    with client_of(server, LIVE_MEMORY) as client:
        counter = WindowCounter(client, Scope(cluster="c"))
        for number in range(5):
            counter._read_scrape(ScrapeRef(Target("c", "j", "i"), number), set(), histograms=False)
        assert len(counter._scrapes) == 3
