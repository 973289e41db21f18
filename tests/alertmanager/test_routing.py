"""Which receivers get which alert, asked of amtool."""

from __future__ import annotations

import subprocess

import pytest
from tests.alertmanager.conftest import binary
from tests.rules.bundle import ALERTS

CONFIG = str(ALERTS / "alertmanager.yml")


@pytest.fixture(params=["installed", "newer"])
def amtool(request: pytest.FixtureRequest) -> str:
    """amtool of one generation."""
    return binary(str(request.param), "amtool")


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ("alertname=CeleryNoWorkers severity=critical area=workers cluster=eu", "log,pager,chat"),
        ("alertname=CeleryQueueBacklog severity=critical area=queues queue_name=orders", "log,pager,chat"),
        ("alertname=CeleryQueueBacklog severity=warning area=queues queue_name=orders cluster=eu", "log,chat"),
        ("alertname=CeleryWaitTargetUnusable severity=info area=slo", "nowhere"),
        ("alertname=Watchdog severity=info area=exporter", "watchdog"),
        ("alertname=SomethingElse", "log"),
    ],
)
def test_critical_pages_warnings_go_to_chat_and_information_nowhere(amtool: str, labels: str, receivers: str) -> None:
    """The tree as amtool walks it."""
    ran = subprocess.run(
        [
            amtool,
            "config",
            "routes",
            "test",
            f"--config.file={CONFIG}",
            f"--verify.receivers={receivers}",
            *labels.split(),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_configuration_is_valid(amtool: str) -> None:
    """On both generations, templates included."""
    ran = subprocess.run([amtool, "check-config", CONFIG], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 templates" in ran.stdout


def test_no_secret_stands_in_the_configuration() -> None:
    """Every secret is a file's name."""
    text = (ALERTS / "alertmanager.yml").read_text()
    for setting in ("password:", "credentials:", "slack_api_url:", "auth_secret:", "bearer_token:"):
        assert setting not in text
    assert text.count("_file: /etc/celerymeter/secrets/") == 4
