"""Bodies that somebody with Alertmanager's token posts: refused as a whole, or kept within bounds; never half lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.control.access import bearer
from tests.control.serving import Control
from tests.security.process import peak_of

from celerymeter import escaping
from celerymeter.control.alerts import (
    MAX_POSTED,
    MAX_SEVERITY,
    MAX_TEXT,
    AlertsQuery,
    AlertStore,
    Notification,
    PostedAlert,
)
from celerymeter.control.store import Store
from celerymeter.control.tokens import Role

pytestmark = pytest.mark.integration

TOKEN = "alertmanager's own token, of enough bytes for anybody"
ALERT: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "CeleryWorkerDown", "severity": "critical", "hostname": "w1@a"},
    "annotations": {"summary": "w1@a is down"},
    "startsAt": "2026-01-01T00:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "fingerprint": "abc",
}


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """A running API that takes alerts."""
    folder = tmp_path_factory.mktemp("control")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    with Control(folder, ("--webhook-token-file", str(folder / "token"))) as server:
        yield server.up()


def post(control: Control, body: object) -> requests.Response:
    """Post a notification; text is posted as it is."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    return requests.post(f"{control.url}/alerts/webhook", data=data, headers=headers, timeout=30)


def listed(control: Control) -> list[dict[str, Any]]:
    """The alerts that are kept."""
    reply = requests.get(f"{control.url}/alerts?limit=500", headers=bearer(Role.VIEWER), timeout=30)
    found: list[dict[str, Any]] = reply.json()["alerts"]
    return found


def changed(*path: str, value: Any) -> dict[str, Any]:
    """A notification of a good alert and one with another value somewhere."""
    other = deepcopy(ALERT)
    inner = other
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return {"version": "4", "alerts": [ALERT, other]}


