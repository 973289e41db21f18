"""From a request to its answer: who may ask, and in which thread it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus

from celerymeter.httpd.auth import BasicAuth
from celerymeter.httpd.pages import Pages
from celerymeter.httpd.protocol import Request, Response, text

RENDERERS = 4
"""Threads that render and compress pages; more scrapers at once wait for one."""


class Application:
    """Answers requests: pages in threads, passwords in another, the rest at once."""

    def __init__(self, pages: Pages, *, auth: BasicAuth | None, headers: Mapping[str, str]) -> None:
        self._pages = pages
        self._auth = auth
        self._headers = headers
        self._render: Executor = ThreadPoolExecutor(RENDERERS, "render")
        self._verify: Executor = ThreadPoolExecutor(1, "auth")

    async def answer(self, request: Request) -> Response:
        """The answer, with the configured headers."""
        if not await self._allowed(request):
            response = text(HTTPStatus.UNAUTHORIZED, WWW_Authenticate='Basic realm="celerymeter", charset="UTF-8"')
        elif request.path == "/metrics":
            response = await asyncio.get_running_loop().run_in_executor(self._render, self._pages.answer, request)
        else:
            response = self._pages.answer(request)
        return replace(response, headers={**response.headers, **self._headers})

    def close(self) -> None:
        """Give up the threads; nothing new is answered."""
        for pool in (self._render, self._verify):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _allowed(self, request: Request) -> bool:
        if self._auth is None:
            return True
        header = request.headers.get("authorization", "")
        if self._auth.remembers(header):
            return True
        return await asyncio.get_running_loop().run_in_executor(self._verify, self._auth.verify, header)
