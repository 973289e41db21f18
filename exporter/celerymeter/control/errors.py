"""Errors as RFC 9457 problems: one table of codes, one kind of response.

A view raises ``RequestRefused("not_found", "no report …")``; everything else here turns that, HTTP errors of Flask and
errors of the packages below into ``application/problem+json`` without a stack trace or an exception's text.
"""

from __future__ import annotations

import logging
import math
from http import HTTPStatus

from flask import Flask, Response
from gunicorn.http.errors import ParseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.routing.exceptions import WebsocketMismatch

from celerymeter.errors import (
    AmbiguousCluster,
    AnswerTooLarge,
    BrokerUnavailable,
    InvalidToken,
    PrometheusError,
    ReportRefused,
    RequestRefused,
    StateError,
)

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
MAX_WRONG = 1000
"""Wrong fields of a request up to which some are named: pydantic describes all of them or none."""
RETRY_AFTER = 5.0
"""Seconds in ``Retry-After`` while the broker, Prometheus or the state directory is unavailable."""

STATUS = {
    "malformed": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "too_large": 413,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "end_before_start": 422,
    "time_malformed": 422,
    "window_in_future": 422,
    "window_too_long": 422,
    "misdirected": 421,
    "invalid": 422,
    "too_many_requests": 429,
    "headers_too_large": 431,
    "internal": 500,
    "broker_unavailable": 503,
    "exporter_unavailable": 503,
    "prometheus_unavailable": 503,
    "state_unavailable": 503,
    "no_workers": 503,
    "no_worker_answered": 504,
}
"""Every ``code`` and its HTTP status. Codes are stable: clients may branch on them."""

_CODE_OF_STATUS = {400: "malformed", **{status: code for code, status in STATUS.items() if status not in (500, 503)}}


class FieldError(BaseModel):
    """One thing wrong with a request; the offending value is not repeated, as it may be a secret."""

    pointer: str = Field(description="JSON pointer into the body, or the parameter's name")
    message: str


class Problem(BaseModel):
    """A problem (RFC 9457). ``type`` is ``about:blank``: branch on ``code``."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str = Field(description="The status in words")
    status: int
    code: str = Field(description="Stable name of what went wrong", json_schema_extra={"enum": [*sorted(STATUS)]})
    detail: str
    errors: list[FieldError] | None = Field(default=None, description="For 422: every field that is wrong")


def raw_problem(status: int) -> bytes:
    """Return a whole response, after which the connection closes, for a request that never gets to the application."""
    code = _CODE_OF_STATUS.get(status, "malformed" if status < 500 else "internal")
    phrase = HTTPStatus(status).phrase
    problem = Problem(title=phrase, status=status, code=code, detail=_WORDS[code])
    body = f"{problem.model_dump_json(exclude_none=True)}\n"
    head = f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: {CONTENT_TYPE}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def problem_response(error: RequestRefused, errors: list[FieldError] | None = None) -> Response:
    """Return the response for a refused request."""
    status = STATUS[error.code]
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        code=error.code,
        detail=str(error),
        errors=errors,
        **error.members,
    )
    response = Response(f"{body.model_dump_json(exclude_none=True)}\n", status, content_type=CONTENT_TYPE)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, InvalidToken):
        response.headers["WWW-Authenticate"] = _challenge(error.reason)
    return response


def _challenge(reason: str) -> str:
    """RFC 6750: a request without a token gets no error code, one with a bad token ``invalid_token``."""
    realm = 'Bearer realm="celerymeter"'
    return realm if reason == "missing" else f'{realm}, error="invalid_token"'


def validation_response(error: ValidationError) -> Response:
    """Return the 422 for what pydantic found, without the values; of very many it names none."""
    count = error.error_count()
    found = error.errors(include_url=False, include_context=False, include_input=False) if count <= MAX_WRONG else []
    errors = [
        FieldError(
            pointer="/" + "/".join(str(part)[:100] for part in item["loc"]),
            message=item["msg"].removeprefix("Value error, "),  # pydantic's words for a validator of ours
        )
        for item in found[:100]
    ]
    wrong = "a field of the request is wrong" if count == 1 else f"{count} fields of the request are wrong"
    where = ": see errors" if errors else ", too many to name them"
    return problem_response(RequestRefused("invalid", wrong + where), errors or None)


def install(app: Flask) -> None:
    """Answer every error of the application with a problem."""
    app.register_error_handler(RequestRefused, problem_response)
    app.register_error_handler(BrokerUnavailable, lambda _: _unavailable("broker_unavailable", "the broker"))
    app.register_error_handler(AmbiguousCluster, lambda error: problem_response(RequestRefused("invalid", str(error))))
    app.register_error_handler(ReportRefused, lambda error: problem_response(RequestRefused(error.code, str(error))))
    app.register_error_handler(
        AnswerTooLarge, lambda error: problem_response(RequestRefused("prometheus_unavailable", str(error)))
    )
    app.register_error_handler(PrometheusError, lambda _: _unavailable("prometheus_unavailable", "Prometheus"))
    app.register_error_handler(StateError, _state_unavailable)
    app.register_error_handler(
        ParseException, lambda _: problem_response(RequestRefused("malformed", _WORDS["malformed"]))
    )
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(WebsocketMismatch, lambda _: problem_response(RequestRefused("malformed", _MISMATCH)))
    app.register_error_handler(Exception, _unexpected)


def _state_unavailable(error: Exception) -> Response:
    log.error("request refused: %s", error)
    return _later("state_unavailable", "the state directory")


def _unavailable(code: str, what: str) -> Response:
    log.warning("request refused: %s is unavailable", what, exc_info=log.isEnabledFor(logging.DEBUG))
    return _later(code, what)


def _later(code: str, what: str) -> Response:
    return problem_response(RequestRefused(code, f"{what} is unavailable now", retry_after=RETRY_AFTER))


def _http_error(error: HTTPException) -> Response:
    if error.response is not None:
        return error.response  # type: ignore[return-value]  # flask-openapi3 aborts with our own validation response
    status = error.code or 500
    code = _CODE_OF_STATUS.get(status, "malformed" if status < 500 else "internal")
    words = _WORDS.get(code, "the request cannot be answered")
    if status != 405:
        return problem_response(RequestRefused(code, words))
    allowed = dict(error.get_headers()).get("Allow", "")
    response = problem_response(RequestRefused(code, f"{words}, only {allowed}"))
    response.headers["Allow"] = allowed
    return response


_WORDS = {
    "malformed": "the request cannot be read",
    "not_found": "this path does not exist",
    "method_not_allowed": "this path does not accept this method",
    "headers_too_large": "the headers are too large",
    "uri_too_long": "the path and its query are too long",
    "misdirected": "this host is not in --allowed-hosts",
    "too_large": "the request body is too large",
    "unsupported_media_type": "the body must be application/json",
    "internal": "unexpected error; see the log of the control API",
}


_MISMATCH = "only /monitoring/ws is a WebSocket; connect to it with ws:// or wss://"


def _unexpected(error: Exception) -> Response:
    log.exception("unexpected error while answering a request", exc_info=error)
    return problem_response(RequestRefused("internal", _WORDS["internal"]))
