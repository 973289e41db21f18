"""Checks before every view: size, identity, role, rate and shape of the body, in that order; and safe headers after it.

Rates are counted in bounded memory. The WebSocket feed, whose token may come in three ways, calls
`Authenticator.authenticate` itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NoReturn, TypeVar

from flask import Flask, Request, Response, g, request

from celerymeter.control.audit.maintenance import AuditMaintenance
from celerymeter.control.audit.trail import Actor
from celerymeter.control.metrics import ControlMetrics
from celerymeter.control.routing import Operation, Permission
from celerymeter.control.settings import ControlSettings, Network
from celerymeter.control.tokens import Identity, Keyring, Role
from celerymeter.errors import InvalidToken, RequestRefused
from celerymeter.json_values import count_values
from celerymeter.rate_limit import RateLimit, RecentKeys, network

MISSING_FACTOR = 3
"""Requests without a token that are allowed for each one with a wrong token."""
EXTRA_PER_MINUTE = 12_000.0
"""Tokens of throttled addresses that are verified nonetheless; at some 0.1 ms each, that is 2 % of a core."""
MAX_VALUES = 250_000
"""Values in a body: as objects they take some fifty times the memory of their text."""
UNKNOWN = "unknown"
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_T = TypeVar("_T")


class Authenticator:
    """Verifies tokens, counts failures, and slows down clients that guess.

    An address with too many failures is refused; a right token still passes, so that one faulty client behind a proxy
    locks nobody else out. One that was valid before always does, others as long as there are not too many to verify.
    A request without a token guesses nothing: such requests have a rate of their own.
    """

    def __init__(
        self,
        settings: ControlSettings,
        *,
        metrics: ControlMetrics,
        maintenance: AuditMaintenance,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        failures_per_minute = settings.limits.auth_failures_per_minute
        self._keyring = Keyring(settings.jwt)
        self._webhook = None if settings.webhook_token is None else hashlib.sha256(settings.webhook_token).digest()
        self._wrong = RateLimit(failures_per_minute)
        self._missing = RateLimit(MISSING_FACTOR * failures_per_minute)
        self._extra = RateLimit(EXTRA_PER_MINUTE)
        self._valid = RecentKeys()
        self._recorded = RecentKeys()
        """Ids of tokens whose first use is in the audit trail."""
        self._metrics = metrics
        self._maintenance = maintenance
        self._monotonic = monotonic

    def authenticate(self, token: str | None, *, address: str) -> Identity:
        """Return the identity that the token proves.

        Raises `InvalidToken` (401, 4401), or `RequestRefused` with ``too_many_requests`` when the address failed too
        often.
        """
        identity = self._check(token, address, self._keyring.verify)
        if identity.jti not in self._recorded and self._maintenance.accepted(identity, address):
            self._recorded.add(identity.jti)
        return identity

    def is_withdrawn(self, identity: Identity) -> bool:
        """Return whether a token that was accepted is no longer."""
        return self._keyring.is_denied(identity)

    def authenticate_webhook(self, token: str | None, *, address: str) -> None:
        """Check Alertmanager's own token; raises as `authenticate`."""
        self._check(token, address, self._verify_webhook)

    def _verify_webhook(self, token: str) -> None:
        if self._webhook is None or not hmac.compare_digest(_digest(token), self._webhook):
            raise InvalidToken("webhook", "this is not Alertmanager's token")

    def _check(self, token: str | None, address: str, verify: Callable[[str], _T]) -> _T:
        key, digest = network(address), _digest(token or "")
        failures = self._wrong if token else self._missing
        wait = failures.wait(key, self._monotonic())
        if wait > 0 and digest not in self._valid and not (token and self._is_right(token, verify)):
            self._count_failure("throttled", address)
            raise RequestRefused("too_many_requests", "too many failed attempts from this address", retry_after=wait)
        try:
            if not token:
                raise InvalidToken("missing", "a bearer token is required in the Authorization header")
            verified = verify(token)
        except InvalidToken as error:
            self._count_failure(error.reason, address)
            failures.take(key, self._monotonic())
            raise
        self._valid.add(digest)
        return verified

    def _is_right(self, token: str, verify: Callable[[str], _T]) -> bool:
        """Return whether a token of a throttled address is right, so that who shares its address is not locked out."""
        if self._extra.take("", self._monotonic()) > 0:
            return False
        with suppress(InvalidToken):
            verify(token)
            return True
        return False

    def _count_failure(self, reason: str, address: str) -> None:
        self._metrics.auth_failures.labels(reason).inc()
        self._maintenance.refused(reason, address=address)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the nearest address that is not a trusted proxy.

    ``forwarded_for`` is ``X-Forwarded-For`` from left to right. Each proxy appends the address that it got the
    request from, so the list is read from its right end for as long as the sender is trusted: what a client wrote
    stands further left and is never reached.
    """
    address = _parsed(peer or "")
    if address is None:
        return UNKNOWN
    for entry in reversed(forwarded_for):
        if not any(address in network for network in trusted):
            break
        before = _parsed(entry)
        if before is None:
            break
        address = before
    return str(address)


def is_allowed_host(host: str, allowed: Collection[str]) -> bool:
    """Return whether a ``Host`` is ours: an address, localhost, or an allowed name.

    A page of somebody else's, whose name suddenly leads to us (DNS rebinding), has a name of its own.
    """
    name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return _parsed(host) is not None or name.lower() in ("localhost", *map(str.lower, allowed))


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address with or without a port or brackets; an IPv4 address mapped into IPv6 counts as itself."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def bearer_token(header: str | None) -> str | None:
    """Return the token of an ``Authorization: Bearer`` header; None for anything else."""
    scheme, _, token = (header or "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


class CheckedRequest(Request):
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
    """Refuse unless the caller has ``role``; for roles that depend on the body, such as that for ``terminate``."""
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
    app.config["MAX_CONTENT_LENGTH"] = (
        settings.limits.body_bytes + 1
    )  # werkzeug reads up to here when no length is announced
    app.request_class = CheckedRequest
    rate = RateLimit(settings.limits.requests_per_minute)

    @app.before_request
    def check() -> None:
        g.address = client_address(request.remote_addr, _forwarded_for(), settings.trusted_proxies)
        if settings.allowed_hosts and not is_allowed_host(request.host, settings.allowed_hosts):
            raise RequestRefused("misdirected", "this host is not in --allowed-hosts")
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
            if count_values(data, most=MAX_VALUES) > MAX_VALUES:
                raise RequestRefused("too_large", f"the body may have at most {MAX_VALUES} values")
            g.body = _parsed_body(data, operation)

    @app.after_request
    def finish(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        # Every 403, wherever it was raised. The authenticator has recorded every 401 and 429.
        if response.status_code == 403 and "identity" in g:
            maintenance.forbidden(current_actor(), f"{request.method} {request.url_rule}")
        return response


def _forwarded_for() -> list[str]:
    return [part for line in request.headers.getlist("X-Forwarded-For") for part in line.split(",")]


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestRefused("too_large", f"the body may have at most {limit} bytes")


def _check_identity(operation: Operation, auth: Authenticator) -> None:
    if operation.permission in (Permission.ANYONE, Permission.FEED):
        return
    token = bearer_token(request.headers.get("Authorization"))
    if operation.permission is Permission.WEBHOOK:
        auth.authenticate_webhook(token, address=g.address)
        g.webhook = True
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
            _refuse_halves(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefused("malformed", "the body is not JSON") from error
    if not isinstance(body, dict):
        raise RequestRefused("invalid", "the body must be a JSON object")
    return body


def _refuse_halves(value: object) -> None:
    """Raise `ValueError` for half a surrogate pair, which JSON can write and SQLite refuses."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for name, item in value.items():
            name.encode()
            _refuse_halves(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_halves(item)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
