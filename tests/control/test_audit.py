"""``GET /audit`` as a client pages through it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from tests.control.access import bearer, control_settings

from celerymeter.control.app import create_app
from celerymeter.control.audit.trail import Actor
from celerymeter.control.parts import build
from celerymeter.control.tokens import Role


def page(client: FlaskClient, **query: str | int) -> dict[str, Any]:
    """One page as an administrator gets it."""
    answer = client.get("/celery-admin/audit", query_string=query, headers=bearer(Role.ADMIN))
    assert answer.status_code == 200
    found: dict[str, Any] = json.loads(answer.data)
    return found


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """An API whose trail has nine acts of two people; nothing is added but the token that reads it."""
    settings = control_settings()
    parts = build(settings, tmp_path_factory.mktemp("state"))
    for number in range(9):
        actor = Actor("ann" if number % 2 else "bob", f"token-{number}", "192.0.2.1")
        intent = parts.audit.begin(actor, "tasks.revoke", target=[f"task-{number}"], reason="by mistake")
        parts.audit.finish(intent, "ok")
    yield create_app(settings, parts).test_client()
    parts.store.close()


def test_pages_hold_every_row_once_and_the_newest_first(client: FlaskClient) -> None:
    """`next` of one page is `before` of the next, until it is null; what is written meanwhile moves nothing."""
    rows, before = [], None
    while True:
        found = page(client, limit=4, **({"before": before} if before else {}))
        rows += [row["row"] for row in found["rows"]]
        if (before := found["next"]) is None:
            break

    assert rows == sorted(set(rows), reverse=True)
    assert len(rows) >= 18
    assert rows[-1] == 1


def test_filters_hold_together(client: FlaskClient) -> None:
    """All that are given must hold."""
    found = page(client, sub="ann", kind="intent", action="tasks.revoke", limit=500)["rows"]
    assert [row["target"] for row in found] == [[f"task-{number}"] for number in range(7, 0, -2)]
    assert page(client, target="task-4", sub="bob", kind="intent")["rows"][0]["reason"] == "by mistake"
    assert page(client, target="task-4", sub="ann") | {"head": ""} == {"rows": [], "next": None, "head": ""}


def test_an_intent_leads_to_its_outcome(client: FlaskClient) -> None:
    """With ``intent`` come the row itself and all that belongs to it."""
    (intent,) = page(client, target="task-7", kind="intent")["rows"]
    assert [row["kind"] for row in page(client, intent=intent["row"])["rows"]] == ["outcome", "intent"]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "before=0", "kind=other", "since=yesterday", "colour=red"])
def test_a_wrong_query_is_refused(client: FlaskClient, query: str) -> None:
    """422, with the name of the parameter."""
    answer = client.get(f"/celery-admin/audit?{query}", headers=bearer(Role.ADMIN))
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.text
