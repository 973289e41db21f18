"""What stands before every view: size, identity, role, rate, and the shape of the body; in that order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from flask import Flask, Request, Response, g, request

from celerymeter.control.access import Identity, Role, Who
from celerymeter.control.addresses import client_address
from celerymeter.control.audit.keeper import AuditKeeper
from celerymeter.control.audit.trail import Actor
from celerymeter.control.auth import Authenticator, bearer_token
from celerymeter.control.routing import Operation
from celerymeter.control.settings import ControlSettings
from celerymeter.control.throttle import Throttle
from celerymeter.errors import RequestRefused


class GuardedRequest(Request):
    """A request whose body was read once, strictly, by the guard."""

    def get_json(self, *_: object, **__: object) -> Any:
        """The body that the guard parsed; None where the operation takes none."""
        return g.get("body")


def identity() -> Identity:
    """Who asks, inside a view whose operation names a role."""
    who: Identity = g.identity
    return who


def address() -> str:
    """The client's address, by the trusted proxies' word where there are any."""
    text: str = g.address
    return text


def require(role: Role, purpose: str) -> None:
    """Refuse unless the caller has ``role``: for what depends on the body, such as ``terminate``."""
    if identity().role < role:
        raise RequestRefused("forbidden", f"{purpose} needs the role {role.label}")


def actor() -> Actor:
    """Who asks, in the words of the audit trail."""
    who = identity()
    return Actor(sub=who.sub, jti=who.jti, address=address())


def install(
    app: Flask,
    operations: Mapping[str, Operation],
    *,
    auth: Authenticator,
    keeper: AuditKeeper,
    settings: ControlSettings,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Put the guard before every view of ``app``; an endpoint without an `Operation` is never answered."""
    app.config["MAX_CONTENT_LENGTH"] = settings.limits.body_bytes + 1  # werkzeug reads so far where no length is told
    app.request_class = GuardedRequest
    rate = Throttle(settings.limits.requests_per_minute)

    @app.before_request
    def guard() -> None:
        g.address = client_address(request.remote_addr, _forwarded_for(), settings.trusted_proxies)
        _check_size(request.content_length or 0, settings.limits.body_bytes)
        if request.endpoint is None:
            return
        operation = operations[request.endpoint]
        _check_identity(operation, auth)
        if "identity" in g:
            _check_rate(rate, identity().sub, monotonic())
        if operation.takes_body:
            data = request.get_data(cache=False)
            _check_size(len(data), settings.limits.body_bytes)
            g.body = _parsed_body(data, operation)

    @app.after_request
    def note(response: Response) -> Response:
        """Every 403 goes to the audit trail, wherever it came from; 401 and 429 went there from the authenticator."""
        if response.status_code == 403 and "identity" in g:
            keeper.forbidden(identity(), f"{request.method} {request.url_rule}", address=address())
        return response


def _forwarded_for() -> list[str]:
    return [part for line in request.headers.getlist("X-Forwarded-For") for part in line.split(",")]


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestRefused("too_large", f"a body of at most {limit} bytes is accepted")


def _check_identity(operation: Operation, auth: Authenticator) -> None:
    if operation.who in (Who.ANYONE, Who.FEED):
        return
    token = bearer_token(request.headers.get("Authorization"))
    if operation.who is Who.WEBHOOK:
        auth.authenticate_webhook(token, address=g.address)
        return
    g.identity = auth.authenticate(token, address=g.address)
    role = operation.who.role
    if role is not None and identity().role < role:
        raise RequestRefused("forbidden", f"this needs the role {role.label}")


def _check_rate(rate: Throttle, subject: str, now: float) -> None:
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
