"""A scraper gets its page within a second, whatever others do with their connections."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import pytest
from tests.httpd.conftest import PAGE, Authority, Serve, Site

from celerymeter.demo.processes import wait_until
from celerymeter.httpd import WebConfig
from celerymeter.httpd import pages as pages_module
from celerymeter.httpd import server as server_module
from celerymeter.httpd.throttle import MAX_KEYS, PER_ADDRESS, PER_USER, Throttle
from celerymeter.httpd.web_config import TlsConfig

CROWD = 300
"""Connections, more than the server takes."""


@contextlib.contextmanager
def crowd(
    site: Site, data: bytes = b"", *, size: int = CROWD, source: str = "127.0.0.1"
) -> Iterator[list[socket.socket]]:
    """Open connections, send the same on each, and hold them."""
    held: list[socket.socket] = []
    try:
        for _ in range(size):
            raw = socket.create_connection(site.server.address, timeout=30, source_address=(source, 0))
            held.append(raw)
            if data:
                with contextlib.suppress(OSError):
                    raw.sendall(data)
        yield held
    finally:
        for raw in held:
            raw.close()


def scrape(site: Site, path: str = "/metrics", source: str = "127.0.0.1", **headers: str) -> tuple[int, bytes, float]:
    """Return status, body and seconds of one request."""
    began = time.monotonic()
    client = http.client.HTTPConnection(*site.server.address, timeout=60, source_address=(source, 0))
    try:
        client.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = client.getresponse()
        return response.status, response.read(), time.monotonic() - began
    finally:
        client.close()


SOON = 5.0
"""Seconds: far less than a scraper waits, and more than a busy machine takes for a page."""
WAITING = {
    "nothing": b"",
    "one byte": b"G",
    "no end of the head": b"GET /metrics HTTP/1.1\r\nHost: x\r\n",
    "a head of lines without end": b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 100,
    "kept alive": b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n",
    "kept alive, then a byte": b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\nG",
    "a body that does not come": b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("data", WAITING.values(), ids=WAITING.keys())
def test_connections_that_wait_keep_no_scraper_out(site: Site, data: bytes) -> None:
    """256 idle connections of one client were a 503 for every scraper, for as long as they stayed."""
    with crowd(site, data):
        for _ in range(5):
            status, body, seconds = scrape(site)
            assert (status, body) == (200, PAGE)
            assert seconds < SOON
        assert len(site.server._connections) <= server_module.MAX_CONNECTIONS


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_handshakes_that_never_end_keep_no_scraper_out(serve: Serve, authority: Authority, data: bytes) -> None:
    """They count before TLS has begun."""
    site = serve(web_config=WebConfig(tls=TlsConfig(*authority.issue("server"))))
    context = ssl.create_default_context(cafile=str(authority.ca))
    with crowd(site, data):
        client = http.client.HTTPSConnection("localhost", site.server.address[1], timeout=30, context=context)
        began = time.monotonic()
        client.request("GET", "/metrics")
        assert client.getresponse().read() == PAGE
        assert time.monotonic() - began < SOON
        client.close()
        assert len(site.server._connections) <= server_module.MAX_CONNECTIONS


def test_a_crowd_of_one_address_closes_its_own_connections(site: Site) -> None:
    """A scraper elsewhere keeps the one that it holds."""
    client = http.client.HTTPConnection(*site.server.address, timeout=30, source_address=("127.0.0.3", 0))
    client.request("GET", "/metrics")
    assert client.getresponse().read() == PAGE
    mine = client.sock
    with crowd(site, WAITING["kept alive"], source="127.0.0.2"):
        client.request("GET", "/metrics")
        assert client.getresponse().read() == PAGE
        assert client.sock is mine
    client.close()


def test_crowds_of_many_addresses_leave_room(site: Site) -> None:
    """Each of them below the cap of an address."""
    with contextlib.ExitStack() as held:
        for host in range(10, 16):
            held.enter_context(crowd(site, b"", size=60, source=f"127.0.0.{host}"))
        status, body, seconds = scrape(site)
        assert (status, body) == (200, PAGE)
        assert seconds < SOON


def test_clients_that_do_not_read_hold_few_pages(site: Site) -> None:
    """Those who read most slowly are cut, so that memory is bounded; who reads gets its page."""
    numbers = iter(range(1000))
    site.page = lambda: b"%d\n" % next(numbers) + b"x" * 8_000_000
    with crowd(site, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", size=60):
        wait_until(lambda: sum(one.body is not None for one in site.server._connections.copy()) > 5)
        status, body, _ = scrape(site)
        assert (status, len(body) > 8_000_000) == (200, True)
        bodies = {id(one.body): len(one.body or b"") for one in site.server._connections.copy()}
        assert sum(bodies.values()) <= server_module.MAX_SENDING + 8_000_010


def test_many_scrapers_at_once_share_pages(site: Site) -> None:
    """A page is rendered for those who wait, not once for each."""
    rendered = []

    def page() -> bytes:
        rendered.append(1)
        time.sleep(0.1)
        return PAGE

    site.page = page
    with ThreadPoolExecutor(60) as pool:
        results = list(pool.map(lambda _: scrape(site)[:2], range(60)))
    assert results == [(200, PAGE)] * 60
    assert len(rendered) < 30


def test_a_page_is_never_older_than_its_request(site: Site) -> None:
    """Nobody is given one whose rendering began before."""
    value = 0

    def page() -> bytes:
        seen = value
        time.sleep(0.05)
        return b"%d" % seen

    site.page = page

    def ask(_: int) -> bool:
        nonlocal value
        value += 1
        mine = value
        return int(scrape(site)[1]) >= mine

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(ask, range(60)))


def test_a_connection_that_leaves_frees_its_place(site: Site) -> None:
    """Also when it left in the middle of a page, or by a reset."""
    site.page = lambda: b"x" * 10_000_000
    for _ in range(100):
        raw = socket.create_connection(site.server.address, timeout=30)
        raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        raw.close()
    wait_until(lambda: not site.server._connections)
    assert scrape(site, "/-/healthy")[0] == 200


def test_descriptors_are_not_used_up(site: Site) -> None:
    """After three crowds there are no more of them than before."""
    before = len(os.listdir("/proc/self/fd"))
    for data in (b"", b"G", WAITING["kept alive"]):
        with crowd(site, data):
            pass
    wait_until(lambda: not site.server._connections)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


# Heads

BAD_HEADS = {
    "bare LF in a value": b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: b\nX: c\r\n\r\n",
    "bare CR in a value": b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: b\rX: c\r\n\r\n",
    "bare LF before a header": b"GET /metrics HTTP/1.1\r\nHost: x\r\n\nA: b\r\n\r\n",
    "bare LF in the request line": b"GET /metrics HTTP/1.1\nHost: x\r\nA: b\r\n\r\n",
    "bare CR in the request line": b"GET /metrics\rX HTTP/1.1\r\nHost: x\r\n\r\n",
    "a whole request behind bare LFs": b"GET / HTTP/1.1\r\nA: b\n\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in a value": b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "NUL in the path": b"GET /metr\x00ics HTTP/1.1\r\nHost: x\r\n\r\n",
    "escape in the path": b"GET /\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n",
    "DEL in a value": b"GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "tab before the colon": b"GET / HTTP/1.1\r\nHost\t: x\r\n\r\n",
    "a name with a space": b"GET / HTTP/1.1\r\nHost: x\r\nContent Length: 5\r\n\r\n",
    "a name beyond ASCII": b"GET / HTTP/1.1\r\nHost: x\r\n\xe9: 5\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: x\r\n: 5\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a folded first line": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a method that is no token": b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an empty method": b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab for a space": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /metrics\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "a version in small letters": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "a long head": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 17_000 + b"\r\n\r\n",
    "a long path": b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "nothing but line ends": b"\r\n\r\n\r\n\r\n",
}


def answers(site: Site, data: bytes) -> bytes:
    """Return all that comes back, until the server ends the connection."""
    with socket.create_connection(site.server.address, timeout=30) as raw:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := raw.recv(65536):
                received += chunk
        return received


@pytest.mark.parametrize("head", BAD_HEADS.values(), ids=BAD_HEADS.keys())
def test_a_head_that_others_may_read_differently_is_refused(site: Site, head: bytes) -> None:
    """With one response and the end of the connection: what follows it is nobody's request."""
    received = answers(site, head + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ", b"HTTP/1.1 505 "))
    assert PAGE not in received
    assert scrape(site)[1] == PAGE


SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTHS = [
    b"Content-Length: 36",
    b"Content-Length: 0036",
    b"Content-Length: +36",
    b"Content-Length: 36, 36",
    b"Content-Length: 0\r\nContent-Length: 36",
    b"Content-Length: 36\r\nContent-Length: 0",
    b"Content-Length: 0x24",
    b"Content-Length: -1",
    b"Content-Length:",
    b"content-length: 36",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 36",
    b"TRANSFER-ENCODING: gzip, chunked",
]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"DELETE", b"OPTIONS"])
def test_a_body_is_never_read_as_a_request(site: Site, method: bytes, length: bytes) -> None:
    """The connection of a request with a body ends with its response."""
    received = answers(site, method + b" / HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n" + SMUGGLED)
    assert received.count(b"HTTP/1.1 ") == 1
    assert PAGE not in received


