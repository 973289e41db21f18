"""The listener with real clients: pages, health, slow and broken clients, start and stop."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from celerymeter.demo.processes import wait_until
from celerymeter.errors import PortInUse, SettingsError
from celerymeter.httpd import MetricsServer, connection
from celerymeter.httpd import server as server_module
from celerymeter.httpd.server import bind

from .conftest import PAGE, Serve, Site


def get(url: str, **options: Any) -> requests.Response:
    """One GET without compression."""
    return requests.get(url, timeout=30, headers={"Accept-Encoding": "identity"}, **options)


def test_the_page_is_text_format(site: Site) -> None:
    """With the type that Prometheus 3 insists on, and its length."""
    answer = get(f"{site.url}/metrics")
    assert (answer.status_code, answer.content) == (200, PAGE)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Content-Length"] == str(len(PAGE))
    assert "Content-Encoding" not in answer.headers


def test_the_page_is_compressed_when_asked(site: Site) -> None:
    """A client that takes gzip gets the same page, smaller."""
    site.page = lambda: PAGE * 1000
    answer = requests.get(f"{site.url}/metrics", headers={"Accept-Encoding": "gzip"}, timeout=30)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.content == PAGE * 1000
    assert int(answer.headers["Content-Length"]) < len(PAGE) * 100


def test_one_connection_carries_many_requests(site: Site) -> None:
    """A scraper keeps its connection; HEAD has no body, and none is awaited."""
    client = http.client.HTTPConnection(*site.server.address, timeout=30)
    for method, path, status in (("GET", "/metrics", 200), ("HEAD", "/metrics", 200), ("GET", "/-/ready", 200)):
        client.request(method, path)
        answer = client.getresponse()
        assert (answer.status, answer.read() == b"") == (status, method == "HEAD")
        assert client.sock is not None
    client.close()


def test_health_and_readiness_give_their_reason(site: Site) -> None:
    """200 while fine, 503 with the reason as text; each by itself."""
    site.unready = "broker is down"
    assert get(f"{site.url}/-/healthy").text == "healthy\n"
    answer = get(f"{site.url}/-/ready")
    assert (answer.status_code, answer.text) == (503, "broker is down\n")
    site.unready, site.unhealthy = None, "the reader's thread has ended"
    assert get(f"{site.url}/-/ready").text == "ready\n"
    assert get(f"{site.url}/-/healthy").status_code == 503


def test_the_first_page_links_the_others(site: Site) -> None:
    """For people; what it repeats of the state is escaped."""
    site.unready = "<b>no</b>"
    answer = get(site.url)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    for path in ("/metrics", "/-/healthy", "/-/ready"):
        assert f'href="{path}"' in answer.text
    assert "&lt;b&gt;no&lt;/b&gt;" in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 405), ("PUT", "/", 405)],
)
def test_other_paths_and_methods(site: Site, method: str, path: str, status: int) -> None:
    """404 or 405, and the server lives."""
    answer = requests.request(method, site.url + path, data=b"x" * 10, timeout=30)
    assert answer.status_code == status
    assert answer.headers.get("Allow", "") == ("GET, HEAD" if status == 405 else "")
    assert get(f"{site.url}/metrics").status_code == 200


def test_a_page_that_fails_is_a_500(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """One plain line for the client, the trace for the log, the next scrape as ever."""

    def broken() -> bytes:
        raise KeyError("secret detail")

    site.page = broken
    answer = get(f"{site.url}/metrics")
    assert (answer.status_code, answer.text) == (500, "cannot serve /metrics: see the exporter's log\n")
    assert "secret detail" in caplog.text
    site.page = lambda: PAGE
    assert get(f"{site.url}/metrics").content == PAGE


def test_two_scrapers_at_once_get_whole_pages(site: Site) -> None:
    """Both are in the renderer at the same time, and each gets its own page to the last byte."""
    together, count = threading.Barrier(2, timeout=10), iter(range(100))

    def page() -> bytes:
        together.wait()
        return f"up {next(count)}\n".encode() * 200_000

    site.page = page
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: get(f"{site.url}/metrics").content, range(2))
    lines = {line for body in (first, second) for line in body.splitlines()}
    assert len(first) == len(second) == 5 * 200_000
    assert lines == {b"up 0", b"up 1"}
    assert len(set(first.splitlines())) == 1


def test_health_answers_while_pages_are_slow(site: Site) -> None:
    """Renderers that are all busy hold up nothing else."""
    release = threading.Event()
    site.page = lambda: PAGE if release.wait(20) else b""
    with ThreadPoolExecutor(8) as pool:
        scrapes = [pool.submit(get, f"{site.url}/metrics") for _ in range(8)]
        assert get(f"{site.url}/-/healthy").status_code == 200
        release.set()
        assert {scrape.result().content for scrape in scrapes} == {PAGE}


def ask(site: Site, data: bytes) -> bytes:
    """Send bytes and return all that comes back until the server ends the connection."""
    with socket.create_connection(site.server.address, timeout=30) as raw:
        raw.sendall(data)
        received = b""
        while chunk := raw.recv(65536):
            received += chunk
    return received


def test_a_broken_request_is_refused(site: Site) -> None:
    """400 for what is no HTTP, 431 for a head without end; nobody else notices."""
    assert ask(site, b"\x00\x01\x02\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert ask(site, b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")
    assert ask(site, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert get(f"{site.url}/metrics").content == PAGE


def test_pipelined_requests_are_answered_in_turn(site: Site) -> None:
    """Two heads in one packet give two answers."""
    received = ask(site, b"GET /-/ready HTTP/1.1\r\n\r\nGET /-/healthy HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert received.index(b"ready\n") < received.index(b"healthy\n")


def test_a_client_that_dawdles_is_sent_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte and then silence gives 408, not even that one byte the end of the connection."""
    monkeypatch.setattr(connection, "FIRST_TIMEOUT", 0.3)
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.3)
    assert ask(site, b"G").startswith(b"HTTP/1.1 408 ")
    assert ask(site, b"") == b""


