"""The image, built by the steps of the Dockerfile in a clean root file system, and run as docker-compose.yml says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.deploy import compose
from tests.deploy.dockerfile import build_context
from tests.deploy.imagebuild import Builder, refuse_without_tools
from tests.deploy.services import RunningServices, refuse_without_root

from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1800)]
PARTS = ("exporter", "control", "workload", "worker-quick", "worker-slow")
TIMEOUT = 180.0


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """A store of images of its own."""
    refuse_without_root()
    refuse_without_tools()
    return Builder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def services(builder: Builder, tmp_path_factory: pytest.TempPathFactory, secrets: Path) -> Iterator[RunningServices]:
    """Redis of this machine, and the five services that run the image out of it."""
    image = builder.build(build_context(tmp_path_factory.mktemp("context")))
    folder, resolved = tmp_path_factory.mktemp("services"), compose.resolved(secrets=secrets)
    with RunningServices(folder, resolved, images={"celerymeter": image}) as running:
        for names in (("redis",), PARTS):
            running.start(*names)
            for name in names:
                wait_until(partial(running.healthy, name), timeout=TIMEOUT, interval=0.5, what=name)
        yield running


def test_the_exporter_in_the_image_counts_what_the_shop_does(services: RunningServices) -> None:
    """As user 10001, on a read-only file system; every part is healthy by its own check."""
    page = "http://exporter:9808/metrics"
    wait_until(lambda: 'celery_task_succeeded_total{name="orders.place"' in services.fetch(page), timeout=TIMEOUT)
    assert "Uid:\t10001\t10001" in services.execute("exporter", "/usr/bin/cat", "/proc/self/status").stdout
    assert services.execute("exporter", "/usr/bin/touch", "/opt/celerymeter/written").returncode != 0


def test_the_image_says_how_to_ask_for_its_health(services: RunningServices, builder: Builder) -> None:
    """The health check in it is content with the exporter that runs."""
    how, *words = builder.config()["Healthcheck"]["Test"]
    assert how == "CMD"
    assert services.execute("exporter", *words).returncode == 0
    assert builder.config()["StopSignal"] == "SIGTERM"


def test_nothing_can_be_installed_into_it(services: RunningServices) -> None:
    """There is no pip, and no compiler came along."""
    assert services.execute("exporter", "python", "-m", "pip", "--version").returncode != 0
    assert services.execute("exporter", "/usr/bin/test", "-e", "/usr/bin/gcc").returncode != 0


def test_the_control_api_keeps_its_state_in_the_volume(services: RunningServices) -> None:
    """The folder in the image is its user's, so a new volume is too; the audit trail in it can be verified."""
    state = "/var/lib/celerymeter"
    assert (Path(services.images["celerymeter"].root) / state.lstrip("/")).stat().st_uid == 10001
    verified = services.execute("control", "celerymeter", "audit", "verify", "--state-dir", state)
    assert verified.returncode == 0, verified.stderr
