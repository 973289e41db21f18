"""Reads the exporter and the control API over HTTP, and classifies the errors of all clients."""

from __future__ import annotations

import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException

import redis
import requests
from prometheus_client.parser import text_string_to_metric_families

from celerymeter.bounded_http import Answer, Unsendable, advice, causes, fetch
from celerymeter.connection_errors import why_useless
from celerymeter.doctor.evidence import ControlEvidence, ExporterEvidence, Failure, FailureKind, PageSample
from celerymeter.log import redact
from celerymeter.urls import without_password

TIMEOUT = 10.0
MAX_BYTES = 64 * 1024 * 1024
"""Of an answer; a page of metrics is smaller."""
MAX_TEXT = 300
"""Characters of an error that are shown."""
HEALTH_PATHS = ("/system/health", "/celery-admin/system/health")
"""Below a URL with the base path of the control API, and below one without it."""

_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], FailureKind], ...] = (
    (socket.gaierror, "unresolved"),
    (ConnectionRefusedError, "refused"),
    (FileNotFoundError, "missing"),
    ((ssl.SSLError, requests.exceptions.SSLError), "tls"),
    ((TimeoutError, redis.TimeoutError, requests.exceptions.Timeout), "timeout"),
)


def failure_of(error: BaseException, *, url: str = "") -> Failure:
    """Return the kind of an error by its causes, its text on one line without secrets, and what to do about the URL."""
    chain = list(causes(error))
    kinds = (kind for types, kind in _KINDS if any(isinstance(cause, types) for cause in chain))
    refused = (row.kind for cause in chain if (row := why_useless(cause)) is not None)
    return Failure(next(refused, next(kinds, "other")), _text(error, chain), advice(url, error))


def _text(error: BaseException, chain: list[BaseException]) -> str:
    """Return the text of the error; requests wraps the reason three times, so there the system's text is clearer."""
    if isinstance(error, requests.RequestException) and not isinstance(error, Unsendable):
        error = next((cause for cause in chain if isinstance(cause, OSError) and cause.strerror), error)
        if any(isinstance(cause, HTTPException) for cause in chain):
            return "something answers, but not in HTTP"
        return redact(getattr(error, "strerror", None) or type(error).__name__)
    return redact(" ".join(str(error).split())[:MAX_TEXT] or type(error).__name__)


def get(url: str, *, timeout: float = TIMEOUT) -> Answer | Failure:
    """Return the answer with a successful status, or the failure; the URL may contain user and password."""
    try:
        answer = fetch("GET", url, timeout=timeout, max_bytes=MAX_BYTES)
    except requests.RequestException as error:
        return failure_of(error, url=url)
    if answer.status == requests.codes.unauthorized:  # which no proxy says
        return Failure("password", "HTTP 401")
    kind: FailureKind = "password" if answer.status == requests.codes.forbidden else "http"
    return answer if answer.ok else Failure(kind, f"HTTP {answer.status}", advice(url))


def collect_exporter(url: str, *, timeout: float = TIMEOUT) -> ExporterEvidence:
    """Read ``/metrics`` below the URL, which may already end in it."""
    base = url.rstrip("/").removesuffix("/metrics")
    shown = without_password(base)
    response = get(f"{base}/metrics", timeout=timeout)
    if isinstance(response, Failure):
        return ExporterEvidence(shown, failure=response)
    try:
        page = _parse(response.body.decode(errors="replace"))
    except (ValueError, LookupError):
        page = {}
    if "celerymeter_build_info" not in page:
        return ExporterEvidence(
            shown, failure=Failure("other", "something answers, but it is not a celerymeter exporter", advice(url))
        )
    now = time.time()
    return ExporterEvidence(shown, page=page, clock_offset=_clock_offset(response, now), at=now)


def _clock_offset(response: Answer, now: float) -> float | None:
    """Return the clock difference by the Date header, which has whole seconds."""
    try:
        return now - parsedate_to_datetime(response.headers["Date"]).timestamp() - 0.5
    except (KeyError, ValueError, OverflowError):
        return None


def _parse(text: str) -> dict[str, tuple[PageSample, ...]]:
    """Return the samples of a page by name, without buckets; raises `ValueError` for other text."""
    found: dict[str, list[PageSample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                found.setdefault(sample.name, []).append(PageSample(sample.labels, sample.value))
    return {name: tuple(samples) for name, samples in found.items()}


def collect_control(url: str, *, timeout: float = TIMEOUT) -> ControlEvidence:
    """Read the health of the control API; 503 is an answer as well."""
    shown = without_password(url)
    failure = Failure("http", "no health page below this URL", advice(url))
    for path in HEALTH_PATHS:
        try:
            response = fetch("GET", url.rstrip("/") + path, timeout=timeout, max_bytes=MAX_BYTES)
        except requests.RequestException as error:
            return ControlEvidence(shown, failure=failure_of(error, url=url))
        try:
            health = response.json()
            if "timestamp" in health:
                checks = (health.get("checks") or {}).items()
                failing = tuple(name for name, state in checks if state not in ("ok", "healthy"))
                return ControlEvidence(shown, status=str(health["status"]), failing=failing)
        except (ValueError, LookupError, AttributeError, TypeError):
            pass  # another service answers below this URL
        if response.status != requests.codes.not_found:
            failure = Failure("http", f"HTTP {response.status}", advice(url))
    return ControlEvidence(shown, failure=failure)
