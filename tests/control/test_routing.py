"""Operations: what is checked before a view runs, and how it is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

import pytest
from flask import Response
from flask.testing import FlaskClient
from flask_openapi3 import OpenAPI
from pydantic import BaseModel, ConfigDict, Field
from tests.control.access import bearer, control_settings
from werkzeug.routing import Rule

from celerymeter.control import auth, errors
from celerymeter.control.auth import require_role
from celerymeter.control.errors import STATUS, Problem
from celerymeter.control.parts import build
from celerymeter.control.routing import Body, ControlBlueprint, Instant, Permission, Query, answer
from celerymeter.control.tokens import Role
from celerymeter.errors import (
    AmbiguousCluster,
    BrokerUnavailable,
    PrometheusUnavailable,
    QueryRejected,
    RequestRefused,
    StateError,
)

OPERATOR = bearer(Role.OPERATOR)


class Order(Body):
    """A body that must be there."""

    count: int
    kind: Literal["a", "b"] = "a"
    names: list[str] = Field(default_factory=list, max_length=3)


class Wish(Body):
    """A body that may be left out."""

    model_config = ConfigDict(openapi_extra={"required": False})  # type: ignore[typeddict-unknown-key]  # flask-openapi3's

    loud: bool = False


class When(Query):
    """A time in the query."""

    since: Instant | None = None


class What(BaseModel):
    """A path parameter."""

    what: str


class Echo(BaseModel):
    """The value that arrived."""

    got: str


RAISED: dict[str, Exception] = {
    "broker": BrokerUnavailable("redis://someone:secret@broker"),
    "prometheus": PrometheusUnavailable("http://prometheus.internal did not answer"),
    "query": QueryRejected("1:3: parse error in secret_metric"),
    "state": StateError("/var/lib/celerymeter is full"),
    "clusters": AmbiguousCluster(("eu", "us")),
    "surprise": ZeroDivisionError("a secret"),
    "batch": RequestRefused("no_worker_answered", "nobody", retry_after=1.2, members={"batch_id": "b-1"}),
}


def sample() -> ControlBlueprint:
    """A blueprint with one operation of each kind."""
    bp = ControlBlueprint("sample")

    @bp.post("/order", permission=Permission.OPERATOR, responses={200: Echo}, unaudited="a test")
    def order(body: Order) -> Response:
        """Order."""
        return answer(Echo(got=repr(body)))

    @bp.post("/wish", permission=Permission.OPERATOR, responses={200: Echo}, unaudited="a test")
    def wish(body: Wish) -> Response:
        """Wish."""
        if body.loud:
            require_role(Role.ADMIN, "to be loud")
        return answer(Echo(got=repr(body)))

    @bp.get("/when", permission=Permission.VIEWER, responses={200: Echo})
    def when(query: When) -> Response:
        """Return the time as it was read."""
        return answer(Echo(got=str(query.since)))

    @bp.get("/raise/<string:what>", permission=Permission.ANYONE, responses={200: Echo})
    def fail(path: What) -> Response:
        """Fail."""
        raise RAISED[path.what]

    return bp


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """An application of the sample blueprint alone."""
    settings = control_settings()
    parts = build(settings, tmp_path_factory.mktemp("state"))
    app = OpenAPI("sample", doc_ui=False, validation_error_callback=errors.validation_response)
    bp = sample()
    app.register_api(bp)
    errors.install(app)
    auth.install(app, bp.operations, auth=parts.auth, maintenance=parts.maintenance, settings=settings)
    yield app.test_client()
    parts.store.close()


def order(
    client: FlaskClient, body: bytes | str, content_type: str = "application/json"
) -> tuple[int, dict[str, object]]:
    """The answer to a body."""
    reply = client.post("/order", data=body, content_type=content_type, headers=OPERATOR)
    return reply.status_code, reply.get_json()


def test_a_good_body_reaches_the_view(client: FlaskClient) -> None:
    """As a model."""
    assert order(client, '{"count": 3}') == (200, {"got": "Order(count=3, kind='a', names=[])"})


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "{'count': 3}",
        '{"count": NaN}',
        '{"count": Infinity}',
        b"\xff\xfe",
        b'{"names": ["\xed\xa0\x80"]}',
        '{"count": 1}'.encode("utf-16"),
        "[" * 100_000,
        '{"names": ["\\ud800"]}',
        '{"count": 1} x',
    ],
)
def test_what_is_no_json_is_400(client: FlaskClient, body: bytes | str) -> None:
    """Also what Python alone takes for JSON, and what would exhaust its stack."""
    status, problem = order(client, body)
    assert (status, problem["code"]) == (400, "malformed")


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_is_not_called_json_is_415(client: FlaskClient, content_type: str) -> None:
    """A form on another site cannot send application/json."""
    assert order(client, '{"count": 3}', content_type)[0] == 415


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ("[]", None),
        ('"{\\"count\\": 3}"', None),
        ("null", None),
        ("{}", "/count"),
        ('{"count": "3"}', "/count"),
        ('{"count": 3.0}', "/count"),
        ('{"count": true}', "/count"),
        ('{"count": 3, "kind": "s3cret"}', "/kind"),
        ('{"count": 3, "names": ["a", 5]}', "/names/1"),
        ('{"count": 3, "names": ["a", "b", "c", "d"]}', "/names"),
        ('{"count": 3, "more": "s3cret"}', "/more"),
    ],
)
def test_what_is_json_and_wrong_is_422(client: FlaskClient, body: str, pointer: str | None) -> None:
    """Types are meant as written; each field is named, its value is not repeated."""
    status, problem = order(client, body)
    assert (status, problem["code"]) == (422, "invalid")
    assert "s3cret" not in json.dumps(problem)
    if pointer is not None:
        errors = problem["errors"]
        assert isinstance(errors, list)
        assert [error["pointer"] for error in errors] == [pointer]


def test_a_million_wrong_fields_are_a_short_answer(client: FlaskClient) -> None:
    """At most a hundred faults are listed, and names are cut."""
    status, problem = order(client, json.dumps({"count": 1, **{f"{n}{'x' * 300}": n for n in range(1000)}}))
    errors = problem["errors"]
    assert isinstance(errors, list)
    assert (status, len(errors), len(json.dumps(problem)) < 20_000) == (422, 100, True)


def test_a_body_may_be_left_out_where_the_model_says_so(client: FlaskClient) -> None:
    """``curl -X POST`` is enough; when there is a body it is held to the same rules."""
    assert client.post("/wish", headers=OPERATOR).get_json() == {"got": "Wish(loud=False)"}
    assert client.post("/wish", headers=OPERATOR, data="x", content_type="text/plain").status_code == 415


def test_a_role_may_depend_on_the_body(client: FlaskClient) -> None:
    """`require_role` inside the view."""
    replies = [client.post("/wish", headers=bearer(role), json={"loud": True}) for role in (Role.OPERATOR, Role.ADMIN)]
    assert [reply.status_code for reply in replies] == [403, 200]


def test_nothing_is_read_before_the_token_is(client: FlaskClient) -> None:
    """401 and 403 go before 400, 415 and 422."""
    assert client.post("/order", data="rubbish").status_code == 401
    assert client.post("/order", data="rubbish", headers=bearer(Role.VIEWER)).status_code == 403


@pytest.mark.parametrize(
    ("text", "status", "got"),
    [
        ("2026-01-31T12:00:00Z", 200, "2026-01-31 12:00:00+00:00"),
        ("2026-01-31T12:00:00.123456789%2B02:00", 200, "2026-01-31 10:00:00.123456+00:00"),
        ("0.5", 422, None),
        ("1700000000", 422, None),
        ("2026-01-31", 422, None),
        ("2026-01-31T12:00:00", 422, None),
        ("2026-13-31T12:00:00Z", 422, None),
        ("0001-01-01T00:00:00%2B14:00", 422, None),
    ],
)
def test_a_time_has_its_zone(client: FlaskClient, text: str, status: int, got: str | None) -> None:
    """RFC 3339, and no number of seconds in disguise."""
    reply = client.get(f"/when?since={text}", headers=OPERATOR)
    assert (reply.status_code, reply.get_json().get("got")) == (status, got)


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [
        ("broker", 503, "broker_unavailable"),
        ("prometheus", 503, "prometheus_unavailable"),
        ("query", 503, "prometheus_unavailable"),
        ("state", 503, "state_unavailable"),
        ("clusters", 422, "invalid"),
        ("surprise", 500, "internal"),
        ("batch", 504, "no_worker_answered"),
    ],
)
def test_errors_of_the_rooms_below_are_problems_without_their_text(
    client: FlaskClient, what: str, status: int, code: str
) -> None:
    """No trace, no exception's words; 503 says when to come back."""
    reply = client.get(f"/raise/{what}")
    problem = Problem.model_validate(reply.get_json())
    assert (reply.status_code, problem.status, problem.code) == (status, status, code)
    assert ("Retry-After" in reply.headers) == (status in (503, 504))
    assert not [word for word in ("secret", "internal.", "Traceback", "/var/lib") if word in reply.text]


def test_a_problem_may_have_members_of_its_own(client: FlaskClient) -> None:
    """Such as the batch that goes on after a 504."""
    reply = client.get("/raise/batch")
    assert (reply.get_json()["batch_id"], reply.headers["Retry-After"]) == ("b-1", "2")


def test_the_unexpected_is_logged_with_its_trace(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """For the operator, not for the client."""
    client.get("/raise/surprise")
    assert "ZeroDivisionError" in caplog.text


def test_every_code_has_a_status() -> None:
    """And no two statuses share a code."""
    assert all(400 <= status < 600 for status in STATUS.values())


def test_an_endpoint_that_says_not_who_may_is_never_answered(client: FlaskClient) -> None:
    """A route that came in past `ControlBlueprint` is an error, not an opening."""
    app = client.application
    app.url_map.add(Rule("/backdoor", endpoint="backdoor"))
    app.view_functions["backdoor"] = lambda: "open"
    assert client.get("/backdoor").status_code == 500