PATHS = [
    "//metrics",
    "/metrics/",
    "/metrics%2f",
    "/./metrics",
    "/%6detrics",
    "/metrics;x",
    "/METRICS",
    "/../metrics",
    "*",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "TRACE", "CONNECT", "PROPFIND"])
def test_no_other_path_has_the_page(serve: Serve, method: str, path: str) -> None:
    """Neither without a password."""
    site = serve(web_config=WebConfig(users={"alice": hashed("right")}))
    received = answers(site, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert received.startswith(b"HTTP/1.1 401 ")
    assert PAGE not in received


# Hosts


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("exporter.example.org", 200),
        ("exporter.example.org:9808", 200),
        ("EXPORTER.example.ORG", 200),
        ("127.0.0.1", 200),
        ("10.1.2.3:9808", 200),
        ("[::1]:9808", 200),
        ("[2001:db8::1]", 200),
        ("localhost:9808", 200),
        ("evil.example.com", 421),
        ("evil.example.com:9808", 421),
        ("exporter.example.org.evil.example.com", 421),
        ("xexporter.example.org", 421),
        ("exporter.example.org@evil.example.com", 421),
        ("localhost.evil.example.com", 421),
        ("127.0.0.1.evil.example.com", 421),
        ("127.1", 421),
        ("0x7f000001", 421),
        ("", 421),
        ("[::1", 421),
        ("exporter.example.org.", 421),
        ("exporter.example.org, evil.example.com", 421),
    ],
)
def test_a_listed_host_only(serve: Serve, host: str, status: int) -> None:
    """A page of somebody else's, whose name leads here for a moment, says its own name."""
    site = serve(web_config=WebConfig(hosts=("exporter.example.org",)))
    for path in ("/metrics", "/", "/-/ready"):
        assert scrape(site, path, Host=host)[0] == status


