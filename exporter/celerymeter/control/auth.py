"""Authentication: from a request's header, or from a bare token, to an `Identity`; failures are counted and slowed."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Protocol, TypeVar

from celerymeter.control.access import Identity
from celerymeter.control.addresses import throttle_key
from celerymeter.control.keys import Keyring
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.throttle import Throttle
from celerymeter.errors import InvalidToken, RequestRefused

MAX_KNOWN_TOKENS = 10_000
MISSING_FACTOR = 3
"""How many requests without a token are forgiven for each with a wrong one."""
_T = TypeVar("_T")


class Watcher(Protocol):
    """Hears of every token, as the audit trail does."""

    def accepted(self, identity: Identity, address: str) -> None:
        """A token was valid."""

    def refused(self, reason: str, *, address: str) -> None:
        """There was no valid token."""


class Authenticator:
    """Tells who asks. The one place that verifies tokens: views have the guard in front, the feed calls `authenticate`.

    An address that failed too often is refused without a look at its token, lest it go on guessing; a token that was
    found good before still passes, so that one faulty client behind a proxy locks nobody else out. Requests without any
    token guess nothing: they are slowed as well, by a rate of their own.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        webhook_token: bytes | None = None,
        failures_per_minute: float = 60.0,
        metrics: ControlMetrics,
        watcher: Watcher,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keyring = keyring
        self._webhook = None if webhook_token is None else hashlib.sha256(webhook_token).digest()
        self._wrong = Throttle(failures_per_minute)
        self._missing = Throttle(MISSING_FACTOR * failures_per_minute)
        self._metrics = metrics
        self._watcher = watcher
        self._monotonic = monotonic
        self._known = _KnownTokens()

    def authenticate(self, token: str | None, *, address: str) -> Identity:
        """Whom the token speaks for.

        Raises `InvalidToken` (401, 4401), or `RequestRefused` with ``too_many_requests`` when the
        address failed too often.
        """
        identity = self._guarded(address, lambda: self._verified(token), token)
        self._watcher.accepted(identity, address)
        return identity

    def authenticate_webhook(self, token: str | None, *, address: str) -> None:
        """Check Alertmanager's own token, in constant time; raises as `authenticate`."""

        def check() -> None:
            if token is None:
                raise InvalidToken("missing", "Alertmanager's bearer token is wanted")
            if self._webhook is None or not hmac.compare_digest(_digest(token), self._webhook):
                raise InvalidToken("webhook", "this is not Alertmanager's token")
            self._known.add(token)

        self._guarded(address, check, token)

    def _verified(self, token: str | None) -> Identity:
        if not token:
            raise InvalidToken("missing", "a bearer token is wanted in the Authorization header")
        identity = self._keyring.verify(token)
        self._known.add(token)
        return identity

    def _guarded(self, address: str, check: Callable[[], _T], token: str | None) -> _T:
        key = throttle_key(address)
        failures = self._wrong if token else self._missing
        wait = failures.wait(key, self._monotonic())
        if wait > 0 and not (token and token in self._known):
            self._note_failure("throttled", address)
            raise RequestRefused("too_many_requests", "too many failed attempts from this address", retry_after=wait)
        try:
            return check()
        except InvalidToken as error:
            self._note_failure(error.reason, address)
            failures.take(key, self._monotonic())
            raise

    def _note_failure(self, reason: str, address: str) -> None:
        self._metrics.auth_failures.labels(reason).inc()
        self._watcher.refused(reason, address=address)


class _KnownTokens:
    """Digests of tokens that were good once; the oldest go first."""

    def __init__(self) -> None:
        self._digests: OrderedDict[bytes, None] = OrderedDict()
        self._lock = Lock()

    def add(self, token: str) -> None:
        digest = _digest(token)
        with self._lock:
            self._digests[digest] = None
            self._digests.move_to_end(digest)
            if len(self._digests) > MAX_KNOWN_TOKENS:
                self._digests.popitem(last=False)

    def __contains__(self, token: str) -> bool:
        return _digest(token) in self._digests


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def bearer_token(header: str | None) -> str | None:
    """The token of an ``Authorization: Bearer`` header, or None for anything else."""
    scheme, _, token = (header or "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
