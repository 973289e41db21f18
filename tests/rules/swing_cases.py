"""For each alert a cause that comes and goes, every few minutes: where there is a limit, just above and just below it.

What lies below a limit lies above half of it: counted twice, it would never fall below.
"""

from __future__ import annotations

from dataclasses import replace

from tests.rules.swings import CONTROL, LONG, Case, Series, Value, Wave, always, counter, gauge, moment

LASTING = {
    "CeleryExporterAbsent-critical": "a configuration that is not there",
    "CeleryThresholdsMissing-critical": "a configuration that is not there",
    "CelerySeriesCapReached-warning": "a counter that never falls",
    "CeleryQueueNoConsumers-info": "a queue in which anything changes is not disused",
    "CeleryTrafficFell-warning": "it compares with last week",
    "CeleryChordStuck-warning": "a chord that ends is silence for two hours",
    "CeleryTaskOverdue-info": "after successes that come and go there is no usual interval",
    "Watchdog-info": "it always fires",
}
"""Alerts whose cause does not come and go every few minutes, and why."""
QUEUE = {"queue_name": "orders"}
TASK = {"name": "shop.pay", **QUEUE}
HOST = {"hostname": "celery@a"}
WARNING, CRITICAL = {"severity": "warning"}, {"severity": "critical"}
EVERY_MINUTE = 100.0
"""Runs, where their share is what counts."""


def length(values: list[Value]) -> Series:
    """Of the queue."""
    return gauge("celery_queue_length", values, **QUEUE)


def started() -> Series:
    """The task is known."""
    return gauge("celery_task_started_total", always(1), **TASK)


def runs(failing: list[Value]) -> tuple[Series, ...]:
    """Of which this share fails."""
    failed = [EVERY_MINUTE * (share or 0.0) for share in failing]
    return (
        counter("celery_task_started_total", always(EVERY_MINUTE), **TASK),
        counter("celery_task_failed_total", failed, **TASK),
        counter("celery_task_succeeded_total", [EVERY_MINUTE - number for number in failed], **TASK),
    )


def waits(late: list[Value]) -> tuple[Series, ...]:
    """Of which this share is longer than a minute."""
    good = [EVERY_MINUTE * (1 - (share or 0.0)) for share in late]
    return (
        started(),
        PROMPT,
        counter("celery_task_wait_seconds_bucket", good, **TASK, le="60.0"),
        counter("celery_task_wait_seconds_bucket", always(EVERY_MINUTE), **TASK, le="+Inf"),
        counter("celery_task_wait_seconds_count", always(EVERY_MINUTE), **TASK),
    )


def runtimes(slow: list[Value]) -> tuple[Series, ...]:
    """Of which this share takes ten minutes."""
    quick = [EVERY_MINUTE * (1 - (share or 0.0)) for share in slow]
    return (
        started(),
        counter("celery_task_runtime_seconds_bucket", quick, **TASK, le="300.0"),
        counter("celery_task_runtime_seconds_bucket", always(EVERY_MINUTE), **TASK, le="900.0"),
        counter("celery_task_runtime_seconds_bucket", always(EVERY_MINUTE), **TASK, le="+Inf"),
    )


def chosen(name: str, value: float, /, **labels: str) -> Series:
    """A line of somebody's own in thresholds.yml."""
    return gauge(f"celery:{name}:limit", always(value), **labels)


def bursts(size: float, *minutes: int) -> list[Value]:
    """Increments: so many in each of these minutes."""
    return [size if minute in minutes else 0 for minute in range(len(always(0)))]


SUCCESS = chosen("success_objective", 0.99, name="shop.pay")
PROMPT = chosen("wait_target", 60, **QUEUE)
"""Objectives that somebody chose."""


def growing() -> list[Value]:
    """A queue that grows by a message every five minutes, and now and then is as long as its limit."""
    wave = Wave(35, 1, span=LONG)
    longer = [51 + 0.2 * (minute - LONG.first) for minute in range(len(always(0)))]
    return [
        high if there else low
        for high, there, low in zip(longer, wave.values(1, 0), wave.values(0, 50, 10), strict=True)
    ]


