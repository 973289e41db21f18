"""``/monitoring/*`` as a client sees it: permissions, answers and the audit trail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from tests.control.access import bearer, control_settings
from tests.control_live.workers import FakeRemote, FakeWorker, subscribe

from celerymeter.control.app import create_app
from celerymeter.control.parts import Parts, build
from celerymeter.control.tokens import Role
from celerymeter.errors import PrometheusUnavailable
from celerymeter.prometheus import Sample, Vector

BASE = "/celery-admin/monitoring"


class FakePrometheus:
    """Knows the exporters of these clusters, and an idle cluster's metrics; ``away`` answers nothing."""

    def __init__(self) -> None:
        self.clusters = ["eu"]
        self.away = False

    def instants(self, queries: Mapping[str, str], *, time: float | None = None) -> dict[str, Vector]:
        if self.away:
            raise PrometheusUnavailable("http://user:hidden@prometheus is away")
        known = {
            "clusters": Vector(tuple(Sample({"cluster": name}, 1.0, 500.0) for name in self.clusters)),
            "broker_up": Vector((Sample({}, 1.0, 500.0),)),
            "exporters": Vector((Sample({}, 1.0, 500.0),)),
            "scraped": Vector((Sample({}, 497.5, 500.0),)),
            "queues_polled": Vector((Sample({}, 1.0, 500.0),)),
            "scrapes": Vector(
                (
                    Sample({"__name__": "celerymeter_start_time_seconds", "age": "0"}, 400.0, 500.0),
                    Sample({"what": "scraped", "age": "0"}, 497.5, 500.0),
                )
            ),
        }
        return {key: known.get(key, Vector()) for key in queries}


@pytest.fixture
def prometheus() -> FakePrometheus:
    """Return the Prometheus that the API asks."""
    return FakePrometheus()


@pytest.fixture
def remote() -> FakeRemote:
    """The workers that get its commands."""
    return FakeRemote({"plain": FakeWorker(), "always": FakeWorker(always=True)})


@pytest.fixture
def parts(tmp_path: Path, prometheus: FakePrometheus, remote: FakeRemote) -> Iterator[Parts]:
    """Parts of an API over both."""
    made = build(control_settings(), tmp_path / "state", prometheus=prometheus, remote=remote)
    subscribe(made.monitoring.switch, remote)
    yield made
    made.store.close()


@pytest.fixture
def client(parts: Parts) -> FlaskClient:
    """That API."""
    return create_app(control_settings(), parts).test_client()


def test_an_idle_cluster_has_numbers_and_nulls(client: FlaskClient) -> None:
    """Six numbers always; what is not known is null."""
    found = client.get(f"{BASE}/metrics/realtime", headers=bearer()).get_json()

    assert {name: found[name] for name in ("active_workers", "pending_tasks", "processing_tasks", "queue_lengths")} == {
        "active_workers": 0,
        "pending_tasks": 0,
        "processing_tasks": 0,
        "queue_lengths": {},
    }
    assert (found["current_throughput"], found["error_rate_percent"], found["finished_in_window"]) == (0.0, 0.0, 0)
    assert (found["avg_execution_time_ms"], found["p95_wait_ms"]) == (None, None)
    assert (found["timestamp"], found["data_age_seconds"]) == ("1970-01-01T00:08:20Z", 2.5)


@pytest.mark.parametrize("path", ["metrics/realtime", "dashboard"])
def test_without_prometheus_there_are_no_metrics(client: FlaskClient, prometheus: FakePrometheus, path: str) -> None:
    """503 with a time to come back, and no text of an exception."""
    prometheus.away = True
    answer = client.get(f"{BASE}/{path}", headers=bearer())

    assert (answer.status_code, answer.get_json()["code"]) == (503, "prometheus_unavailable")
    assert answer.headers["Retry-After"]
    assert "hidden" not in answer.text


@pytest.mark.parametrize("path", ["metrics/realtime", "dashboard"])
def test_several_clusters_ask_for_a_choice(client: FlaskClient, prometheus: FakePrometheus, path: str) -> None:
    """422 with their names, never a sum."""
    prometheus.clusters = ["eu", "us"]
    answer = client.get(f"{BASE}/{path}", headers=bearer())

    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid")
    assert "eu, us" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "role", "status"),
    [
        ("start", None, Role.VIEWER, 403),
        ("start", None, Role.OPERATOR, 200),
        ("start", {"reason": "looking"}, Role.OPERATOR, 200),
        ("start", {"resaon": "looking"}, Role.OPERATOR, 422),
        ("stop", None, Role.VIEWER, 403),
        ("stop", None, Role.OPERATOR, 200),
        ("stop", {"disable_task_events": True}, Role.OPERATOR, 403),
        ("stop", {"disable_task_events": True}, Role.ADMIN, 200),
        ("stop", {"disable_task_events": "yes"}, Role.ADMIN, 422),
    ],
)
def test_who_may_start_and_stop(
    client: FlaskClient, path: str, body: dict[str, object] | None, role: Role, status: int
) -> None:
    """Operators; withdrawing task events takes an administrator."""
    assert client.post(f"{BASE}/{path}", json=body, headers=bearer(role)).status_code == status


