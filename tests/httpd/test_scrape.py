"""A real Prometheus, of either generation, scrapes the server: plain, and over TLS with a password."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import yaml
from tests.engines import newer

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Prometheus, find_binary
from celerymeter.httpd import WebConfig
from celerymeter.httpd.web_config import TlsConfig

from .conftest import Authority, Serve
from .test_protected import USERS

pytestmark = pytest.mark.integration

Jobs = dict[str, dict[str, object]]
Start = Callable[[Jobs], Prometheus]


@pytest.fixture(params=["installed", "newer"])
def prometheus(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Make a Prometheus with these scrape jobs, each every 200 ms."""
    if request.param == "newer":
        monkeypatch.setenv("CELERYMETER_PROMETHEUS", newer("prometheus"))
    find_binary("prometheus")

    def start(jobs: Jobs) -> Prometheus:
        config = tmp_path / "prometheus.yml"
        scrapes = [
            {"job_name": name, "scrape_interval": "200ms", "scrape_timeout": "200ms", **jobs[name]} for name in jobs
        ]
        config.write_text(yaml.safe_dump({"scrape_configs": scrapes}))
        return Prometheus(tmp_path / "prometheus", config=config)

    return start


def test_prometheus_scrapes_plain_and_protected(prometheus: Start, serve: Serve, authority: Authority) -> None:
    """The sample of the page arrives from both; a wrong password does not get it."""
    plain = serve()
    protected = serve(web_config=WebConfig(tls=TlsConfig(*authority.issue("scraped")), users=USERS))
    secure = {
        "scheme": "https",
        "tls_config": {"ca_file": str(authority.ca)},
        "static_configs": [{"targets": [protected.url.partition("//")[2]]}],
    }
    jobs: Jobs = {
        "plain": {"static_configs": [{"targets": [plain.url.partition("//")[2]]}]},
        "protected": {**secure, "basic_auth": {"username": "alice", "password": "right"}},
        "stranger": {**secure, "basic_auth": {"username": "alice", "password": "wrong"}},
    }
    with prometheus(jobs) as server:
        server.up()
        expected = {
            "plain": ("up", ""),
            "protected": ("up", ""),
            "stranger": ("down", "server returned HTTP status 401"),
        }

        def states() -> dict[str, tuple[str, str]]:
            targets = requests.get(f"{server.url}/api/v1/targets", timeout=30).json()["data"]["activeTargets"]
            return {target["labels"]["job"]: (target["health"], target["lastError"][:31]) for target in targets}

        wait_until(lambda: states() == expected, what=f"{expected}")