def test_a_head_that_trickles_has_one_deadline(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that keep coming do not keep the connection."""
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.5)
    started = time.monotonic()
    with socket.create_connection(site.server.address, timeout=0.05) as raw:
        answer = b""
        while not answer and time.monotonic() < started + 10:
            raw.sendall(b"G")
            try:
                answer = raw.recv(100)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_does_not_read_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that nobody takes does not stay in memory."""
    monkeypatch.setattr(connection, "WRITE_TIMEOUT", 0.3)
    site.page = lambda: b"x" * 50_000_000
    with socket.create_connection(site.server.address, timeout=30) as raw:
        raw.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        wait_until(lambda: not site.server._connections, what="the connection is cut")
    assert get(f"{site.url}/-/healthy").status_code == 200


def test_at_the_cap_the_client_that_waits_for_longest_leaves(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newcomer is served at once."""
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    held = [socket.create_connection(site.server.address, timeout=30) for _ in range(2)]
    wait_until(lambda: len(site.server._connections) == 2)
    assert get(f"{site.url}/metrics").status_code == 200
    assert held[0].recv(1) == b""
    for raw in held:
        raw.close()


def test_too_many_clients_that_are_served_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newcomer gets 503 at once, and is welcome when another has its page."""
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    release = threading.Event()
    site.page = lambda: PAGE if release.wait(20) else b""
    with ThreadPoolExecutor(2) as pool:
        scrapes = [pool.submit(get, f"{site.url}/metrics") for _ in range(2)]
        wait_until(lambda: sum(not one.waits for one in site.server._connections) == 2)
        assert get(f"{site.url}/-/healthy").status_code == 503
        release.set()
        assert {scrape.result().content for scrape in scrapes} == {PAGE}
    assert get(f"{site.url}/metrics").status_code == 200


@pytest.mark.parametrize("listen", ["[::1]:0", "[::]:0", ":0", "0.0.0.0:0", "localhost:0"])
def test_addresses_of_both_families(serve: Serve, listen: str) -> None:
    """IPv6 alone, everything, and a name; the URL leads there."""
    site = serve(listen)
    assert site.server.address[1] > 0
    assert get(f"{site.url}/metrics").content == PAGE
    if listen in {"[::]:0", ":0"}:
        assert get(f"http://127.0.0.1:{site.server.address[1]}/metrics").content == PAGE


def test_a_socket_that_listens_already() -> None:
    """Bound by somebody else before, as a parent does for its child."""
    sock = bind("127.0.0.1:0", option="--listen")
    server = MetricsServer(sock, page=lambda: [PAGE], healthy=lambda: None, ready=lambda: None)
    server.start()
    assert server.address == sock.getsockname()
    assert get(f"{server.url}/metrics").content == PAGE
    server.stop()


def test_a_port_in_use_is_named(site: Site) -> None:
    """With the option that chooses another."""
    host, port = site.server.address
    with pytest.raises(PortInUse, match=rf"port {port} is taken on {host}; choose another with --metrics-listen"):
        bind(f"{host}:{port}", option="--metrics-listen")


def test_an_address_that_is_not_here_is_a_wrong_setting() -> None:
    """An unknown name, and an address of another machine."""
    for listen in ("no-such-host.invalid:0", "192.0.2.1:0"):
        with pytest.raises(SettingsError, match="--listen"):
            bind(listen, option="--listen")


def test_stop_ends_what_is_idle_and_lets_the_rest_finish(serve: Serve) -> None:
    """An idle connection is closed, an answer under way arrives whole, the port is free again."""
    site = serve()
    rendering = threading.Event()

    def page() -> bytes:
        rendering.set()
        time.sleep(0.3)
        return PAGE

    site.page = page
    idle = socket.create_connection(site.server.address, timeout=30)
    with ThreadPoolExecutor(1) as pool:
        scrape = pool.submit(get, f"{site.url}/metrics")
        assert rendering.wait(10)
        started = time.monotonic()
        site.server.stop()
        assert time.monotonic() - started < 4
        assert scrape.result().content == PAGE
    assert not site.server.alive
    idle.close()
    host, port = site.server.address
    bind(f"{host}:{port}", option="--listen").close()


def test_stop_before_start_and_twice() -> None:
    """Both are nothing."""
    never = MetricsServer("127.0.0.1:0", page=list, healthy=lambda: None, ready=lambda: None)
    never.stop()
    never.start()
    never.stop()
    never.stop()
    assert not never.alive


def test_a_client_that_hangs_up_is_no_error(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A reset in the middle of a page is not logged as trouble of ours."""
    site.page = lambda: b"x" * 5_000_000
    with caplog.at_level(logging.INFO):
        raw = socket.create_connection(site.server.address)
        raw.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        raw.recv(10)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        raw.close()
        wait_until(lambda: not site.server._connections)
        assert get(f"{site.url}/-/healthy").status_code == 200
    assert caplog.text == ""
