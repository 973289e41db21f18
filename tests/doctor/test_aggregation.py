"""The doctor's findings for workers that aggregate, and for an exporter without a broker."""

from __future__ import annotations

import json
from dataclasses import replace

from celerymeter.doctor.checks import diagnose
from celerymeter.doctor.collect.broker import collect
from celerymeter.doctor.evidence import BrokerEvidence, Evidence, PageSample, SenderEvents, TotalsSeen
from celerymeter.doctor.report import as_json, as_text
from celerymeter.doctor.settings import DoctorSettings
from celerymeter.settings import BrokerSettings

from .cases import BUSY, W1, W2, WELL, paged, watched

BOUNDS = TotalsSeen((1.0, 2.0), (5.0,))
AGGREGATING = SenderEvents({"worker-heartbeat": 3, "celerymeter-totals": 3}, (10, 20, 30), (1, 2, 1), 0.01, BOUNDS)


def codes(evidence: Evidence) -> list[str]:
    """The findings."""
    return [finding.code for finding in diagnose(evidence)]


def test_totals_are_as_good_as_events() -> None:
    """Neither events nor task-sent are missed where all workers aggregate."""
    evidence = watched(senders={W1: AGGREGATING, W2: AGGREGATING}, unsent={"add": 3})
    assert codes(evidence) == []
    assert "2 workers (totals from all)" in as_text(diagnose(evidence), evidence)
    assert json.loads(as_json((), evidence))["aggregating"] == [W1, W2]


def test_it_says_which_worker_is_in_which_mode() -> None:
    evidence = watched(senders={W1: AGGREGATING, W2: BUSY})
    assert codes(evidence) == []
    assert f"2 workers (totals from {W1}, events from {W2})" in as_text((), evidence)


def test_a_worker_that_gave_up_is_a_fault() -> None:
    broken = replace(AGGREGATING, totals=replace(BOUNDS, failed=True))
    evidence = watched(senders={W1: broken, W2: BUSY})
    assert [(finding.severity, finding.code) for finding in diagnose(evidence)] == [("fault", "aggregation-failed")]


def test_buckets_are_compared_with_the_exporters() -> None:
    samples = [PageSample({"name": "add", "le": le}, 1) for le in ("1.0", "2.0", "+Inf")]
    page = paged("celery_task_runtime_seconds_bucket", *samples)
    senders = {W1: AGGREGATING, W2: replace(AGGREGATING, totals=TotalsSeen((1.0,), (5.0,)))}
    evidence = replace(page, broker=replace(page.broker, watch=replace(page.broker.watch, senders=senders)))
    (finding,) = diagnose(evidence)
    assert (finding.severity, finding.code) == ("hint", "bounds-differ")
    assert f"{W2} has other runtime buckets than the exporter" in finding.problem


def test_without_the_exporter_buckets_are_compared_among_workers() -> None:
    other = replace(AGGREGATING, totals=TotalsSeen((1.0, 2.0), (6.0,)))
    (finding,) = diagnose(watched(senders={W1: AGGREGATING, W2: other}))
    assert f"{W2} has other wait buckets than other workers" in finding.problem


def test_without_a_broker_it_says_that_queues_are_unknown() -> None:
    broker = collect(DoctorSettings(BrokerSettings(url="none")), progress=lambda _: None)
    assert broker == BrokerEvidence("none", absent=True)
    assert codes(replace(WELL, broker=broker)) == ["queues-unknown"]
