"""Alerts: from Alertmanager to the log, the state directory, the list and the feed."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from tests.control.access import bearer, control_settings, token
from tests.control.serving import Control
from tests.control_live.live_api import feed, messages, until

from celerymeter.control.alerts import MAX_ALERTS, AlertsQuery, AlertStore, PostedAlert
from celerymeter.control.app import create_app
from celerymeter.control.parts import Parts, build
from celerymeter.control.store import Store
from celerymeter.control.tokens import Role
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Alertmanager, find_binary

TOKEN = "the token that only Alertmanager knows"
OURS = {"Authorization": f"Bearer {TOKEN}"}
FIRING: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "CeleryQueueBacklog", "severity": "warning", "queue_name": "slow"},
    "annotations": {"summary": "120 messages wait in slow", "summary_zh": "slow 佇列有 120 則訊息"},
    "startsAt": "2026-01-01T10:00:00.123456789Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus/graph",
    "fingerprint": "a1b2",
}
RESOLVED = {**FIRING, "status": "resolved", "endsAt": "2026-01-01T10:05:00Z"}
CRITICAL = {**FIRING, "fingerprint": "c3", "labels": {"alertname": "CeleryNoWorkers", "severity": "critical"}}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """Parts of an API that takes alerts."""
    parts = build(replace(control_settings(), webhook_token=TOKEN.encode()), tmp_path / "state")
    yield parts
    parts.store.close()


@pytest.fixture
def client(parts: Parts) -> FlaskClient:
    """That API."""
    return create_app(replace(control_settings(), webhook_token=TOKEN.encode()), parts).test_client()


def post(client: FlaskClient, *alerts: dict[str, Any], headers: dict[str, str] = OURS) -> Any:
    """Post alerts as Alertmanager does; return the answer."""
    body = {"version": "4", "groupKey": "{}", "status": "firing", "receiver": "log", "alerts": alerts}
    return client.post("/celery-admin/alerts/webhook", json=body, headers=headers)


def listed(client: FlaskClient, query: str = "") -> dict[str, Any]:
    """Return the answer of ``GET /alerts``."""
    found: dict[str, Any] = client.get(f"/celery-admin/alerts{query}", headers=bearer(Role.VIEWER)).get_json()
    return found


def test_an_alert_is_kept_logged_and_counted(
    client: FlaskClient, parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    """In the shape in which people ask for alerts: name, message, severity, timestamp."""
    with caplog.at_level(logging.INFO, "celerymeter"):
        assert post(client, FIRING).get_json() == {"received": 1, "new": 1, "repeated": 0, "truncated": 0}
    (alert,) = listed(client)["alerts"]

    assert (alert["name"], alert["message"], alert["severity"]) == (
        "CeleryQueueBacklog",
        "120 messages wait in slow",
        "warning",
    )
    assert alert["timestamp"] == "2026-01-01T10:00:00.123456Z"
    assert (alert["status"], alert["ends_at"], alert["labels"]["queue_name"]) == ("firing", None, "slow")
    (line,) = [record for record in caplog.records if getattr(record, "alert", None)]
    assert (line.levelname, vars(line)["fingerprint"], vars(line)["severity"]) == ("WARNING", "a1b2", "warning")
    assert parts.metrics.registry.get_sample_value("celerymeter_control_alerts_total", {"status": "firing"}) == 1


def test_a_replay_changes_nothing(client: FlaskClient, parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """The same fingerprint, times and status: not kept, logged, counted or sent again."""
    post(client, FIRING, CRITICAL)
    post(client, RESOLVED)
    before, mailbox = listed(client), parts.monitoring.hub.join(wake=nothing, abort=nothing)[0]
    caplog.clear()
    with caplog.at_level(logging.INFO, "celerymeter.control.alerts"):
        assert post(client, FIRING, CRITICAL, RESOLVED).get_json() == {
            "received": 3,
            "new": 0,
            "repeated": 3,
            "truncated": 0,
        }

    assert listed(client) == before
    assert mailbox.take() is None
    assert caplog.records == []
    assert parts.metrics.registry.get_sample_value("celerymeter_control_alerts_total", {"status": "firing"}) == 2


def test_a_resolved_alert_stays_resolved(client: FlaskClient) -> None:
    """Also when its firing arrives afterwards; one that fires again is another."""
    post(client, RESOLVED)
    post(client, FIRING)
    assert [alert["status"] for alert in listed(client)["alerts"]] == ["resolved"]
    post(client, {**FIRING, "startsAt": "2026-01-01T11:00:00Z"})
    assert [alert["status"] for alert in listed(client)["alerts"]] == ["firing", "resolved"]


def test_alerts_are_filtered(client: FlaskClient) -> None:
    """By status, name and severity; the number of those that fire is of all."""
    post(client, FIRING, CRITICAL)
    post(client, {**RESOLVED})
    names = {query: [alert["name"] for alert in listed(client, query)["alerts"]] for query in FILTERS}

    assert names == FILTERS
    assert listed(client, "?status=resolved")["firing"] == 1
    answer = client.get("/celery-admin/alerts?severty=critical", headers=bearer(Role.VIEWER))
    assert answer.status_code == 422


FILTERS = {
    "": ["CeleryQueueBacklog", "CeleryNoWorkers"],
    "?status=firing": ["CeleryNoWorkers"],
    "?status=resolved": ["CeleryQueueBacklog"],
    "?severity=critical": ["CeleryNoWorkers"],
    "?name=CeleryQueueBacklog": ["CeleryQueueBacklog"],
    "?limit=1": ["CeleryQueueBacklog"],
}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        bearer(Role.ADMIN),
        {"X-Token": TOKEN},
    ],
    ids=["none", "wrong", "basic", "an administrator's", "elsewhere"],
)
def test_only_alertmanagers_own_token_will_do(client: FlaskClient, headers: dict[str, str]) -> None:
    """Nothing is taken without it."""
    assert post(client, FIRING, headers=headers).status_code == 401
    assert listed(client)["alerts"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"status": "pending"},
        {"startsAt": "yesterday"},
        {"startsAt": "2026-01-01T10:00:00"},
        {"startsAt": "0001-01-01T00:00:00+14:00"},
        {"labels": {"a": 1}},
        {"labels": {f"l{n}": "" for n in range(1001)}},
        {"fingerprint": "x" * 257},
    ],
)
def test_what_is_no_alert_is_refused(client: FlaskClient, change: dict[str, Any]) -> None:
    """With where it is wrong, and nothing of the request is kept."""
    answer = post(client, FIRING, {**FIRING, **change})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["pointer"].startswith("/alerts/1/")
    assert listed(client)["alerts"] == []


def test_an_alert_without_a_fingerprint_is_known_by_its_labels(client: FlaskClient) -> None:
    """Old releases send none."""
    bare = {key: value for key, value in FIRING.items() if key != "fingerprint"}
    post(client, bare)

    assert post(client, bare, {**bare, "labels": {"alertname": "Other"}}).get_json()["new"] == 1


def test_texts_come_in_the_language_that_was_chosen(tmp_path: Path) -> None:
    """Traditional Chinese where the rules have it."""
    settings = replace(control_settings(), webhook_token=TOKEN.encode(), lang="zh-TW")
    parts = build(settings, tmp_path / "state")
    client = create_app(settings, parts).test_client()
    post(client, FIRING, CRITICAL | {"annotations": {"summary": "no worker"}})

    assert {alert["message"] for alert in listed(client)["alerts"]} == {"slow 佇列有 120 則訊息", "no worker"}
    parts.store.close()


def test_the_memory_is_bounded_in_time_and_number(tmp_path: Path) -> None:
    """The oldest go; what a month has passed over goes."""
    store, now = Store(tmp_path / "state"), [1_000_000.0]
    alerts, everything = AlertStore(store, clock=lambda: now[0]), AlertsQuery.model_construct(limit=2 * MAX_ALERTS)

    def alert(n: int) -> PostedAlert:
        return PostedAlert.model_validate({**FIRING, "fingerprint": str(n)})

    alerts.add([alert(n) for n in range(MAX_ALERTS + 10)])
    assert len(alerts.latest(everything)) == MAX_ALERTS
    now[0] += 31 * 86400
    alerts.add([alert(-1)])
    assert [one.fingerprint for one in alerts.latest(everything)] == ["-1"]
    store.close()


def test_each_new_alert_goes_to_the_feed_once(client: FlaskClient, parts: Parts) -> None:
    """In the shape in which it is listed, and nothing from before the client came."""
    post(client, FIRING)
    mailbox, _ = parts.monitoring.hub.join(wake=nothing, abort=nothing)
    post(client, FIRING, CRITICAL)
    (message,) = iter(mailbox.take, None)

    assert (message.kind, json.loads(message.text)["data"]) == ("alert", listed(client)["alerts"][0])


def nothing() -> None:
    """Do nothing."""


@pytest.mark.integration
def test_a_real_alertmanager_reaches_the_feed(tmp_path: Path) -> None:
    """An alert and its end, as Alertmanager posts them; after a restart it is still known."""
    (tmp_path / "token").write_text(TOKEN)
    options = ["--webhook-token-file", str(tmp_path / "token")]
    with Control(tmp_path, options) as control:
        control.up()
        with alertmanager(tmp_path, control) as server, feed(feed_url(control), bearer=token()) as client:
            next(messages(client))
            add_alert(server, "--end=2099-01-01T00:00:00Z")
            fired = until(client, lambda m: m["message_type"] == "alert")
            add_alert(server, "--end=2026-01-02T00:00:00Z")
            ended = until(client, lambda m: m["message_type"] == "alert")
        control.stop()
        control.up()
        (stored,) = control.get("/alerts").json()["alerts"]

    assert (fired["data"]["name"], fired["data"]["status"], ended["data"]["status"]) == ("Tried", "firing", "resolved")
    assert fired["data"]["message"] == "a try"
    assert (stored["name"], stored["status"]) == ("Tried", "resolved")


def alertmanager(folder: Path, control: Control) -> Alertmanager:
    """One whose only receiver is the webhook, up."""
    config = folder / "alertmanager.yml"
    webhook = {
        "url": f"{control.url}/alerts/webhook",
        "send_resolved": True,
        "http_config": {"authorization": {"credentials_file": str(folder / "token")}},
    }
    route = {"receiver": "control", "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
    receivers = [{"name": "control", "webhook_configs": [webhook]}]
    config.write_text(json.dumps({"route": route, "receivers": receivers}))
    return Alertmanager(folder / "alertmanager", config=config).up()


def feed_url(control: Control) -> str:
    """Of the WebSocket."""
    return control.url.replace("http", "ws", 1) + "/monitoring/ws"


def add_alert(server: Alertmanager, end: str) -> None:
    """As a Prometheus would."""
    amtool = [find_binary("amtool"), "alert", "add", f"--alertmanager.url={server.url}", "Tried", "severity=info"]
    command = [*amtool, "--annotation=summary=a try", "--start=2026-01-01T00:00:00Z", end]
    wait_until(lambda: subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0)