REFUSED: dict[str, object] = {
    "nothing": b"",
    "no JSON": b"alerts=1",
    "null": b"null",
    "a list": [ALERT],
    "text": "firing",
    "no alerts": {"version": "4"},
    "alerts that are none": {"alerts": {"0": ALERT}},
    "an alert that is text": {"alerts": [ALERT, "firing"]},
    "an alert that is null": {"alerts": [None]},
    "no status": {"alerts": [{key: value for key, value in ALERT.items() if key != "status"}]},
    "a status of Prometheus": changed("status", value="pending"),
    "a status of two": changed("status", value=["firing", "resolved"]),
    "a label that is a number": changed("labels", "severity", value=1),
    "a label that is null": changed("labels", "severity", value=None),
    "a label that is an object": changed("labels", "severity", value={"$ne": ""}),
    "labels that are a list": changed("labels", value=[["alertname", "A"]]),
    "annotations that are text": changed("annotations", value="down"),
    "very many labels": changed("labels", value={f"l{n}": "x" for n in range(1001)}),
    "half a pair in a label": changed("labels", "hostname", value="\ud800"),
    "half a pair as a label": changed("labels", value={"\udfff": "x"}),
    "a time that is none": changed("startsAt", value="yesterday"),
    "a time without a zone": changed("startsAt", value="2026-01-01T00:00:00"),
    "a time before all times": changed("startsAt", value="0001-01-01T00:00:00+14:00"),
    "a time after all times": changed("startsAt", value="99999-01-01T00:00:00Z"),
    "a time that is a number beyond floats": b'{"alerts": [{"status": "firing", "labels": {}, "startsAt": 1e999}]}',
    "an end that is none": changed("endsAt", value="soon"),
    "a fingerprint that is a number": changed("fingerprint", value=5),
    "a long fingerprint": changed("fingerprint", value="f" * 257),
    "fewer than none left out": {"alerts": [], "truncatedAlerts": -1},
    "left out or not": {"alerts": [], "truncatedAlerts": False},
    "left out by a text": {"alerts": [], "truncatedAlerts": "0"},
    "left out without number": {"alerts": [ALERT] * (MAX_POSTED + 1), "truncatedAlerts": "many"},
    "left out beyond all numbers": b'{"alerts": [], "truncatedAlerts": 1' + b"0" * 400 + b"}",
    "deep": b'{"alerts": ' + b"[" * 100_000,
    "very many values": b'{"alerts": [' + b",".join([b"1"] * 300_000) + b"]}",
    "more bytes than fit": b'{"alerts": [], "version": "' + b"x" * 5_000_000 + b'"}',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_notification_is_refused_as_a_whole(control: Control, body: object) -> None:
    """With one short answer; nothing of it is kept, and nothing unexpected is logged."""
    before = listed(control)
    answer = post(control, body)
    assert answer.status_code in {400, 413, 422}, answer.text[:200]
    assert len(answer.content) < 50_000
    assert "Traceback" not in answer.text
    assert listed(control) == before
    assert "nexpected" not in control.log.read_text()


TAKEN: dict[str, dict[str, Any]] = {
    "a long label": {"labels": {**ALERT["labels"], "text": "x" * 1_000_000}},
    "a long name of a label": {"labels": {**ALERT["labels"], "x" * 1_000_000: "y"}},
    "a long name of an alert": {"labels": {"alertname": "A" * 1_000_000, "severity": "critical"}},
    "a long severity": {"labels": {"alertname": "A", "severity": "c" * 1_000_000}},
    "a long description": {"annotations": {"description": "列" * 300_000}},
    "control characters": {"annotations": {"description": "\x1b[2J\x00\u202e" * 10_000}},
    "a forged line of the log": {"labels": {"alertname": 'A\n{"level": "error"}', "severity": "critical"}},
    "no name": {"labels": {}},
    "an end before its begin": {"status": "resolved", "endsAt": "1999-01-01T00:00:00Z"},
    "a begin in the future": {"startsAt": "9999-12-31T23:59:59Z"},
    "a begin of many digits": {"startsAt": "2026-01-01T00:00:00." + "0" * 100_000 + "Z"},
    "a begin long ago": {"startsAt": "0001-01-01T00:00:00Z"},
}


@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_alert_costs_no_other_its_place(control: Control, name: str) -> None:
    """Alertmanager does not post again what was refused; so what can be kept is, with texts that are cut."""
    odd = {**ALERT, "fingerprint": name, **TAKEN[name]}
    answer = post(control, {"version": "4", "alerts": [{**ALERT, "fingerprint": f"beside {name}"}, odd]})
    assert (answer.status_code, answer.json()["new"]) == (200, 2)
    assert post(control, {"alerts": [odd]}).json()["repeated"] == 1
    alerts = {alert["fingerprint"]: alert for alert in listed(control)}
    assert alerts[f"beside {name}"]["name"] == "CeleryWorkerDown"
    kept = alerts[name]
    assert len(kept["name"]) <= escaping.MAX_NAME
    assert len(kept["severity"]) <= MAX_SEVERITY
    assert all(len(json.dumps(kept[key], ensure_ascii=False).encode()) <= MAX_TEXT for key in ("labels", "annotations"))
    assert all(line["message"].startswith("alert ") for line in control.lines if name in json.dumps(line))
    assert max(map(len, control.log.read_text().splitlines())) < 100_000


@pytest.mark.parametrize(
    ("posted", "truncated"), [(1, 0), (MAX_POSTED, 0), (MAX_POSTED, 7), (MAX_POSTED + 1, 0), (3 * MAX_POSTED, 5)]
)
def test_alerts_that_do_not_fit_are_counted(posted: int, truncated: int) -> None:
    """Those that Alertmanager left out, and those beyond the number that is taken."""
    body = {"alerts": [{**ALERT, "fingerprint": str(number)} for number in range(posted)], "truncatedAlerts": truncated}
    taken = Notification.model_validate(body)
    assert len(taken.alerts) + taken.truncatedAlerts == posted + truncated
    assert len(taken.alerts) == min(posted, MAX_POSTED)


@pytest.mark.parametrize("name", ["l", "\x01" * 4000])
def test_an_alert_of_a_whole_body_takes_little(tmp_path: Path, name: str) -> None:
    """4 MB of labels of one."""
    labels = {f"{name}{number}": "x" * (4000 // len(name)) for number in range(1000)}
    alert = PostedAlert.model_validate({**ALERT, "labels": labels})
    with closing(Store(tmp_path / "state")) as store:
        alerts = AlertStore(store)
        kept, megabytes = peak_of(lambda: alerts.add([alert]))
        assert megabytes < 40
        assert kept == alerts.latest(AlertsQuery())
        assert len(kept) == 1
