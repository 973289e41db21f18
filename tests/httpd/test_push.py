"""``POST /-/push``: only for those with the token, never more than it can take, and no stack trace for anybody."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from celerymeter.httpd import MetricsServer, PushEndpoint
from celerymeter.httpd.push import MAX_BODY, MAX_WAITING

JSON = {"Content-Type": "application/json"}
RIGHT = {**JSON, "Authorization": "Bearer the token"}
Serve = Callable[..., str]


@pytest.fixture
def bodies() -> list[bytes]:
    """Return the list in which the bodies of pushes are kept."""
    return []


@pytest.fixture
def serve(bodies: list[bytes]) -> Iterator[Serve]:
    """Start a server that takes pushes; returns the URL."""
    servers = []

    def take(body: bytes) -> int:
        bodies.append(body)
        return body.count(b"type")

    def start(*, token: str | None = "the token", take: Callable[[bytes], int] = take) -> str:
        server = MetricsServer("127.0.0.1:0", page=list, healthy=lambda: None, ready=lambda: None)
        server.accept_pushes(PushEndpoint(take, token=token))
        server.start()
        servers.append(server)
        return f"{server.url}/-/push"

    yield start
    for server in servers:
        server.stop()


def test_the_token_opens_it(serve: Serve, bodies: list[bytes]) -> None:
    url = serve()
    with requests.Session() as session:
        for number in range(3):  # on one connection
            answer = session.post(url, b'{"type": %d}' % number, headers=RIGHT)
            assert (answer.status_code, answer.text) == (200, "1 events\n")
            assert answer.headers["Connection"] == "keep-alive"
    assert bodies == [b'{"type": 0}', b'{"type": 1}', b'{"type": 2}']


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic the token", "Bearer the tokenn", "Bearer \xe9"]
)
def test_anything_else_does_not(serve: Serve, bodies: list[bytes], authorization: str | None) -> None:
    headers: dict[str, str | bytes] = {**JSON}
    if authorization is not None:
        headers["Authorization"] = authorization.encode("latin-1")
    answer = requests.post(serve(), b'{"type": 1}', headers=headers)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["WWW-Authenticate"]
    assert bodies == []


def test_without_a_token_anybody_may_push(serve: Serve) -> None:
    assert requests.post(serve(token=None), b'{"type": 1}', headers=JSON).status_code == 200


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (415, {"Content-Type": "text/plain", "Content-Length": "3"}),
        (415, {"Content-Encoding": "gzip", "Content-Length": "3"}),
        (413, {"Content-Length": str(MAX_BODY + 1)}),
        (413, {"Content-Length": "9" * 4000}),
        (411, {"Content-Length": "-5"}),
        (411, {"Content-Length": "\xb2"}),
        (411, {"Transfer-Encoding": "chunked"}),
    ],
)
def test_what_it_does_not_take(serve: Serve, bodies: list[bytes], status: int, headers: dict[str, str]) -> None:
    host, _, path = serve().removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.putrequest("POST", f"/{path}")
    for name, value in {**RIGHT, **headers}.items():
        connection.putheader(name, value.encode("latin-1"))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Connection"]) == (status, "close")
    assert bodies == []
    connection.close()


def test_other_methods_and_unusable_bodies(serve: Serve) -> None:
    url = serve()
    assert requests.get(url, headers=RIGHT).status_code == 405
    assert requests.post(url, b"nothing", headers=RIGHT).status_code == 400


def test_without_the_endpoint_there_is_no_such_path() -> None:
    server = MetricsServer("127.0.0.1:0", page=list, healthy=lambda: None, ready=lambda: None)
    server.start()
    assert requests.post(f"{server.url}/-/push", b"{}", headers=RIGHT).status_code == 404
    server.stop()


def test_a_body_that_does_not_come_costs_only_its_connection(serve: Serve, bodies: list[bytes]) -> None:
    url = serve()
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /-/push HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n")
        slow.sendall(b"Authorization: Bearer the token\r\n\r\nhalf")
        assert requests.post(url, b'{"type": 1}', headers=RIGHT).status_code == 200
        slow.shutdown(socket.SHUT_WR)
        assert slow.recv(100) == b""
    assert bodies == [b'{"type": 1}']


def test_more_than_it_can_decode_is_asked_to_come_later(serve: Serve) -> None:
    go = threading.Event()
    host, _, path = serve(take=lambda _: int(go.wait(20))).removeprefix("http://").partition("/")
    statuses: list[int] = []

    def push(source: str) -> None:
        connection = http.client.HTTPConnection(host, timeout=30, source_address=(source, 0))
        connection.request("POST", f"/{path}", b"{}", RIGHT)
        statuses.append(connection.getresponse().status)
        connection.close()

    sources = [f"127.0.0.{number % 8 + 10}" for number in range(MAX_WAITING)] + ["127.0.0.30"] * 5
    threads = [threading.Thread(target=push, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    while statuses.count(429) < 5:
        threads[0].join(0.02)
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * MAX_WAITING + [429] * 5


def test_one_address_that_sends_slowly_keeps_no_other_out(serve: Serve) -> None:
    """64 bodies that do not come were a 429 for every worker, for ten seconds each."""
    host, _, path = serve().removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    head = "\r\n".join(f"{name}: {value}" for name, value in {**RIGHT, "Content-Length": "1000"}.items())
    with contextlib.ExitStack() as held:
        for _ in range(MAX_WAITING + 5):
            slow = held.enter_context(socket.create_connection((name, int(port))))
            slow.sendall(f"POST /{path} HTTP/1.1\r\n{head}\r\n\r\n{{".encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 429"), "the others were read before the last one"
        connection = http.client.HTTPConnection(host, timeout=30, source_address=("127.0.0.9", 0))
        connection.request("POST", f"/{path}", b'{"type": 1}', RIGHT)
        assert connection.getresponse().status == 200
        connection.close()
