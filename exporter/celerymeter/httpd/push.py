"""``POST /-/push``: takes the heartbeats and totals of workers whose broker carries no events."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from http import HTTPStatus

from celerymeter.httpd.protocol import Request, Response, text
from celerymeter.httpd.throttle import Throttle
from celerymeter.rate_limit import network

log = logging.getLogger(__name__)

PATH = "/-/push"
MAX_BODY = 1024 * 1024
"""Bytes: 5,000 series, the most that a worker has, take about half of that."""
MAX_WAITING = 64
"""Messages that may be on their way, or wait to be decoded; further ones are asked to come later."""
MAX_WAITING_EACH = 16
"""The same of one address: it may send them slowly, and others go on."""
RETRY_AFTER = "2"
_USER = "worker"
_USELESS = "no usable event: only what celerymeter.aggregate.install(app, push_url=...) sends is taken"

ReadBody = Callable[[int], Awaitable[bytes]]


class PushEndpoint:
    """Hands bodies to ``take``, which returns how many events they held, in a thread of its own.

    ``token`` is what a worker has to show (``Authorization: Bearer …``); without one anybody may push.
    """

    def __init__(self, take: Callable[[bytes], int], *, token: str | None) -> None:
        self._take = take
        self._token = token.encode() if token is not None else None
        self._waiting: Counter[str] = Counter()
        self._throttle = Throttle()
        self._thread: Executor = ThreadPoolExecutor(1, "push")

    @property
    def has_token(self) -> bool:
        """True if it checks who pushes."""
        return self._token is not None

    async def respond(self, request: Request, read: ReadBody) -> Response:
        """Return the response; the body is read only if it will be used."""
        if (refusal := self._refuse(request)) is not None:
            return refusal
        key = network(request.address)
        self._waiting[key] += 1
        try:
            body = await read(int(request.headers["content-length"]))
            taken = await asyncio.get_running_loop().run_in_executor(self._thread, self._take, body)
        finally:
            self._waiting[key] -= 1
            self._waiting += Counter()  # drops zeros
        return text(HTTPStatus.OK, f"{taken} events") if taken else text(HTTPStatus.BAD_REQUEST, _USELESS)

    def close(self) -> None:
        """Release the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _refuse(self, request: Request) -> Response | None:
        headers = request.headers
        if request.method != "POST":
            return text(HTTPStatus.METHOD_NOT_ALLOWED, Allow="POST")
        if not self._is_allowed(headers.get("authorization", "")):
            return self._denied(request)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return text(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        if headers.get("content-encoding", "identity").lower() != "identity":
            return text(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected a body that is not compressed")
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
            return text(HTTPStatus.LENGTH_REQUIRED)
        if len(length) > 9 or int(length) > MAX_BODY:
            return text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY} bytes")
        if self._waiting.total() >= MAX_WAITING or self._waiting[network(request.address)] >= MAX_WAITING_EACH:
            return text(HTTPStatus.TOO_MANY_REQUESTS, Retry_After=RETRY_AFTER)
        return None

    def _denied(self, request: Request) -> Response:
        now = time.monotonic()
        if wait := self._throttle.wait(request.address, _USER, now):
            return text(HTTPStatus.TOO_MANY_REQUESTS, "too many attempts", Retry_After=str(math.ceil(wait)))
        if self._throttle.failed(request.address, _USER, now):
            log.warning("many pushes without the right token from %s", request.address)
        return text(HTTPStatus.UNAUTHORIZED, WWW_Authenticate='Bearer realm="celerymeter"')

    def _is_allowed(self, authorization: str) -> bool:
        if self._token is None:
            return True
        scheme, _, token = authorization.partition(" ")
        return hmac.compare_digest(token.strip().encode("latin-1"), self._token) and scheme.lower() == "bearer"