def exceptions(name: str, wave: Wave) -> tuple[Series, ...]:
    """One a wave."""
    return started(), counter("celery_task_exceptions_total", wave.values(1, 0), **TASK, exception=name)


def control(name: str, increments: list[Value], /, **labels: str) -> Series:
    """A counter of the control API."""
    return replace(counter(name, increments, **labels), instance=CONTROL)


def worker(wave: Wave, *, shutdown: float, hostname: str = "celery@a") -> tuple[Series, ...]:
    """One that comes and goes."""
    return (
        gauge("celery_worker_up", wave.values(0, 1), hostname=hostname),
        gauge("celery_worker_shutdown", always(shutdown), hostname=hostname),
    )


QUEUES = (
    Case("CeleryQueueBacklog", (length(Wave(4, 3).values(60, 40)),), WARNING),
    Case(
        "CeleryQueueBacklog",
        (length(Wave(4, 3).values(120, 80, 10)), chosen("queue_backlog", 100, **QUEUE, **CRITICAL)),
        CRITICAL,
        also=("CeleryQueueWillNotDrain",),
    ),
    Case(
        "CeleryQueueNoConsumers",
        (length(Wave(130, 0).values(5, 0)), gauge("celery_queue_consumers", Wave(7, 1).values(0, 1), **QUEUE)),
        CRITICAL,
    ),
    Case(
        "CeleryQueueStalled",
        (
            length(Wave(130, 0).values(9, 0)),
            gauge("celery_queue_free_slots", always(4), **QUEUE),
            counter("celery_task_started_total", Wave(12, 1).values(0, 1, 0), **TASK),
        ),
    ),
    *(
        Case(
            "CeleryQueueHeadOld",
            (
                length(always(1)),
                gauge("celery_queue_consumers", always(1), **QUEUE),
                chosen("queue_age", 3600, **QUEUE, **CRITICAL),
                moment(
                    "celery_queue_oldest_task_timestamp_seconds",
                    Wave(4, 3).values(1.2 * limit, 0.8 * limit, 100),
                    **QUEUE,
                    source="stamp",
                ),
            ),
            severity,
        )
        for limit, severity in ((1800, WARNING), (3600, CRITICAL))
    ),
    Case("CeleryQueueWillNotDrain", (length(growing()),), WARNING, also=("CeleryQueueBacklog",), span=LONG),
    Case(
        "CeleryQueueWillNotDrain",
        (
            length([float(minute) for minute in range(len(always(0)))]),
            gauge("celery_queue_consumers", always(1), **QUEUE),
            moment(
                "celery_queue_oldest_task_timestamp_seconds",
                Wave(8, 3).values(2100, 1500),
                **QUEUE,
                source="stamp",
            ),
        ),
        CRITICAL,
        also=("CeleryQueueBacklog", "CeleryQueueHeadOld"),
    ),
    Case(
        "CeleryMessagesLost",
        (
            length(always(0)),
            counter("celery_task_sent_total", [10 + (lost or 0) for lost in bursts(34, 40, 102)], **TASK),
            counter("celery_task_received_total", always(10), **TASK),
        ),
        span=LONG,
    ),
    Case(
        "CeleryRedeliveryRisk",
        (
            moment("celery_queue_oldest_unacked_timestamp_seconds", Wave(4, 3).values(2880, 2160), **QUEUE),
            gauge("celery_queue_visibility_timeout_seconds", always(3600)),
        ),
    ),
)

