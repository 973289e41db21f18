"""HTTP as values: heads that are taken or refused, compression that is wanted or not."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from celerymeter.httpd.protocol import Malformed, Request, Response, parse_head, render


def test_a_head_becomes_a_request() -> None:
    """Names in lower case, repeated headers joined, the query left out."""
    head = b"GET /metrics?x=1 HTTP/1.1\r\nHost: h\r\nAccept-Encoding: br\r\naccept-encoding: gzip\r\n\r\n"
    assert parse_head(head) == Request("GET", "/metrics", {"host": "h", "accept-encoding": "br,gzip"})


def test_the_absolute_form_is_understood() -> None:
    """As proxies send it."""
    assert parse_head(b"GET http://h:1/metrics?x HTTP/1.0\r\n\r\n").path == "/metrics"
    assert parse_head(b"GET http://h:1 HTTP/1.1\r\n\r\n").path == "/"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"\x16\x03\x01\x02 TLS hello\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nName : v\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nName: v\r\n folded\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET http://[ HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/2.0\r\n\r\n", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
    ],
)
def test_what_is_no_head_is_refused(head: bytes, status: HTTPStatus) -> None:
    """With the status that says why."""
    with pytest.raises(Malformed) as caught:
        parse_head(head)
    assert caught.value.status is status


@pytest.mark.parametrize(
    ("accepts", "wanted"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("deflate, GZIP;q=0.5", True),
        ("x-gzip", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *;q=1", False),
        ("*;q=0", False),
        ("gzip;q=much", False),
    ],
)
def test_gzip_when_asked(accepts: str, wanted: bool) -> None:
    """An explicit weight of 0 refuses, also beside a star."""
    assert Request("GET", "/", {"accept-encoding": accepts}).takes_gzip is wanted


@pytest.mark.parametrize(
    ("version", "headers", "keeps"),
    [
        ("HTTP/1.1", {}, True),
        ("HTTP/1.1", {"connection": "Close"}, False),
        ("HTTP/1.0", {}, False),
        ("HTTP/1.0", {"connection": "keep-alive"}, True),
        ("HTTP/1.1", {"content-length": "5"}, False),
        ("HTTP/1.1", {"transfer-encoding": "chunked"}, False),
    ],
)
def test_which_connections_are_kept(version: str, headers: dict[str, str], keeps: bool) -> None:
    """A body that nobody reads would be taken for a request, so its connection ends."""
    request = Request("GET", "/", headers, version)
    assert (request.keep_alive and not request.has_body) is keeps


def test_an_answer_to_head_has_the_same_head() -> None:
    """Length and type as for GET, without the body."""
    response = Response(HTTPStatus.OK, b"body", headers={"Allow": "GET"})
    whole, head = render(response, keep_alive=False), render(response, keep_alive=False, body=False)
    assert whole == head + b"body"
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\n")
    assert b"\r\nConnection: close\r\n" in head
    assert b"\r\nAllow: GET\r\n" in head
