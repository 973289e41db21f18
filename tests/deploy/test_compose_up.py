"""`docker compose up` for real, by `make compose-test`: the committed file, with other names for images."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.alertmanager.sinks import HttpSink, awaited
from tests.deploy import compose
from tests.deploy.compose import ROOT, Compose
from tests.deploy.engine import OURS, PUBLISHED, Engine, missing, open_at
from tests.deploy.test_stack import documented
from tools.hostile import MEGABYTE, Flood

from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1800)]
WATCHING = ("exporter", "control", "prometheus", "alertmanager")
SERVICES = ("redis", *WATCHING, "workload", "worker-quick", "worker-slow")
INTERNAL = {"redis": 6379, "exporter": 9808, "control": 9809}
REGISTRY = OURS.partition("celerymeter")[0]
API = "http://127.0.0.1:8000/celery-admin"
PROMETHEUS = "http://127.0.0.1:9090"
ALERTMANAGER = "http://127.0.0.1:9093"
TIMEOUT = 180.0
FLOOD = 100 * MEGABYTE
"""As fast as 10 MB a second, if the machine can."""


@pytest.fixture(scope="module")
def stack(secrets: Path) -> Compose:
    """Return the services and networks that compose reads in the file."""
    return compose.resolved(secrets=secrets)


@pytest.fixture(scope="module")
def engine(secrets: Path) -> Iterator[Engine]:
    """All images, no container; the folder's name is short, since a socket's may have 107 characters."""
    if lacking := missing():
        pytest.skip(lacking)
    with tempfile.TemporaryDirectory(prefix="up") as folder, Engine(Path(folder), secrets) as running:
        running.make_images()
        yield running


@pytest.fixture(scope="module")
def up(engine: Engine, stack: Compose) -> Engine:
    """Everything but Grafana, healthy by its own checks."""
    engine.compose("up", "--detach", "--no-build", *SERVICES)
    await_healthy(engine, stack, SERVICES)
    return engine


def await_healthy(engine: Engine, stack: Compose, names: tuple[str, ...]) -> None:
    """Wait until the check of each service is content."""
    for name in names:
        wait_until(partial(engine.healthy, stack.services[name]), timeout=TIMEOUT, interval=1, what=name)


def value(query: str) -> float:
    """Return Prometheus' answer to a query of one series; 0 if there is none, or no answer yet."""
    try:
        answer = requests.get(f"{PROMETHEUS}/api/v1/query", params={"query": query}, timeout=30).json()
    except requests.RequestException:
        return 0.0
    return float(answer["data"]["result"][0]["value"][1]) if answer["data"]["result"] else 0.0


def token(engine: Engine, role: str = "operator") -> Mapping[str, str]:
    """The header of a token, by the command in deploy/README.md."""
    words = [role if each == "operator" else each for each in documented("docker compose exec control")]
    made = engine.execute("control", *words)
    assert made.returncode == 0, made.stderr
    return {"Authorization": f"Bearer {made.stdout.split()[-1]}"}


def rows(engine: Engine) -> list[dict[str, Any]]:
    """The audit trail, which must be whole."""
    state = ("--state-dir", "/var/lib/celerymeter")
    verified = engine.execute("control", "celerymeter", "audit", "verify", *state)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    shown = engine.execute("control", "celerymeter", "audit", "show", *state, "--last", "1000", "--json")
    return [json.loads(line) for line in shown.stdout.splitlines()]


def test_what_the_shop_does_is_scraped(up: Engine) -> None:
    """From the workload over broker, workers and exporter; every target is up."""
    wait_until(lambda: value("count(up == 1)") == 4, timeout=TIMEOUT)
    wait_until(lambda: value("sum(celery_task_succeeded_total)") > 0, timeout=TIMEOUT)
    wait_until(lambda: value("sum(celery_worker_up)") == 2, timeout=TIMEOUT)
    assert up.inspect("exporter")["ImageName"] == OURS


