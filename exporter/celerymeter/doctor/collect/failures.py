"""Why a client could not connect, told from the errors that its own error was caused by."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPException

import redis
import requests
from amqp.exceptions import AccessRefused, NotAllowed

from celerymeter.doctor.evidence import Failure, FailureKind
from celerymeter.log import redact

_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], FailureKind], ...] = (
    ((redis.AuthenticationError, AccessRefused), "password"),
    ((redis.exceptions.NoPermissionError, NotAllowed), "forbidden"),
    (socket.gaierror, "unresolved"),
    (ConnectionRefusedError, "refused"),
    (FileNotFoundError, "missing"),
    ((ssl.SSLError, requests.exceptions.SSLError), "tls"),
    ((TimeoutError, redis.TimeoutError, requests.exceptions.Timeout), "timeout"),
)


def failure_of(error: BaseException) -> Failure:
    """What an error comes down to; its own text, in one line and without secrets."""
    chain = list(_causes(error))
    kinds = (kind for types, kind in _KINDS if any(isinstance(cause, types) for cause in chain))
    return Failure(next(kinds, "other"), _text(error, chain))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it arose from, also where it is only among the arguments (urllib3)."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, found.__context__, getattr(found, "reason", None), *found.args]


def _text(error: BaseException, chain: list[BaseException]) -> str:
    """Clients of HTTP wrap what matters thrice; there the system's own word is clearer."""
    if isinstance(error, requests.RequestException):
        error = next((cause for cause in chain if isinstance(cause, OSError) and cause.strerror), error)
        if any(isinstance(cause, HTTPException) for cause in chain):
            return "something answers, but not in HTTP"
        return redact(getattr(error, "strerror", None) or type(error).__name__)
    return redact(" ".join(str(error).split()) or type(error).__name__)
