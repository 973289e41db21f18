"""Each check on evidence that has its fault, that has it nearly, and that is well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from celerymeter.doctor.checks import CHECKS, diagnose
from celerymeter.doctor.evidence import (
    Evidence,
    ExporterEvidence,
    Failure,
    FailureKind,
    Orphan,
    PageSample,
    PrometheusEvidence,
    ScrapeTarget,
    SenderEvents,
    WorkerReplies,
)
from celerymeter.model import QueueState
from celerymeter.worker_configuration import ScheduledTask, WorkerConfiguration

from .cases import BUSY, HEALTHY, IDLE, NOW, SCRAPED, W1, W2, WELL, broker, hosts, paged, watched

NO_TASK_EVENTS = SenderEvents({"worker-heartbeat": 3}, (10, 12, 14), (1, 1, 1), 0.0)
LONG_TASK = SenderEvents({"worker-heartbeat": 3}, (10, 10, 10), (1, 1, 1), 0.0)
LOSSY = SenderEvents({"worker-heartbeat": 3, "task-received": 20, "task-started": 9}, (10, 30), (1, 1), 0.0)
THREADS = {W1: WorkerReplies("threads", frozenset({"q"}))}
FAILED = Failure("refused", "Connection refused")


REPLIES = WELL.broker.replies


def with_reply(worker: str, **changes: Any) -> Evidence:
    """Return a healthy cluster but for what one worker answered."""
    return broker(replies={**REPLIES, worker: replace(REPLIES[worker], **changes)})


def visibility(first: float, second: float, *, exporter: float | None = None) -> Evidence:
    """Return a healthy cluster but for the visibility timeouts of two workers and of the exporter."""
    timeouts = {W1: first, W2: second}
    replies = {name: replace(REPLIES[name], visibility_timeout=timeouts[name]) for name in REPLIES}
    samples = () if exporter is None else (PageSample({}, exporter),)
    page = paged("celery_queue_visibility_timeout_seconds", *samples)
    return replace(page, broker=replace(page.broker, replies=replies))


def configured(*, queues: frozenset[str] = frozenset({"q"}), **settings: Any) -> Evidence:
    """Return a healthy cluster but for the configuration of one worker; both have the same pool."""
    plain, other = WorkerConfiguration(), replace(WorkerConfiguration(), **settings)
    replies = {W1: replace(REPLIES[W1], configuration=other, queues=queues)}
    replies[W2] = replace(REPLIES[W2], configuration=plain, pool=replies[W1].pool)
    return broker(replies=replies)


BEATS = frozenset({"celerybeat@a"})


def beat(value: float) -> tuple[PageSample, ...]:
    """A sample of the only beat."""
    return (PageSample({"hostname": "celerybeat@a"}, value),)


def entries(value: float) -> tuple[PageSample, ...]:
    """A sample of the only entry of a schedule."""
    return (PageSample({"schedule": "nightly", "name": "add"}, value),)


def scheduled(
    *, beats: frozenset[str] = frozenset(), registered: frozenset[str] | None = None, **changes: float
) -> Evidence:
    """Return a healthy cluster whose workers have a schedule of one entry, which sends ``add`` to the queue q."""
    entry = ScheduledTask("nightly", "add", queue_name="q", **changes)
    configuration = WorkerConfiguration(scheduled=(entry,))
    replies = {
        name: replace(reply, configuration=configuration, registered=registered) for name, reply in REPLIES.items()
    }
    return replace(WELL, broker=replace(WELL.broker, replies=replies, beats=beats))


def with_page(evidence: Evidence, name: str, *samples: PageSample) -> Evidence:
    """Return evidence with one more family on the exporter's page, and without Prometheus."""
    assert evidence.exporter
    page = {**evidence.exporter.page, name: samples}
    return replace(evidence, exporter=replace(evidence.exporter, page=page), prometheus=None)


def rabbitmq(*families: str) -> Evidence:
    """Return a healthy cluster on RabbitMQ, with these families of queues beside their lengths."""
    evidence = paged("celery_queue_length", PageSample({"queue_name": "q"}, 3))
    assert evidence.exporter
    more = {family: (PageSample({"queue_name": "q"}, 3),) for family in families}
    exporter = replace(evidence.exporter, page={**evidence.exporter.page, **more})
    return replace(evidence, broker=replace(evidence.broker, url="amqp://h//"), exporter=exporter, prometheus=None)


