"""Servers that we ask: broken or hostile, slow, huge, endless, or leading elsewhere; of five kinds of clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import requests
from tests.security.hostile_server import BROKEN, HUGE, SLOW, HostileServer, answers, says
from tests.security.process import peak_of

from celerymeter.bounded_http import fetch
from celerymeter.cli.control_client import ControlClient
from celerymeter.control.cluster.snapshot import alertmanager_component
from celerymeter.doctor.collect import http
from celerymeter.doctor.collect import prometheus as doctor_prometheus
from celerymeter.errors import CelerymeterError
from celerymeter.polling.amqp_queues import Management
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope

pytestmark = pytest.mark.integration

SECRET = "hush"
PATIENCE = 0.2
MAX_MB = 120.0
"""By which a process may grow over an answer: the largest that Prometheus may give has 64 MiB."""


@dataclass(frozen=True)
class Client:
    """One of our clients: what it does with a server at a URL, and its result as text."""

    ask: Callable[[str], object]

    def outcome(self, url: str) -> str:
        """Return the text of an error or of a result; anything that is neither is a finding."""
        try:
            return str(self.ask(url))
        except CelerymeterError as error:
            return str(error)


def with_user(url: str) -> str:
    """Return the URL with a user and a password."""
    return url.replace("://", f"://ann:{SECRET}@")


def prometheus(url: str) -> object:
    """As reports and the control API do."""
    settings = PrometheusSettings(with_user(url), headers={"X-Token": SECRET}, timeout=PATIENCE)
    with PrometheusClient(settings) as client:
        return client.instant("up").value()


def management(url: str) -> object:
    """As the exporter does on RabbitMQ."""
    return list(Management(with_user(url), broker_url="amqp://h//", timeout=PATIENCE).queues())


CLIENTS = {
    "prometheus": Client(prometheus),
    "management": Client(management),
    "doctor of an exporter": Client(lambda url: http.collect_exporter(with_user(url), timeout=PATIENCE).failure),
    "doctor of a control API": Client(lambda url: http.collect_control(with_user(url), timeout=PATIENCE).failure),
    "doctor of Prometheus": Client(
        lambda url: doctor_prometheus.collect(with_user(url), scope=Scope(), timeout=PATIENCE).failure
    ),
    "commands": Client(lambda url: ControlClient(url, SECRET, timeout=PATIENCE).call("GET", "/tasks", dict)),
    "alertmanager": Client(lambda url: alertmanager_component(with_user(url), timeout=PATIENCE)),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    """Each of them."""
    return CLIENTS[request.param]


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A server that says nothing yet."""
    with HostileServer(says(b"")) as started:
        yield started


def is_harmless(text: str) -> bool:
    """Return whether a message is one short line without secrets."""
    return SECRET not in text and "\n" not in text and "\x1b" not in text and len(text) < 600


@pytest.mark.parametrize("name", SLOW)
def test_an_answer_that_never_ends_is_given_up_in_time(server: HostileServer, name: str) -> None:
    """Each read brings something, so a timeout for a read ends nothing."""
    server.speak = SLOW[name]
    began = time.monotonic()
    with pytest.raises(requests.RequestException):
        fetch("GET", server.url, timeout=PATIENCE, max_bytes=1000)
    assert time.monotonic() - began < PATIENCE + 2


@pytest.mark.parametrize("name", HUGE)
def test_an_answer_without_end_takes_little_memory(server: HostileServer, name: str) -> None:
    """Nor does little that becomes much."""
    server.speak = HUGE[name]

    def refused() -> None:
        with pytest.raises(requests.RequestException):
            fetch("GET", server.url, timeout=20, max_bytes=1_000_000)

    assert peak_of(refused)[1] < 10


@pytest.mark.parametrize("name", ["a slow head", "a slow body"])
def test_no_client_waits_for_ever(server: HostileServer, client: Client, name: str) -> None:
    """Each says so in a line."""
    server.speak = SLOW[name]
    began = time.monotonic()
    assert is_harmless(client.outcome(server.url))
    assert time.monotonic() - began < 3 * PATIENCE + 2


@pytest.mark.parametrize("name", ["a body without end", "a gzip bomb"])
def test_no_client_reads_without_end(server: HostileServer, client: Client, name: str) -> None:
    """The largest answer that is read at all has 64 MiB."""
    server.speak = HUGE[name]
    outcome, grown = peak_of(lambda: client.outcome(server.url))
    assert is_harmless(outcome)
    assert grown < MAX_MB


def test_a_broken_answer_is_an_error_of_ours(server: HostileServer, client: Client) -> None:
    """One line, whatever it was."""
    for name, speak in BROKEN.items():
        server.speak = speak
        assert is_harmless(client.outcome(server.url)), name


def test_no_redirect_is_followed(server: HostileServer, client: Client) -> None:
    """Neither elsewhere nor to itself: it could lead into a network that only we can reach, with our password."""
    with HostileServer(answers(b"{}")) as other:
        for place in (f"{other.url}/", with_user(other.url), "/elsewhere", f"//127.0.0.1:{other.port}/x"):
            for status in (b"301", b"302", b"303", b"307", b"308"):
                server.speak = answers(b"", b"Location: " + place.encode(), status=status + b" Found")
                assert is_harmless(client.outcome(server.url))
        assert other.heads == []
    assert not [head for head in server.heads if b"elsewhere" in head.split(b"\r\n")[0]]


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * 1000])
@pytest.mark.parametrize("header", [b"", b"Content-Encoding: identity", b"Content-Encoding: "])
def test_a_usual_answer_is_read_whole(server: HostileServer, body: bytes, header: bytes) -> None:
    """Also compressed, and one after the other on a connection."""
    server.speak = answers(body, header) if header else answers(body)
    assert fetch("GET", server.url, timeout=5, max_bytes=1000).body == body


def test_an_answer_may_have_as_many_bytes_as_it_may() -> None:
    """And not one more."""
    with HostileServer(answers(b"x" * 1000)) as server:
        assert len(fetch("GET", server.url, timeout=5, max_bytes=1000).body) == 1000
        with pytest.raises(requests.RequestException):
            fetch("GET", server.url, timeout=5, max_bytes=999)
