"""Operations of the API: each says who may call it, what it answers and, unless it is a GET, how it is audited.

A module of views has one function that takes the parts it needs and returns its `ControlBlueprint`::

    def blueprint(*, health: HealthSource) -> ControlBlueprint:
        bp = ControlBlueprint("system")

        @bp.get("/system/health", permission=Permission.ANYONE, responses={200: HealthReply, 503: HealthReply})
        def read_health() -> Response:
            \"""Return whether the system works.\"""
            return answer(HealthReply(...))

        return bp

The docstring's first line is the operation's summary, the rest its description. ``body``, ``query``, ``path`` and
``header`` parameters are pydantic models (`Body`, `Query`), checked before the view runs and after authentication; what
stands in ``<…>`` of the rule is a member of ``path``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Annotated, Any, TypeVar, get_type_hints

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict

from celerymeter.control.tokens import Role

View = TypeVar("View", bound=Callable[..., Response])
Responses = Mapping[int, type[BaseModel] | None]

PROBLEM_REF = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
"""The ``Content-Security-Policy`` of our pages: an inline style sheet, and nothing is loaded, no script and no font."""
FEED_PATH = "/monitoring/ws"
"""The only path whose connections stay open."""
BEARER: list[dict[str, list[str]]] = [{"bearer": []}]
WEBHOOK_BEARER: list[dict[str, list[str]]] = [{"webhook": []}]
_WORDS = {
    400: "The body is not JSON",
    401: "No valid token",
    403: "The token's role is too low",
    404: "Not found",
    409: "Conflict with another request",
    413: "The body is too large",
    414: "The path and its query are too long",
    415: "The body is not application/json",
    422: "The request is well-formed but invalid; `errors` says where",
    429: "Too many requests; `Retry-After` says when to try again",
    503: "The broker, Prometheus or the state directory is unavailable; `Retry-After` says when to try again",
    504: "No worker answered",
}
_UNDECLARED = (
    '{file}: {view} (POST {rule}) must say audited="<action>", and do what it does inside `with audit.act('
    'current_actor(), "<action>")`; or unaudited="<reason>", when it changes nothing that an auditor would ask about'
)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


class Permission(Enum):
    """The callers that an operation accepts; every operation names one."""

    ANYONE = "anyone"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    WEBHOOK = "webhook"
    """Alertmanager, by its own static bearer token."""
    FEED = "feed"
    """The WebSocket, whose view checks the token, as it may come in three ways."""

    @property
    def role(self) -> Role | None:
        """The lowest role that may call, or None where roles do not decide."""
        return Role.named(self.value)


_MAY = {
    Permission.ANYONE: "Needs no token.",
    Permission.VIEWER: "Needs the role viewer.",
    Permission.OPERATOR: "Needs the role operator.",
    Permission.ADMIN: "Needs the role admin.",
    Permission.WEBHOOK: "Needs Alertmanager's own bearer token.",
    Permission.FEED: "Needs a token of the role viewer: as `Authorization`, as `?access_token=`, or as subprotocol.",
}


def _rfc3339(value: object) -> str:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be a time with a zone as in RFC 3339: 2026-01-31T12:00:00Z")
    return value


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError("must be a time within the years 1 to 9999") from error


Instant = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_in_utc)]
"""A time in a request, converted to UTC. pydantic alone would accept any number as seconds since 1970."""


class Body(BaseModel):
    """Base of request bodies: JSON types are not converted and unknown members are refused."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Query(BaseModel):
    """Base of query parameters: unknown ones are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Operation:
    """The checks before a view runs. ``optional_body``: an empty body means ``{}``."""

    permission: Permission
    takes_body: bool = False
    optional_body: bool = False
    audited: str = ""
    """The action that its rows in the audit trail have; empty when it writes none."""


def answer(model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response of a model; it ends its line, for those who read it in a terminal."""
    return Response(f"{model.model_dump_json(by_alias=True)}\n", status, headers, content_type="application/json")


def utc(at: float) -> datetime:
    """Convert UTC seconds to the time that replies have."""
    return datetime.fromtimestamp(at, timezone.utc)


