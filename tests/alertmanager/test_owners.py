"""From owners.yml to a team's receiver: real Prometheus and Alertmanager, and the routes of alerts/README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import requests
import yaml
from click.testing import CliRunner
from tests.alertmanager.conftest import LOG, adapted, binary
from tests.alertmanager.sinks import HttpSink, awaited
from tests.deploy.manifests import of_kind
from tests.deploy.test_helm import render
from tests.rules.bundle import ALERTS

from celerymeter.cli.bundle import command
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Alertmanager, Prometheus

pytestmark = pytest.mark.integration
OWNERS = """
default: platform
owners:
  - {owner: archive, queues: [orders], clusters: [asia]}
  - {owner: payments, queues: [orders, "pay*"], tasks: ["orders.*"]}
  - {owner: media, queues: ["pay-per-view", "media*", "a.b|c $1"], tasks: ["*.encode"]}
  - {owner: africa, queues: ["*"], clusters: [africa]}
"""
Rules: TypeAlias = "Mapping[str, Any]"
FIRING: Mapping[str, tuple[Mapping[str, str], str]] = {
    "a queue": ({"alertname": "CeleryQueueBacklog", "queue_name": "orders", "cluster": "eu"}, "payments"),
    "a queue of a cluster with an owner": (
        {"alertname": "CeleryQueueBacklog", "queue_name": "orders", "cluster": "asia"},
        "archive",
    ),
    "a queue without cluster": ({"alertname": "CeleryQueueBacklog", "queue_name": "orders"}, "payments"),
    "the first entry counts": ({"alertname": "CeleryQueueStalled", "queue_name": "pay-per-view"}, "payments"),
    "a pattern": ({"alertname": "CeleryQueueStalled", "queue_name": "media_high"}, "media"),
    "a name that is not a pattern": ({"alertname": "CeleryQueueStalled", "queue_name": "orders2"}, "platform"),
    "a dot that is a dot": ({"alertname": "CeleryQueueHeadOld", "queue_name": "a.b|c $1"}, "media"),
    "a dot that is another character": ({"alertname": "CeleryQueueHeadOld", "queue_name": "axb|c $1"}, "platform"),
    "a separator in a name": ({"alertname": "CeleryQueueHeadOld", "queue_name": "eu;orders"}, "platform"),
    "a task": ({"alertname": "CeleryHighErrorRate", "name": "orders.place"}, "payments"),
    "a task with a line break": ({"alertname": "CeleryHighErrorRate", "name": "video\n.encode"}, "media"),
    "a worker": ({"alertname": "CeleryWorkerDown", "hostname": "w1@orders"}, "platform"),
    "any queue": ({"alertname": "CeleryQueueStalled", "queue_name": "mail", "cluster": "africa"}, "africa"),
    "a worker where a team has all queues": (
        {"alertname": "CeleryWorkerDown", "hostname": "w1", "cluster": "africa"},
        "platform",
    ),
    "an alert of somebody else": ({"alertname": "DiskFull", "queue_name": "orders"}, ""),
    "the watchdog": ({"alertname": "Watchdog"}, ""),
}


def rules(shipped: Rules) -> str:
    """Alerts that fire at once, with the owner of shipped ones of their name, the labels above and the case."""
    listed = []
    for case, (series, _) in FIRING.items():
        name = series["alertname"]
        labels = {"severity": {"Watchdog": "info"}.get(name, "warning"), "case": case, **owner_of(shipped, name)}
        listed.append({"alert": name, "expr": one_series(series), "labels": labels})
    groups = [*shipped["groups"], {"name": "firing", "interval": "1s", "rules": listed}]
    return yaml.safe_dump({"groups": groups})


def owner_of(shipped: Rules, name: str) -> Mapping[str, str]:
    """The label `owner` of the alerts of one name, if they have one."""
    alerts = [each for group in shipped["groups"] for each in group["rules"] if each.get("alert") == name]
    return {"owner": alerts[0]["labels"]["owner"]} if alerts and "owner" in alerts[0]["labels"] else {}


def one_series(labels: Mapping[str, str]) -> str:
    """An expression with one result that has these labels."""
    expr = "vector(1)"
    for name, value in labels.items():
        if name != "alertname":
            replacement = json.dumps(value.replace("$", "$$"))
            expr = f'label_replace({expr}, "{name}", {replacement}, "", "")'
    return expr


def charted() -> Rules:
    """The rules of the Helm chart with the content of the file as value."""
    values = {"rules": {"enabled": True, "owners": yaml.safe_load(OWNERS)}}
    (found,) = of_kind("PrometheusRule", render(values))
    spec: Rules = found.raw["spec"]
    return spec


def relabelings(folder: Path) -> list[dict[str, Any]]:
    """Return what the command prints for the file."""
    (folder / "owners.yml").write_text(OWNERS)
    ran = CliRunner().invoke(command, ["owners", str(folder / "owners.yml")], catch_exceptions=False)
    found: list[dict[str, Any]] = yaml.safe_load(ran.stdout)
    return found


def routing(shipped: str, url: str) -> str:
    """The shipped configuration with the routes of alerts/README.md, and a webhook for each team."""
    config = yaml.safe_load(shipped)
    block = re.search(r"<!-- tried: routes -->\n```yaml\n(.*?)```", (ALERTS / "README.md").read_text(), re.DOTALL)
    assert block
    routes = yaml.safe_load(block[1])
    config["route"]["routes"] = [*routes, *config["route"]["routes"]]
    config["receivers"] += [
        {"name": each["receiver"], "webhook_configs": [{"url": f"{url}/team/{each['receiver']}"}]} for each in routes
    ]
    return yaml.safe_dump(config)


@pytest.fixture(params=["relabeling", "chart"])
def way(request: pytest.FixtureRequest) -> str:
    """Return the way in which alerts get the label: by what the command prints, or by rules of the Helm chart."""
    return str(request.param)


@pytest.fixture(params=["installed", "newer"])
def sink(request: pytest.FixtureRequest, way: str, tmp_path: Path) -> Iterator[HttpSink]:
    """Yield the receiver of a Prometheus' alerts, behind an Alertmanager of the same generation."""
    programs = {name: binary(str(request.param), name) for name in ("prometheus", "alertmanager")}
    (tmp_path / "secrets").mkdir()
    with ExitStack() as stack:
        http = stack.enter_context(HttpSink())
        for name in ("smtp_password", "webhook_token", "control_token"):
            (tmp_path / "secrets" / name).write_text("secret")
        (tmp_path / "secrets" / "slack_url").write_text(f"{http.url}/slack")
        config = tmp_path / "alertmanager.yml"
        config.write_text(routing(adapted(tmp_path, http=http.url, smtp="127.0.0.1:9"), http.url))
        alertmanager = Alertmanager(tmp_path / "alertmanager", config=config)
        (tmp_path / "rules.yml").write_text(rules(charted() if way == "chart" else {"groups": []}))
        alerting = {
            "alert_relabel_configs": relabelings(tmp_path) if way == "relabeling" else [],
            "alertmanagers": [{"static_configs": [{"targets": [alertmanager.url.removeprefix("http://")]}]}],
        }
        wanted = {"global": {"evaluation_interval": "1s"}, "rule_files": ["rules.yml"], "alerting": alerting}
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(wanted))
        often = ("--rules.alert.resend-delay=1s",)  # what it sends before it has found the Alertmanager is lost
        prometheus = Prometheus(tmp_path / "prometheus", config=tmp_path / "prometheus.yml", options=often)
        for server, program in ((alertmanager, "alertmanager"), (prometheus, "prometheus")):
            server.argv = (programs[program], *server.argv[1:])
            stack.enter_context(server)
            server.up()
        owners = {case: owner for case, (_, owner) in FIRING.items()}
        wait_until(lambda: received(alertmanager.url).keys() == owners.keys(), what="all alerts")
        assert received(alertmanager.url) == owners
        assert set(fired(prometheus.url).values()) == (set(owners.values()) if way == "chart" else {""})
        yield http


