"""The demo with faults: alerts fire, and their notifications reach the demo and Slack."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.alertmanager.sinks import HttpSink, awaited
from tests.demo.running import Demo, command_line, started

from celerymeter.demo.processes import wait_until
from celerymeter.prometheus import PrometheusClient, PrometheusSettings

pytestmark = pytest.mark.integration
WEBHOOK = "/services/T0000/B0000/hush-hush"


@pytest.fixture(scope="module")
def slack() -> Iterator[HttpSink]:
    """A stand-in for Slack's incoming webhooks; it refuses the first message."""
    with HttpSink(refuse=1) as sink:
        yield sink


@pytest.fixture(scope="module")
def demo(slack: HttpSink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo for all tests."""
    file = tmp_path_factory.mktemp("secret") / "slack_url"
    file.write_text(f"{slack.url}{WEBHOOK}\n")
    file.chmod(0o600)
    running = started(tmp_path_factory.mktemp("faulty"), "--load", "faulty", "--slack-url-file", str(file))
    try:
        yield running
    finally:
        running.process.stop(timeout=60)


def delivered(demo: Demo, notification: str) -> bool:
    """Return True if the demo has shown a notification that begins so; fails when the demo has ended."""
    assert demo.process.running, demo.process.tail()
    return f" {notification}" in demo.process.log.read_text()


@pytest.mark.timeout(400)
def test_an_alert_fires_and_its_notification_arrives(demo: Demo) -> None:
    """A task exceeds its time limit; the alert fires at once."""
    expected = "firing CeleryTimeLimitExceeded (warning) to chat: orders.sync_stock exceeded its time limit"
    wait_until(lambda: delivered(demo, expected), timeout=240, what=expected)


@pytest.mark.timeout(400)
def test_the_same_alert_arrives_in_slack(demo: Demo, slack: HttpSink) -> None:
    """It has the shipped text and goes to the channel of the webhook in the file."""
    title = "WARNING: orders.sync_stock exceeded its time limit"

    def cards() -> list[str]:
        assert all("channel" not in message.body for message in slack.posted)
        found = [card for message in slack.to(WEBHOOK) for card in message.body["attachments"]]
        return [card["text"] for card in found if card["title"].startswith(title)]

    [text, *_] = awaited(cards, timeout=240, what="a message in Slack")
    assert "The soft or hard time limit stopped" in text


@pytest.mark.timeout(400)
def test_a_message_that_slack_refused_is_reported(demo: Demo) -> None:
    """Otherwise the user would wait for it in vain."""
    expected = "Slack refused a message"
    wait_until(lambda: expected in demo.process.log.read_text(), timeout=240, what=expected)


@pytest.mark.timeout(400)
def test_the_webhook_stays_in_its_file(demo: Demo, slack: HttpSink) -> None:
    """No other file, output, command line or variable holds its URL."""
    awaited(lambda: slack.to(WEBHOOK), timeout=240, what="a message in Slack")
    processes = [path for name in ("cmdline", "environ") for path in Path("/proc").glob(f"[0-9]*/{name}")]
    assert [path for path in (*demo.folder.rglob("*"), *processes) if holds_webhook(path)] == []


def test_the_workload_has_successes_failures_retries_and_a_schedule(demo: Demo) -> None:
    """Every kind of result is in Prometheus, of quick tasks and of slow ones."""
    kinds = (
        'celery_task_succeeded_total{queue_name="orders"}',
        'celery_task_failed_total{name="orders.charge_card"}',
        'celery_task_retried_total{name="orders.charge_card"}',
        'celery_task_succeeded_total{name="reports.refresh_sales"}',
        'celery_task_succeeded_total{queue_name="media"}',
    )
    with PrometheusClient(PrometheusSettings(demo.env["PROMETHEUS_URL"])) as prometheus:
        for series in kinds:
            wait_until(partial(prometheus.instant, f"sum({series}) > 0"), interval=1, what=series)
        assert not prometheus.instant('celery_task_started_total{queue_name="unknown"}')


def holds_webhook(path: Path) -> bool:
    """Return True if a file holds the URL; a folder or a file that has vanished holds nothing."""
    try:
        return WEBHOOK.encode() in path.read_bytes()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(1300)
@pytest.mark.parametrize(
    "expected",
    [
        "firing CeleryHighErrorRate (critical) to pager",
        "firing CeleryHighErrorRate (critical) to chat",
        "firing CeleryHighErrorRate (warning) to chat",
        "firing CeleryRetryStorm (warning) to chat",
        "firing CeleryQueueBacklog (warning) to chat",
        "firing CeleryQueueNoConsumers (critical) to pager",
        "firing CeleryBeatDown (critical) to pager",
    ],
)
def test_every_fault_of_the_shop_fires_its_alert(demo: Demo, expected: str) -> None:
    """Declined cards, broken e-mails, gateway timeouts, too many videos, a queue without consumers, a beat that stands
    still.
    """
    wait_until(lambda: delivered(demo, expected), timeout=1200, what=expected, interval=1)


def test_the_demo_ends_when_a_part_ends(demo: Demo) -> None:
    """It names the part, quotes its log, exits with 1 and leaves no process behind. The last test of this demo."""
    (line,) = [line for line in demo.alive() if "\0exporter\0" in line]
    pid = next(int(p.name) for p in Path("/proc").glob("[0-9]*") if command_line(p) == line)
    os.kill(pid, signal.SIGKILL)
    assert demo.process.wait(30) == 1
    assert "exporter ended (by SIGKILL); the end of " in demo.process.log.read_text()
    assert demo.alive() == []
