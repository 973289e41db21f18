"""Queries to Prometheus over HTTP: instant, range and raw samples, one or several at once.

All answers of a client together take a bounded amount of memory, whatever Prometheus sends.

Error messages contain no URL and no header. All requests are reads, so repeating one is safe; a request that timed out
is not repeated, because that would double the load on a server that is already slow.
"""

from __future__ import annotations

import random
import re
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Final, Protocol, TypeVar

import requests

from celerymeter.bounded_http import TooLarge, open_session, send
from celerymeter.errors import AnswerTooLarge, PrometheusUnavailable, QueryRejected, SettingsError
from celerymeter.json_values import count_values
from celerymeter.prometheus import values
from celerymeter.prometheus.values import ApiResponse, Matrix, Vector
from celerymeter.urls import without_password

MAX_POINTS: Final = 11_000
"""Prometheus refuses a range of more steps per series."""
LONG_QUERY: Final = 1500
"""Characters from which a query is sent in the body: proxies cut or refuse long URLs."""
VALUE_BYTES: Final = 90
"""Bytes of memory that a value of an answer takes at most, as it was measured with points, series and labels."""
BODY_COPIES: Final = 2
"""A body is read piece by piece, and copied once."""
_NO_CACHE: Final = {"nocache": "1"}
"""VictoriaMetrics hides the newest 30 s and returns old results from its cache without this; others ignore it."""
_RETRIED: Final = frozenset({502, 503, 504})
_TOO_LONG: Final = frozenset({413, 414})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_T = TypeVar("_T")
_R = TypeVar("_R", Vector, Matrix)


class QueryObserver(Protocol):
    """Is called for every query, from any thread."""

    def answered(self, seconds: float) -> None:
        """A query was answered after so many seconds."""

    def failed(self, reason: str) -> None:
        """A query failed: ``unavailable`` or ``rejected``."""


class _NoObserver:
    def answered(self, seconds: float) -> None:
        """Ignore it."""

    def failed(self, reason: str) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """The URL of Prometheus, which may have a path prefix, and limits; durations in seconds, sizes in bytes.

    ``headers`` (a tenant, a token) are sent with every request and never shown.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    connect_timeout: float = 3.0
    max_bytes: int = 64 * 1024 * 1024
    max_memory: int = 2048 * 1024 * 1024
    """Bytes of memory that all answers of a client may take together, until nobody uses them any more."""
    concurrency: int = 8

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^/\s]", self.url):
            raise SettingsError("the Prometheus URL must start with http:// or https://")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or re.search(r"[\r\n\0]", value):
                raise SettingsError("--prometheus-header must be NAME=VALUE on one line")

    @property
    def safe_url(self) -> str:
        """The URL without its password."""
        return without_password(self.url)


class AnswerMemory:
    """The memory that the answers of a client take. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self.used = 0

    def take(self, size: int) -> None:
        """Note that answers take more; raises `AnswerTooLarge`, and then they do not."""
        with self._lock:
            if self.used + size > self._most:
                raise AnswerTooLarge(f"the answers of Prometheus take more than {self._most // 1024**2} MiB of memory")
            self.used += size

    def give(self, size: int) -> None:
        """Note that answers take less."""
        with self._lock:
            self.used -= size


class _Part:
    """The part of an `AnswerMemory` that one answer takes."""

    def __init__(self, memory: AnswerMemory) -> None:
        self._memory = memory
        self._size = self._values = 0

    def grow(self, size: int) -> None:
        """Take more for the body."""
        self._memory.take(size)
        self._size += size

    def values(self, number: int) -> None:
        """Take what the values of the body need."""
        self._memory.take(VALUE_BYTES * number)
        self._values = VALUE_BYTES * number

    def free(self) -> None:
        """Give everything back."""
        self._memory.give(self._size + self._values)
        self._size = self._values = 0

    def keep_for(self, result: object) -> None:
        """Keep what the values need until nobody uses the result any more; the body goes now."""
        weakref.finalize(result, self._memory.give, self._values).atexit = False
        self._values = 0


