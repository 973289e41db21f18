"""The whole demo as a user starts it, on automatic ports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from tests.demo.running import Demo, command, started
from tests.docs.commands import run, scripts
from tools.docs.markdown import READMES, ROOT

from celerymeter.demo.processes import wait_until
from celerymeter.prometheus import PrometheusClient, PrometheusSettings

PAGES = (READMES[0], *sorted((ROOT / "deploy" / "migration").glob("*.md")))

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo for all tests; SIGTERM ends it and leaves no process behind."""
    running = started(tmp_path_factory.mktemp("demo"))
    try:
        yield running
    finally:
        status = running.process.stop(timeout=60)
    assert status == 0
    assert running.alive() == []
    assert not (running.folder / ".demo" / "env").exists()


@pytest.fixture(scope="module")
def prometheus(demo: Demo) -> Iterator[PrometheusClient]:
    """A client of the demo's Prometheus."""
    with PrometheusClient(PrometheusSettings(demo.env["PROMETHEUS_URL"])) as client:
        yield client


def test_every_part_is_up_when_the_env_file_is_there(demo: Demo, prometheus: PrometheusClient) -> None:
    """Each address answers, both workers are seen, Prometheus has scraped every target and found its Alertmanager."""
    exporter, control = demo.env["CELERYMETER_EXPORTER_URL"], demo.env["CELERYMETER_CONTROL_URL"]
    assert requests.get(f"{exporter}/-/ready", timeout=30).status_code == 200
    assert requests.get(f"{control}/celery-admin/system/health", timeout=30).status_code == 200
    assert requests.get(f"{demo.env['ALERTMANAGER_URL']}/-/ready", timeout=30).status_code == 200
    wait_until(lambda: prometheus.instant("count(celery_worker_up == 1)").value() == 2, what="both workers seen")
    wait_until(lambda: prometheus.instant("min(up)").value() == 1, what="all targets scraped")


def test_the_token_opens_the_control_api(demo: Demo) -> None:
    """It is an administrator's token."""
    url = f"{demo.env['CELERYMETER_CONTROL_URL']}/celery-admin/system/status"
    headers = {"Authorization": f"Bearer {demo.env['CELERYMETER_TOKEN']}"}
    assert requests.get(url, headers=headers, timeout=30).status_code == 200
    assert requests.get(url, timeout=30).status_code == 401


@pytest.mark.parametrize("script", dict.fromkeys(script for page in PAGES for script in scripts(page)))
def test_every_command_of_the_readme_works(demo: Demo, script: str) -> None:
    """The commands of the README and of the migration pages, as a reader would type them."""
    defaults = {
        "http://localhost:9808": demo.env["CELERYMETER_EXPORTER_URL"],
        "http://localhost:9818": demo.env["CELERYMETER_EXPORTER_URL"],
        "http://localhost:9090": demo.env["PROMETHEUS_URL"],
        "http://localhost:9093": demo.env["ALERTMANAGER_URL"],
        "http://localhost:8000": demo.env["CELERYMETER_CONTROL_URL"],
        "redis://localhost:6379/0": demo.env["BROKER_URL"],
    }
    run(script, folder=demo.folder, addresses=defaults)


def test_the_env_file_is_for_its_owner_alone(demo: Demo) -> None:
    """It holds a token."""
    assert (demo.folder / ".demo" / "env").stat().st_mode & 0o077 == 0


def test_a_second_demo_in_the_same_folder_is_refused(demo: Demo) -> None:
    """It would delete the files of the first one."""
    second = command(demo.folder, "--ports", "auto")
    assert second.start().wait(30) == 2
    assert "another demo runs in" in second.tail(3)
    assert requests.get(f"{demo.env['CELERYMETER_EXPORTER_URL']}/-/ready", timeout=30).ok


def test_a_taken_port_is_named_with_the_option(demo: Demo, tmp_path: Path) -> None:
    """Nothing is started."""
    port = demo.env["PROMETHEUS_URL"].rsplit(":", 1)[1]
    second = command(tmp_path, "--ports", f"exporter=auto,prometheus={port}")
    assert second.start().wait(30) == 1
    assert f"port {port} (prometheus) is in use" in second.tail()
    assert "--ports prometheus=PORT" in second.tail()


@pytest.mark.slow
def test_the_shop_may_aggregate(tmp_path: Path) -> None:
    """Its workers send totals, and the exporter counts as before."""
    demo = started(tmp_path, "--load", "busy", "--aggregate")
    try:
        page = demo.env["CELERYMETER_EXPORTER_URL"] + "/metrics"
        wait_until(lambda: requests.get(page, timeout=30).text.count('mode="aggregate"') == 2)
        wait_until(lambda: 'celery_task_succeeded_total{name="orders.place"' in requests.get(page, timeout=30).text)
    finally:
        assert demo.process.stop(timeout=60) == 0