TASKS = (
    Case("CeleryHighErrorRate", runs(Wave(3, 3, lead=5).values(0.11, 0, 0.06)), WARNING),
    Case("CeleryHighErrorRate", runs(Wave(3, 3, lead=5).values(0.9, 0)), CRITICAL),
    Case(
        "CeleryTaskAlwaysFails",
        (
            started(),
            counter("celery_task_failed_total", Wave(1, 24, span=LONG).values(1, 0), **TASK),
            counter("celery_task_succeeded_total", always(0), **TASK),
        ),
        span=LONG,
    ),
    Case(
        "CeleryTaskSlow",
        (*runtimes(Wave(8, 8, lead=15).values(0.1, 0)), chosen("task_runtime", 300, **WARNING, name="shop.pay")),
    ),
    Case(
        "CeleryTaskStuck",
        (
            started(),
            moment("celery_task_oldest_start_timestamp_seconds", Wave(4, 4).values(3900, 3300), **TASK),
            chosen("task_stuck", 3600, **WARNING, name="shop.pay"),
        ),
    ),
    Case(
        "CeleryRetryStorm",
        (
            started(),
            counter("celery_task_failed_total", always(0), **TASK),
            counter("celery_task_succeeded_total", always(10), **TASK),
            counter("celery_task_retried_total", Wave(3, 3, lead=8).values(15, 5, 0), **TASK),
        ),
    ),
    Case(
        "CeleryTasksExpired",
        (
            counter("celery_task_started_total", always(1), **TASK),
            counter("celery_task_revoked_total", bursts(12, 38, 106), **TASK, reason="expired"),
        ),
        span=LONG,
    ),
    Case(
        "CeleryTaskRanTwice",
        (started(), counter("celery_task_redelivered_total", Wave(1, 7).values(1, 0), **TASK)),
    ),
    Case(
        "CeleryPoolProcessLost",
        (started(), counter("celery_task_process_lost_total", Wave(1, 7).values(1, 0), **TASK)),
    ),
    *(
        Case(
            "CeleryRunsWithoutResult",
            (
                counter("celery_task_started_total", always(EVERY_MINUTE), **TASK),
                counter(
                    "celery_task_ended_without_result_total",
                    Wave(3, 3, lead=5).values(EVERY_MINUTE * share, 0),
                    **TASK,
                ),
            ),
            severity,
        )
        for share, severity in ((0.09, WARNING), (0.9, CRITICAL))
    ),
    Case("CeleryTimeLimitExceeded", exceptions("SoftTimeLimitExceeded", Wave(1, 7))),
)

REPORT = {"name": "shop.report"}
ENTRY = {"schedule": "nightly", **REPORT}


def last_success(ages: list[Value]) -> Series:
    """So many seconds ago."""
    return moment("celery_task_last_success_timestamp_seconds", ages, **REPORT)


SCHEDULES = (
    *(
        Case(
            "CeleryTaskOverdue",
            (last_success(Wave(4, 3).values(3900, 3300)), chosen("task_max_age", 3600, **severity, **REPORT)),
            severity,
        )
        for severity in (WARNING, CRITICAL)
    ),
    Case("CeleryBeatDown", (gauge("celery_beat_up", Wave(4, 1).values(0, 1), hostname="celerybeat@a"),)),
    Case("CeleryBeatDuplicate", (gauge("celery_beat_duplicate", Wave(3, 1).values(1, 0), hostname="celerybeat@a"),)),
    *(
        Case(
            "CeleryScheduleMissed",
            (
                counter("celery_schedule_due_total", always(1), **ENTRY),
                moment("celery_schedule_next_due_timestamp_seconds", Wave(4, 3).values(320, 280, -60), **ENTRY),
                chosen("schedule_missed", 300, **severity, schedule="nightly"),
            ),
            severity,
        )
        for severity in (WARNING, CRITICAL)
    ),
    Case(
        "CeleryScheduleFailing",
        (
            counter("celery_schedule_due_total", always(1), **ENTRY),
            gauge("celery_schedule_consecutive_failures", Wave(4, 3).values(2, 1, 0), **ENTRY),
        ),
    ),
)

