"""The probes of the Kubernetes manifests on real processes: no outage of a broker restarts a pod or hides it."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pytest
import requests
from tests.deploy.manifests import Pod, pods

from celerymeter.demo.processes import Process, free_ports, wait_until
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration
TIMEOUT = 90.0
HOSTS = ("127.0.0.1", "[::1]")
"""A pod of a cluster without IPv4 is probed by IPv6."""


class Started:
    """The command of a pod with its own arguments: other files, other ports."""

    def __init__(self, pod: Pod, folder: Path, broker_url: str) -> None:
        self.pod = pod
        moved = dict(zip(pod.ports.values(), free_ports(len(pod.ports)), strict=True))
        self.urls = {port: f"http://127.0.0.1:{moved[port]}" for port in moved}
        (folder / "broker_url").write_text(broker_url)
        for name in ("jwt_secret", "webhook_token"):
            (folder / name).write_text(secrets.token_hex(32))
        words = [self._moved(word, folder, moved) for word in pod.container["args"]]
        self.process = Process(words[0], [sys.executable, "-m", "celerymeter", *words], log=folder / "log")

    @staticmethod
    def _moved(word: str, folder: Path, ports: dict[int, int]) -> str:
        word = word.replace("/run/secrets/celerymeter", str(folder)).replace(
            "/var/lib/celerymeter", str(folder / "var")
        )
        for port, other in ports.items():
            word = word.replace(f"listen=:{port}", f"listen=:{other}")
        return word.replace("http://prometheus-operated.monitoring:9090", "http://127.0.0.1:9")

    def probes(self) -> set[int]:
        """Return what the probes get by IPv4 and by IPv6: status codes, 0 for no answer."""
        urls = [self.urls[probe.port] + probe.path for probe in self.pod.probes]
        return {code(url.replace(HOSTS[0], host)) for url in urls for host in HOSTS}

    def up(self) -> Started:
        """Start, and wait until every probe is content."""
        self.process.start(ready=lambda: self.probes() == {200})
        return self


def code(url: str) -> int:
    """The status of a GET."""
    try:
        return requests.get(url, timeout=30).status_code
    except requests.RequestException:
        return 0


def started(owner: str, folder: Path, redis: Redis) -> Started:
    """The command of one workload, with a broker."""
    (folder / "var").mkdir()
    return Started(next(pod for pod in pods() if pod.owner == owner), folder, redis.url)


@pytest.mark.own_redis
def test_a_dead_broker_fails_no_probe_of_the_exporter(tmp_path: Path, redis_server: Redis) -> None:
    """It says that the broker is away, and is left alone."""
    exporter = started("celerymeter-exporter", tmp_path, redis_server)
    with exporter.process:
        exporter.up()
        wait_until(lambda: code(f"{exporter.urls[9808]}/-/ready") == 200)
        redis_server.kill()
        wait_until(lambda: code(f"{exporter.urls[9808]}/-/ready") == 503)
        assert exporter.probes() == {200}
        assert "celerymeter_broker_up 0" in requests.get(f"{exporter.urls[9808]}/metrics", timeout=30).text


@pytest.mark.own_redis
def test_a_dead_broker_and_prometheus_fail_no_probe_of_the_control_api(tmp_path: Path, redis_server: Redis) -> None:
    """Its health says so, and it is left alone."""
    control = started("celerymeter-control", tmp_path, redis_server)
    with control.process:
        control.up()
        redis_server.kill()
        health = f"{control.urls[8000]}/celery-admin/system/health"
        wait_until(lambda: requests.get(health, timeout=30).json()["status"] != "healthy")
        assert control.probes() == {200}
