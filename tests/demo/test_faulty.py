"""The demo with faults: alerts fire, and Alertmanager tells of them where the demo listens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.demo.running import Demo, started

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One for all."""
    running = started(tmp_path_factory.mktemp("faulty"), "--load", "faulty")
    try:
        yield running
    finally:
        running.process.stop(timeout=15)


def delivered(demo: Demo, notification: str) -> bool:
    """Whether the demo has shown a notification that begins so; fails when the demo has ended."""
    assert demo.process.running, demo.process.tail()
    return f" {notification}" in demo.process.log.read_text()


@pytest.mark.timeout(400)
def test_an_alert_fires_and_its_notification_arrives(demo: Demo) -> None:
    """A task runs into its time limit, which is told at once."""
    told = "firing CeleryTimeLimitExceeded (warning) to chat: orders.sync_stock ran into its time limit"
    wait_until(lambda: delivered(demo, told), timeout=240, what=told)


@pytest.mark.slow
@pytest.mark.timeout(1300)
@pytest.mark.parametrize(
    "told",
    [
        "firing CeleryHighErrorRate (critical) to pager",
        "firing CeleryHighErrorRate (critical) to chat",
        "firing CeleryHighErrorRate (warning) to chat",
        "firing CeleryRetryStorm (warning) to chat",
        "firing CeleryQueueBacklog (critical) to pager",
        "firing CeleryQueueNoConsumers (critical) to pager",
    ],
)
def test_every_fault_of_its_shop_is_told(demo: Demo, told: str) -> None:
    """Declined cards, broken e-mails, a silent gateway, too many videos, a queue that nobody reads."""
    wait_until(lambda: delivered(demo, told), timeout=1200, what=told, interval=1)
