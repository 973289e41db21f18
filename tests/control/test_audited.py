"""Every operation that changes something is in the audit trail: by its declaration, and in fact."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Response
from tests.control.access import bearer, control_settings
from tests.control_live.workers import FakeRemote as EventsRemote
from tests.control_live.workers import FakeWorker
from tests.revocation.process import FakeRemote as RevokeRemote

from celerymeter.control.app import blueprints, create_app
from celerymeter.control.audit.trail import AuditQuery
from celerymeter.control.parts import Parts, build
from celerymeter.control.revocation.workers import Workers
from celerymeter.control.routing import ControlBlueprint, Operation, Permission
from celerymeter.control.tokens import Role

BODIES: dict[str, dict[str, Any]] = {
    "monitoring.start_monitoring": {},
    "monitoring.stop_monitoring": {"disable_task_events": True},
    "tasks.revoke_tasks": {"task_ids": ["some-id"], "operation": "revoke"},
}
"""A body that each audited operation accepts."""


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """Parts over workers that acknowledge everything."""
    workers = Workers([RevokeRemote()] * 4)
    made = build(control_settings(), tmp_path, remote=EventsRemote({"w": FakeWorker()}), workers=workers)
    yield made
    made.store.close()


def audited(parts: Parts) -> dict[str, Operation]:
    """The operations that say that they are in the audit trail, by endpoint."""
    every = [bp.operations for bp in blueprints(control_settings(), parts)]
    return {endpoint: found for each in every for endpoint, found in each.items() if found.audited}


def test_every_audited_operation_writes_an_intent_and_an_outcome(parts: Parts) -> None:
    """Under the action that it declares, by the caller, with the outcome ok."""
    app = create_app(control_settings(), parts)
    urls = {rule.endpoint: rule.rule for rule in app.url_map.iter_rules()}
    for endpoint, operation in audited(parts).items():
        assert endpoint in BODIES, f"add a body that {endpoint} accepts to BODIES in tests/control/test_audited.py"
        reply = app.test_client().post(urls[endpoint], json=BODIES[endpoint], headers=bearer(Role.ADMIN))
        assert reply.status_code == 200, (
            f"{endpoint} must succeed with its body of BODIES and the `parts` of this file, which have no Prometheus:"
            f" {reply.text}"
        )
        rows = parts.audit.page(AuditQuery(action=operation.audited), limit=10)
        found = [row for row in rows if row.kind in ("intent", "outcome")]
        assert len(found) == 2, (
            f"{inspect.getsourcefile(inspect.unwrap(app.view_functions[endpoint]))}: {endpoint} declares"
            f' audited="{operation.audited}", so it must act inside'
            f' `with audit.act(current_actor(), "{operation.audited}")`'
        )
        outcome, intent = found
        assert (intent.kind, intent.sub, outcome.kind) == ("intent", "someone", "outcome"), endpoint
        assert (outcome.intent, outcome.outcome) == (intent.row, "ok"), endpoint


@pytest.mark.parametrize("declared", [{}, {"audited": "a.b", "unaudited": "because"}])
def test_a_post_that_does_not_say_how_it_is_audited_is_not_registered(declared: Any) -> None:
    """The error names the file, the view and what to add."""
    bp = ControlBlueprint("sample")
    with pytest.raises(TypeError, match=r'test_audited\.py: erase \(POST /erase\) must say audited="<action>"'):

        @bp.post("/erase", permission=Permission.ADMIN, responses={200: None}, **declared)
        def erase() -> Response:
            """Erase."""
            return Response()
