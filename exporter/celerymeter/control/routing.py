"""Operations of the API: each says who may call it and what it can answer, and neither can be forgotten.

A module of views has one function that takes the parts it needs and returns its `Area`::

    def area(*, health: HealthSource) -> Area:
        area = Area("system")

        @area.get("/system/health", who=Who.ANYONE, gives={200: HealthReply, 503: HealthReply})
        def read_health() -> Response:
            \"""Whether the system works.\"""
            return answer(HealthReply(...))

        return area

The docstring's first line is the operation's summary, the rest its description. ``body``, ``query``, ``path`` and
``header`` parameters are pydantic models (`Body`, `Query`), checked before the view runs and after authentication; what
stands in ``<…>`` of the rule is a member of ``path``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, TypeVar, get_type_hints

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict

from celerymeter.control.access import Who

View = TypeVar("View", bound=Callable[..., Response])

PROBLEM_REF = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
FEED_PATH = "/monitoring/ws"
"""The one path whose connections stay open."""
BEARER: list[dict[str, list[str]]] = [{"bearer": []}]
WEBHOOK_BEARER: list[dict[str, list[str]]] = [{"webhook": []}]
_WORDS = {
    400: "The body is not JSON",
    401: "No valid token",
    403: "The token's role does not suffice",
    404: "There is no such thing",
    409: "Another request is in the way",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "The request is well-formed and wrong; `errors` says where",
    429: "Too many requests; `Retry-After` says when to come back",
    503: "The broker, Prometheus or the state directory is away; `Retry-After` says when to try again",
    504: "No worker answered",
}
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_MAY = {
    Who.ANYONE: "Anyone may call it.",
    Who.VIEWER: "Needs the role viewer.",
    Who.OPERATOR: "Needs the role operator.",
    Who.ADMIN: "Needs the role admin.",
    Who.WEBHOOK: "Needs Alertmanager's own bearer token.",
    Who.FEED: "Needs a token of the role viewer: as `Authorization`, as `?access_token=`, or as subprotocol.",
}


def _rfc3339(value: object) -> str:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("a time with its zone is wanted, as in RFC 3339: 2026-01-31T12:00:00Z")
    return value


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError("a time within the years 1 to 9999 is wanted") from error


Instant = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_in_utc)]
"""A time in a request, then in UTC. pydantic alone would take any number for seconds since 1970."""


class Body(BaseModel):
    """Base of request bodies: JSON types are meant as written and unknown members are refused."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Query(BaseModel):
    """Base of query parameters: unknown ones are refused, so that a typing error is no silent default."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Operation:
    """What the guard must know before a view may run. ``optional_body``: an empty body means ``{}``."""

    who: Who
    takes_body: bool = False
    optional_body: bool = False


def answer(model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response of a model."""
    return Response(model.model_dump_json(), status, headers, content_type="application/json")


def utc(at: float) -> datetime:
    """UTC seconds as replies have them."""
    return datetime.fromtimestamp(at, timezone.utc)


class Area:
    """A blueprint and, by endpoint, what the guard must know of its operations."""

    def __init__(self, name: str) -> None:
        self.blueprint = APIBlueprint(name, __name__, abp_tags=[Tag(name=name)])
        self.operations: dict[str, Operation] = {}

    def get(
        self,
        rule: str,
        *,
        who: Who,
        gives: Mapping[int, type[BaseModel] | None],
        problems: tuple[int, ...] = (),
        **openapi: Any,
    ) -> Callable[[View], View]:
        """Register a GET; ``gives`` are its own answers, ``problems`` the statuses beside those that follow from
        ``who`` and the parameters. ``openapi`` goes to flask-openapi3 (``doc_ui``, ``openapi_extensions`` …).
        """
        return self._operation(self.blueprint.get, rule, who=who, gives=gives, problems=problems, openapi=openapi)

    def post(
        self,
        rule: str,
        *,
        who: Who,
        gives: Mapping[int, type[BaseModel] | None],
        problems: tuple[int, ...] = (),
        **openapi: Any,
    ) -> Callable[[View], View]:
        """Register a POST; as `get`. A body model configured with ``openapi_extra={"required": False}`` may be left out
        by the client: the view then gets it with its defaults.
        """
        return self._operation(self.blueprint.post, rule, who=who, gives=gives, problems=problems, openapi=openapi)

    def _operation(
        self,
        register: Callable[..., Callable[[View], View]],
        rule: str,
        *,
        who: Who,
        gives: Mapping[int, type[BaseModel] | None],
        problems: tuple[int, ...],
        openapi: dict[str, Any],
    ) -> Callable[[View], View]:
        def decorate(view: View) -> View:
            hints = get_type_hints(view)
            refusals = {*_implied(who, hints), *problems} - gives.keys()
            responses = {**gives, **{status: _problem(status) for status in refusals}}
            summary, _, description = (inspect.getdoc(view) or "").partition("\n")
            register(
                rule,
                summary=summary,
                description=f"{description.strip()}\n\n{_MAY[who]}".strip(),
                operation_id=view.__name__,
                responses=dict(sorted(responses.items())),
                security=_security(who),
                provide_automatic_options=False,
                **openapi,
            )(view)
            self.operations[f"{self.blueprint.name}.{view.__name__}"] = _describe(who, hints)
            return view

        return decorate


def _describe(who: Who, hints: Mapping[str, Any]) -> Operation:
    body: type[BaseModel] | None = hints.get("body")
    if body is None:
        return Operation(who)
    extra: Mapping[str, object] = body.model_config.get("openapi_extra", {})  # type: ignore[assignment]  # a key of flask-openapi3
    return Operation(who, takes_body=True, optional_body=extra.get("required") is False)


def _implied(who: Who, hints: Mapping[str, Any]) -> set[int]:
    statuses = {413}
    if who is not Who.ANYONE:
        statuses |= {401, 429}
    if who.role is not None:
        statuses.add(403)
    if "body" in hints:
        statuses |= {400, 415, 422}
    if {"query", "path", "header"} & hints.keys():
        statuses.add(422)
    return statuses


def _problem(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _WORDS[status], "content": PROBLEM_REF}
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return response


def _security(who: Who) -> list[dict[str, list[str]]] | None:
    if who is Who.WEBHOOK:
        return WEBHOOK_BEARER
    return BEARER if who.role is not None else None
