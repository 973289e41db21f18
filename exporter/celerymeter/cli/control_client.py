"""A client of the control API for commands, so that roles, audit and limits apply to a shell too."""

from __future__ import annotations

from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests

from celerymeter.bounded_http import Answer, TooLarge, Unsendable, advice, fetch
from celerymeter.errors import ControlError, ControlUnavailable
from celerymeter.urls import without_password

BASE_PATH: Final = "/celery-admin"
TIMEOUT: Final = 10.0
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of a reply."""
PASSING: Final = frozenset({502, 503, 504})
"""Statuses of an API that starts or is overloaded, and of a proxy before it."""
MAX_ERRORS: Final = 5
"""Wrong fields that are named."""
MAX_TEXT: Final = 300
"""Characters that are shown of one."""

T = TypeVar("T")


class WrongField(msgspec.Struct):
    """A field of the request that is wrong."""

    pointer: str
    message: str


class Problem(msgspec.Struct):
    """The API's reply to a request that it refused."""

    detail: str = "no reason given"
    batch_id: str | None = None
    errors: list[WrongField] | None = None


class ControlClient:
    """Sends requests with a token. A control URL without a path gets the default base path."""

    def __init__(self, control_url: str, token: str, *, timeout: float = TIMEOUT) -> None:
        url = control_url.rstrip("/")
        self.url = f"{url}{'' if urlsplit(url).path else BASE_PATH}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout = timeout

    def call(self, method: str, path: str, kind: type[T], *, json: object = None) -> tuple[T, bytes]:
        """Return the reply, decoded and as it was received; raises `ControlError`."""
        try:
            answer = fetch(
                method,
                self.url + path,
                json=json,
                headers=self._headers,
                timeout=self._timeout,
                max_bytes=MAX_BYTES,
            )
        except (TooLarge, Unsendable) as error:
            raise ControlError(f"{self._shown_url}: {error}") from error
        except requests.RequestException as error:
            timed_out = isinstance(error, requests.Timeout)
            problem = f"no reply within {self._timeout:g} s" if timed_out else "no connection"
            known = advice(self.url, error) or "check --control-url and that the API runs"
            raise ControlUnavailable(f"{problem} to {self._shown_url}; {known}") from error
        failure = ControlUnavailable if answer.status in PASSING else ControlError
        try:
            if not answer.ok:
                raise failure(f"the control API refused (HTTP {answer.status}): {_reason(answer)}")
            return msgspec.json.decode(answer.body, type=kind), answer.body
        except (ValueError, RecursionError) as error:
            known = advice(self.url) or "check --control-url"
            raise failure(f"{self._shown_url} is not a control API (HTTP {answer.status}); {known}") from error

    @property
    def _shown_url(self) -> str:
        return without_password(self.url)


def _reason(answer: Answer) -> str:
    """Return the API's reason, with the first wrong fields instead of the words that they are in `errors`."""
    problem = msgspec.json.decode(answer.body, type=Problem)
    reason = problem.detail + (f" (batch {problem.batch_id})" if problem.batch_id else "")
    if not problem.errors:
        return reason
    shown = [f"{wrong.pointer}: {wrong.message}"[:MAX_TEXT] for wrong in problem.errors[:MAX_ERRORS]]
    more = [f"and {len(problem.errors) - MAX_ERRORS} more"] if problem.errors[MAX_ERRORS:] else []
    return f"{reason.removesuffix(': see errors')}: {'; '.join([*shown, *more])}"
