"""TLS and basic auth, with real clients."""

from __future__ import annotations

import gc
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest
import requests

from celerymeter.demo.processes import wait_until
from celerymeter.httpd import WebConfig, connection, load_web_config, server
from celerymeter.httpd.web_config import REMEMBERED, BasicAuth, TlsConfig

from .conftest import PAGE, Authority, Serve, Site


def hashed(password: str, rounds: int = 4) -> str:
    """A bcrypt hash, by default the cheapest there is."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds)).decode()


USERS = {"alice": hashed("right"), "bob": hashed("pass:with:colons")}


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready", "/", "/nothing"])
def test_nothing_is_shown_to_strangers(serve: Serve, path: str) -> None:
    """Every path asks for a password, as with Prometheus' own exporters."""
    site = serve(web_config=WebConfig(users=USERS))
    answer = requests.get(site.url + path, timeout=30)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert b"up 1" not in answer.content


@pytest.mark.parametrize(
    ("user", "password", "status"),
    [
        ("alice", "right", 200),
        ("bob", "pass:with:colons", 200),
        ("alice", "wrong", 401),
        ("alice", "", 401),
        ("", "right", 401),
        ("mallory", "right", 401),
        ("alice", "right" + "x" * 100, 401),
    ],
)
def test_names_and_passwords(serve: Serve, user: str, password: str, status: int) -> None:
    """The right pair passes, the second time as well."""
    site = serve(web_config=WebConfig(users=USERS))
    for _ in range(2):
        assert requests.get(f"{site.url}/metrics", auth=(user, password), timeout=30).status_code == status


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!!", "Basic YWxpY2U=", "Bearer x", "Basic /w==", "Basic \xff"])
def test_a_header_that_is_no_basic_auth(header: str) -> None:
    """Is wrong, not an error."""
    assert BasicAuth(USERS).verify(header) is False


def test_right_credentials_are_remembered_and_bounded() -> None:
    """bcrypt is asked once for each; what was wrong is never remembered."""
    auth = BasicAuth({f"u{number}": USERS["alice"] for number in range(REMEMBERED + 1)})
    headers = [requests.auth._basic_auth_str(f"u{number}", "right") for number in range(REMEMBERED + 1)]
    assert all(auth.verify(header) for header in headers)
    assert [auth.remembers(header) for header in headers] == [False, *[True] * REMEMBERED]
    wrong = requests.auth._basic_auth_str("u1", "wrong")
    assert not auth.verify(wrong)
    assert not auth.remembers(wrong)


def test_a_stranger_costs_as_much_as_a_user() -> None:
    """The time to refuse does not tell which names exist, whatever the order of the users and their costs."""
    auth = BasicAuth({"cheap": hashed("x", 4), "dear": hashed("x", 9)})

    def seconds(user: str) -> float:
        started = time.process_time()
        auth.verify(requests.auth._basic_auth_str(user, "wrong"))
        return time.process_time() - started

    dear = min(seconds("dear") for _ in range(3))
    assert 0.5 * dear < min(seconds("nobody") for _ in range(3)) < 2 * dear


def test_tls(serve: Serve, authority: Authority) -> None:
    """The page over TLS, with the configured headers; plain HTTP and old TLS get nothing."""
    config = WebConfig(tls=TlsConfig(*authority.issue("plain")), headers={"X-Frame-Options": "deny"})
    site = serve(web_config=config)
    answer = requests.get(f"{site.url}/metrics", verify=str(authority.ca), timeout=30)
    assert (answer.content, answer.headers["X-Frame-Options"]) == (PAGE, "deny")
    with pytest.raises(requests.ConnectionError):
        requests.get(site.url.replace("https", "http"), timeout=30)
    assert requests.get(f"{site.url}/-/ready", verify=str(authority.ca), timeout=30).status_code == 200


def test_one_tls_connection_carries_many_requests(serve: Serve, authority: Authority) -> None:
    """A scraper keeps its connection, also for a page larger than any buffer."""
    site = serve(web_config=WebConfig(tls=TlsConfig(*authority.issue("kept"))))
    with requests.Session() as session:
        for size in (*[1] * 50, 5_000_000, 100_000, 1):
            site.page = lambda: b"x" * size
            plain = {"Accept-Encoding": "identity"}
            answer = session.get(f"{site.url}/metrics", headers=plain, verify=str(authority.ca), timeout=30)
            assert len(answer.content) == size
        assert len(site.server._connections) == 1


def test_tls_connections_that_end_leave_nothing(serve: Serve, authority: Authority) -> None:
    """A client that leaves as soon as it has its page holds no place on the server."""
    site = serve(web_config=WebConfig(tls=TlsConfig(*authority.issue("left"))))
    for _ in range(10):
        assert requests.get(f"{site.url}/-/ready", verify=str(authority.ca), timeout=30).status_code == 200
    wait_until(lambda: not site.server._connections, what="all connections are gone")


@contextmanager
def deaf(site: Site, authority: Authority, request: bytes) -> Iterator[None]:
    """Be a client that has its answer, and leaves the end of TLS unanswered."""
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    raw = socket.create_connection(site.server.address, timeout=30)
    with trusted.wrap_socket(raw, server_hostname="localhost") as client:
        client.sendall(request)
        assert client.recv(12).startswith(b"HTTP/1.1 ")
        yield


ENDING = pytest.mark.parametrize(
    "request_", [b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"x\r\n\r\n"]
)


@ENDING
def test_a_tls_connection_counts_until_it_is_closed(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    """Asyncio waits half a minute for the client to answer the end: any number was open beside the limit."""
    site = serve(web_config=WebConfig(tls=TlsConfig(*authority.issue("deaf"))))
    with deaf(site, authority, request_):
        [one] = site.server._connections
        wait_until(lambda: one.waits, what="the client owes the end")
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 0.2)
    with deaf(site, authority, request_):
        wait_until(lambda: not site.server._connections, what="it is cut off")


@ENDING
def test_a_server_that_stops_closes_tls_connections(serve: Serve, authority: Authority, request_: bytes) -> None:
    """Also one whose client has not answered its end: an open one is an error of this test."""
    site = serve(web_config=WebConfig(tls=TlsConfig(*authority.issue("deaf"))))
    with deaf(site, authority, request_):
        site.server.stop()
        gc.collect()
        assert not site.server._connections


def test_client_certificates(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    """Asked for and verified: who has none does not even reach a 401."""
    cert, key = authority.issue("server")
    web = tmp_path / "web.yml"
    web.write_text(
        f"tls_server_config: {{cert_file: {cert}, key_file: {key}, client_ca_file: {authority.ca}, "
        "client_auth_type: RequireAndVerifyClientCert}"
    )
    site = serve(web_config=load_web_config(web))
    cert, key = authority.issue("client")
    assert requests.get(site.url, verify=str(authority.ca), cert=(str(cert), str(key)), timeout=30).status_code == 200
    with pytest.raises((requests.ConnectionError, ssl.SSLError)):
        requests.get(site.url, verify=str(authority.ca), timeout=30)


def test_a_renewed_certificate_is_served(serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a restart, for new connections."""
    monkeypatch.setattr(server, "CERTIFICATE_CHECK", 0.05)
    cert, key = authority.issue("renewed")
    site = serve(web_config=WebConfig(tls=TlsConfig(cert, key)))
    before = ssl.get_server_certificate(site.server.address)
    authority.issue("renewed")
    deadline = time.monotonic() + 20
    while ssl.get_server_certificate(site.server.address) == before:
        assert time.monotonic() < deadline, "the old certificate is still served"
