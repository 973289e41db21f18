"""Every view is guarded: tokens, roles, rates, sizes and shapes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from flask.testing import FlaskClient
from tests.control.access import bearer, token
from tests.control.conftest import MakeClient

from celerymeter.control.parts import Parts
from celerymeter.control.settings import ControlSettings
from celerymeter.control.tokens import Role
from celerymeter.metrics import CATALOGUE

AUDIT = "/celery-admin/audit"
STATUS = "/celery-admin/system/status"
WRONG = {"Authorization": "Bearer guess"}


def attempts(client: FlaskClient, count: int, headers: dict[str, str] | None = None) -> list[int]:
    """The statuses of so many attempts in a row."""
    return [client.get(AUDIT, headers=headers or {}).status_code for _ in range(count)]


def failures(parts: Parts, reason: str) -> float:
    """Return how often authentication failed for this reason, according to the metrics."""
    return parts.metrics.registry.get_sample_value("celerymeter_control_auth_failures_total", {"reason": reason}) or 0.0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Token {token(Role.ADMIN)}"},
        {"Authorization": token(Role.ADMIN)},
        {"Authorization": f"Bearer {token(Role.ADMIN)} x"},
        {"Authorization": f"Bearer {token(Role.ADMIN, ttl=-60)}"},
        {"Cookie": f"access_token={token(Role.ADMIN)}"},
        {"X-Access-Token": token(Role.ADMIN)},
        {"Sec-WebSocket-Protocol": f"celerymeter.v1, bearer.{token(Role.ADMIN)}"},
    ],
)
def test_without_a_valid_token_in_the_right_place_there_is_no_way_in(
    shared_client: FlaskClient, headers: dict[str, str]
) -> None:
    """401, with the challenge that RFC 6750 wants."""
    reply = shared_client.get(AUDIT, headers=headers)
    assert (reply.status_code, reply.get_json()["code"]) == (401, "unauthenticated")
    assert reply.headers["WWW-Authenticate"].startswith('Bearer realm="celerymeter"')


def test_a_token_in_the_address_is_no_token(shared_client: FlaskClient) -> None:
    """Addresses end in logs and histories; only the feed takes a token there."""
    assert shared_client.get(f"{AUDIT}?access_token={token(Role.ADMIN)}").status_code == 401


def test_a_lower_role_does_not_suffice(shared_client: FlaskClient) -> None:
    """403, which says the role that is wanted."""
    reply = shared_client.get(AUDIT, headers=bearer(Role.OPERATOR))
    assert (reply.status_code, reply.get_json()["detail"]) == (403, "this needs the role admin")


def test_failures_are_counted_by_reason(client: FlaskClient, parts: Parts) -> None:
    """An operator sees what kind of trouble it is."""
    attempts(client, 2)
    attempts(client, 1, {"Authorization": f"Bearer {token(ttl=-60)}"})
    assert (failures(parts, "missing"), failures(parts, "expired")) == (2, 1)


def test_an_address_that_fails_too_often_is_told_to_wait(make_client: MakeClient, settings: ControlSettings) -> None:
    """429 with Retry-After; a good token still passes, since who guesses may share the address of others."""
    client = make_client(limits=replace(settings.limits, auth_failures_per_minute=3))
    assert attempts(client, 5, WRONG) == [401, 401, 401, 429, 429]
    assert client.get(AUDIT, headers=bearer(Role.ADMIN)).status_code == 200
    reply = client.get(AUDIT, headers=WRONG)
    assert (reply.status_code, 1 <= int(reply.headers["Retry-After"]) <= 20) == (429, True)


def test_requests_without_a_token_are_slowed_by_a_rate_of_their_own(
    make_client: MakeClient, settings: ControlSettings
) -> None:
    """They guess nothing, and do not lock out who has a token."""
    client = make_client(limits=replace(settings.limits, auth_failures_per_minute=2))
    assert attempts(client, 7) == [401] * 6 + [429]
    assert attempts(client, 1, bearer(Role.ADMIN)) == [200]


def test_a_token_that_was_good_before_is_not_locked_out(make_client: MakeClient, settings: ControlSettings) -> None:
    """A faulty client behind a shared address harms itself alone."""
    client = make_client(limits=replace(settings.limits, auth_failures_per_minute=3))
    good = bearer(Role.ADMIN)
    attempts(client, 1, good)
    assert attempts(client, 4, WRONG)[-1] == 429
    assert attempts(client, 1, good) == [200]


def test_addresses_are_throttled_one_by_one(make_client: MakeClient, settings: ControlSettings) -> None:
    """Behind a trusted proxy X-Forwarded-For tells them apart."""
    limits = replace(settings.limits, auth_failures_per_minute=1)
    client = make_client(limits=limits, trusted_proxies=(ip_network("127.0.0.1"),))
    answers = [attempts(client, 2, {**WRONG, "X-Forwarded-For": address}) for address in ("192.0.2.1", "192.0.2.2")]
    assert answers == [[401, 429], [401, 429]]


def test_a_stranger_cannot_choose_an_address(make_client: MakeClient, settings: ControlSettings) -> None:
    """Without a trusted proxy X-Forwarded-For is not believed."""
    client = make_client(limits=replace(settings.limits, auth_failures_per_minute=1))
    answers = [attempts(client, 1, {**WRONG, "X-Forwarded-For": f"192.0.2.{n}"}) for n in (1, 2)]
    assert answers == [[401], [429]]


def test_a_subject_may_not_ask_too_often(make_client: MakeClient, settings: ControlSettings) -> None:
    """The rate is the subject's, whatever token it comes with."""
    client = make_client(limits=replace(settings.limits, requests_per_minute=2))
    answers = [client.get(AUDIT, headers=bearer(Role.ADMIN)).status_code for _ in range(3)]
    assert answers == [200, 200, 429]