OBJECTIVES = (
    Case(
        "CeleryErrorBudgetBurn",
        (*runs(Wave(4, 4, lead=40, span=LONG).values(0.4, 0)), SUCCESS),
        {"window": "1h"},
        also=("CeleryHighErrorRate",),
        span=LONG,
    ),
    Case(
        "CeleryErrorBudgetBurn",
        (*runs(Wave(25, 15, span=LONG).values(0.1, 0, 0.1)), SUCCESS),
        {"window": "6h"},
        also=("CeleryHighErrorRate",),
        span=LONG,
    ),
    Case(
        "CeleryErrorBudgetBurn",
        (*runs(Wave(5, 5, span=LONG).values(0.021, 0, 0.01)), SUCCESS),
        {"window": "3d"},
        fires=False,
        span=LONG,
    ),
    Case("CeleryWaitBudgetBurn", waits(Wave(4, 4, lead=50, span=LONG).values(1, 0.5, 0)), {"window": "1h"}, span=LONG),
    Case("CeleryWaitBudgetBurn", waits(Wave(25, 15, span=LONG).values(0.5, 0, 0.5)), {"window": "6h"}, span=LONG),
    Case(
        "CeleryWaitBudgetBurn",
        waits(Wave(5, 5, span=LONG).values(0.105, 0, 0.05)),
        {"window": "3d"},
        fires=False,
        span=LONG,
    ),
    Case(
        "CeleryWaitTargetUnusable",
        (
            started(),
            PROMPT,
            counter("celery_task_wait_seconds_bucket", Wave(12, 10).values(3, 0), **TASK, le="50.0"),
            counter("celery_task_wait_seconds_count", Wave(12, 10).values(3, 0), **TASK),
        ),
    ),
)

WORKERS = (
    Case(
        "CeleryNoWorkers",
        (*worker(Wave(4, 1), shutdown=1, hostname="celery@base"), length(always(5))),
        CRITICAL,
    ),
    Case(
        "CeleryNoWorkers",
        worker(Wave(4, 1), shutdown=0, hostname="celery@base"),
        WARNING,
        also=("CeleryWorkerDown", "CeleryWorkerFlapping"),
    ),
    Case(
        "CeleryWorkerDown",
        (*worker(Wave(4, 1), shutdown=0), moment("celery_worker_last_heartbeat_timestamp_seconds", always(60), **HOST)),
        also=("CeleryWorkerFlapping",),
    ),
    Case("CeleryWorkerFlapping", worker(Wave(1, 10, span=LONG), shutdown=0), span=LONG),
    Case("CeleryWorkerDuplicate", (gauge("celerymeter_worker_duplicate", Wave(3, 1).values(1, 0), **HOST),)),
    Case("CeleryWorkerNoTaskEvents", (gauge("celery_worker_task_events_enabled", Wave(4, 1).values(0, 1), **HOST),)),
    Case("CeleryWorkerClockSkew", (gauge("celery_worker_clock_offset_seconds", Wave(7, 4).values(6, -4), **HOST),)),
    Case(
        "CeleryWorkerStuck",
        (
            *worker(Wave(0, 1), shutdown=0),
            gauge("celery_worker_tasks_reserved", Wave(130, 0).values(3, 0), **HOST),
            gauge("celery_worker_tasks_active", always(0), **HOST),
            counter("celery_worker_tasks_processed_total", Wave(12, 1).values(0, 1, 0), **HOST),
            moment("celery_worker_last_heartbeat_timestamp_seconds", always(1), **HOST),
        ),
        CRITICAL,
    ),
    Case(
        "CeleryWorkerHoarding",
        (
            gauge("celery_worker_tasks_reserved", Wave(7, 4).values(24, 16), **HOST),
            gauge("celery_worker_pool_size", always(4), **HOST),
            gauge("celery_queue_free_slots", always(2), **QUEUE),
            gauge("celery_queue_unacked", always(50), **QUEUE),
            gauge("celery_task_in_progress", always(1), **QUEUE, name="shop.pay"),
        ),
    ),
    Case("CeleryWorkerManyScheduled", (gauge("celery_worker_tasks_scheduled", Wave(7, 4).values(6000, 4000), **HOST),)),
    Case(
        "CeleryCapacityLost",
        (
            *worker(Wave(0, 1), shutdown=0),
            gauge("celery_worker_pool_size", always(4), **HOST),
            gauge(
                "celery_worker_up", [1 if minute < 12 else 0 for minute in range(len(always(0)))], hostname="celery@b"
            ),
            gauge(
                "celery_worker_shutdown",
                [0 if minute < 12 else 1 for minute in range(len(always(0)))],
                hostname="celery@b",
            ),
            gauge("celery_worker_pool_size", always(12), hostname="celery@b"),
            length(always(5)),
            moment("celery_queue_oldest_task_timestamp_seconds", Wave(7, 3).values(90, 30), **QUEUE, source="stamp"),
        ),
    ),
    Case(
        "CeleryPoolSaturated",
        (
            *worker(Wave(0, 1), shutdown=0),
            gauge("celery_worker_pool_size", always(4), **HOST),
            counter("celery_worker_busy_seconds_total", always(240), **HOST),
            length(Wave(8, 3).values(5, 0)),
        ),
    ),
)

