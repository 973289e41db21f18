"""The services of `docker compose up`, run without an engine: command lines, mounts and users are those of the file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from tests.deploy import compose
from tests.deploy.compose import ROOT
from tests.deploy.services import RunningServices, refuse_without_root

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration
PARTS = ("alertmanager", "prometheus", "exporter", "workload", "control", "worker-quick", "worker-slow")
TIMEOUT = 120.0
PROMETHEUS, CONTROL = "http://prometheus:9090", "http://control:8000/celery-admin"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, secrets: Path) -> Iterator[RunningServices]:
    """All of it but Grafana, each healthy by its own check, and an alert on its way."""
    refuse_without_root()
    with RunningServices(tmp_path_factory.mktemp("services"), compose.resolved(secrets=secrets)) as running:
        start(running, "redis")
        start(running, *PARTS, then=send_probe)
        yield running


def start(services: RunningServices, *names: str, then: Callable[[RunningServices], None] | None = None) -> None:
    """Start services and wait for them; ``then`` is called once the first of them is healthy."""
    services.start(*names)
    for name in names:
        wait_until(partial(services.healthy, name), interval=0.5, what=name)
        if then and name == names[0]:
            then(services)


def send_probe(services: RunningServices) -> None:
    """An alert, sent to Alertmanager early: it groups messages for some time before it sends them on."""
    add = ["alert", "add", "alertname=Probe", "severity=warning", "--annotation=summary=a probe"]
    sent = services.execute("alertmanager", "amtool", "--alertmanager.url=http://alertmanager:9093", *add)
    assert sent.returncode == 0, sent.stderr


def value(services: RunningServices, query: str) -> float | None:
    """Return Prometheus' answer to a query of one series."""
    found = json.loads(services.fetch(f"{PROMETHEUS}/api/v1/query?query={query}"))["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def test_prometheus_sees_what_the_shop_does(services: RunningServices) -> None:
    """From the workload over broker, workers and exporter; every target is up."""
    wait_until(lambda: value(services, "sum(celery_task_succeeded_total)"))
    wait_until(lambda: value(services, "count(up==1)") == 4)
    wait_until(lambda: value(services, "sum(celery_worker_up)") == 2)


def test_prometheus_has_the_rules_and_its_alertmanager(services: RunningServices) -> None:
    """The mounted folder of rules, and the Alertmanager by its name."""
    groups = json.loads(services.fetch(f"{PROMETHEUS}/api/v1/rules"))["data"]["groups"]
    assert {Path(group["file"]).parent for group in groups} == {Path("/etc/prometheus/rules")}
    wait_until(lambda: "alertmanager:9093" in services.fetch(f"{PROMETHEUS}/api/v1/alertmanagers"))


def documented(beginning: str) -> list[str]:
    """The rest of the one command in deploy/README.md that begins so."""
    (line,) = re.findall(rf"^{beginning} (.*)$", (ROOT / "deploy" / "README.md").read_text(), re.MULTILINE)
    return shlex.split(line)


def test_an_alert_arrives_at_the_control_api(services: RunningServices) -> None:
    """With the token that both have from a file; read with one minted by the command in deploy/README.md."""
    token = services.execute("control", *documented("docker compose exec control")).stdout.splitlines()[-1]
    wait_until(lambda: "Probe" in services.fetch(f"{CONTROL}/alerts", token=token), interval=0.5)
    assert "openapi" in services.fetch(f"{CONTROL}/docs")


def test_redis_lets_nobody_in_without_the_password(services: RunningServices) -> None:
    """The user of its health check can do no more than that."""
    assert "NOAUTH" in services.execute("redis", "redis-cli", "get", "key").stdout
    health = ["redis-cli", "--no-auth-warning", "--user", "health", "--pass", "any"]
    assert "NOPERM" in services.execute("redis", *health, "get", "key").stdout


def test_redis_refuses_nothing_that_exporter_and_control_api_need(services: RunningServices, secrets: Path) -> None:
    """Each has a user of its own, who has done a look-up too; what another user tried in vain is on record."""
    token = services.execute("control", *documented("docker compose exec control")).stdout.splitlines()[-1]
    assert '"verdict"' in services.fetch(f"{CONTROL}/tasks/{uuid4()}", token=token)
    password = (secrets / "shop_broker_url").read_text().split(":")[2].partition("@")[0]
    cli = ["redis-cli", "--no-auth-warning", "--pass", password]
    services.execute("redis", "redis-cli", "--no-auth-warning", "--user", "health", "--pass", "any", "get", "key")
    connected = services.execute("redis", *cli, "client", "list").stdout
    assert set(re.findall(r" user=(\S+)", connected)) >= {"default", "celerymeter", "celerymeter-results"}
    refused = json.loads(services.execute("redis", *cli, "--json", "acl", "log", "100").stdout)
    assert "health" in {entry["username"] for entry in refused}
    ours = {entry["object"] for entry in refused if entry["username"].startswith("celerymeter")}
    assert ours <= {"client|setinfo"}  # which clients try, and do without


@pytest.mark.parametrize("name", ["redis", *PARTS])
def test_each_service_writes_nowhere_but_to_its_volumes(name: str, services: RunningServices) -> None:
    """Its file system is read-only, its user is not root, and it has no capability."""
    assert services.execute(name, "/usr/bin/touch", "/etc/written").returncode != 0
    status = services.execute(name, "/usr/bin/cat", "/proc/self/status").stdout
    assert "CapBnd:\t0000000000000000" in status
    assert "Uid:\t0\t" not in status


@pytest.mark.parametrize("name", ["redis", *PARTS])
def test_each_service_fits_into_its_memory(name: str, services: RunningServices) -> None:
    """With room for a third more."""
    assert 0 < services.memory(name) * 4 / 3 < services.compose.services[name].memory
