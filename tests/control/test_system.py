"""Health, info and status."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from celerymeter.control.access import Role
from celerymeter.control.app import create_app
from celerymeter.control.testing import bearer, control_services, control_settings


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    """An API that knows of a healthy broker."""
    settings = control_settings()
    return create_app(settings, control_services(settings, tmp_path)).test_client()


def test_a_stranger_may_ask_for_health(client: FlaskClient) -> None:
    """Health needs no token and names the checks."""
    reply = client.get("/celery-admin/system/health")
    assert (reply.status_code, reply.get_json()["checks"]) == (200, {"broker": "ok", "state": "ok"})


def test_only_an_administrator_reads_the_status(client: FlaskClient) -> None:
    """The full status is for admins."""
    answers = [client.get("/celery-admin/system/status", headers=bearer(role)).status_code for role in Role]
    assert answers == [403, 403, 200]