def test_alerts_go_from_prometheus_to_the_control_api(up: Engine) -> None:
    """The Watchdog reaches Alertmanager, and an alert from there the API, with the token of both."""
    seen = f"{ALERTMANAGER}/api/v2/alerts"
    wait_until(lambda: "Watchdog" in requests.get(seen, timeout=30).text, timeout=TIMEOUT)
    probe = {"labels": {"alertname": "Probe", "severity": "warning"}, "annotations": {"summary": "a probe"}}
    assert requests.post(seen, json=[probe], timeout=30).ok
    headers = token(up)
    wait_until(lambda: "Probe" in requests.get(f"{API}/alerts", headers=headers, timeout=30).text, timeout=TIMEOUT)


def test_a_waiting_task_is_revoked_for_good(up: Engine) -> None:
    """By the API: it never runs, and the audit trail says who wanted it."""
    call = ["celery", "--app", "celerymeter.demo.app", "call", "reports.refresh_sales", "--countdown", "3600"]
    sent = up.execute("workload", *call)
    assert sent.returncode == 0, sent.stderr
    task_id = sent.stdout.split()[-1]
    body = {"operation": "revoke", "task_ids": [task_id], "parameters": {"reason": "compose test"}}
    headers = token(up)

    def status() -> str:
        answer = requests.post(f"{API}/tasks/batch", json=body, headers=headers, timeout=30)
        assert answer.ok, answer.text
        found: str = answer.json()["results"][0]["status"]
        return found

    wait_until(lambda: status() in {"flagged", "revoked", "already_revoked"}, timeout=TIMEOUT, interval=5)
    assert {row["reason"] for row in rows(up) if task_id in json.dumps(row)} == {"compose test"}


def test_only_this_machine_reaches_what_is_published_and_nothing_else(up: Engine) -> None:
    """By no other address of this machine, and nothing by a port of its own."""
    assert all(open_at("127.0.0.1", port) for port in PUBLISHED.values())
    others = [up.gateway(), *(each for each in addresses() if not each.startswith("127."))]
    ports = [*PUBLISHED.values(), *INTERNAL.values(), 3000]
    assert [(host, port) for host in others for port in ports if open_at(host, port)] == []
    published = {name: up.inspect(name)["NetworkSettings"]["Ports"] or {} for name in SERVICES}
    bound = {
        name: sorted((each["HostIp"], int(each["HostPort"])) for found in ports.values() for each in found or ())
        for name, ports in published.items()
    }
    assert bound == {name: [("127.0.0.1", PUBLISHED[name])] if name in PUBLISHED else [] for name in SERVICES}


def addresses() -> set[str]:
    """The addresses of this machine."""
    found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    return {str(each[4][0]) for each in found}


REACH = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


def test_each_container_reaches_its_own_networks_alone(up: Engine) -> None:
    """The broker's leads nowhere; who only watches cannot reach the broker."""

    def reaches(name: str, host: str, port: int) -> bool:
        return up.execute(name, "python3", "-c", REACH, host, str(port)).returncode == 0

    redis = up.address("redis", "broker")
    assert reaches("exporter", "redis", 6379)
    assert reaches("worker-quick", "redis", 6379)
    assert not reaches("alertmanager", redis, 6379)
    assert not reaches("prometheus", redis, 6379)
    assert not reaches("worker-quick", up.address("prometheus", "monitoring"), 9090)
    with HttpSink(host=up.gateway()) as outside:
        port = int(outside.url.rpartition(":")[2])
        assert reaches("prometheus", up.gateway(), port)
        assert not reaches("exporter", up.gateway(), port)
        assert not reaches("redis", up.gateway(), port)


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_locked_down(name: str, up: Engine, stack: Compose) -> None:
    """A file system that it cannot write to, no capability, its limits in the kernel, and its own secrets alone."""
    service = stack.services[name]
    assert up.execute(name, "touch", "/written").returncode != 0
    assert up.execute(name, "touch", "/usr/bin/written").returncode != 0
    status = up.execute(name, "cat", "/proc/self/status").stdout
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t0\t" not in status
    listed = up.execute(name, "ls", "/run/secrets").stdout.split()
    assert set(listed) == {Path(each.target).name for each in service.mounts if "/run/secrets/" in each.target}
    assert up.inspect(name)["HostConfig"]["Memory"] == service.memory == limit(up, name)
    assert up.inspect(name)["HostConfig"]["PidsLimit"] == service.processes


