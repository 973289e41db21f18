"""The client against a server with scripted answers: failures, retries, bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from celerymeter.demo.processes import free_port
from celerymeter.errors import AmbiguousCluster, AnswerTooLarge, PrometheusUnavailable, QueryRejected, SettingsError
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope, choose_cluster

EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}


def vector(*items: tuple[dict[str, str], str]) -> dict[str, Any]:
    """An instant answer with these labels and values."""
    result = [{"metric": labels, "value": [1.5, value]} for labels, value in items]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@dataclass
class Asked:
    """One request that the server saw."""

    method: str
    path: str
    fields: dict[str, list[str]]
    headers: dict[str, str]


@dataclass
class Script:
    """The server's answers: the next of ``answers``, the last one again and again; a callable runs first."""

    answers: list[tuple[int, object]] = field(default_factory=lambda: [(200, EMPTY)])
    before: Callable[[], object] | None = None
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def next(self) -> tuple[int, bytes]:
        """Status and body."""
        status, body = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return status, body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture
def script() -> Iterator[Script]:
    """A scripted server on loopback."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self.answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def answer(self, query: str) -> None:
            path = urlsplit(self.path).path
            script.asked.append(Asked(self.command, path, parse_qs(query), dict(self.headers)))
            if script.before:
                script.before()
            status, body = script.next()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            """A client that hung up is part of some tests."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}/prefix"
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Counted:
    """An observer that remembers."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def answered(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def failed(self, reason: str) -> None:
        self.failures.append(reason)


def test_no_data_is_not_zero(script: Script) -> None:
    """An empty answer, NaN and infinity have no value; 0 is 0."""
    script.answers = [(200, EMPTY), (200, vector(({}, "NaN"))), (200, vector(({}, "+Inf"))), (200, vector(({}, "0")))]
    with PrometheusClient(PrometheusSettings(script.url)) as client:
        values = [client.instant("q").value() for _ in range(4)]

    assert values == [None, None, None, 0.0]


def test_one_of_several_samples_is_chosen_by_labels(script: Script) -> None:
    """Values are found by labels; several where one was expected is an error of ours."""
    script.answers = [(200, vector(({"a": "1", "b": "x"}, "1"), ({"a": "2", "b": "x"}, "2"), ({"a": "3"}, "NaN")))]
    with PrometheusClient(PrometheusSettings(script.url)) as client:
        found = client.instant("q")

    assert found.value(a="2") == 2.0
    assert found.value(a="9") is None
    assert found.by("a") == {"1": 1.0, "2": 2.0}
    with pytest.raises(ValueError, match="2 samples"):
        found.value(b="x")


def test_headers_and_milliseconds_are_sent(script: Script) -> None:
    """Tenants and tokens go with each request; times keep their milliseconds; the path prefix stays."""
    settings = PrometheusSettings(script.url, headers={"X-Scope-OrgID": "t1", "Authorization": "Bearer s"})
    with PrometheusClient(settings) as client:
        client.instant("q", time=1700000000.1234)

    (asked,) = script.asked
    assert asked.path == "/prefix/api/v1/query"
    assert asked.fields["time"] == ["1700000000.123"]
    assert (asked.headers["X-Scope-OrgID"], asked.headers["Authorization"]) == ("t1", "Bearer s")


def test_long_queries_travel_in_the_body(script: Script) -> None:
    """A short query is a GET, a long one a POST."""
    with PrometheusClient(PrometheusSettings(script.url)) as client:
        client.instant("q")
        client.instant("q" * 5000)

    assert [asked.method for asked in script.asked] == ["GET", "POST"]
    assert script.asked[1].fields["query"] == ["q" * 5000]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_passing_failure_is_asked_again_once(script: Script, status: int) -> None:
    """One answer that says "later" costs nothing; two are reported."""
    script.answers = [(status, b"<html>"), (200, vector(({}, "7")))]
    with PrometheusClient(PrometheusSettings(script.url)) as client:
        assert client.instant("q").value() == 7.0
        script.answers = [(status, b"<html>")]
        with pytest.raises(PrometheusUnavailable, match=str(status)):
            client.instant("q")

    assert len(script.asked) == 4


def test_a_query_that_timed_out_is_not_repeated(script: Script) -> None:
    """The engine's own time-out is a 503 that a second try would only double."""
    script.answers = [(503, {"status": "error", "errorType": "timeout", "error": "query timed out"})]
    with (
        PrometheusClient(PrometheusSettings(script.url)) as client,
        pytest.raises(PrometheusUnavailable, match="timed out"),
    ):
        client.instant("q")

    assert len(script.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"status": "error", "errorType": "bad_data", "error": "parse error"}, QueryRejected),
        (422, {"status": "error", "errorType": "execution", "error": "too many samples"}, QueryRejected),
        (414, b"<html>", QueryRejected),
        (400, b"unsupported path", PrometheusUnavailable),
        (401, b"no", PrometheusUnavailable),
        (302, b"", PrometheusUnavailable),
        (404, b"no", PrometheusUnavailable),
        (429, b"no", PrometheusUnavailable),
        (500, b"no", PrometheusUnavailable),
        (200, b"<html>login</html>", PrometheusUnavailable),
        (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}, PrometheusUnavailable),
        (
            200,
            {"status": "success", "data": {"resultType": "vector", "result": [{"value": "x"}]}},
            PrometheusUnavailable,
        ),
    ],
)
def test_every_other_answer_is_a_typed_error(script: Script, status: int, body: object, error: type[Exception]) -> None:
    """Refusals, wrong URLs, login pages and nonsense are distinguished at the first attempt."""
    script.answers = [(status, body)]
    with PrometheusClient(PrometheusSettings(script.url)) as client, pytest.raises(error):
        client.instant("q")

    assert len(script.asked) == 1


