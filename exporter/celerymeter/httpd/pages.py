"""The pages of the exporter, who may read them, and in which thread they are rendered."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from ipaddress import ip_address

from celerymeter import __version__
from celerymeter.escaping import html
from celerymeter.httpd.protocol import Request, Response, text
from celerymeter.httpd.push import PATH, PushEndpoint, ReadBody
from celerymeter.httpd.throttle import Throttle
from celerymeter.httpd.web_config import BasicAuth, credentials
from celerymeter.rate_limit import network

log = logging.getLogger(__name__)

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
GZIP_LEVEL = 1
"""A page of metrics shrinks some twentyfold at the cheapest level already."""
GZIP_FORMAT = 16 + zlib.MAX_WBITS
"""Asks zlib for gzip's header and checksum."""
RENDERERS = 2
"""Threads that render and compress pages; more scrapers at once wait for the next page, and share it."""
MAX_VERIFYING = 16
MAX_VERIFYING_EACH = 2
"""Passwords of one address that wait to be verified; bcrypt takes a large part of a second, one after the other."""


class Pages:
    """Responds to requests: ``/metrics`` in a pool of threads, passwords in another, everything else at once.

    ``page`` renders the metrics, in parts. ``healthy`` and ``ready`` return at once: ``None``, or a reason for 503.
    """

    def __init__(
        self,
        *,
        page: Callable[[], list[bytes]],
        healthy: Callable[[], str | None],
        ready: Callable[[], str | None],
        auth: BasicAuth | None,
        headers: Mapping[str, str],
        hosts: Collection[str] = (),
    ) -> None:
        """``hosts`` are the names under which this server may be addressed; without any all are right."""
        self._page = page
        self.push: PushEndpoint | None = None
        """Serves ``/-/push``; ``None`` while that path is closed."""
        self._healthy = healthy
        self._ready = ready
        self._auth = auth
        self._headers = headers
        self._hosts = frozenset(host.lower() for host in hosts)
        self._throttle = Throttle()
        self._verifying: Counter[str] = Counter()
        self._renderers = asyncio.Semaphore(RENDERERS)
        self._next: dict[tuple[str, bool], asyncio.Task[Response]] = {}
        """Pages that wait for a renderer, by method and compression."""
        self._render: Executor = ThreadPoolExecutor(RENDERERS, "render")
        self._verify: Executor = ThreadPoolExecutor(1, "auth")

    async def respond(self, request: Request, read: ReadBody) -> Response:
        """Return the response, with the configured headers; ``read`` returns so many bytes of the request's body."""
        push = self.push if request.path == PATH else None
        response = self._refused_host(request)
        if response is None and (push is None or not push.has_token):  # which is not the password of those who read
            response = await self._refused(request)
        if response is None and push is not None:
            response = await push.respond(request, read)
        if response is None and request.path == "/metrics":
            response = await self._next_page(request)
        response = response or self._response(request)
        return replace(response, headers={**response.headers, **self._headers})

    def close(self) -> None:
        """Release the threads; no further request is served."""
        for pool in (self._render, self._verify):
            pool.shutdown(wait=False, cancel_futures=True)
        if self.push is not None:
            self.push.close()

    def _refused_host(self, request: Request) -> Response | None:
        """Return a refusal if the request names a host that is not ours.

        A page of somebody else's, whose name suddenly leads to us, could read ours otherwise (DNS rebinding). It has a
        name, so an address is always right.
        """
        if not self._hosts or request.host in self._hosts or request.host == "localhost" or _is_address(request.host):
            return None
        return text(HTTPStatus.MISDIRECTED_REQUEST, "this host is not in --allowed-hosts")

    async def _refused(self, request: Request) -> Response | None:
        """Return a refusal if the request lacks the right password."""
        header = request.headers.get("authorization", "")
        if self._auth is None or self._auth.remembers(header):
            return None
        user, _ = credentials(header)
        if not user:
            return _UNAUTHORIZED
        key = network(request.address)
        wait = self._throttle.wait(request.address, user, time.monotonic())
        if not wait and (self._verifying.total() >= MAX_VERIFYING or self._verifying[key] >= MAX_VERIFYING_EACH):
            wait = 1.0
        if wait:
            return text(HTTPStatus.TOO_MANY_REQUESTS, "too many attempts", Retry_After=str(math.ceil(wait)))
        self._verifying[key] += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(self._verify, self._auth.verify, header)
        finally:
            self._verifying[key] -= 1
            self._verifying += Counter()  # drops zeros
        if right:
            self._throttle.succeeded(request.address, user)
            return None
        if self._throttle.failed(request.address, user, time.monotonic()):
            log.warning("many wrong passwords from %s: it has to wait", request.address)
        return _UNAUTHORIZED

    async def _next_page(self, request: Request) -> Response:
        """Return a page that is rendered from now on; with others who wait for a renderer it is the same one."""
        if not self._renderers.locked():
            return await self._rendered(request)
        key = request.method, request.takes_gzip
        if key not in self._next:
            self._next[key] = asyncio.create_task(self._rendered(request, key))
        return await asyncio.shield(self._next[key])

    async def _rendered(self, request: Request, key: tuple[str, bool] | None = None) -> Response:
        async with self._renderers:
            if key is not None:
                del self._next[key]  # who comes later gets a later page
            return await asyncio.get_running_loop().run_in_executor(self._render, self._response, request)

    def _response(self, request: Request) -> Response:
        """Return the response of one path; a page that cannot be rendered is a logged 500."""
        views = {"/metrics": self._metrics, "/-/healthy": self._health, "/-/ready": self._readiness, "/": self._index}
        view = views.get(request.path)
        if view is None:
            return text(HTTPStatus.NOT_FOUND, "not found: see /")
        if request.method not in {"GET", "HEAD"}:
            return text(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
        try:
            return view(request)
        except Exception:
            log.exception("cannot serve %s", request.path)
            return text(HTTPStatus.INTERNAL_SERVER_ERROR, f"cannot serve {request.path}: see the exporter's log")

    def _metrics(self, request: Request) -> Response:
        parts = self._page()
        headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-store"}
        if request.takes_gzip:
            compressor = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_FORMAT)
            parts = [*map(compressor.compress, parts), compressor.flush()]
            headers["Content-Encoding"] = "gzip"
        return Response(HTTPStatus.OK, b"".join(parts), EXPOSITION, headers)

    def _health(self, _: Request) -> Response:
        return _state(self._healthy(), fine="healthy")

    def _readiness(self, _: Request) -> Response:
        return _state(self._ready(), fine="ready")

    def _index(self, _: Request) -> Response:
        state = _INDEX.format(
            version=html(__version__),
            healthy=html(self._healthy() or "yes"),
            ready=html(self._ready() or "yes"),
        )
        return Response(HTTPStatus.OK, state.encode(), "text/html; charset=utf-8", {"Cache-Control": "no-store"})


_UNAUTHORIZED = text(HTTPStatus.UNAUTHORIZED, WWW_Authenticate='Basic realm="celerymeter", charset="UTF-8"')


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _state(reason: str | None, *, fine: str) -> Response:
    if reason is None:
        return text(HTTPStatus.OK, fine, Cache_Control="no-store")
    return text(HTTPStatus.SERVICE_UNAVAILABLE, reason, Cache_Control="no-store")


_INDEX = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>celerymeter exporter</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem;
         color-scheme: light dark; }}
  dt {{ margin-top: .75rem; }}
  dd {{ margin: 0; opacity: .75; }}
</style>
<h1>celerymeter exporter</h1>
<p>Version {version}. Metrics of a Celery cluster for Prometheus.</p>
<dl>
  <dt><a href="/metrics">/metrics</a></dt><dd>what Prometheus scrapes</dd>
  <dt><a href="/-/healthy">/-/healthy</a></dt><dd>is the process working: {healthy}</dd>
  <dt><a href="/-/ready">/-/ready</a></dt><dd>is it subscribed to the broker: {ready}</dd>
</dl>
</html>
"""
