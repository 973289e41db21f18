"""One cause, one message: what a live Alertmanager holds back, and what it does not."""

from __future__ import annotations

import pytest
from tests.alertmanager.conftest import PAGER, Office
from tests.alertmanager.sinks import awaited

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration


def alert(alertname: str, severity: str, area: str, cluster: str, **labels: str) -> dict[str, dict[str, str]]:
    """An alert as Prometheus sends it."""
    return {"labels": {"alertname": alertname, "severity": severity, "area": area, "cluster": cluster, **labels}}


def test_a_cause_silences_its_consequences_in_its_own_cluster(office: Office) -> None:
    """The broker's queues, the missing workers' queues, the warning of what is critical; never another cluster's."""
    office.tell(
        alert("CeleryBrokerDown", "critical", "exporter", "eu"),
        alert("CeleryQueueBacklog", "critical", "queues", "eu", queue_name="orders"),
        alert("CeleryWorkerDown", "warning", "workers", "eu", hostname="celery@a"),
        alert("CeleryPollsFailing", "warning", "exporter", "eu", collector="queues"),
        alert("CeleryControlDown", "warning", "control", "eu", instance="c:9809"),
        alert("CeleryNoWorkers", "critical", "workers", "us"),
        alert("CeleryWorkerDown", "warning", "workers", "us", hostname="celery@a"),
        alert("CeleryQueueNoConsumers", "critical", "queues", "us", queue_name="orders"),
        alert("CeleryQueueBacklog", "critical", "queues", "us", queue_name="orders"),
        alert("CeleryQueueBacklog", "warning", "queues", "us", queue_name="orders"),
        alert("CeleryQueueHeadOld", "warning", "queues", "us", queue_name="orders"),
        alert("CeleryHighErrorRate", "critical", "tasks", "us", name="shop.pay"),
        alert("CeleryErrorBudgetBurn", "critical", "slo", "us", name="shop.pay", window="1h"),
    )
    suppressed = {
        ("CeleryQueueBacklog", "eu", "critical"),
        ("CeleryWorkerDown", "eu", "warning"),
        ("CeleryPollsFailing", "eu", "warning"),
        ("CeleryWorkerDown", "us", "warning"),
        ("CeleryQueueNoConsumers", "us", "critical"),
        ("CeleryQueueBacklog", "us", "critical"),
        ("CeleryQueueBacklog", "us", "warning"),
        ("CeleryQueueHeadOld", "us", "warning"),
        ("CeleryErrorBudgetBurn", "us", "critical"),
    }
    wait_until(lambda: {key for key, state in office.states().items() if state == "suppressed"} == suppressed)
    awaited(lambda: office.http.to(PAGER), count=3, what="a page for each cause")
    assert office.http.alerts(PAGER, "firing") == {
        ("CeleryBrokerDown", "critical"),
        ("CeleryNoWorkers", "critical"),
        ("CeleryHighErrorRate", "critical"),
    }


def test_a_full_broker_is_one_page(office: Office) -> None:
    """Workers and queues fail with it; tasks that fail for reasons of their own are still reported."""
    office.tell(
        alert("CeleryBrokerBlocked", "critical", "exporter", "eu"),
        alert("CeleryBrokerMemoryHigh", "warning", "exporter", "eu"),
        alert("CeleryNoWorkers", "critical", "workers", "eu"),
        alert("CeleryRunsWithoutResult", "critical", "tasks", "eu"),
        alert("CeleryWorkerStuck", "critical", "workers", "eu", hostname="celery@a"),
        alert("CeleryQueueStalled", "critical", "queues", "eu", queue_name="orders"),
        alert("CeleryHighErrorRate", "warning", "tasks", "eu", name="shop.pay"),
    )
    active = {("CeleryBrokerBlocked", "eu", "critical"), ("CeleryHighErrorRate", "eu", "warning")}
    wait_until(lambda: {key for key, state in office.states().items() if state == "active"} == active)
    assert len(office.states()) == 7