def test_a_silent_server_costs_the_timeout_and_no_more(script: Script) -> None:
    """A server that does not answer is given up after the time-out."""
    script.before = lambda: time.sleep(3)
    start = time.monotonic()
    with (
        PrometheusClient(PrometheusSettings(script.url, timeout=0.3)) as client,
        pytest.raises(PrometheusUnavailable, match=r"within 0\.3 s"),
    ):
        client.instant("q")

    assert time.monotonic() - start < 2
    assert len(script.asked) == 1


def test_a_refused_connection_is_unavailable_and_hides_the_password() -> None:
    """The error names neither URL nor password."""
    url = f"http://user:hidden@127.0.0.1:{free_port()}"
    settings = PrometheusSettings(url, headers={"X-Token": "hidden"})
    with PrometheusClient(settings) as client, pytest.raises(PrometheusUnavailable) as caught:
        client.instant("q")

    assert "hidden" not in f"{caught.value} {settings} {settings.safe_url}"


def test_an_answer_beyond_the_bound_is_refused(script: Script) -> None:
    """Memory is bounded by the setting, not by the server."""
    script.answers = [(200, b" " * 300_000)]
    settings = PrometheusSettings(script.url, max_bytes=100_000)
    with PrometheusClient(settings) as client, pytest.raises(AnswerTooLarge):
        client.instant("q")


def test_several_queries_run_at_once(script: Script) -> None:
    """A round costs its slowest query, not the sum."""
    script.before = lambda: time.sleep(0.3)
    start = time.monotonic()
    with PrometheusClient(PrometheusSettings(script.url)) as client:
        found = client.instants({str(n): "q" for n in range(8)})

    assert len(found) == 8
    assert time.monotonic() - start < 1.5


def test_a_failure_among_several_is_raised(script: Script) -> None:
    """One refused query fails the round with its own error."""
    script.answers = [(200, EMPTY), (400, {"status": "error", "error": "parse error"})]
    with PrometheusClient(PrometheusSettings(script.url)) as client, pytest.raises(QueryRejected):
        client.instants({"a": "q", "b": "q", "c": "q"})


def test_warnings_and_left_out_histograms_are_carried(script: Script) -> None:
    """An incomplete answer says so."""
    answer = {**vector(({}, "1")), "warnings": ["a store is away"]}
    answer["data"]["result"].append({"metric": {"x": "y"}, "histogram": [1, {"count": "1"}]})
    script.answers = [(200, answer)]
    with PrometheusClient(PrometheusSettings(script.url)) as client:
        found = client.instant("q")

    assert found.warnings == ("a store is away", "native histograms were left out")
    assert len(found) == 1


def test_queries_and_failures_are_observed(script: Script) -> None:
    """The observer sees each outcome."""
    script.answers = [(200, EMPTY), (400, {"status": "error"}), (500, b"")]
    seen = Counted()
    with PrometheusClient(PrometheusSettings(script.url), observer=seen) as client:
        client.instant("q")
        for _ in range(2):
            with pytest.raises((QueryRejected, PrometheusUnavailable)):
                client.instant("q")

    assert (len(seen.seconds), seen.failures) == (1, ["rejected", "unavailable"])


def test_too_many_steps_are_refused_before_asking(script: Script) -> None:
    """A range beyond 11,000 points per series never leaves."""
    with PrometheusClient(PrometheusSettings(script.url)) as client, pytest.raises(QueryRejected, match="larger step"):
        client.range("q", start=0, end=11_000, step=1)

    assert script.asked == []


def test_several_clusters_ask_for_a_choice(script: Script) -> None:
    """None chosen of two is an error with both names; a chosen one needs no query; a single one chooses itself."""
    script.answers = [(200, vector(({"cluster": "us"}, "1"), ({"cluster": "eu"}, "1"))), (200, vector(({}, "1")))]
    with PrometheusClient(PrometheusSettings(script.url)) as client:
        with pytest.raises(AmbiguousCluster) as caught:
            choose_cluster(client, Scope())
        assert choose_cluster(client, Scope(cluster="eu")) == Scope(cluster="eu")
        assert choose_cluster(client, Scope()) == Scope(cluster="")

    assert caught.value.clusters == ("eu", "us")
    assert len(script.asked) == 2


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("prometheus:9090", {}),
        ("ftp://x", {}),
        ("http://", {}),
        ("http://x", {"a b": "c"}),
        ("http://x", {"a": "b\r\nc: d"}),
    ],
)
def test_wrong_settings_are_refused(url: str, headers: dict[str, str]) -> None:
    """A URL without its scheme and a header of two lines are wrong settings."""
    with pytest.raises(SettingsError):
        PrometheusSettings(url, headers=headers)