class PrometheusClient:
    """A thread-safe client. Each query raises `PrometheusUnavailable` or `QueryRejected`.

    ``time``, ``start`` and ``end`` are UTC seconds, sent in milliseconds; ``step`` is seconds.
    """

    def __init__(self, settings: PrometheusSettings, *, observer: QueryObserver | None = None) -> None:
        self.settings = settings
        self._observer = observer or _NoObserver()
        self.memory = AnswerMemory(settings.max_memory)
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="promql")
        self._session = open_session(connections=settings.concurrency)
        self._session.headers.update({"Accept": "application/json", "User-Agent": "celerymeter", **settings.headers})

    def instant(self, query: str, *, time: float | None = None) -> Vector:
        """Return the query's value at ``time`` (default: now)."""
        return self._query(query, time, values.vector)

    def samples(self, query: str, *, time: float) -> Matrix:
        """Return raw samples with their scrape times: the value of a range selector such as ``up[1h]`` at ``time``."""
        return self._query(query, time, values.matrix)

    def range(self, query: str, *, start: float, end: float, step: float) -> Matrix:
        """Return the query's values from ``start`` to ``end`` inclusive; too many steps raise `QueryRejected`."""
        if step <= 0 or (end - start) / step >= MAX_POINTS:
            raise QueryRejected(f"a range takes at most {MAX_POINTS} steps; choose a larger step")
        parameters = {"query": query, "start": _seconds(start), "end": _seconds(end), "step": _seconds(step)}
        return self._ask("query_range", parameters, values.matrix)

    def instants(self, queries: Mapping[str, str], *, time: float | None = None) -> dict[str, Vector]:
        """Run several instant queries at once; the first failure is raised, and queries that have not begun do not."""
        return self.together({key: partial(self.instant, query, time=time) for key, query in queries.items()})

    def together(self, calls: Mapping[str, Callable[[], _T]]) -> dict[str, _T]:
        """Run calls of this client at once, at most ``concurrency`` at a time; never from within such a call."""
        futures = {key: self._pool.submit(call) for key, call in calls.items()}
        ended = wait(futures.values(), return_when=FIRST_EXCEPTION).done
        errors = [error for future in futures.values() if future in ended and (error := future.exception())]
        if errors:
            for future in futures.values():
                future.cancel()
            raise errors[0]
        return {key: future.result() for key, future in futures.items()}

    def close(self) -> None:
        """Release threads and connections, without waiting for queries in progress."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def __enter__(self) -> PrometheusClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _query(self, query: str, time: float | None, read: Callable[[ApiResponse], _R]) -> _R:
        return self._ask("query", {"query": query} | ({} if time is None else {"time": _seconds(time)}), read)

    def _ask(self, path: str, parameters: Mapping[str, str], read: Callable[[ApiResponse], _R]) -> _R:
        part = _Part(self.memory)
        try:
            response = self._observed(path, parameters, part)
            result = read(response)
            part.keep_for(result)
            return result
        finally:
            part.free()

    def _observed(self, path: str, parameters: Mapping[str, str], part: _Part) -> ApiResponse:
        start = time.monotonic()
        try:
            response = self._request(path, parameters, part, deadline=start + self.settings.timeout)
        except PrometheusUnavailable:
            self._observer.failed("unavailable")
            raise
        except QueryRejected:
            self._observer.failed("rejected")
            raise
        self._observer.answered(time.monotonic() - start)
        return response

    def _request(self, path: str, parameters: Mapping[str, str], part: _Part, *, deadline: float) -> ApiResponse:
        """Send the request, and repeat it once when the connection broke or a proxy had no server for it."""
        response = self._attempt(path, parameters, part, deadline=deadline, last=False)
        if response is None:
            part.free()
            time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - only spreads the retries of many clients
            response = self._attempt(path, parameters, part, deadline=deadline, last=True)
        if response is None:
            raise PrometheusUnavailable("Prometheus cannot be reached")
        return response

    def _attempt(
        self, path: str, parameters: Mapping[str, str], part: _Part, *, deadline: float, last: bool
    ) -> ApiResponse | None:
        """Send the request once; ``None`` means that it should be repeated."""
        try:
            status, body = self._send(path, parameters, part, deadline=deadline)
        except TooLarge as error:
            raise AnswerTooLarge(f"the answer is larger than {self.settings.max_bytes // 1024**2} MiB") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            if isinstance(error, requests.Timeout) or time.monotonic() > deadline:
                raise PrometheusUnavailable(f"no answer from Prometheus within {self.settings.timeout:g} s") from error
            if last:
                raise PrometheusUnavailable("Prometheus cannot be reached") from error
            return None
        except requests.RequestException as error:
            raise PrometheusUnavailable("Prometheus gave no usable answer") from error
        part.values(count_values(body, most=self.settings.max_memory // VALUE_BYTES + 1))
        response = values.decode(body)
        # When the engine itself ran out of time, a second attempt would do so too.
        engine_timeout = response is not None and response.errorType == "timeout"
        if status in _RETRIED and not last and not engine_timeout:
            return None
        return _check(status, response)

    def _send(self, path: str, parameters: Mapping[str, str], part: _Part, *, deadline: float) -> tuple[int, bytes]:
        left = max(deadline - time.monotonic(), 0.1)
        fields = {**parameters, **_NO_CACHE, "timeout": f"{left:.3f}"}
        short = len(parameters["query"]) < LONG_QUERY
        answer = send(
            self._session,
            "GET" if short else "POST",
            f"{self.settings.url.rstrip('/')}/api/v1/{path}",
            params=fields if short else None,
            data=None if short else fields,
            timeout=(min(self.settings.connect_timeout, left), left),
            max_bytes=self.settings.max_bytes,
            grow=lambda size: part.grow(BODY_COPIES * size),
        )
        return answer.status, answer.body


def _check(status: int, response: ApiResponse | None) -> ApiResponse:
    """Return a successful response, or raise the error that the status stands for."""
    if status == 200 and response is not None and response.status == "success":
        return response
    if status in (401, 403):
        raise PrometheusUnavailable(f"Prometheus refused the credentials ({status}); check the configured headers")
    reason = " ".join(response.error.split())[:300] if response else ""
    reason = reason or "no reason given"
    if status in _TOO_LONG or (response is not None and status in (200, 400, 422)):
        raise QueryRejected(f"Prometheus refused the query ({status}): {reason}")
    if status == 200:
        raise PrometheusUnavailable(values.UNEXPECTED)
    raise PrometheusUnavailable(f"Prometheus answered {status}: {reason}")


def _seconds(value: float) -> str:
    return f"{value:.3f}"
