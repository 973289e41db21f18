"""One request to Prometheus: time-outs, one retry, a bound on the answer, and every failure as a typed error.

Error texts name no URL and no header. All requests are reads, so asking twice is safe; a time-out is not asked again,
because it would double the load on a server that is already slow.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import requests
from requests.adapters import HTTPAdapter

from celerymeter.errors import AnswerTooLarge, PrometheusUnavailable, QueryRejected
from celerymeter.prometheus import answers

if TYPE_CHECKING:
    from celerymeter.prometheus.client import PrometheusSettings

LONG_QUERY: Final = 1500
"""Characters from which a query travels in the body: proxies cut or refuse long URLs."""
_TRY_AGAIN: Final = frozenset({502, 503, 504})
_TOO_LONG: Final = frozenset({413, 414})
_FRESH: Final = {"nocache": "1"}
"""VictoriaMetrics would else hide the newest 30 s and serve old results from its cache; others ignore it."""
_CHUNK: Final = 64 * 1024


class Transport:
    """HTTP with kept connections; thread-safe."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        self._session = requests.Session()
        self._session.headers.update({"Accept": "application/json", "User-Agent": "celerymeter", **settings.headers})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=settings.concurrency))

    def ask(self, path: str, parameters: Mapping[str, str], *, get: bool) -> tuple[answers.Answer, float]:
        """The answer and how long it took in seconds."""
        start = time.monotonic()
        deadline = start + self._settings.timeout
        answer = self._attempt(path, parameters, get=get, deadline=deadline, last=False)
        if answer is None:
            time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 (spreads retries, guards nothing)
            answer = self._attempt(path, parameters, get=get, deadline=deadline, last=True)
        if answer is None:
            raise PrometheusUnavailable("Prometheus cannot be reached")
        return answer, time.monotonic() - start

    def close(self) -> None:
        """Close kept connections."""
        self._session.close()

    def _attempt(
        self, path: str, parameters: Mapping[str, str], *, get: bool, deadline: float, last: bool
    ) -> answers.Answer | None:
        """One try; ``None`` asks for another."""
        try:
            status, body = self._send(path, parameters, get=get, deadline=deadline)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            if isinstance(error, requests.Timeout) or time.monotonic() > deadline:
                raise PrometheusUnavailable(f"no answer from Prometheus within {self._settings.timeout:g} s") from error
            if last:
                raise PrometheusUnavailable("Prometheus cannot be reached") from error
            return None
        except requests.RequestException as error:
            raise PrometheusUnavailable("Prometheus gave no usable answer") from error
        return None if status in _TRY_AGAIN and not last and not _gave_up(body) else _judged(status, body)

    def _send(self, path: str, parameters: Mapping[str, str], *, get: bool, deadline: float) -> tuple[int, bytes]:
        left = max(deadline - time.monotonic(), 0.1)
        fields = {**parameters, **_FRESH, "timeout": f"{left:.3f}"}
        get = get or len(parameters["query"]) < LONG_QUERY
        with self._session.request(
            "GET" if get else "POST",
            f"{self._settings.url.rstrip('/')}/api/v1/{path}",
            params=fields if get else None,
            data=None if get else fields,
            timeout=(min(self._settings.connect_timeout, left), left),
            allow_redirects=False,
            stream=True,
        ) as response:
            return response.status_code, self._bounded(response, deadline)

    def _bounded(self, response: requests.Response, deadline: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_content(_CHUNK):
            size += len(chunk)
            chunks.append(chunk)
            if size > self._settings.max_bytes:
                raise AnswerTooLarge(f"the answer is larger than {self._settings.max_bytes // 1024**2} MiB")
            if time.monotonic() > deadline:
                raise requests.ReadTimeout
        return b"".join(chunks)


def _gave_up(body: bytes) -> bool:
    """Whether the engine itself ran out of time, which a second try would only repeat."""
    answer = answers.envelope(body)
    return answer is not None and answer.errorType == "timeout"


def _judged(status: int, body: bytes) -> answers.Answer:
    answer = answers.envelope(body)
    if status == 200 and answer is not None and answer.status == "success":
        return answer
    if status in (401, 403):
        raise PrometheusUnavailable(f"Prometheus refused our credentials ({status}); check the headers we send")
    if status in _TOO_LONG or (answer is not None and status in (200, 400, 422)):
        raise QueryRejected(f"Prometheus refused the query ({status}): {_words(answer)}")
    if status == 200:
        raise PrometheusUnavailable(answers.STRANGE)
    raise PrometheusUnavailable(f"Prometheus answered {status}: {_words(answer)}")


def _words(answer: answers.Answer | None) -> str:
    """The engine's reason on one line of bounded length."""
    text = " ".join(answer.error.split()) if answer else ""
    return text[:300] or "no reason given"