def test_no_secret_can_be_seen_from_outside(up: Engine, secrets: Path) -> None:
    """Not among the arguments and variables that everybody with access to the engine sees, and not in a log."""
    words = {word for file in secrets.iterdir() for word in file.read_text().replace("@", ":").split(":")}
    secret = {word.strip() for word in words if len(word.strip()) == 64}
    assert len(secret) >= 4
    for name in SERVICES:
        shown = json.dumps(up.inspect(name)) + up.podman("logs", f"celerymeter-{name}-1")
        assert [word for word in secret if word in shown] == [], name


def limit(up: Engine, name: str) -> int:
    """The limit of memory that the kernel keeps."""
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        found = up.execute(name, "cat", f"/sys/fs/cgroup/{file}")
        if found.returncode == 0:
            return int(found.stdout)
    raise AssertionError(found.stderr)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_killed_comes_back(name: str, up: Engine, stack: Compose) -> None:
    """With its volume, and healthy."""
    before = up.inspect(name)["State"]["Pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: up.inspect(name)["State"]["Pid"] not in {0, before}, timeout=TIMEOUT, interval=0.5)
    await_healthy(up, stack, (name,))


def test_a_flood_of_hostile_events_stays_within_the_limits(up: Engine, secrets: Path) -> None:
    """Nothing is killed for its memory, and the shop's real tasks go on being counted."""
    restarts = {name: up.inspect(name)["RestartCount"] for name in SERVICES}
    password = (secrets / "shop_broker_url").read_text().split(":")[2].partition("@")[0]
    url = f"redis://:{password}@{up.address('redis', 'broker')}:6379/0"
    counted = 'celery_task_succeeded_total{name=~"orders.*|emails.*|media.*|reports.*"}'
    with Flood(url, rate=10 * MEGABYTE) as flood:
        wait_until(lambda: flood.published[1] > FLOOD, timeout=2 * TIMEOUT, interval=1, what="the flood")
    since = time.time()

    def ended() -> list[str]:
        """Services that began anew, whose counters would only seem to stand still."""
        found = {name: up.inspect(name) for name in SERVICES}
        return [
            name
            for name, state in found.items()
            if state["RestartCount"] != restarts[name] or state["State"]["OOMKilled"]
        ]

    def counted_since() -> bool:
        assert ended() == []
        seconds = int(time.time() - since)
        return seconds > 30 and value(f"sum(increase({counted}[{seconds}s]))") > 0

    wait_until(counted_since, timeout=4 * TIMEOUT, interval=5, what="a task counted after what waited to be read")
    assert ended() == []


def test_thresholds_are_read_anew_without_a_restart(up: Engine) -> None:
    """By the command in deploy/README.md, whose signal comes through to Prometheus."""
    read = "prometheus_config_last_reload_success_timestamp_seconds"
    wait_until(lambda: value(read) > 0, timeout=TIMEOUT)
    before, started = value(read), up.inspect("prometheus")["State"]["Pid"]
    command = re.findall(r"`docker compose (kill .*?)`", (ROOT / "deploy" / "README.md").read_text())
    up.compose(*shlex.split(*command))
    wait_until(lambda: value(read) > before, timeout=TIMEOUT)
    assert up.inspect("prometheus")["State"]["Pid"] == started


@pytest.mark.parametrize("user", ["", "1000680000:0"])
def test_the_image_runs_by_itself_as_any_user(user: str, up: Engine, secrets: Path) -> None:
    """As deploy/README.md has it; OpenShift gives each namespace numbers of its own."""
    (command,) = re.findall(
        r"^docker run (.*)$", (ROOT / "deploy/README.md").read_text().replace("\\\n", ""), re.MULTILINE
    )
    text = command.replace("./broker_url", str(secrets / "broker_url")).replace("registry.example.org/", REGISTRY)
    up.podman("run", "--detach", "--name", "alone", *([f"--user={user}"] if user else []), *shlex.split(text))
    try:
        wait_until(lambda: open_at("127.0.0.1", 9808), timeout=TIMEOUT, what="a port")
        wait_until(lambda: requests.get("http://127.0.0.1:9808/-/healthy", timeout=30).ok, timeout=TIMEOUT)
    finally:
        up.podman("rm", "--force", "--time", "2", "alone")


def test_rules_with_links_are_written_by_the_image(up: Engine, tmp_path: Path) -> None:
    """By the command at the head of links.yml; Prometheus, who is another user, may read them."""
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 4242, 4242)
    head = (ROOT / "deploy" / "compose" / "links.yml").read_text().replace("\\\n#", "")
    (command,) = re.findall(r"^#\s+docker run (.*)$", head, re.MULTILINE)
    text = (
        command.replace("$(id -u)", "4242")
        .replace("$PWD/deploy/compose/bundle", str(tmp_path))
        .replace(" celerymeter:", f" {REGISTRY}celerymeter:")
    )
    up.podman("run", *shlex.split(text))
    rules = list((tmp_path / "alerts" / "rules").glob("*.yml"))
    assert any("http://localhost:3000/d/" in path.read_text() for path in rules)
    assert {path.stat().st_mode & 0o444 for path in rules} == {0o444}


