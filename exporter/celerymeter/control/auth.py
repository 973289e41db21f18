"""Checks before every view: size, identity, role, rate and shape of the body, in that order.

The WebSocket feed, whose token may come in three ways, calls `Authenticator.authenticate` itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, NoReturn, Protocol, TypeVar

from flask import Flask, Request, Response, g, request

from celerymeter.control.audit.maintenance import AuditMaintenance
from celerymeter.control.audit.trail import Actor
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.rate_limit import RateLimit, client_address, rate_limit_key
from celerymeter.control.routing import Operation, Permission
from celerymeter.control.settings import ControlSettings
from celerymeter.control.tokens import Identity, Keyring, Role
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
    """Tells who asks. The one place that verifies tokens: `install` calls it before every view, the feed by itself.

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
        self._wrong = RateLimit(failures_per_minute)
        self._missing = RateLimit(MISSING_FACTOR * failures_per_minute)
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
        key = rate_limit_key(address)
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


class GuardedRequest(Request):
    """A request whose body was read and parsed once, strictly, before the view."""

    def get_json(self, *_: object, **__: object) -> Any:
        """Return the parsed body; None where the operation takes none."""
        return g.get("body")


def current_identity() -> Identity:
    """Return the identity that the request's token proves; only in a view whose operation names a role."""
    identity: Identity = g.identity
    return identity


def current_address() -> str:
    """Return the client's address; behind trusted proxies, what they say of it."""
    address: str = g.address
    return address


def require_role(role: Role, purpose: str) -> None:
    """Refuse unless the caller has ``role``: for what depends on the body, such as ``terminate``."""
    if current_identity().role < role:
        raise RequestRefused("forbidden", f"{purpose} needs the role {role.label}")


def current_actor() -> Actor:
    """Return the caller as the audit trail records it."""
    identity = current_identity()
    return Actor(sub=identity.sub, jti=identity.jti, address=current_address())


def install(
    app: Flask,
    operations: Mapping[str, Operation],
    *,
    auth: Authenticator,
    maintenance: AuditMaintenance,
    settings: ControlSettings,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Check every request of ``app`` before its view runs; an endpoint without an `Operation` is never answered."""
    app.config["MAX_CONTENT_LENGTH"] = settings.limits.body_bytes + 1  # werkzeug reads so far where no length is told
    app.request_class = GuardedRequest
    rate = RateLimit(settings.limits.requests_per_minute)

    @app.before_request
    def check() -> None:
        g.address = client_address(request.remote_addr, _forwarded_for(), settings.trusted_proxies)
        _check_size(request.content_length or 0, settings.limits.body_bytes)
        if request.endpoint is None:
            return
        operation = operations[request.endpoint]
        _check_identity(operation, auth)
        if "identity" in g:
            _check_rate(rate, current_identity().sub, monotonic())
        if operation.takes_body:
            data = request.get_data(cache=False)
            _check_size(len(data), settings.limits.body_bytes)
            g.body = _parsed_body(data, operation)

    @app.after_request
    def note(response: Response) -> Response:
        """Every 403 goes to the audit trail, wherever it came from; 401 and 429 went there from the authenticator."""
        if response.status_code == 403 and "identity" in g:
            maintenance.forbidden(current_identity(), f"{request.method} {request.url_rule}", address=current_address())
        return response


def _forwarded_for() -> list[str]:
    return [part for line in request.headers.getlist("X-Forwarded-For") for part in line.split(",")]


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestRefused("too_large", f"a body of at most {limit} bytes is accepted")


def _check_identity(operation: Operation, auth: Authenticator) -> None:
    if operation.permission in (Permission.ANYONE, Permission.FEED):
        return
    token = bearer_token(request.headers.get("Authorization"))
    if operation.permission is Permission.WEBHOOK:
        auth.authenticate_webhook(token, address=g.address)
        return
    g.identity = auth.authenticate(token, address=g.address)
    role = operation.permission.role
    if role is not None and current_identity().role < role:
        raise RequestRefused("forbidden", f"this needs the role {role.label}")


def _check_rate(rate: RateLimit, subject: str, now: float) -> None:
    wait = rate.take(subject, now)
    if wait > 0:
        raise RequestRefused("too_many_requests", "too many requests for this subject", retry_after=wait)


def _parsed_body(data: bytes, operation: Operation) -> Mapping[str, Any]:
    if not data and operation.optional_body:
        return {}
    if request.mimetype != "application/json":
        raise RequestRefused("unsupported_media_type", "the body must be application/json")
    try:
        body = json.loads(data.decode(), parse_constant=_no_constant)
        if b"\\u" in data:
            json.dumps(body, ensure_ascii=False).encode()  # half a surrogate pair is no text, and no database takes it
    except (ValueError, RecursionError) as error:
        raise RequestRefused("malformed", "the body is not JSON") from error
    if not isinstance(body, dict):
        raise RequestRefused("invalid", "the body must be a JSON object")
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