def test_start_and_stop_say_what_became_of_each_worker(client: FlaskClient, remote: FakeRemote) -> None:
    """And the status shows the same."""
    started = client.post(f"{BASE}/start", headers=bearer(Role.OPERATOR)).get_json()
    status = client.get(f"{BASE}/status", headers=bearer()).get_json()
    stopped = client.post(f"{BASE}/stop", json={"disable_task_events": True}, headers=bearer(Role.ADMIN)).get_json()
    after = client.get(f"{BASE}/status", headers=bearer()).get_json()

    assert events(started) == events(status) == {"plain": "enabled", "always": "always_on"}
    assert events(stopped) == events(after) == {"plain": "disabled", "always": "always_on"}
    assert (started["status"], stopped["status"]) == ("running", "stopped")
    assert (status["running"], status["task_events_wanted"], status["since"]) == (True, True, started["since"])
    assert (after["running"], after["task_events_wanted"]) == (False, False)
    assert (status["last_scrape"], status["events_subscribed"]) == ("1970-01-01T00:08:17.500000Z", True)
    assert not remote.workers["plain"].on


def events(reply: dict[str, object]) -> dict[str, str]:
    """State by worker."""
    workers = reply["workers"]
    assert isinstance(workers, list)
    return {worker["hostname"]: worker["task_events"] for worker in workers}


def test_stopping_the_feed_leaves_task_events_alone(client: FlaskClient, remote: FakeRemote) -> None:
    """And starting again begins it anew."""
    client.post(f"{BASE}/start", headers=bearer(Role.OPERATOR))
    client.post(f"{BASE}/stop", headers=bearer(Role.OPERATOR))
    status = client.get(f"{BASE}/status", headers=bearer()).get_json()
    assert (status["running"], status["task_events_wanted"], remote.workers["plain"].on) == (False, True, True)
    client.post(f"{BASE}/start", headers=bearer(Role.OPERATOR))
    assert client.get(f"{BASE}/status", headers=bearer()).get_json()["running"] is True


def test_without_a_broker_nothing_is_claimed(client: FlaskClient, remote: FakeRemote) -> None:
    """503, and the desired state is what it was."""
    remote.away = True
    answer = client.post(f"{BASE}/start", headers=bearer(Role.OPERATOR))

    assert (answer.status_code, answer.get_json()["code"]) == (503, "broker_unavailable")
    assert client.get(f"{BASE}/status", headers=bearer()).get_json()["task_events_wanted"] is False


def test_the_audit_trail_has_who_why_and_what_came_of_it(client: FlaskClient, remote: FakeRemote) -> None:
    """Also of an attempt that failed."""
    client.post(f"{BASE}/start", json={"reason": "incident 7"}, headers=bearer(Role.OPERATOR))
    remote.away = True
    client.post(f"{BASE}/stop", json={"disable_task_events": True}, headers=bearer(Role.ADMIN))
    rows = client.get("/celery-admin/audit", headers=bearer(Role.ADMIN)).text

    assert rows.count("monitoring.start") == 2
    assert "incident 7" in rows
    assert rows.count("monitoring.stop") == 2
    assert '"failed"' in rows


def test_the_feed_is_silent_while_stopped(client: FlaskClient, parts: Parts) -> None:
    """Clients are informed once, and updates come back with the next start."""
    hub, sampler = parts.monitoring.hub, parts.sampler
    mailbox, _ = hub.join(wake=lambda: None, abort=lambda: None)
    sampler.tick()
    assert [message.kind for message in iter(mailbox.take, None)] == ["metrics_update"]
    for _ in range(2):
        client.post(f"{BASE}/stop", headers=bearer(Role.OPERATOR))
        sampler.tick()
    (message,) = iter(mailbox.take, None)
    assert '"code":"monitoring_stopped"' in message.text
    client.post(f"{BASE}/start", headers=bearer(Role.OPERATOR))
    sampler.tick()
    assert [message.kind for message in iter(mailbox.take, None)] == ["metrics_update"]


def test_every_thirtieth_tick_brings_a_dashboard(parts: Parts) -> None:
    """While somebody listens."""
    hub, sampler = parts.monitoring.hub, parts.sampler
    mailbox, _ = hub.join(wake=lambda: None, abort=lambda: None)
    kinds = []
    for _ in range(60):
        sampler.tick()
        kinds += [message.kind for message in iter(mailbox.take, None)]

    assert [place for place, kind in enumerate(kinds) if kind == "dashboard_data"] == [30, 61]
    assert kinds.count("metrics_update") == 60


def test_health_is_the_samplers_last_look(client: FlaskClient, parts: Parts, prometheus: FakePrometheus) -> None:
    """Asking costs Prometheus nothing."""
    parts.sampler.tick()
    prometheus.away = True
    found = client.get("/celery-admin/system/health").get_json()

    assert (found["checks"]["prometheus"], found["checks"]["workers"], found["status"]) == ("ok", "failed", "degraded")