def test_down_and_up_lose_no_row_of_the_audit_trail(up: Engine, stack: Compose) -> None:
    """The trail of before is the beginning of the one after it, and history goes on."""
    before = rows(up)
    assert before
    up.compose("down")
    assert up.podman("ps", "--quiet", "--all") == ""
    up.compose("up", "--detach", "--no-build", *SERVICES)
    await_healthy(up, stack, SERVICES)
    assert rows(up)[: len(before)] == before
    wait_until(lambda: value('count_over_time(celery_worker_up{hostname="quick@shop"}[1h] offset 1m)'), timeout=TIMEOUT)


def test_with_slack_a_warning_goes_there_too(up: Engine, secrets: Path) -> None:
    """By deploy/compose/slack.yml and the URL in its file."""
    with HttpSink(host=up.gateway()) as slack:
        (secrets / "slack_url").write_text(f"{slack.url}/slack")
        up.compose("up", "--detach", "--no-build", "alertmanager", variants=["slack"])
        probe = {"labels": {"alertname": "ForSlack", "severity": "warning"}, "annotations": {"summary": "for Slack"}}

        def send() -> bool:
            return requests.post(f"{ALERTMANAGER}/api/v2/alerts", json=[probe], timeout=30).ok

        wait_until(ignoring(send), timeout=TIMEOUT)
        awaited(
            lambda: [each for each in slack.to("/slack") if "for Slack" in json.dumps(each.body)],
            what="a message",
            timeout=TIMEOUT,
        )


def ignoring(send: Callable[[], bool]) -> Callable[[], bool]:
    """The same, while nobody listens yet."""

    def tried() -> bool:
        try:
            return send()
        except requests.RequestException:
            return False

    return tried


def test_a_cluster_of_ones_own_is_watched_without_the_shop(up: Engine, secrets: Path, stack: Compose) -> None:
    """By deploy/compose/cluster.yml: its broker is outside, which the exporter reaches."""
    gateway = up.gateway()
    up.compose("down", "--volumes")
    up.compose("up", "--detach", "--no-build", "alertmanager", variants=["cluster"])  # for the network
    gateway = up.gateway()
    users = f"{secrets / 'redis_users'}:/users:ro"
    server = shlex.split(f"redis-server /users --bind {gateway} --port 16379")
    up.podman(
        "run", "--detach", "--name", "elsewhere", "--network", "host", "--volume", users, "localhost/redis", *server
    )
    for name, database in (("broker_url", 0), ("result_backend_url", 1)):
        inside = (secrets / name).read_text()
        (secrets / name).write_text(inside.replace("redis:6379", f"{gateway}:16379"))
        assert f"16379/{database}" in (secrets / name).read_text()
    up.compose("up", "--detach", "--no-build", *WATCHING, variants=["cluster"])
    await_healthy(up, stack, WATCHING)
    wait_until(lambda: value("celerymeter_broker_up") == 1, timeout=TIMEOUT)
    running = up.podman("ps", "--format", "{{.Names}}").split()
    assert set(running) == {"elsewhere", *(f"celerymeter-{name}-1" for name in WATCHING)}
