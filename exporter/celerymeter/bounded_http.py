"""Requests to other servers, whose answers are bounded in bytes and in time whatever a server sends.

requests bounds the time of each read, so it reads for ever what comes a byte now and then; it keeps as many bytes as
come, and follows redirects to wherever they lead.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url, get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

_CHUNK = 64 * 1024
_STEP = 1024 * 1024


class TooLarge(requests.RequestException):
    """The answer has more bytes than it may have."""


class Unsendable(requests.RequestException):
    """No request can be sent with this environment; the text says why, without secrets."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Return whether the request succeeded."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body as JSON; raises `ValueError`, also where it is nested too deeply to be read."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def fetch(method: str, url: str, *, timeout: float, max_bytes: int, **fields: Any) -> Answer:
    """Send one request and return the answer; raises `requests.RequestException`. No redirect is followed."""
    with open_session() as session:
        return send(session, method, url, timeout=timeout, max_bytes=max_bytes, **fields)


def send(
    session: requests.Session,
    method: str,
    url: str,
    *,
    max_bytes: int,
    grow: Callable[[int], object] = lambda _: None,
    **fields: Any,
) -> Answer:
    """Send a request in a session of `open_session`, with a ``timeout``; as `fetch`.

    ``grow`` is called with the bytes by which the body grows, before it does, and may raise.
    """
    try:
        with session.request(method, url, stream=True, allow_redirects=False, **fields) as response:
            return Answer(response.status_code, response.headers, _read(response, max_bytes, grow))
    except requests.RequestException:
        raise
    except UnicodeError as error:
        raise Unsendable("the URL, or that of a proxy, has a character that cannot be sent") from error
    except OSError as error:
        raise Unsendable(f"{error}; check REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE") from error


def open_session(*, connections: int = 1) -> requests.Session:
    """Return a session in which the timeout of a read bounds the whole answer, head and body."""
    session = _Session()
    session.headers["Accept-Encoding"] = "gzip"
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(pool_maxsize=connections))
    return session


def advice(url: str, error: BaseException | None = None) -> str:
    """Say what to do about a URL that failed, where its proxy, its scheme or its certificate may be why; else nothing.

    ``error`` is absent where an answer came that was not the expected one.
    """
    if proxy := _proxy(url):
        return f"it is asked through the proxy {proxy}: set NO_PROXY={urlsplit(url).hostname} to ask without it"
    found = list(causes(error)) if error else []
    for cause in found:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message}): name its authority in REQUESTS_CA_BUNDLE"
    if url.lower().startswith("https:"):
        silent = isinstance(error, (requests.ReadTimeout, requests.exceptions.SSLError))
        return "perhaps it has no TLS: try http://" if silent else ""
    closed = any(isinstance(cause, (http.client.HTTPException, ConnectionResetError)) for cause in found)
    return "perhaps it has TLS: try https://" if closed else ""


def _proxy(url: str) -> str:
    """Return the variable that names the proxy of a URL, and its address without password; empty without a proxy."""
    try:
        proxies = get_environ_proxies(url)
        address = select_proxy(url, proxies)
        scheme = urlsplit(url).scheme.lower()
        name = scheme if scheme in proxies else "all"
        return f"of {name.upper()}_PROXY ({re.sub('.*[/@]', '', address.rstrip('/'))})" if address else ""
    except ValueError:  # no URL
        return ""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, also those that are only among the arguments (urllib3)."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, found.__context__, getattr(found, "reason", None), *found.args]


def _read(response: requests.Response, most: int, grow: Callable[[int], object]) -> bytes:
    """Return the body; what is compressed is decompressed no further than allowed."""
    body = bytearray()
    unzip = _decompressor(response.headers.get("Content-Encoding", ""))
    try:
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            for piece in (chunk,) if unzip is None else _decompressed(unzip, chunk):
                grow(len(piece))
                body += piece
                if len(body) > most:
                    raise TooLarge(f"the answer has more than {most} bytes")
    except ReadTimeoutError as error:
        raise requests.ReadTimeout(error) from error
    except (HTTPError, ValueError) as error:  # ValueError: a chunk of a negative size
        raise requests.ConnectionError(error) from error
    except zlib.error as error:
        raise requests.exceptions.ContentDecodingError(error) from error
    if unzip is not None and not unzip.eof and body:
        raise requests.exceptions.ContentDecodingError("the answer ends too early")
    return bytes(body)


def _decompressed(unzip: Any, chunk: bytes) -> Iterator[bytes]:
    """Yield what a chunk contains in pieces of at most `_STEP` bytes: it may be a thousand times as long.

    Raises `requests.exceptions.ContentDecodingError` for what follows the end, which ``unzip`` would keep.
    """
    while chunk:
        yield unzip.decompress(chunk, _STEP)
        chunk = unzip.unconsumed_tail
        if unzip.unused_data:
            raise requests.exceptions.ContentDecodingError("the answer goes on after its end")


def _decompressor(encoding: str) -> Any:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip"):
        return zlib.decompressobj(wbits=31)
    raise requests.exceptions.ContentDecodingError("the answer has an encoding that was not asked for")


class _Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        self.auth = _user_of_url

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare it, with what is not ASCII in UTF-8: requests takes Latin-1, and http.client refuses the rest."""
        if isinstance(request.auth, tuple):
            request.auth = HTTPBasicAuth(*(part.encode() for part in request.auth))
        prepared = super().prepare_request(request)
        for name, value in prepared.headers.items():
            if not value.isascii():
                prepared.headers[name] = value.encode(errors="surrogateescape").decode("latin-1")
        return prepared

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - requests' signature
        """Find none: of a redirect requests reads the body without limit, even if it does not follow it."""
        return None


def _user_of_url(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Send user and password of the URL, if it has any.

    Without an ``auth`` of its own, requests would send those that ``~/.netrc`` has for the host, instead of our token.
    """
    user, password = get_auth_from_url(request.url or "")
    return HTTPBasicAuth(user.encode(), password.encode())(request) if user or password else request


class _UntilDeadline(io.RawIOBase):
    """Reads a socket's file until a deadline, however often something comes."""

    def __init__(self, file: io.RawIOBase, sock: socket.socket) -> None:
        self._read_into: Callable[[Any], int | None] = file.readinto
        self._file = file
        self._socket = sock
        self._timeout = sock.gettimeout()
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._deadline is None:
            return self._read_into(buffer)
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._socket.settimeout(left)
        try:
            return self._read_into(buffer)
        finally:
            self._socket.settimeout(self._timeout)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock))


class _Connection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """Opens connections of the above classes, to servers and to proxies."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):  # which has connections of its own
            manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager
