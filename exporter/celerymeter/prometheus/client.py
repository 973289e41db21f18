"""Queries over HTTP: instant, range, raw samples, label values; one or several at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Protocol, TypeVar

from celerymeter.errors import PrometheusUnavailable, QueryRejected, SettingsError
from celerymeter.prometheus import answers
from celerymeter.prometheus.transport import Transport
from celerymeter.prometheus.values import Matrix, Vector
from celerymeter.urls import without_password

_T = TypeVar("_T")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
MAX_POINTS = 11_000
"""Prometheus refuses a range of more steps per series."""


class QueryObserver(Protocol):
    """Told of every query, from any thread."""

    def answered(self, seconds: float) -> None:
        """A query got its answer after so long."""

    def failed(self, reason: str) -> None:
        """A query failed: ``unavailable`` or ``rejected``."""


class _Unobserved:
    def answered(self, seconds: float) -> None:
        """Nobody is interested."""

    def failed(self, reason: str) -> None:
        """Nobody is interested."""


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """Where Prometheus is and how patient we are; durations in seconds, sizes in bytes.

    ``headers`` go with every request (a tenant, a token) and are never shown. The URL may carry a path prefix.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    connect_timeout: float = 3.0
    max_bytes: int = 64 * 1024 * 1024
    concurrency: int = 8

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^/\s]", self.url):
            raise SettingsError("the Prometheus URL must start with http:// or https://")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or re.search(r"[\r\n\0]", value):
                raise SettingsError("a Prometheus header is NAME=VALUE on one line")

    @property
    def safe_url(self) -> str:
        """The URL without its password."""
        return without_password(self.url)


class PrometheusClient:
    """Asks Prometheus; thread-safe. Each method raises `PrometheusUnavailable` or `QueryRejected`.

    ``time``, ``start`` and ``end`` are UTC seconds, sent in milliseconds; ``step`` is seconds.
    """

    def __init__(self, settings: PrometheusSettings, *, observer: QueryObserver | None = None) -> None:
        self.settings = settings
        self._observer = observer or _Unobserved()
        self._transport = Transport(settings)
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="promql")

    def instant(self, query: str, *, time: float | None = None) -> Vector:
        """The query's value at ``time`` (default: now)."""
        return answers.vector(self._query(query, time))

    def samples(self, query: str, *, time: float) -> Matrix:
        """Raw scraped samples: the instant value of a range selector such as ``up[1h]``, with their scrape times."""
        return answers.matrix(self._query(query, time))

    def range(self, query: str, *, start: float, end: float, step: float) -> Matrix:
        """The query's values from ``start`` to ``end`` inclusive; more than 11,000 steps raise `QueryRejected`."""
        if step <= 0 or (end - start) / step >= MAX_POINTS:
            raise QueryRejected(f"a range takes at most {MAX_POINTS} steps; choose a larger step")
        parameters = {"query": query, "start": _seconds(start), "end": _seconds(end), "step": _seconds(step)}
        return answers.matrix(self._ask("query_range", parameters))

    def label_values(self, label: str, *, match: str, start: float, end: float) -> tuple[str, ...]:
        """The values of a label over the series that ``match`` selects, sorted."""
        parameters = {"match[]": match, "start": _seconds(start), "end": _seconds(end)}
        return answers.strings(self._ask(f"label/{label}/values", parameters, get=True))

    def instants(self, queries: Mapping[str, str], *, time: float | None = None) -> dict[str, Vector]:
        """Several instant queries at once, by their keys; the first failure is raised after all have ended."""
        return self.together({key: partial(self.instant, query, time=time) for key, query in queries.items()})

    def together(self, calls: Mapping[str, Callable[[], _T]]) -> dict[str, _T]:
        """Any calls of this client at once, at most ``concurrency`` at a time; never from within such a call."""
        futures = {key: self._pool.submit(call) for key, call in calls.items()}
        errors = [error for future in futures.values() if (error := future.exception())]
        if errors:
            raise errors[0]
        return {key: future.result() for key, future in futures.items()}

    def close(self) -> None:
        """Let go of threads and connections; queries under way are not awaited."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._transport.close()

    def __enter__(self) -> PrometheusClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _query(self, query: str, time: float | None) -> answers.Answer:
        return self._ask("query", {"query": query} | ({} if time is None else {"time": _seconds(time)}))

    def _ask(self, path: str, parameters: Mapping[str, str], *, get: bool = False) -> answers.Answer:
        try:
            answer, seconds = self._transport.ask(path, parameters, get=get)
        except PrometheusUnavailable:
            self._observer.failed("unavailable")
            raise
        except QueryRejected:
            self._observer.failed("rejected")
            raise
        self._observer.answered(seconds)
        return answer


def _seconds(value: float) -> str:
    return f"{value:.3f}"
