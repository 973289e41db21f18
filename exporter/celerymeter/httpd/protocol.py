"""HTTP/1.1 as values: bytes become a request, a response becomes bytes. Pure.

Not with h11: a head is read as a whole under one deadline and a body that nobody reads ends its connection, so h11's
state machine would replace some 25 lines and cost 0.7 MB of memory and eight times the parsing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import urlsplit

TEXT = "text/plain; charset=utf-8"
MAX_FIELDS = 100
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Characters that end no line for us, but may for another parser on the way (RFC 9112, 2.2)."""


class Malformed(ValueError):
    """The head is not a request that this server accepts; it is refused with ``status``."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request; header names in lower case, repeated headers joined by commas."""

    method: str
    path: str
    headers: Mapping[str, str]
    version: str = "HTTP/1.1"
    address: str = ""
    """The client's."""

    @property
    def host(self) -> str:
        """Return the host of the Host header in lower case, without its port and brackets."""
        host = self.headers.get("host", "").lower()
        return host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]

    @property
    def keep_alive(self) -> bool:
        """Return whether the client would send another request on this connection."""
        options = _tokens(self.headers.get("connection", ""))
        return "keep-alive" in options if self.version == "HTTP/1.0" else "close" not in options

    @property
    def has_body(self) -> bool:
        """Return whether a body follows the head."""
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers

    @property
    def takes_gzip(self) -> bool:
        """Return whether to compress the response (RFC 9110: an explicit ``q=0`` refuses, ``*`` means any other)."""
        weights = dict(map(_weighted, _tokens(self.headers.get("accept-encoding", ""))))
        return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


@dataclass(frozen=True, slots=True)
class Response:
    """A response with its whole body."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


def text(status: HTTPStatus, line: str = "", **headers: str) -> Response:
    """Return a response of one line; ``Retry_After`` among the headers becomes ``Retry-After``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, f"{line or status.phrase}\n".encode(), headers=named)


def parse_head(head: bytes) -> Request:
    """Return the request in everything up to the empty line; raises `Malformed`."""
    line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or _CONTROL.search(line) or not _TOKEN.fullmatch(words[0]):
        raise Malformed(HTTPStatus.BAD_REQUEST)
    if len(fields) > MAX_FIELDS:
        raise Malformed(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    method, target, version = words
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        known = version.startswith("HTTP/")
        raise Malformed(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED if known else HTTPStatus.BAD_REQUEST)
    return Request(method, _path(target), _headers(fields), version)


def _path(target: str) -> str:
    try:
        return target.partition("?")[0] if target.startswith("/") else urlsplit(target).path or "/"
    except ValueError as error:
        raise Malformed(HTTPStatus.BAD_REQUEST) from error


def _headers(fields: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in fields:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise Malformed(HTTPStatus.BAD_REQUEST)
        name, value = name.lower(), value.strip(" \t")
        if name == "host" in headers:
            raise Malformed(HTTPStatus.BAD_REQUEST)
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def render(response: Response, *, keep_alive: bool, body: bool = True) -> bytes:
    """Return the bytes of a response; without ``body`` those of the response to HEAD."""
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Date": formatdate(usegmt=True),
        "Connection": "keep-alive" if keep_alive else "close",
        "X-Content-Type-Options": "nosniff",
        **response.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n{lines}\r\n".encode("latin-1")
    return head + response.body if body else head


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",") if token.strip()]


def _weighted(token: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in token.split(";"))
    weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
    try:
        return name, float(weight)
    except ValueError:
        return name, 0.0