def test_one_queue_does_not_silence_another(office: Office) -> None:
    """A critical queue leaves the warnings of other queues, workers and tasks alone."""
    office.tell(
        alert("CeleryQueueBacklog", "critical", "queues", "eu", queue_name="orders"),
        alert("CeleryQueueBacklog", "warning", "queues", "eu", queue_name="reports"),
    )
    wait_until(lambda: len(office.states()) == 2)
    awaited(lambda: office.http.to("/slack"), count=1, what="a chat message")
    assert set(office.states().values()) == {"active"}


CHAIN = (
    "CeleryQueueNoConsumers",
    "CeleryQueueStalled",
    "CeleryQueueHeadOld",
    "CeleryQueueWillNotDrain",
    "CeleryWaitBudgetBurn",
    "CeleryQueueBacklog",
)
"""The alerts about a queue, the most specific one first."""


def test_one_queue_pages_once(office: Office) -> None:
    """Of all that is critical about a queue only the most specific alert is sent; other queues have their own."""
    expected: set[tuple[str, ...]] = set()
    for number, cause in enumerate(CHAIN):
        queue = {"queue_name": f"q{number}"}
        office.tell(
            *(alert(name, "critical", "queues", "eu", **queue) for name in CHAIN[number:]),
            *(alert(name, "warning", "queues", "eu", **queue) for name in CHAIN[1:]),
        )
        wanted = {(queue["queue_name"], cause, "critical")}
        # of warnings, those about something else
        wanted |= {(queue["queue_name"], "CeleryQueueStalled", "warning")} if number > 1 else set()
        expected |= wanted
    wait_until(lambda: office.active("queue_name", "alertname", "severity") == expected)


def test_a_queue_that_stalls_pages_for_its_stuck_workers(office: Office) -> None:
    """Another cluster's are sent."""
    office.tell(
        alert("CeleryQueueStalled", "critical", "queues", "eu", queue_name="orders"),
        alert("CeleryWorkerStuck", "critical", "workers", "eu", hostname="celery@a"),
        alert("CeleryWorkerStuck", "critical", "workers", "us", hostname="celery@a"),
    )
    expected = {("CeleryQueueStalled", "eu"), ("CeleryWorkerStuck", "us")}
    wait_until(lambda: office.active("alertname", "cluster") == expected)


def test_no_worker_at_all_is_one_message(office: Office) -> None:
    """Critical, it inhibits its own warning, the lost workers and everything about queues."""
    office.tell(
        alert("CeleryNoWorkers", "critical", "workers", "eu"),
        alert("CeleryNoWorkers", "warning", "workers", "eu"),
        alert("CeleryWorkerDown", "warning", "workers", "eu", hostname="celery@a"),
        alert("CeleryCapacityLost", "warning", "workers", "eu"),
        *(alert(name, "critical", "queues", "eu", queue_name="orders") for name in CHAIN),
    )
    wait_until(lambda: office.active("alertname", "severity") == {("CeleryNoWorkers", "critical")})


def test_a_dead_beat_is_one_message(office: Office) -> None:
    """The entries that it does not send bring no messages; other trouble of schedules does."""
    entry = {"schedule": "nightly", "name": "reports.build"}
    office.tell(
        alert("CeleryBeatDown", "critical", "schedules", "eu"),
        alert("CeleryScheduleMissed", "warning", "schedules", "eu", **entry),
        alert("CeleryScheduleMissed", "critical", "schedules", "eu", **entry),
        alert("CeleryScheduleFailing", "warning", "schedules", "eu", **entry),
        alert("CeleryScheduleMissed", "critical", "schedules", "us", **entry),
        alert("CeleryScheduleMissed", "warning", "schedules", "us", schedule="hourly", name="reports.build"),
    )
    expected = {("CeleryBeatDown", "eu"), ("CeleryScheduleFailing", "eu"), ("CeleryScheduleMissed", "us")}
    wait_until(lambda: office.active("alertname", "cluster") == expected)
    assert ("CeleryScheduleMissed", "warning", "hourly") in office.active("alertname", "severity", "schedule")
