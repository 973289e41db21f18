"""What each path answers."""

from __future__ import annotations

import gzip
import html
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from celerymeter import __version__
from celerymeter.httpd.protocol import Request, Response, text

log = logging.getLogger(__name__)

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
GZIP_LEVEL = 1
"""A page of metrics shrinks some twentyfold at the cheapest level already."""


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of one exporter. ``healthy`` and ``ready`` return at once: ``None``, or a reason for 503."""

    page: Callable[[], bytes]
    healthy: Callable[[], str | None]
    ready: Callable[[], str | None]

    def answer(self, request: Request) -> Response:
        """The answer to a request; a page that cannot be rendered is a logged 500."""
        found = {"/metrics": self._metrics, "/-/healthy": self._healthy, "/-/ready": self._ready, "/": self._index}
        handler = found.get(request.path)
        if handler is None:
            return text(HTTPStatus.NOT_FOUND, "nothing here: see /")
        if request.method not in {"GET", "HEAD"}:
            return text(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
        try:
            return handler(request)
        except Exception:
            log.exception("cannot answer %s", request.path)
            return text(HTTPStatus.INTERNAL_SERVER_ERROR, f"cannot answer {request.path}: see the exporter's log")

    def _metrics(self, request: Request) -> Response:
        body = self.page()
        headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-store"}
        if request.takes_gzip:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Response(HTTPStatus.OK, body, EXPOSITION, headers)

    def _healthy(self, _: Request) -> Response:
        return _state(self.healthy(), fine="healthy")

    def _ready(self, _: Request) -> Response:
        return _state(self.ready(), fine="ready")

    def _index(self, _: Request) -> Response:
        state = _INDEX.format(
            version=html.escape(__version__),
            healthy=html.escape(self.healthy() or "yes"),
            ready=html.escape(self.ready() or "yes"),
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