EXPORTERS = (
    Case(
        "CeleryExporterDown",
        (
            replace(gauge("up", Wave(4, 1).values(0, 1)), instance="z:9808"),
            replace(gauge("celerymeter_build_info", Wave(4, 1).values(None, 1)), instance="z:9808"),
        ),
        WARNING,
    ),
    Case(
        "CeleryExporterDown",
        (
            gauge("up", Wave(4, 1).values(0, 1)),
            gauge("celerymeter_build_info", Wave(4, 1).values(None, 1)),
            gauge("celerymeter_start_time_seconds", Wave(4, 1).values(None, -7200)),
            gauge("celerymeter_broker_up", Wave(4, 1).values(None, 1)),
        ),
        CRITICAL,
    ),
    Case("CeleryBrokerDown", (gauge("celerymeter_broker_up", Wave(3, 1).values(0, 1)),)),
    Case("CeleryBrokerBlocked", (gauge("celery_broker_blocked", Wave(2, 1).values(1, 0)),)),
    Case(
        "CeleryBrokerMemoryHigh",
        (
            gauge("celery_broker_memory_used_bytes", Wave(6, 3).values(87, 83)),
            gauge("celery_broker_memory_max_bytes", always(100)),
        ),
    ),
    Case("CeleryBrokerEvictsKeys", (counter("celery_broker_evicted_keys_total", Wave(1, 11).values(1, 0)),)),
    Case("CeleryOrphanedMessages", (gauge("celery_broker_orphaned_bytes", Wave(16, 3).values(22e6, 20e6)),)),
    Case(
        "CeleryEventStreamStale",
        (
            moment("celerymeter_last_event_timestamp_seconds", Wave(3, 3).values(130, 100)),
            gauge("celery_queue_consumers", always(1), **QUEUE),
            moment("celery_worker_last_heartbeat_timestamp_seconds", always(1), **HOST),
            gauge("celery_worker_pool_size", always(4), **HOST),
        ),
        each_exporter=True,
    ),
    Case("CeleryEventsMissed", (counter("celerymeter_events_missed_total", Wave(1, 11).values(1, 0), **HOST),)),
    Case(
        "CeleryEventsInvalid",
        (counter("celerymeter_events_invalid_total", Wave(1, 17).values(1, 0), reason="json"),),
    ),
    Case("CeleryPollsFailing", (gauge("celerymeter_poll_success", Wave(7, 1).values(0, 1), collector="queues"),)),
)

CONTROLS = (
    Case(
        "CeleryControlDown",
        (
            replace(gauge("up", Wave(4, 1).values(0, 1)), instance=CONTROL),
            replace(gauge("celerymeter_control_feed_clients", Wave(4, 1).values(None, 0)), instance=CONTROL),
        ),
    ),
    Case(
        "CeleryControlErrors",
        (
            control("celerymeter_control_requests_total", Wave(3, 3, lead=10).values(11, 0), code="503"),
            control("celerymeter_control_requests_total", Wave(3, 3, lead=10).values(89, 100), code="200"),
        ),
    ),
    Case(
        "CeleryControlAuthFailures",
        (control("celerymeter_control_auth_failures_total", Wave(3, 3, lead=6).values(6, 2, 0), reason="expired"),),
    ),
    Case(
        "CeleryControlPrometheusFailing",
        (control("celerymeter_control_promql_failures_total", Wave(3, 3, lead=6).values(2, 0), reason="timeout"),),
    ),
    Case(
        "CeleryRevokedTaskRan",
        (control("celerymeter_revocations_total", Wave(1, 11).values(1, 0), outcome="ran_anyway"),),
    ),
    Case(
        "CeleryRevocationsDropped",
        (control("celerymeter_control_held_dropped_total", Wave(1, 11).values(1, 0), reason="full"),),
    ),
)

CASES = (*QUEUES, *TASKS, *SCHEDULES, *OBJECTIVES, *WORKERS, *EXPORTERS, *CONTROLS)