def test_without_a_list_every_host_is_right(site: Site) -> None:
    """Scrapers find exporters by many names."""
    assert scrape(site, Host="evil.example.com")[0] == 200


# Passwords


def hashed(password: str, rounds: int = 4) -> str:
    """A bcrypt hash, by default the cheapest there is."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds)).decode()


def basic(user: str, password: str) -> str:
    """Return the value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


EXPENSIVE = hashed("right", rounds=10)


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Basic YWxpY2U=", "Bearer x", "Basic Og==", "Digest x", "basic"]
)
def test_a_request_without_a_name_costs_no_bcrypt(serve: Serve, header: str) -> None:
    """60 strangers delayed a scraper by 30 s."""
    site = serve(web_config=WebConfig(users={"alice": "$2b$15$" + "a" * 53}))  # takes a second or more
    headers = {"Authorization": header} if header else {}
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(lambda _: scrape(site, **headers)[0], range(60)))
    assert statuses == {401}
    assert time.monotonic() - began < 20.0


def test_guesses_are_throttled_and_lock_out_nobody_who_was_right(serve: Serve) -> None:
    """By address; the scraper of the same address goes on."""
    site = serve(web_config=WebConfig(users={"alice": hashed("right")}))
    assert scrape(site, Authorization=basic("alice", "right"))[0] == 200
    statuses = [scrape(site, Authorization=basic("alice", f"guess{number}"))[0] for number in range(PER_ADDRESS + 20)]
    assert statuses == [401] * PER_ADDRESS + [429] * 20
    assert scrape(site, Authorization=basic("alice", "right"))[0] == 200
    assert scrape(site, source="127.0.0.9", Authorization=basic("alice", "wrong"))[0] == 401