def findings(evidence: Evidence) -> list[tuple[str, str]]:
    """Return severity and code of all findings."""
    return [(finding.severity, finding.code) for finding in diagnose(evidence)]


def test_nothing_is_found_where_all_is_well() -> None:
    """Also with the broker alone."""
    assert findings(WELL) == []
    assert findings(broker()) == []


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("refused", "broker-refused"),
        ("unresolved", "broker-unknown-host"),
        ("password", "broker-password"),
        ("forbidden", "broker-forbidden"),
        ("timeout", "broker-timeout"),
        ("tls", "broker-tls"),
        ("missing", "broker-no-socket"),
        ("replica", "broker-replica"),
        ("loading", "broker-loading"),
        ("full", "broker-takes-no-writes"),
        ("clients", "broker-clients"),
        ("cluster", "broker-cluster"),
        ("blocked", "broker-blocked"),
        ("other", "broker-unreachable"),
    ],
)
def test_a_broker_out_of_reach_is_one_finding(kind: FailureKind, code: str) -> None:
    """With a code for each reason, and nothing about the workers, which are unknown."""
    evidence = Evidence(
        replace(WELL.broker, failure=Failure(kind, "x"), replies={}, watch=replace(WELL.broker.watch, senders={}))
    )
    assert findings(evidence) == [("fault", code)]


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        pytest.param(watched(failure="NOPERM"), ("fault", "events-unreadable"), id="no subscription"),
        pytest.param(
            broker(replies={}, watch=replace(WELL.broker.watch, senders={})),
            ("fault", "no-workers"),
            id="nobody",
        ),
        pytest.param(
            with_reply(W1, event_exchange="shop"), ("fault", "event-exchange-differs"), id="events on another exchange"
        ),
        pytest.param(
            with_reply(W1, transport_options={"sep": "~"}),
            ("hint", "transport-options-differ"),
            id="an option that we lack",
        ),
        pytest.param(with_reply(W1, time_zone="Asia/Taipei"), ("hint", "time-zones-differ"), id="two time zones"),
        pytest.param(configured(task_serializer="pickle"), ("hint", "serializers-differ"), id="pickle beside json"),
        pytest.param(configured(acks_late=True), ("hint", "acks-late-differs"), id="one acknowledges late"),
        pytest.param(configured(prefetch_multiplier=200), ("hint", "prefetch-differs"), id="one takes more"),
        pytest.param(
            configured(queue_arguments={"q": {"x-max-priority": 9}}),
            ("hint", "queue-arguments-differ"),
            id="one declares priorities",
        ),
        pytest.param(
            broker(replies={name: replace(answer, time_zone="local time UTC") for name, answer in REPLIES.items()}),
            ("hint", "time-zones-differ"),
            id="local times",
        ),
        pytest.param(
            watched(senders={W1: replace(BUSY, clock_offset=-7 * 3600 + 1.5), W2: BUSY}),
            ("hint", "clock-in-local-time"),
            id="a clock in local time",
        ),
        pytest.param(
            paged("celerymeter_last_event_timestamp_seconds", PageSample({}, NOW - 90)),
            ("fault", "exporter-deaf"),
            id="deaf",
        ),
        pytest.param(
            paged("celerymeter_last_event_timestamp_seconds"), ("fault", "exporter-deaf"), id="deaf since its start"
        ),
        pytest.param(broker(replies={W1: WELL.broker.replies[W1]}), ("hint", "no-remote-control"), id="one silent"),
        pytest.param(watched(senders={W1: BUSY}), ("hint", "no-heartbeats"), id="one without heartbeats"),
        pytest.param(
            watched(senders={W1: BUSY, W2: NO_TASK_EVENTS}), ("fault", "events-disabled"), id="works silently"
        ),
        pytest.param(watched(senders={W1: BUSY, W2: IDLE}), ("hint", "events-unproven"), id="idle"),
        pytest.param(
            broker(
                replies={**WELL.broker.replies, **THREADS},
                watch=replace(WELL.broker.watch, senders={W1: LOSSY, W2: BUSY}),
            ),
            ("hint", "threads-lose-events"),
            id="threads",
        ),
        pytest.param(
            watched(senders={W1: replace(BUSY, clock_offset=-30.0), W2: BUSY}), ("hint", "clock-skew"), id="clock"
        ),
        pytest.param(watched(unsent={"add": 2}), ("hint", "no-sent-events"), id="never sent"),
        pytest.param(
            broker(queues=(QueueState("lonely", length=1),)), ("fault", "queue-without-consumers"), id="lonely"
        ),
        pytest.param(
            paged("celerymeter_broker_up", PageSample({}, 0)), ("fault", "exporter-without-broker"), id="no broker"
        ),
        pytest.param(
            paged("celery_worker_up", PageSample({"hostname": "x"}, 1)), ("fault", "exporter-elsewhere"), id="elsewhere"
        ),
        pytest.param(
            paged("celerymeter_poll_success", PageSample({"collector": "queues"}, 0)),
            ("fault", "polls-failing"),
            id="polls",
        ),
        pytest.param(
            paged("celerymeter_events_missed_total", *hosts(w1=7, w2=0)), ("hint", "events-missed"), id="missed"
        ),
        pytest.param(
            paged("celerymeter_events_invalid_total", PageSample({"reason": "json"}, 2)),
            ("hint", "events-invalid"),
            id="invalid",
        ),
        pytest.param(watched(rejected={"json": 1}), ("hint", "events-invalid"), id="invalid while looking"),
        pytest.param(
            paged("celerymeter_worker_duplicate", *hosts(w1=1)), ("fault", "duplicate-node-name"), id="two of a name"
        ),
        pytest.param(
            paged("celerymeter_series_folded_total", PageSample({"label": "name"}, 1)),
            ("hint", "caps-reached"),
            id="caps",
        ),
        pytest.param(
            paged("celery_worker_clock_offset_seconds", *hosts(w1=6)), ("hint", "clock-skew"), id="clock by exporter"
        ),
        pytest.param(
            paged("celery_task_received_total", PageSample({"name": "mul"}, 3)),
            ("hint", "no-sent-events"),
            id="never sent by exporter",
        ),
        pytest.param(
            replace(WELL, exporter=ExporterEvidence("http://e", FAILED)),
            ("fault", "exporter-unreachable"),
            id="no exporter",
        ),
        pytest.param(
            replace(WELL, prometheus=PrometheusEvidence("http://p", FAILED)),
            ("fault", "prometheus-unreachable"),
            id="no Prometheus",
        ),
        pytest.param(
            replace(WELL, prometheus=PrometheusEvidence("http://p")),
            ("fault", "exporter-not-scraped"),
            id="not scraped",
        ),
        pytest.param(
            replace(WELL, control=replace(HEALTHY, failure=FAILED)),
            ("fault", "control-unreachable"),
            id="no control",
        ),
        pytest.param(
            replace(WELL, control=replace(HEALTHY, status="unhealthy")),
            ("fault", "control-unhealthy"),
            id="control unhealthy",
        ),
        pytest.param(
            replace(WELL, control=replace(HEALTHY, status="degraded")),
            ("hint", "control-unhealthy"),
            id="control degraded",
        ),
        pytest.param(
            broker(replies={W1: REPLIES[W1]}, other_replies={"application/x-python-serialize": frozenset({W2})}),
            ("hint", "reply-serializer"),
            id="pickled replies",
        ),
        pytest.param(
            broker(orphaned_lists=(Orphan("celeryev.1", 10_000, 2048),)), ("hint", "orphaned-lists"), id="orphans"
        ),
        pytest.param(
            broker(orphaned_queues=(Orphan("celeryev.1", 10_000),)), ("hint", "orphaned-queues"), id="orphaned queues"
        ),
        pytest.param(broker(queues_incomplete="HTTP 401"), ("fault", "queues-incomplete"), id="no management API"),
        pytest.param(visibility(3600, 3600, exporter=1800), ("fault", "visibility-timeout-differs"), id="visibility"),
        pytest.param(visibility(3600, 86400), ("hint", "visibility-timeout-differs"), id="two visibility timeouts"),
        pytest.param(rabbitmq(), ("hint", "no-management-url"), id="no management URL"),
        pytest.param(paged("celery_beat_up", *beat(0)), ("fault", "beat-down"), id="beat is dead"),
        pytest.param(scheduled(), ("hint", "beat-unknown"), id="a schedule, and no beat"),
        pytest.param(paged("celery_beat_duplicate", *beat(1)), ("fault", "beat-duplicate"), id="two beats"),
        pytest.param(
            paged("celery_schedule_next_due_timestamp_seconds", *entries(NOW - 90)),
            ("fault", "schedule-late"),
            id="an entry is late",
        ),
        pytest.param(
            paged("celery_schedule_consecutive_failures", *entries(2)),
            ("hint", "schedule-failing"),
            id="an entry fails",
        ),
        pytest.param(
            scheduled(registered=frozenset({"mul"}), beats=BEATS), ("fault", "schedule-unregistered"), id="no such task"
        ),
        pytest.param(
            with_page(
                scheduled(expires=30.0, beats=BEATS),
                "celery_queue_oldest_task_timestamp_seconds",
                PageSample({"queue_name": "q"}, NOW - 40),
            ),
            ("hint", "schedule-expires"),
            id="expires before its queue is empty",
        ),
        pytest.param(
            with_page(
                scheduled(beats=BEATS),
                "celery_task_revoked_total",
                PageSample({"name": "add", "queue_name": "q", "reason": "expired"}, 4),
            ),
            ("hint", "schedule-expires"),
            id="expired",
        ),
        pytest.param(
            with_page(
                with_page(
                    scheduled(every=60.0, beats=BEATS),
                    "celery_task_runtime_seconds_count",
                    PageSample({"name": "add", "queue_name": "q"}, 2),
                ),
                "celery_task_runtime_seconds_sum",
                PageSample({"name": "add", "queue_name": "q"}, 140),
            ),
            ("hint", "schedule-overlaps"),
            id="takes longer than its interval",
        ),
    ],
)
def test_each_fault_is_found_alone(evidence: Evidence, expected: tuple[str, str]) -> None:
    """One thing is wrong, and one line says so."""
    assert findings(evidence) == [expected]


@pytest.mark.parametrize(
    "evidence",
    [
        pytest.param(watched(senders={W1: BUSY}, seconds=3.0), id="too short a watch for heartbeats"),
        pytest.param(
            broker(
                replies={**WELL.broker.replies, W2: WorkerReplies(queues=frozenset("q"), sends_task_events=True)},
                watch=replace(WELL.broker.watch, senders={W1: BUSY, W2: IDLE}),
            ),
            id="idle, but its configuration says so",
        ),
        pytest.param(watched(senders={W1: LOSSY, W2: BUSY}), id="lossy, but no thread pool"),
        pytest.param(
            watched(senders={W1: replace(BUSY, clock_offset=4.9), W2: BUSY}), id="a clock that is nearly right"
        ),
        pytest.param(broker(queues=(QueueState("lonely", length=0),)), id="an empty queue"),
        pytest.param(
            broker(queues=(QueueState("lonely", length=1, consumers=1),)), id="consumers that only the broker knows"
        ),
        pytest.param(broker(queues=None), id="queues unknown"),
        pytest.param(
            broker(
                replies={**REPLIES, W1: replace(REPLIES[W1], transport_options={"sep": ":"})},
                transport_options={"sep": ":", "global_keyprefix": "x"},
            ),
            id="an option that we have as well",
        ),
        pytest.param(
            broker(
                replies={name: replace(answer, event_exchange="shop") for name, answer in REPLIES.items()},
                event_exchange="shop",
            ),
            id="an exchange that was given as an option",
        ),
        pytest.param(
            broker(replies={name: replace(answer, time_zone="Asia/Taipei") for name, answer in REPLIES.items()}),
            id="one time zone",
        ),
        pytest.param(
            paged("celerymeter_last_event_timestamp_seconds", PageSample({}, NOW - 20)), id="an event of just before"
        ),
        pytest.param(paged("celerymeter_events_missed_total", *hosts(w1=0)), id="none missed"),
        pytest.param(
            broker(
                replies={**REPLIES, W2: replace(REPLIES[W2], sends_task_events=True)},
                watch=replace(WELL.broker.watch, senders={W1: BUSY, W2: LONG_TASK}),
            ),
            id="one long task",
        ),
        pytest.param(visibility(86400, 86400, exporter=86400), id="one visibility timeout"),
        pytest.param(
            configured(accept_content=frozenset({"application/json", "application/x-python-serialize"})),
            id="the same content, by its types",
        ),
        pytest.param(configured(queues=frozenset({"other"}), acks_late=True), id="acks late in a queue of its own"),
        pytest.param(
            configured(queues=frozenset({"other"}), task_serializer="pickle", accept_content=frozenset({"pickle"})),
            id="another application on the same broker",
        ),
        pytest.param(visibility(86400, 86400), id="a visibility timeout, and an exporter that has none"),
        pytest.param(rabbitmq("celery_queue_unacked"), id="a management URL"),
        pytest.param(paged("celery_beat_up", *beat(1)), id="beat lives"),
        pytest.param(scheduled(beats=BEATS, registered=frozenset({"add"}), expires=30.0), id="a schedule and its beat"),
        pytest.param(
            paged("celery_schedule_next_due_timestamp_seconds", *entries(NOW - 50)), id="an entry that is just due"
        ),
        pytest.param(paged("celery_schedule_consecutive_failures", *entries(1)), id="one failure"),
        pytest.param(
            with_page(
                scheduled(beats=BEATS, registered=frozenset({"add"})),
                "celery_schedule_due_total",
                PageSample({"schedule": "celery.backend_cleanup", "name": "celery.backend_cleanup"}, 1),
            ),
            id="Celery's own entry",
        ),
        pytest.param(
            replace(WELL, prometheus=PrometheusEvidence("http://p", exporters=(SCRAPED,))),
            id="an engine without information about targets, rules and Alertmanagers",
        ),
    ],
)
def test_what_is_nearly_a_fault_is_none(evidence: Evidence) -> None:
    """The limits are where they are meant to be."""
    assert findings(evidence) == []


def test_where_nobody_is_other_places_are_named() -> None:
    """Beside the fault that nobody is here; with workers here the other places are nobody's business."""
    empty = {"replies": {}, "watch": replace(WELL.broker.watch, senders={})}
    places = ("database 1", "database 2 with global_keyprefix=shop_")
    nobody = ("fault", "no-workers")
    assert findings(broker(**empty, elsewhere=places)) == [nobody, ("hint", "queues-elsewhere")]
    assert findings(broker(**empty, only_results=True)) == [nobody, ("hint", "result-backend")]
    assert findings(broker(elsewhere=places, only_results=True)) == []


def test_the_exporter_knows_more_of_idle_workers() -> None:
    """It has seen them at work: with events they are no hint, without them a fault."""
    idle = replace(WELL.broker, watch=replace(WELL.broker.watch, senders={W1: IDLE, W2: IDLE}))
    seen = paged("celery_worker_tasks_processed_total", *hosts(w1=5, w2=5))
    assert findings(replace(seen, broker=idle)) == []
    silent = replace(idle, replies=WELL.broker.replies)
    found = diagnose(replace(paged("celery_worker_task_events_enabled", *hosts(w1=0, w2=1)), broker=silent))
    assert [(finding.code, W1 in finding.problem) for finding in found] == [
        ("events-disabled", True),
        ("events-unproven", False),
    ]


def test_one_sent_event_by_the_exporter_is_enough() -> None:
    """Tasks that were sent before it started have no task-sent; that is no hint."""
    evidence = replace(paged("celery_task_received_total", PageSample({"name": "add"}, 40)), prometheus=None)
    assert evidence.exporter
    page = {**evidence.exporter.page, "celery_task_sent_total": (PageSample({"name": "add"}, 1),)}
    assert findings(evidence) == [("hint", "no-sent-events")]
    assert findings(replace(evidence, exporter=replace(evidence.exporter, page=page))) == []


def test_a_queue_is_only_a_hint_while_a_worker_has_not_answered() -> None:
    """The silent one may be its consumer."""
    evidence = broker(queues=(QueueState("lonely", length=1),), replies={W1: WELL.broker.replies[W1]})
    assert findings(evidence) == [("hint", "no-remote-control"), ("hint", "queue-without-consumers")]


def test_a_failing_scrape_tells_its_error() -> None:
    """Prometheus' own words, for the target at the exporter's port only."""
    targets = (
        ScrapeTarget("http://n:9100/metrics", False, "node is down"),
        ScrapeTarget("http://e:9808/metrics", False, "connection refused"),
    )
    (finding,) = diagnose(replace(WELL, prometheus=PrometheusEvidence("http://p", targets=targets)))
    assert finding.code == "scrape-failing"
    assert "http://e:9808/metrics: connection refused" in finding.problem
    assert "node" not in finding.problem


def test_faults_come_first_and_long_lists_are_short() -> None:
    """Of many workers some are named and the rest counted."""
    many = {f"w{number}@h": NO_TASK_EVENTS for number in range(30)}
    found = diagnose(watched(senders=many, unsent={"add": 1}))
    assert [finding.severity for finding in found] == sorted(finding.severity for finding in found)
    (disabled,) = (finding for finding in found if finding.code == "events-disabled")
    assert "w0@h, w10@h, w11@h, w12@h, w13@h and 25 more" in disabled.problem


def test_every_check_says_what_it_is() -> None:
    """A line of documentation, and no check is listed twice."""
    assert all(check.__doc__ for check in CHECKS)
    assert len(set(CHECKS)) == len(CHECKS)
