"""A real broker that is stopped under a real exporter, Prometheus and API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from tests.control.access import bearer
from tests.control.stack import Stack, gives_metrics, running_stack

from celerymeter.control.tokens import Role
from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

METRICS = "/monitoring/metrics/realtime"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything runs; the test repairs what it broke."""
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


def health(stack: Stack) -> tuple[str, str]:
    """Of the whole, and of the broker."""
    found = stack.control.get("/system/health").json()
    return found["status"], found["checks"]["broker"]


def revoke(stack: Stack) -> requests.Response:
    """Ask for a revoke."""
    body = {"task_ids": ["no-such-task"], "operation": "revoke"}
    return requests.post(f"{stack.control.url}/tasks/batch", json=body, headers=bearer(Role.OPERATOR), timeout=30)


def has_status(stack: Stack, batch_id: str, status: str) -> bool:
    """Return whether the ids of a batch have this status."""
    batch = stack.control.get(f"/tasks/batch/{batch_id}").json()
    return [result["status"] for result in batch["results"]] == [status]


def test_a_stopped_broker_is_said_never_shown_as_zeros_and_over_by_itself(stack: Stack) -> None:
    """Metrics are a 503 that names it, health is degraded, what needs the broker claims nothing; then all is back."""
    wait_until(lambda: health(stack) == ("healthy", "ok"), interval=0.3)
    stack.redis.stop()

    wait_until(lambda: not gives_metrics(stack.control), interval=0.3, what="no metrics")
    wait_until(lambda: health(stack) == ("degraded", "failed"), interval=0.3)
    answer = stack.control.get(METRICS)
    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    refused = revoke(stack)
    assert (refused.status_code, refused.json()["code"]) == (503, "broker_unavailable")
    assert stack.exporter.value("celerymeter_broker_up") == 0

    stack.redis.up()
    wait_until(lambda: health(stack) == ("healthy", "ok"), interval=0.3)
    wait_until(lambda: stack.control.get(METRICS).json().get("active_workers") == 1, interval=0.3)
    # Workers send heartbeats before they listen for commands again (Celery starts them in this order), so the first
    # revoke may find that no worker answers. It is not lost: it is sent again until one does.
    first = revoke(stack)
    assert first.status_code in (200, 504), first.text
    wait_until(lambda: has_status(stack, first.json()["batch_id"], "flagged_unknown"), interval=0.3)
    assert revoke(stack).status_code == 200
