"""Prometheus away, the broker away, the exporter away: said as it is, never as zeros, and over by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.control_live.live_api import LiveApi, Message, messages, running_api, until
from websockets.sync.client import ClientConnection

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration

METRICS = ("/monitoring/metrics/realtime", "/monitoring/dashboard")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApi]:
    """One API; each test repairs what it broke."""
    with running_api(tmp_path_factory.mktemp("api")) as api:
        yield api


def health(api: LiveApi) -> dict[str, Any]:
    """Return the health that anybody may read."""
    found: dict[str, Any] = api.control.get("/system/health").json()
    return found


def problem(api: LiveApi, path: str) -> tuple[int, str]:
    """Status and code of an answer."""
    answer = api.control.get(path)
    if answer.status_code == 503:
        assert int(answer.headers["Retry-After"]) > 0
    return answer.status_code, answer.json().get("code", "")


def problems(api: LiveApi) -> set[tuple[int, str]]:
    """Status and code of every answer with metrics; each may be a second old."""
    return {problem(api, path) for path in METRICS}


def error(client: ClientConnection, code: str) -> Message:
    """The feed says so."""
    return until(client, lambda m: m["message_type"] == "error" and m["data"]["code"] == code)


def all_well(api: LiveApi) -> bool:
    """Metrics and health are back."""
    return api.control.get(METRICS[0]).status_code == 200 and health(api)["status"] == "healthy"


def test_prometheus_away(api: LiveApi) -> None:
    """503 everywhere, an error on the feed, degraded, what it knew is not repeated; back by itself."""
    wait_until(lambda: all_well(api))
    with api.feed() as client:
        until(client, lambda m: m["message_type"] == "metrics_update")
        api.prometheus.stop()
        error(client, "prometheus_unavailable")
        wait_until(lambda: problems(api) == {(503, "prometheus_unavailable")})
        found = health(api)
        assert found["status"] == "degraded"
        assert (found["checks"]["prometheus"], found["checks"]["broker"]) == ("failed", "unknown")
        after = [message for _, message in zip(range(2), messages(client), strict=False)]
        assert {message["message_type"] for message in after} == {"error"}
        assert api.control.get("/monitoring/status").json()["last_scrape"] is None

        api.prometheus.up()
        until(client, lambda m: m["message_type"] == "metrics_update")
    wait_until(lambda: all_well(api))


def test_the_broker_away(api: LiveApi) -> None:
    """The exporter says that it cannot reach it: that is a reason, not a zero."""
    wait_until(lambda: all_well(api))
    with api.feed() as client:
        api.page.broker_up = 0
        error(client, "broker_unavailable")
        wait_until(lambda: problems(api) == {(503, "broker_unavailable")})
        found = health(api)
        assert (found["status"], found["checks"]["broker"], found["checks"]["exporter"]) == ("degraded", "failed", "ok")
        api.page.broker_up = 1
        until(client, lambda m: m["message_type"] == "metrics_update")
    wait_until(lambda: all_well(api))


def test_no_workers_is_a_number(api: LiveApi) -> None:
    """0 while the broker is up; the whole is degraded."""
    api.page.workers = {"w1@a": 0}
    wait_until(lambda: api.control.get(METRICS[0]).json()["active_workers"] == 0)
    found = api.control.get(METRICS[0]).json()
    assert (found["system_health"], found["processing_tasks"]) == ("degraded", 0)
    api.page.workers = {"w1@a": 1}
    wait_until(lambda: all_well(api))


def test_another_exporter_process_is_not_a_burst(api: LiveApi) -> None:
    """Counters that start anew count from 0, not backwards and not twice."""
    api.page.succeeded = 500
    wait_until(lambda: api.control.get(METRICS[0]).json()["finished_in_window"] == 500)
    api.page.succeeded, api.page.started = 7, time.time() - 5
    wait_until(lambda: api.control.get(METRICS[0]).json()["finished_in_window"] == 7)
    metrics = api.control.get(METRICS[0]).json()
    assert 0 < metrics["current_throughput"] <= 7
