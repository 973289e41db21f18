"""The pages of the exporter, who may read them, and in which thread they are rendered."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus

from celerymeter import __version__
from celerymeter.escaping import html
from celerymeter.httpd.protocol import Request, Response, text
from celerymeter.httpd.web_config import BasicAuth

log = logging.getLogger(__name__)

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
GZIP_LEVEL = 1
"""A page of metrics shrinks some twentyfold at the cheapest level already."""
RENDERERS = 4
"""Threads that render and compress pages; more scrapers at once wait for one."""


class Pages:
    """Responds to requests: ``/metrics`` in a pool of threads, passwords in another, everything else at once.

    ``page`` renders the metrics. ``healthy`` and ``ready`` return at once: ``None``, or a reason for 503.
    """

    def __init__(
        self,
        *,
        page: Callable[[], bytes],
        healthy: Callable[[], str | None],
        ready: Callable[[], str | None],
        auth: BasicAuth | None,
        headers: Mapping[str, str],
    ) -> None:
        self._page = page
        self._healthy = healthy
        self._ready = ready
        self._auth = auth
        self._headers = headers
        self._render: Executor = ThreadPoolExecutor(RENDERERS, "render")
        self._verify: Executor = ThreadPoolExecutor(1, "auth")

    async def respond(self, request: Request) -> Response:
        """Return the response, with the configured headers."""
        if not await self._allowed(request):
            response = text(HTTPStatus.UNAUTHORIZED, WWW_Authenticate='Basic realm="celerymeter", charset="UTF-8"')
        elif request.path == "/metrics":
            response = await asyncio.get_running_loop().run_in_executor(self._render, self._response, request)
        else:
            response = self._response(request)
        return replace(response, headers={**response.headers, **self._headers})

    def close(self) -> None:
        """Release the threads; no further request is served."""
        for pool in (self._render, self._verify):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _allowed(self, request: Request) -> bool:
        if self._auth is None:
            return True
        header = request.headers.get("authorization", "")
        if self._auth.remembers(header):
            return True
        return await asyncio.get_running_loop().run_in_executor(self._verify, self._auth.verify, header)

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
        body = self._page()
        headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-store"}
        if request.takes_gzip:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Response(HTTPStatus.OK, body, EXPOSITION, headers)

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
