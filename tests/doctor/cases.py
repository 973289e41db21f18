"""Evidence of a healthy cluster, and variations of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from celerymeter.doctor.evidence import (
    AlertmanagerEvidence,
    BrokerEvidence,
    ControlEvidence,
    EventWatch,
    Evidence,
    ExporterEvidence,
    PageSample,
    PrometheusEvidence,
    RulesEvidence,
    ScrapedExporter,
    ScrapeTarget,
    SenderEvents,
    WorkerReplies,
)
from celerymeter.model import QueueState

W1, W2 = "w1@a", "w2@b"

BUSY = SenderEvents({"worker-heartbeat": 3, "task-received": 20, "task-started": 20}, (10, 20, 30), (1, 2, 1), 0.01)
IDLE = SenderEvents({"worker-heartbeat": 3}, (10, 10, 10), (0, 0, 0), 0.01)
PRODUCER = SenderEvents({"task-sent": 20}, clock_offset=0.01)

HEALTHY = ControlEvidence("http://c:8000", status="healthy")

NOW = 1_700_000_000.0
STARTED = NOW - 3600
SCRAPED = ScrapedExporter(
    job="celery",
    instance="e:9808",
    cluster="main",
    started=STARTED,
    last_event=NOW - 5,
    workers=frozenset({W1, W2}),
    names=frozenset(
        {
            *("celerymeter_build_info", "celerymeter_broker_up", "celerymeter_start_time_seconds", "celery_worker_up"),
            *("celerymeter_last_event_timestamp_seconds", "celery_task_wait_seconds_bucket"),
            "celery_task_wait_seconds_count",
        }
    ),
)
TARGET = ScrapeTarget(
    "http://e:9808/metrics", True, "", job="celery", instance="e:9808", interval=15, timeout=10, took=0.1
)

WELL = Evidence(
    broker=BrokerEvidence(
        "redis://h/0",
        watch=EventWatch(
            seconds=7.0,
            senders={W1: BUSY, W2: BUSY, "gen1@p": PRODUCER},
        ),
        replies={
            W1: WorkerReplies("prefork", frozenset({"q"})),
            W2: WorkerReplies(queues=frozenset("q")),
        },
        queues=(QueueState("q", length=3), QueueState("empty", length=0)),
    ),
    exporter=ExporterEvidence(
        "http://e:9808",
        page={
            "celerymeter_build_info": (PageSample({"version": "1"}, 1),),
            "celerymeter_broker_up": (PageSample({}, 1),),
            "celerymeter_start_time_seconds": (PageSample({}, STARTED),),
            "celerymeter_last_event_timestamp_seconds": (PageSample({}, NOW - 1),),
            "celery_worker_up": (PageSample({"hostname": W1}, 1), PageSample({"hostname": W2}, 1)),
            "celery_task_wait_seconds_count": (PageSample({"name": "add"}, 1),),
        },
        clock_offset=0.3,
        at=NOW,
    ),
    prometheus=PrometheusEvidence(
        "http://p:9090",
        exporters=(SCRAPED,),
        targets=(TARGET,),
        clock_offset=-0.2,
        rules=RulesEvidence(frozenset({"celery:queue_length:max", "CeleryNoWorkers"})),
        alertmanagers=(AlertmanagerEvidence("http://a:9093"),),
    ),
    control=HEALTHY,
)


def broker(**changes: Any) -> Evidence:
    """Return a healthy cluster but for the broker's part; without an exporter, which would know better."""
    return Evidence(broker=replace(WELL.broker, **changes))


def watched(**changes: Any) -> Evidence:
    """Return a healthy cluster but for what was heard."""
    return broker(watch=replace(WELL.broker.watch, **changes))


def paged(name: str, *samples: PageSample) -> Evidence:
    """Return a healthy cluster but for a family of the exporter's page, which Prometheus has too."""
    assert WELL.exporter
    names = SCRAPED.names | {name}
    return replace(
        prometheus(exporters=(replace(SCRAPED, names=names),)),
        exporter=replace(WELL.exporter, page={**WELL.exporter.page, name: samples}),
    )


def hosts(**values: float) -> tuple[PageSample, ...]:
    """Samples by hostname: ``w1`` is the first worker's."""
    return tuple(PageSample({"hostname": {"w1": W1, "w2": W2}[host]}, value) for host, value in values.items())


def prometheus(**changes: Any) -> Evidence:
    """Return a healthy cluster but for what Prometheus has."""
    assert WELL.prometheus
    return replace(WELL, prometheus=replace(WELL.prometheus, **changes))
