"""The control API on a state directory with two of everything, for tests that change its database."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from flask.testing import FlaskClient
from tests.control.access import bearer, control_settings
from tests.reports import samples
from tests.revocation.process import ControlProcess
from werkzeug.test import TestResponse

from celerymeter.control.app import create_app
from celerymeter.control.reports import ReportRunner, ReportStore
from celerymeter.control.settings import RequestLimits
from celerymeter.control.store import DATABASE
from celerymeter.control.tokens import Role
from celerymeter.reports.report import Report
from celerymeter.reports.request import ReportRequest

REPORT = "/monitoring/reports/performance"
TOKEN = "alertmanager's own token, of enough bytes for anybody"
TABLES: Final = {
    "alerts": [
        "id",
        "fingerprint",
        "status",
        "starts_at",
        "ends_at",
        "received_at",
        "name",
        "severity",
        "labels",
        "annotations",
    ],
    "revoke_batches": ["batch", "at", "intent", "asked", "workers"],
    "revoke_tasks": ["batch", "place", "task_id", "status", "result"],
    "revoke_keys": ["scope", "key", "body", "batch", "at", "status", "answer"],
    "reports": ["number", "id", "asked_at", "begins", "ends", "task", "queue", "problem", "body", "sub"],
    "monitoring": ["id", "events", "feed_on", "since"],
    "monitoring_ours": ["hostname", "at"],
    "audit_open": ["intent", "instance"],
    "audit_probe": ["id", "at"],
    "tokens": ["jti", "exp"],
}


@dataclass
class Api:
    """The API on a state directory, with two of everything that is kept."""

    process: ControlProcess
    client: FlaskClient
    reports: list[str]
    number: int = 0
    token: dict[str, str] = field(default_factory=lambda: bearer(Role.ADMIN))

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> TestResponse:
        """Send a request; no answer is an unexpected error, and none takes long."""
        begun = time.monotonic()
        sent = {**self.token, **headers}
        reply = self.client.open(f"/celery-admin{path}", method=method, json=body, headers=sent)
        assert reply.status_code != 500, path
        assert time.monotonic() - begun < 30, path
        return reply

    def alert(self, name: str) -> TestResponse:
        """Post an alert as Alertmanager does."""
        alert = {"labels": {"alertname": name}, "status": "firing", "startsAt": "2026-01-01T00:00:00Z"}
        return self.ask("POST", "/alerts/webhook", {"alerts": [alert]}, Authorization=f"Bearer {TOKEN}")

    def revoke(self, key: str) -> TestResponse:
        """Revoke a task once for each key."""
        body = {"task_ids": [f"task-{key}"], "operation": "revoke"}
        return self.ask("POST", "/tasks/batch", body, **{"Idempotency-Key": key})

    def statuses(self, table: str = "") -> dict[str, int]:
        """Ask for all that a table has (or for everything), and have something new kept; return the statuses."""
        self.number += 1
        asked = {"alerts": self._alerts, "revoke": self._revokes, "reports": self._reports, "other": self._others}
        chosen = [ask for name, ask in asked.items() if table.startswith(name)]
        chosen = chosen or ([self._others] if table else list(asked.values()))
        found = {path: status for ask in chosen for path, status in ask().items()}
        self.process.parts.maintenance.round()
        return found

    def _alerts(self) -> dict[str, int]:
        posted = self.alert(f"new {self.number}").status_code
        return {"webhook": posted, "/alerts": self.ask("GET", "/alerts").status_code}

    def _revokes(self) -> dict[str, int]:
        found = {f"/tasks/batch/{one}": self.ask("GET", f"/tasks/batch/{one}").status_code for one in ("b1", "b2")}
        return found | {f"key {key}": self.revoke(key).status_code for key in ("k1", "k2", f"new {self.number}")}

    def _reports(self) -> dict[str, int]:
        made = self.ask("POST", REPORT, {"start": "-1h", "end": "now"}).status_code
        paths = ["", *(f"/{one}{form}" for one in self.reports for form in ("", ".html", ".csv", ".md"))]
        found = {path: self.ask("GET", f"/monitoring/reports{path}").status_code for path in paths}
        return {"report": made, **found}

    def _others(self) -> dict[str, int]:
        found = {path: self.ask("GET", path).status_code for path in ("/audit", "/system/status")}
        return {**found, "monitoring": self.ask("POST", "/monitoring/stop").status_code}

    def unusable(self) -> float:
        """Return the number of alerts that were found and left out."""
        return self.process.sample("celerymeter_control_unreadable_rows_total", table="alerts") or 0.0


def make(request: ReportRequest, *, report_id: str) -> Report:
    """Make a report of nothing."""
    return samples.report(report_id=report_id, filters=request.filters)


def opened(folder: Path) -> Api:
    """Start the API on a folder."""
    limits = RequestLimits(requests_per_minute=1e9, auth_failures_per_minute=1e9)
    settings = replace(control_settings(), webhook_token=TOKEN.encode(), limits=limits)
    process = ControlProcess(folder, settings)
    runner = ReportRunner(make, ReportStore(process.parts.store), timeout=60)
    parts = replace(process.parts, reports=runner)
    return Api(process, create_app(settings, parts).test_client(), [])


def filled(folder: Path) -> Api:
    """Start the API on a new folder, and have two of everything kept."""
    api = opened(folder)
    for number in (1, 2):
        assert api.alert(f"a{number}").status_code == 200
        assert api.revoke(f"k{number}").status_code == 200
        made = api.ask("POST", REPORT, {"start": "-1h", "end": "now"}).get_json()
        api.reports.append(made["report_id"])
        api.process.begin(f"open-{number}", batch=f"b{number}")
        tamper(folder, f"INSERT OR REPLACE INTO monitoring_ours VALUES ('w{number}@h', {time.time()})")
    assert set(api.statuses().values()) == {200}
    api.process.remote.silent = False
    return api


def tamper(folder: Path, *statements: str) -> None:
    """Change the file, as somebody can who may write it."""
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