def received(url: str) -> dict[str, str]:
    """The owner of each case that Alertmanager knows."""
    alerts = requests.get(f"{url}/api/v2/alerts", timeout=30).json()
    return {alert["labels"]["case"]: alert["labels"].get("owner", "") for alert in alerts if "case" in alert["labels"]}


def fired(url: str) -> dict[str, str]:
    """The owner of each case in Prometheus' own series of alerts, which dashboards can select by."""
    found = requests.get(f"{url}/api/v1/query", params={"query": 'ALERTS{case!=""}'}, timeout=30).json()
    return {each["metric"]["case"]: each["metric"].get("owner", "") for each in found["data"]["result"]}


def cases(sink: HttpSink, path: str) -> set[str]:
    """The cases that came to a receiver."""
    alerts = [alert["labels"] for each in sink.to(path) for alert in each.body["alerts"]]
    return {labels["case"] for labels in alerts if "case" in labels}


def test_each_team_gets_its_alerts_and_everybody_else_what_they_got(sink: HttpSink) -> None:
    """With the label in the message."""
    warnings = {case for case, (labels, _) in FIRING.items() if labels["alertname"] != "Watchdog"}
    for team in ("payments", "media"):
        own = {case for case, (_, owner) in FIRING.items() if owner == team}
        awaited(lambda: list(own & cases(sink, f"/team/{team}")), what=team, count=len(own))
        assert cases(sink, f"/team/{team}") == own
    awaited(lambda: list(cases(sink, LOG)), what="the log", count=len(warnings))
    assert cases(sink, LOG) == warnings
