"""The shipped routing on a live Alertmanager, with sinks in place of mail server, Slack, pager and control API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import requests
from tests.alertmanager.sinks import HttpSink, MailSink
from tests.engines import newer
from tests.rules.bundle import ALERTS

from celerymeter.demo.servers import Alertmanager, find_binary

LOG = "/celery-admin/alerts/webhook"
PAGER = "/hooks/celery"
SLACK = "/slack"
SECRETS = {"smtp_password": "mail-secret", "webhook_token": "pager-secret", "control_token": "log-secret"}


def binary(release: str, tool: str) -> str:
    """Return the path of a program of one generation; raises `ServerMissing`."""
    if release == "newer":
        return newer({"alertmanager": "prometheus-alertmanager"}.get(tool, tool))
    return find_binary(tool)


def adapted(folder: Path, *, http: str, smtp: str) -> str:
    """The shipped alertmanager.yml with only places and pace changed: hosts, the folder of secrets, seconds."""
    text = (ALERTS / "alertmanager.yml").read_text()
    for shipped, here in (
        ("smtp.example.org:587", smtp),
        ("https://pager.example.org", http),
        ("http://127.0.0.1:8000", http),
        ("/etc/celerymeter/secrets", str(folder / "secrets")),
        ("templates/*.tmpl", str(ALERTS / "templates" / "*.tmpl")),
        ("resolve_timeout: 5m", "resolve_timeout: 5m\n  smtp_require_tls: false"),
        ("group_wait: 15s", "group_wait: 1s"),
        ("group_interval: 2m", "group_interval: 1s"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    return text


@dataclass(frozen=True, slots=True)
class Office:
    """A live Alertmanager and everything that it can reach."""

    url: str
    http: HttpSink
    mail: MailSink

    def tell(self, *alerts: dict[str, dict[str, str]], ended: bool = False) -> None:
        """Say as Prometheus does that these alerts (labels and annotations) fire from now on, or have just ended.

        A group waits for more of its kind only while its first alert is younger than ``group_wait``.
        """
        now = datetime.now(timezone.utc)
        starts, ends = (now - timedelta(minutes=7), now) if ended else (now, now + timedelta(hours=1))
        times = {"startsAt": starts.isoformat(), "endsAt": ends.isoformat()}
        body = [
            {**alert, **times, "generatorURL": "http://prometheus.example.org/graph?g0.expr=up"} for alert in alerts
        ]
        requests.post(f"{self.url}/api/v2/alerts", json=body, timeout=30).raise_for_status()

    def states(self) -> dict[tuple[str, str, str], str]:
        """``active`` or ``suppressed`` by ``(alertname, cluster, severity)``."""
        alerts = requests.get(f"{self.url}/api/v2/alerts", timeout=30).json()
        return {
            (alert["labels"]["alertname"], alert["labels"].get("cluster", ""), alert["labels"]["severity"]): str(
                alert["status"]["state"]
            )
            for alert in alerts
        }

    def active(self, *labels: str) -> set[tuple[str, ...]]:
        """These labels of each alert that is not suppressed."""
        alerts = requests.get(f"{self.url}/api/v2/alerts?inhibited=false", timeout=30).json()
        return {tuple(alert["labels"].get(label, "") for label in labels) for alert in alerts}


@pytest.fixture(params=["installed", "newer"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    """The shipped routing, live, on one generation of Alertmanager."""
    program = binary(str(request.param), "alertmanager")
    (tmp_path / "secrets").mkdir()
    with ExitStack() as stack:
        http = stack.enter_context(HttpSink())
        mail = stack.enter_context(MailSink(SECRETS["smtp_password"]))
        for name, secret in {**SECRETS, "slack_url": http.url + SLACK}.items():
            (tmp_path / "secrets" / name).write_text(secret)
        config = tmp_path / "alertmanager.yml"
        config.write_text(adapted(tmp_path, http=http.url, smtp=f"127.0.0.1:{mail.port}"))
        server = Alertmanager(tmp_path / "data", config=config, options=("--web.external-url=http://am.example.org",))
        server.argv = (program, *server.argv[1:])
        stack.enter_context(server)
        server.up()
        yield Office(server.url, http, mail)
