"""Health, info and status."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from tests.control.access import bearer

from celerymeter.control.app import create_app
from celerymeter.control.cluster.models import (
    ClusterSnapshot,
    Component,
    FiringAlert,
    Health,
    QueueStatus,
    overall_health,
)
from celerymeter.control.parts import Parts, build
from celerymeter.control.routing import utc
from celerymeter.control.settings import ControlSettings
from celerymeter.control.tokens import Role

HEALTH = "/celery-admin/system/health"
STATUS = "/celery-admin/system/status"
OK, FAILED, UNKNOWN = Component("a", "ok"), Component("b", "failed"), Component("c", "unknown")
CRITICAL = Component("d", "failed", critical=True)


class FakeSystem:
    """A `SnapshotSource` whose snapshot a test sets."""

    def __init__(self, *components: Component) -> None:
        self.current = ClusterSnapshot(at=1_700_000_000.0, components=components)

    def last_snapshot(self) -> ClusterSnapshot:
        """Return what the test set."""
        return self.current


@pytest.fixture
def system() -> FakeSystem:
    """A system of which only the broker is known."""
    return FakeSystem(Component("broker", "ok"))


@pytest.fixture
def client(settings: ControlSettings, parts: Parts, system: FakeSystem) -> FlaskClient:
    """The API over that system."""
    return create_app(settings, replace(parts, system=system)).test_client()


def test_a_stranger_may_ask_for_health(client: FlaskClient) -> None:
    """Health needs no token and names the checks."""
    reply = client.get(HEALTH)
    assert (reply.status_code, reply.get_json()["checks"]) == (200, {"broker": "ok", "state": "ok"})


@pytest.mark.parametrize(
    ("components", "status"),
    [
        ((OK,), "healthy"),
        ((OK, UNKNOWN), "degraded"),
        ((OK, FAILED), "degraded"),
        ((OK, FAILED, CRITICAL), "unhealthy"),
    ],
)
def test_the_worst_component_decides(components: tuple[Component, ...], status: Health) -> None:
    """Anything that is not ok degrades; a critical failure is worse."""
    assert status == overall_health(components)


def test_unhealthy_is_a_503_that_still_says_what_is_wrong(settings: ControlSettings, tmp_path: Path) -> None:
    """A load balancer sees the status code, a person the checks."""
    parts = replace(build(settings, tmp_path), system=FakeSystem(CRITICAL))
    reply = create_app(settings, parts).test_client().get(HEALTH)
    assert (
        reply.status_code,
        reply.get_json()["status"],
        reply.get_json()["checks"]["d"],
    ) == (503, "unhealthy", "failed")
    parts.store.close()


def test_health_says_when_the_disk_does_not_take_the_audit_trail(parts: Parts, client: FlaskClient) -> None:
    """An audit trail that cannot be written is a critical failure."""
    parts.store.close()
    parts.maintenance.round()
    assert (client.get(HEALTH).status_code, client.get(HEALTH).get_json()["checks"]["state"]) == (503, "failed")


def test_health_tells_strangers_nothing_but_conditions(settings: ControlSettings, tmp_path: Path) -> None:
    """A component's detail may name a host; it is for administrators."""
    detail = "cannot reach broker.internal:6379"
    parts = replace(build(settings, tmp_path), system=FakeSystem(Component("broker", "failed", detail)))
    client = create_app(settings, parts).test_client()
    assert detail not in client.get(HEALTH).text
    assert detail in client.get(STATUS, headers=bearer(Role.ADMIN)).text
    parts.store.close()


def test_info_says_what_can_be_done_here(client: FlaskClient) -> None:
    """Name, version, features and where the documentation is."""
    info = client.get("/celery-admin/system/info").get_json()
    assert (info["name"], info["features"]["anonymous_feed"]) == ("celerymeter", False)


def test_only_an_administrator_reads_the_status(client: FlaskClient) -> None:
    """The full status is for admins."""
    assert [client.get(STATUS, headers=bearer(role)).status_code for role in Role] == [403, 403, 200]


def test_the_status_has_components_queues_and_alerts(system: FakeSystem, client: FlaskClient) -> None:
    """Everything that the sampler saw is there, and what it does not know is null."""
    system.current = ClusterSnapshot(
        at=1_700_000_000.0,
        components=(OK,),
        queues=(QueueStatus("celery", 3.0, unacked=None, consumers=None, oldest_task_age_seconds=None),),
        firing=(FiringAlert("CeleryWorkerDown", "critical", "no worker", utc(1_700_000_000.0)),),
    )
    status = client.get(STATUS, headers=bearer(Role.ADMIN)).get_json()
    assert {k: status["queues"][0][k] for k in ("name", "length")} == {"name": "celery", "length": 3.0}
    assert status["queues"][0]["unacked"] is None
    assert [alert["name"] for alert in status["alerts"]] == ["CeleryWorkerDown"]


def test_the_status_shows_the_configuration_without_its_secrets(client: FlaskClient) -> None:
    """The broker's password and the keys are not in it."""
    text = client.get(STATUS, headers=bearer(Role.ADMIN)).text
    assert "redis://someone:***@127.0.0.1:1/0" in text
    assert "hidden" not in text
    assert "only the tests know" not in text
