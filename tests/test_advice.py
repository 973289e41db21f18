"""What clients say where a proxy, the scheme of a URL or a certificate is why it fails."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from tests.httpd.conftest import Authority, authority  # noqa: F401 - a fixture
from tests.security.hostile_server import HostileServer, answers

from celerymeter.cli import main
from celerymeter.demo.run import _ask_loopback_without_proxy
from celerymeter.doctor.checks import diagnose
from celerymeter.doctor.collect import http, prometheus
from celerymeter.doctor.evidence import BrokerEvidence, Evidence
from celerymeter.httpd import MetricsServer, WebConfig
from celerymeter.httpd.web_config import TlsConfig
from celerymeter.prometheus import Scope

pytestmark = pytest.mark.integration

NOWHERE = "127.0.0.1:1"
Say = Callable[[str], str]
ONE_CONNECTION = pytest.mark.parametrize("say", ["task", "exporter", "control"], indirect=True)
"""Those that ask for Prometheus open several, and Python leaves one open whose server resets it before a handshake."""


@pytest.fixture(autouse=True)
def _no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for variable in (name, name.upper()):
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture(params=["task", "report", "exporter", "control", "prometheus"])
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Say:
    """What a client says of a URL: two commands, and three findings of the doctor."""

    def command(url: str) -> str:
        words = {
            "task": ["task", "an-id", "--token", "a-token", "--control-url", url],
            "report": ["report", "--prometheus-url", url],
        }[request.param]
        assert main(words) == 1
        return capsys.readouterr().err

    def finding(url: str) -> str:
        evidence = Evidence(BrokerEvidence("redis://h"))
        if request.param == "exporter":
            evidence = replace(evidence, exporter=http.collect_exporter(url, timeout=0.5))
        elif request.param == "control":
            evidence = replace(evidence, control=http.collect_control(url, timeout=0.5))
        else:
            evidence = replace(evidence, prometheus=prometheus.collect(url, scope=Scope(), timeout=0.5))
        [found] = [each for each in diagnose(evidence) if each.code == f"{request.param}-unreachable"]
        return f"{found.problem}: {found.fix}"

    return command if request.param in ("task", "report") else finding


@pytest.fixture
def secure(authority: Authority) -> Iterator[MetricsServer]:  # noqa: F811
    """A server with TLS and a certificate of an authority that nobody knows."""
    config = WebConfig(tls=TlsConfig(*authority.issue("advice")))
    server = MetricsServer("127.0.0.1:0", page=list, healthy=lambda: None, ready=lambda: None, web_config=config)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
def test_a_proxy_is_named(say: Say, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """One that is away, and one that refuses: nobody should send it the password of the exporter."""
    advice = "it is asked through the proxy of {} ({}): set NO_PROXY=exporter.invalid to ask without it"
    monkeypatch.setenv(variable, f"http://ann:hush@{NOWHERE}/")
    assert advice.format(variable.upper(), NOWHERE) in say("http://exporter.invalid:9808")
    with HostileServer(answers(b"<html>", status=b"403 Forbidden")) as proxy:
        monkeypatch.setenv(variable, f"127.0.0.1:{proxy.port}")
        said = say("http://exporter.invalid:9808")
        assert proxy.heads
    assert advice.format(variable.upper(), f"127.0.0.1:{proxy.port}") in said
    assert "USER:PASSWORD" not in said


def test_a_url_that_no_proxy_is_asked_for(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """No word of it."""
    monkeypatch.setenv("http_proxy", f"http://{NOWHERE}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "PROXY" not in say("http://127.0.0.1:1")


@ONE_CONNECTION
def test_https_of_a_server_without_tls(say: Say) -> None:
    """It answers in plain text."""

    def answer(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        while client.recv(65536):  # closed with something unread, it would reset the connection
            pass

    with talking(answer) as port:
        assert "perhaps it has no TLS: try http://" in say(f"https://127.0.0.1:{port}")


@pytest.mark.parametrize("say", ["exporter", "control"], indirect=True)
def test_https_of_a_server_that_waits_for_a_line(say: Say) -> None:
    """As ours do."""
    done = threading.Event()
    with talking(lambda _: done.wait(5)) as port:
        assert "perhaps it has no TLS: try http://" in say(f"https://127.0.0.1:{port}")
        done.set()


@ONE_CONNECTION
def test_http_of_a_server_with_tls(say: Say, secure: MetricsServer) -> None:
    """It answers with an alert of TLS, or closes the connection."""
    assert "perhaps it has TLS: try https://" in say(secure.url.replace("https:", "http:"))


@ONE_CONNECTION
def test_a_certificate_that_is_not_trusted(say: Say, secure: MetricsServer) -> None:
    """Its authority is unknown."""
    said = say(secure.url)
    assert "its certificate is not trusted (" in said
    assert "REQUESTS_CA_BUNDLE" in said


def test_the_demo_keeps_what_is_asked_without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """And adds loopback."""
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("no_proxy", "")
    _ask_loopback_without_proxy()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "intranet,127.0.0.1,localhost"


@contextmanager
def talking(speak: Callable[[socket.socket], object]) -> Iterator[int]:
    """Listen, and treat each client this way once it has said something."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                try:
                    client.recv(1, socket.MSG_PEEK)
                    speak(client)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
