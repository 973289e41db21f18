"""Prometheus away, the broker away, the exporter away: said as it is, never as zeros, and over by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.control_live.stage import Message, Stage, messages, on_stage, until
from websockets.sync.client import ClientConnection

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration

FIGURES = ("/monitoring/metrics/realtime", "/monitoring/dashboard")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One stage; each test mends what it broke."""
    with on_stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


def health(stage: Stage) -> dict[str, Any]:
    """What strangers are told."""
    found: dict[str, Any] = stage.control.get("/system/health").json()
    return found


def problem(stage: Stage, path: str) -> tuple[int, str]:
    """Status and code of an answer."""
    answer = stage.control.get(path)
    if answer.status_code == 503:
        assert int(answer.headers["Retry-After"]) > 0
    return answer.status_code, answer.json().get("code", "")


def problems(stage: Stage) -> set[tuple[int, str]]:
    """Status and code of every answer with metrics; each may be a second old."""
    return {problem(stage, path) for path in FIGURES}


def error(client: ClientConnection, code: str) -> Message:
    """The feed says so."""
    return until(client, lambda m: m["message_type"] == "error" and m["data"]["code"] == code)


def all_well(stage: Stage) -> bool:
    """Figures and health are back."""
    return stage.control.get(FIGURES[0]).status_code == 200 and health(stage)["status"] == "healthy"


def test_prometheus_away(stage: Stage) -> None:
    """503 everywhere, an error on the feed, degraded, what it knew is not repeated; back by itself."""
    wait_until(lambda: all_well(stage))
    with stage.feed() as client:
        until(client, lambda m: m["message_type"] == "metrics_update")
        stage.prometheus.stop()
        error(client, "prometheus_unavailable")
        wait_until(lambda: problems(stage) == {(503, "prometheus_unavailable")})
        found = health(stage)
        assert found["status"] == "degraded"
        assert (found["checks"]["prometheus"], found["checks"]["broker"]) == ("failed", "unknown")
        after = [message for _, message in zip(range(2), messages(client), strict=False)]
        assert {message["message_type"] for message in after} == {"error"}
        assert stage.control.get("/monitoring/status").json()["last_scrape"] is None

        stage.prometheus.up()
        until(client, lambda m: m["message_type"] == "metrics_update")
    wait_until(lambda: all_well(stage))


def test_the_broker_away(stage: Stage) -> None:
    """The exporter says that it cannot reach it: that is a reason, not a zero."""
    wait_until(lambda: all_well(stage))
    with stage.feed() as client:
        stage.page.broker_up = 0
        error(client, "broker_unavailable")
        wait_until(lambda: problems(stage) == {(503, "broker_unavailable")})
        found = health(stage)
        assert (found["status"], found["checks"]["broker"], found["checks"]["exporter"]) == ("degraded", "failed", "ok")
        stage.page.broker_up = 1
        until(client, lambda m: m["message_type"] == "metrics_update")
    wait_until(lambda: all_well(stage))


def test_no_workers_is_a_figure(stage: Stage) -> None:
    """0 while the broker is up; the whole is degraded."""
    stage.page.workers = {"w1@a": 0}
    wait_until(lambda: stage.control.get(FIGURES[0]).json()["active_workers"] == 0)
    found = stage.control.get(FIGURES[0]).json()
    assert (found["system_health"], found["processing_tasks"]) == ("degraded", 0)
    stage.page.workers = {"w1@a": 1}
    wait_until(lambda: all_well(stage))


def test_another_exporter_process_is_not_a_burst(stage: Stage) -> None:
    """Counters that start anew count from 0, not backwards and not twice."""
    stage.page.succeeded = 500
    wait_until(lambda: stage.control.get(FIGURES[0]).json()["finished_in_window"] == 500)
    stage.page.succeeded, stage.page.started = 7, time.time() - 5
    wait_until(lambda: stage.control.get(FIGURES[0]).json()["finished_in_window"] == 7)
    figures = stage.control.get(FIGURES[0]).json()
    assert 0 < figures["current_throughput"] <= 7
