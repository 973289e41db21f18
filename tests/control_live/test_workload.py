"""API and feed agree with what Celery really did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from tests.apps.worker_app import make_app
from tests.control.access import token
from tests.control.stack import Stack, running_stack
from tests.control_live.live_api import Message, feed, until

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration

SUCCEEDED, FAILED, RETRIED = 40, 10, 5
SLEPT = 6


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Broker, one worker of one slot, exporter, Prometheus and the API: nothing has run yet."""
    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def app(stack: Stack) -> Iterator[Celery]:
    """A producer."""
    app = make_app(stack.redis.url)
    yield app
    app.close()


def realtime(stack: Stack) -> dict[str, Any]:
    """The metrics object."""
    found: dict[str, Any] = stack.control.get("/monitoring/metrics/realtime").json()
    return found


def test_a_cluster_that_never_ran_a_task_is_zeros(stack: Stack) -> None:
    """One worker, and zeros that clients can format."""
    wait_until(lambda: realtime(stack)["active_workers"] == 1)
    found = realtime(stack)

    assert (found["pending_tasks"], found["processing_tasks"]) == (0, 0)
    assert f"{found['current_throughput']:.2f} {found['error_rate_percent']:.1f}" == "0.00 0.0"
    assert (found["finished_in_window"], found["avg_execution_time_ms"]) == (0, None)


def test_metrics_follow_a_workload_to_the_task(stack: Stack, app: Celery) -> None:
    """One task runs, others wait; then each outcome is counted, once, in the feed and on the dashboard."""
    url = stack.control.url.replace("http", "ws", 1) + "/monitoring/ws"
    with feed(url, bearer=token()) as client:
        app.send_task("tests.sleep", (SLEPT,))
        for _ in range(SUCCEEDED):
            app.send_task("tests.add", (1, 2))
        for _ in range(FAILED):
            app.send_task("tests.fail")
        for _ in range(RETRIED):
            app.send_task("tests.retry", (1,))

        waiting = SUCCEEDED + FAILED + RETRIED
        busy = until(client, lambda m: metrics(m).get("processing_tasks") == 1)
        held = metrics(until(client, lambda m: waits(m) == waiting))
        assert held["pending_tasks"] == sum(held["queue_lengths"].values())

        ended = 1 + SUCCEEDED + FAILED + RETRIED
        done = metrics(until(client, lambda m: metrics(m).get("finished_in_window") == ended))
        until(client, lambda m: metrics(m).get("pending_tasks") == 0)
    assert (done["failed_in_window"], done["retried_in_window"]) == (FAILED, RETRIED)
    assert done["error_rate_percent"] == pytest.approx(100 * FAILED / ended)
    assert done["current_throughput"] == pytest.approx(ended / done["window_seconds"])
    assert 1 <= done["avg_execution_time_ms"] / (1000 * SLEPT / (ended - FAILED)) < 1.5
    assert 2500 < done["p95_wait_ms"] <= 30_000
    assert metrics(busy)["active_workers"] == 1
    check_dashboard(stack)


def check_dashboard(stack: Stack) -> None:
    """The dashboard tells the same, by task, worker and queue."""
    board = stack.control.get("/monitoring/dashboard").json()
    tasks = {task["name"]: task for task in board["busiest_tasks"]}

    assert {name: task["finished"] for name, task in tasks.items()} == {
        "tests.add": SUCCEEDED,
        "tests.fail": FAILED,
        "tests.retry": RETRIED,
        "tests.sleep": 1,
    }
    assert [task["name"] for task in board["most_failing_tasks"]] == ["tests.fail"]
    assert tasks["tests.fail"]["error_rate_percent"] == 100
    assert [(worker["hostname"], worker["status"]) for worker in board["workers"]] == [("w1@test", "up")]
    assert [queue["name"] for queue in board["queues"]] == ["celery"]
    assert board["system_summary"]["active_workers"] == 1


def metrics(message: Message) -> dict[str, Any]:
    """The metrics object of an update, else nothing."""
    found: dict[str, Any] = message["data"].get("metrics", {})
    return found


def waits(message: Message) -> int:
    """Messages ready in queues and prefetched by workers."""
    found = metrics(message)
    return int(found.get("pending_tasks", 0)) + int(found.get("reserved_tasks") or 0)