@pytest.mark.parametrize("path", ["/", "/celery-admin/nothing", "/static/x", "/celery-admin/system/health/"])
def test_unknown_paths_are_problems(shared_client: FlaskClient, path: str) -> None:
    """Nothing answers in HTML."""
    reply = shared_client.get(path)
    assert (reply.status_code, reply.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
def test_other_methods_are_problems_that_say_which_are_allowed(shared_client: FlaskClient, method: str) -> None:
    """405 with Allow; there is no CORS to be asked for."""
    reply = shared_client.open(STATUS, method=method)
    assert (reply.status_code, reply.get_json()["code"]) == (405, "method_not_allowed")
    assert "GET" in reply.headers["Allow"]
    assert reply.get_json()["detail"].endswith(f"only {reply.headers['Allow']}")


def test_a_large_body_is_refused_by_its_length(shared_client: FlaskClient) -> None:
    """Nobody reads it."""
    reply = shared_client.get(STATUS, environ_overrides={"CONTENT_LENGTH": "100000000"})
    assert (reply.status_code, reply.get_json()["code"]) == (413, "too_large")


def test_every_answer_carries_the_security_headers(shared_client: FlaskClient) -> None:
    """Good or bad."""
    for reply in (
        shared_client.get("/celery-admin/system/info"),
        shared_client.get(AUDIT),
        shared_client.get("/nothing"),
    ):
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


@pytest.mark.parametrize("base_path", ["", "/celery-admin", "/a/b"])
def test_the_base_path_is_a_setting(make_client: MakeClient, base_path: str) -> None:
    """All paths move together."""
    assert make_client(base_path=base_path).get(f"{base_path}/system/info").status_code == 200


def test_a_new_token_is_noted_once(client: FlaskClient) -> None:
    """The audit trail has every token at its first use."""
    headers = bearer(Role.ADMIN)
    attempts(client, 3, headers)
    rows = client.get(f"{AUDIT}?kind=token", headers=headers).get_json()["rows"]
    assert [(row["sub"], row["action"], row["detail"]["role"]) for row in rows] == [
        ("someone", "token.first_use", "admin")
    ]


def test_refusals_are_in_the_audit_trail(client: FlaskClient) -> None:
    """Of strangers by address, of known subjects by name; repeats within a minute are folded."""
    attempts(client, 5)
    client.get(AUDIT, headers=bearer(Role.VIEWER))
    rows = client.get(f"{AUDIT}?kind=refusal", headers=bearer(Role.ADMIN)).get_json()["rows"]
    assert [(row["action"], row["sub"], row["detail"]) for row in rows] == [
        ("GET /celery-admin/audit", "someone", {"forbidden": 1}),
        ("authenticate", "", {"missing": 1}),
    ]


def test_requests_are_counted_and_timed_by_route(client: FlaskClient, parts: Parts) -> None:
    """Paths and methods that strangers invent are one label value."""
    for _ in range(2):
        client.get("/celery-admin/system/info?x=1")
    client.open("/celery-admin/never-heard", method="FANCY")
    read = parts.metrics.registry.get_sample_value
    name, route = "celerymeter_control_requests_total", "/celery-admin/system/info"
    assert read(name, {"route": route, "method": "GET", "code": "200"}) == 2
    assert read(name, {"route": "unmatched", "method": "unmatched", "code": "404"}) == 1
    assert read("celerymeter_control_request_duration_seconds_count", {"route": route, "method": "GET"}) == 2


def test_no_token_is_ever_logged(shared_client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """Neither from the header nor from the address."""
    secret = token(Role.ADMIN)
    with caplog.at_level("DEBUG"):
        shared_client.get(f"{AUDIT}?access_token={secret}", headers={"Authorization": f"Bearer {secret}"})
    assert caplog.records
    assert not [record for record in caplog.records if secret in str(vars(record))]


def test_the_registry_holds_what_the_catalogue_says(parts: Parts) -> None:
    """Every family of the area, by its name, and no other of ours."""
    catalogued = {family.name.removesuffix("_total") for family in CATALOGUE if family.area == "control"}
    exposed = {family.name for family in parts.metrics.registry.collect() if family.name.startswith("celerymeter")}
    assert exposed == catalogued