class ControlBlueprint(APIBlueprint):
    """A blueprint of the API. For each endpoint it keeps what must be checked before the view runs."""

    def __init__(self, name: str) -> None:
        super().__init__(name, __name__, abp_tags=[Tag(name=name)])
        self.operations: dict[str, Operation] = {}

    def get(  # type: ignore[override]  # an operation must say who may call it and what it answers
        self,
        rule: str,
        *,
        permission: Permission,
        responses: Responses,
        errors: tuple[int, ...] = (),
        **options: Any,
    ) -> Callable[[View], View]:
        """Register a GET. ``responses`` are its own answers, ``errors`` the statuses beside those that follow from
        ``permission`` and the parameters; ``options`` go to flask-openapi3 and Flask.
        """
        operation = Operation(permission)
        return self._register(super().get, rule, operation, responses=responses, errors=errors, options=options)

    def post(  # type: ignore[override]  # as above
        self,
        rule: str,
        *,
        permission: Permission,
        responses: Responses,
        errors: tuple[int, ...] = (),
        audited: str = "",
        unaudited: str = "",
        **options: Any,
    ) -> Callable[[View], View]:
        """Register a POST; as `get`. ``audited`` is the action that the view writes to the audit trail, ``unaudited``
        the reason why it writes none; one of them must be given.

        A body model configured with ``openapi_extra={"required": False}`` may be left out by the client: the view then
        gets it with its defaults.
        """
        post, operation = super().post, Operation(permission, audited=audited)

        def decorate(view: View) -> View:
            if bool(audited) == bool(unaudited):
                raise TypeError(_UNDECLARED.format(file=inspect.getsourcefile(view), view=view.__name__, rule=rule))
            self._register(post, rule, operation, responses=responses, errors=errors, options=options)(view)
            return view

        return decorate

    put = patch = delete = None  # type: ignore[assignment]  # no operation has them; one that does is to be like `post`

    def _register(
        self,
        register: Callable[..., Callable[[View], View]],
        rule: str,
        operation: Operation,
        *,
        responses: Responses,
        errors: tuple[int, ...],
        options: dict[str, Any],
    ) -> Callable[[View], View]:
        def decorate(view: View) -> View:
            hints, permission = get_type_hints(view), operation.permission
            refusals = {*_implied(permission, hints), *errors} - responses.keys()
            documented = {**responses, **{status: _problem(status) for status in refusals}}
            summary, _, description = (inspect.getdoc(view) or "").partition("\n")
            register(
                rule,
                summary=summary,
                description=f"{description.strip()}\n\n{_MAY[permission]}".strip(),
                operation_id=view.__name__,
                responses=dict(sorted(documented.items())),
                security=_security(permission),
                provide_automatic_options=False,
                **options,
            )(view)
            self.operations[f"{self.name}.{view.__name__}"] = _with_body(operation, hints)
            return view

        return decorate


def _with_body(operation: Operation, hints: Mapping[str, Any]) -> Operation:
    body: type[BaseModel] | None = hints.get("body")
    if body is None:
        return operation
    extra: Mapping[str, object] = body.model_config.get("openapi_extra", {})  # type: ignore[assignment]  # a key of flask-openapi3
    return replace(operation, takes_body=True, optional_body=extra.get("required") is False)


def _implied(permission: Permission, hints: Mapping[str, Any]) -> set[int]:
    statuses = {413}
    if permission is not Permission.ANYONE:
        statuses |= {401, 429}
    if permission.role is not None:
        statuses.add(403)
    if "body" in hints:
        statuses |= {400, 415, 422}
    if {"query", "path", "header"} & hints.keys():
        statuses.add(422)
    if {"query", "path"} & hints.keys():
        statuses.add(414)
    return statuses


def _problem(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _WORDS[status], "content": PROBLEM_REF}
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return response


def _security(permission: Permission) -> list[dict[str, list[str]]] | None:
    if permission is Permission.WEBHOOK:
        return WEBHOOK_BEARER
    return BEARER if permission.role is not None else None