def test_many_guesses_at_once_wait_for_nobody(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a few are verified at a time, and a scraper that was right before does not notice."""
    site = serve(web_config=WebConfig(users={"alice": EXPENSIVE}))
    right = basic("alice", "right")
    assert scrape(site, Authorization=right)[0] == 200

    def guess(number: int) -> int:
        source = f"127.0.1.{number % 60}"
        return scrape(site, source=source, Authorization=basic(f"u{number}", "x"))[0]

    with ThreadPoolExecutor(40) as pool:
        guesses = [pool.submit(guess, number) for number in range(40)]
        slowest = max(scrape(site, Authorization=right)[2] for _ in range(10))
        statuses = {one.result() for one in guesses}
    assert statuses == {401, 429}
    assert slowest < 1.0


def test_a_throttle_counts_by_address_and_by_user() -> None:
    """Many addresses that guess at one user are slowed down too, but not where that user comes from."""
    throttle = Throttle()
    throttle.succeeded("10.0.0.1", "alice")
    for number in range(PER_USER):
        throttle.failed(f"10.1.{number}.1", "alice", 0.0)
    assert throttle.wait("10.9.9.9", "alice", 0.5) == pytest.approx(0.5)
    assert throttle.wait("10.0.0.1", "alice", 0.5) == 0.0
    assert throttle.wait("10.9.9.9", "bob", 0.5) == 0.0
    assert throttle.wait("10.9.9.9", "alice", 60.0 / PER_USER) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_an_ipv6_client_is_its_network(one: str, other: str, same: bool) -> None:
    """It commands a whole /64."""
    throttle = Throttle()
    for _ in range(PER_ADDRESS):
        throttle.failed(one, "alice", 0.0)
    assert (throttle.wait(other, "bob", 1.0) > 0) == same


def test_an_address_that_goes_on_guessing_is_reported_once_a_minute() -> None:
    """Its attempts are verified at the rate at which its failures are forgotten."""
    throttle = Throttle()
    verified, reported = 0, 0
    for second in range(180):
        if throttle.wait("10.0.0.1", "alice", float(second)) == 0:
            verified += 1
            reported += throttle.failed("10.0.0.1", "alice", float(second))
    assert PER_ADDRESS * 3 <= verified <= PER_ADDRESS * 4
    assert reported == 3


def test_a_throttle_is_bounded() -> None:
    """By number of keys."""
    throttle = Throttle()
    for number in range(3 * MAX_KEYS):
        throttle.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"u{number}", 0.0)
        throttle.succeeded(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"u{number}")
    kept = (throttle._addresses, throttle._users, throttle._known, throttle._reported)
    assert all(len(keys) <= MAX_KEYS for keys in kept)


def test_a_crowd_in_the_renderer_stops_no_probe(site: Site) -> None:
    """Health is answered while all renderers are busy."""
    release = threading.Event()
    site.page = lambda: PAGE if release.wait(20) else b""
    with ThreadPoolExecutor(100) as pool:
        scrapes = [pool.submit(scrape, site) for _ in range(100)]
        wait_until(lambda: len(site.server._connections) >= 100)
        assert scrape(site, "/-/healthy")[2] < 1.0
        release.set()
        assert {one.result()[:2] for one in scrapes} == {(200, PAGE)}
    assert pages_module.RENDERERS == 2
