"""Every metric family: the only place where one is declared. Docs, rules and dashboards are held against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]
Area = Literal["tasks", "workers", "queues", "exporter", "control", "compat"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. ``name`` is as exposed (counters end in ``_total``)."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    area: Area


TASK = ("name", "queue_name")
HOST = ("hostname",)
QUEUE = ("queue_name",)


def _family(area: Area, kind: Kind, name: str, labels: tuple[str, ...], text: str) -> Family:
    return Family(name=name, kind=kind, labels=labels, help=text, area=area)


# --- tasks ---------------------------------------------------------------------------------------------------
TASK_SENT = _family("tasks", "counter", "celery_task_sent_total", TASK, "Tasks sent (task-sent events).")
TASK_RECEIVED = _family("tasks", "counter", "celery_task_received_total", TASK, "Tasks received by a worker.")
TASK_STARTED = _family("tasks", "counter", "celery_task_started_total", TASK, "Task runs started.")
TASK_SUCCEEDED = _family("tasks", "counter", "celery_task_succeeded_total", TASK, "Task runs that succeeded.")
TASK_FAILED = _family(
    "tasks", "counter", "celery_task_failed_total", TASK, "Task runs that failed, whatever the exception."
)
TASK_RETRIED = _family("tasks", "counter", "celery_task_retried_total", TASK, "Task runs that ended in a retry.")
TASK_REJECTED = _family(
    "tasks",
    "counter",
    "celery_task_rejected_total",
    (*TASK, "requeue"),
    'Task runs rejected; requeue="true" is no end.',
)
TASK_REVOKED = _family(
    "tasks",
    "counter",
    "celery_task_revoked_total",
    (*TASK, "reason"),
    "Tasks revoked: revoked, terminated or expired.",
)
TASK_ACCEPTED = _family(
    "tasks",
    "counter",
    "celery_task_accepted_total",
    ("name",),
    "Task runs begun, as the workers count them (inspect stats).",
)
TASK_EXCEPTIONS = _family(
    "tasks",
    "counter",
    "celery_task_exceptions_total",
    (*TASK, "exception"),
    "Failed task runs by exception class.",
)
TASK_RUNTIME = _family(
    "tasks",
    "histogram",
    "celery_task_runtime_seconds",
    TASK,
    "Run time of succeeded tasks, as the worker measured it.",
)
TASK_FAILED_RUNTIME = _family(
    "tasks",
    "summary",
    "celery_task_failed_runtime_seconds",
    TASK,
    "Run time of failed tasks, from started to failed.",
)
TASK_WAIT = _family(
    "tasks",
    "histogram",
    "celery_task_wait_seconds",
    TASK,
    "Wait from sent (or its ETA) to started, corrected for clock offsets.",
)
TASK_IN_PROGRESS = _family("tasks", "gauge", "celery_task_in_progress", TASK, "Task runs started and not finished.")
TASK_OLDEST_START = _family(
    "tasks",
    "gauge",
    "celery_task_oldest_start_timestamp_seconds",
    TASK,
    "Start of the oldest unfinished run; absent when none.",
)
TASK_LAST_SUCCESS = _family(
    "tasks",
    "gauge",
    "celery_task_last_success_timestamp_seconds",
    ("name",),
    "When a task of this name last succeeded.",
)
TASK_THROUGHPUT = _family(
    "tasks",
    "gauge",
    "celery_task_throughput_per_second",
    TASK,
    "Finished tasks per second over the rate window.",
)
TASK_ERROR_RATIO = _family(
    "tasks",
    "gauge",
    "celery_task_error_ratio",
    TASK,
    "Failed share of finished tasks over the rate window; absent when none finished.",
)

# --- workers -------------------------------------------------------------------------------------------------
WORKER_UP = _family("workers", "gauge", "celery_worker_up", HOST, "1 while the worker shows signs of life.")
WORKER_SHUTDOWN = _family(
    "workers", "gauge", "celery_worker_shutdown", HOST, "1 after the worker said goodbye (worker-offline)."
)
WORKER_LAST_HEARTBEAT = _family(
    "workers",
    "gauge",
    "celery_worker_last_heartbeat_timestamp_seconds",
    HOST,
    "Receipt of the worker's last heartbeat.",
)
WORKER_ACTIVE = _family(
    "workers", "gauge", "celery_worker_tasks_active", HOST, "Tasks the worker runs, by its heartbeat."
)
WORKER_PROCESSED = _family(
    "workers",
    "counter",
    "celery_worker_tasks_processed_total",
    HOST,
    "Task runs begun, by the worker's heartbeats.",
)
WORKER_RESERVED = _family(
    "workers", "gauge", "celery_worker_tasks_reserved", HOST, "Tasks prefetched and waiting in the worker."
)
WORKER_SCHEDULED = _family(
    "workers", "gauge", "celery_worker_tasks_scheduled", HOST, "Tasks in the worker that wait for their ETA."
)
WORKER_POOL_SIZE = _family(
    "workers", "gauge", "celery_worker_pool_size", HOST, "Slots: tasks the worker can run at once."
)
WORKER_LOAD1 = _family("workers", "gauge", "celery_worker_load1", HOST, "Load average (1 minute) of the worker's host.")
WORKER_CLOCK_OFFSET = _family(
    "workers",
    "gauge",
    "celery_worker_clock_offset_seconds",
    HOST,
    "Our clock minus the worker's, as measured.",
)
WORKER_TASK_EVENTS = _family(
    "workers",
    "gauge",
    "celery_worker_task_events_enabled",
    HOST,
    "0 when the worker works but sends no task events.",
)
WORKER_INFO = _family(
    "workers",
    "gauge",
    "celery_worker_info",
    (*HOST, "version", "pool"),
    "Celery version and pool of the worker.",
)

# --- queues --------------------------------------------------------------------------------------------------
QUEUE_LENGTH = _family("queues", "gauge", "celery_queue_length", QUEUE, "Ready messages, all priorities.")
QUEUE_UNACKED = _family("queues", "gauge", "celery_queue_unacked", QUEUE, "Messages delivered and not acknowledged.")
QUEUE_OLDEST_TASK = _family(
    "queues",
    "gauge",
    "celery_queue_oldest_task_timestamp_seconds",
    (*QUEUE, "source"),
    "When the head of the queue was sent: by its stamp, its event, or as observed.",
)
QUEUE_OLDEST_UNACKED = _family(
    "queues",
    "gauge",
    "celery_queue_oldest_unacked_timestamp_seconds",
    QUEUE,
    "Delivery of the oldest unacknowledged message (Redis).",
)
QUEUE_CONSUMERS = _family("queues", "gauge", "celery_queue_consumers", QUEUE, "Workers that consume the queue.")
QUEUE_SLOTS = _family(
    "queues", "gauge", "celery_queue_pool_slots", QUEUE, "Pool slots of the workers that consume the queue."
)
QUEUE_VISIBILITY = _family(
    "queues",
    "gauge",
    "celery_queue_visibility_timeout_seconds",
    (),
    "After this long Redis redelivers an unacknowledged message, as configured here.",
)

# --- the exporter itself -------------------------------------------------------------------------------------
BUILD_INFO = _family(
    "exporter",
    "gauge",
    "celerymeter_build_info",
    ("version", "python", "celery"),
    "Versions of this exporter.",
)
START_TIME = _family("exporter", "gauge", "celerymeter_start_time_seconds", (), "When this exporter process started.")
BROKER_UP = _family("exporter", "gauge", "celerymeter_broker_up", (), "1 while the event stream is subscribed.")
WORKER_DUPLICATE = _family(
    "exporter",
    "gauge",
    "celerymeter_worker_duplicate",
    HOST,
    "1 when two processes send under one node name.",
)
RECONNECTS = _family(
    "exporter", "counter", "celerymeter_broker_reconnects_total", (), "Event stream subscriptions renewed."
)
EVENTS = _family("exporter", "counter", "celerymeter_events_total", ("event",), "Events received, by type.")
EVENTS_INVALID = _family(
    "exporter",
    "counter",
    "celerymeter_events_invalid_total",
    ("reason",),
    "Messages on the event channel that could not be used.",
)
EVENTS_MISSED = _family(
    "exporter",
    "counter",
    "celerymeter_events_missed_total",
    HOST,
    "Task runs whose events never arrived, from heartbeats.",
)
EVENTS_UNEXPLAINED = _family(
    "exporter",
    "gauge",
    "celerymeter_events_unexplained",
    HOST,
    "Runs without events whose cause is not yet known.",
)
EVENTS_DUPLICATE = _family(
    "exporter",
    "counter",
    "celerymeter_events_duplicate_total",
    ("event",),
    "Further ends of a run that had already ended.",
)
EVENT_LAG = _family(
    "exporter",
    "histogram",
    "celerymeter_event_lag_seconds",
    (),
    "From an event's timestamp to its receipt, less the clock offset.",
)
LAST_EVENT = _family(
    "exporter",
    "gauge",
    "celerymeter_last_event_timestamp_seconds",
    (),
    "Receipt of the newest event; absent before the first.",
)
WAITS_UNMEASURED = _family(
    "exporter",
    "counter",
    "celerymeter_waits_unmeasured_total",
    ("reason",),
    "Started tasks whose wait could not be measured.",
)
TRACKED = _family("exporter", "gauge", "celerymeter_tracked_tasks", (), "Unfinished tasks in memory.")
EVICTED = _family(
    "exporter",
    "counter",
    "celerymeter_tracked_tasks_evicted_total",
    ("reason",),
    "Unfinished tasks dropped from memory.",
)
SERIES = _family("exporter", "gauge", "celerymeter_series", (), "Series on the last page.")
FOLDED = _family(
    "exporter",
    "counter",
    "celerymeter_series_folded_total",
    ("label",),
    "Label values beyond a cap, folded into __other__.",
)
POLL_SUCCESS = _family(
    "exporter", "gauge", "celerymeter_poll_success", ("collector",), "1 when the last poll succeeded."
)
POLL_DURATION = _family(
    "exporter", "gauge", "celerymeter_poll_duration_seconds", ("collector",), "How long the last poll took."
)
POLL_LAST_SUCCESS = _family(
    "exporter",
    "gauge",
    "celerymeter_poll_last_success_timestamp_seconds",
    ("collector",),
    "When a poll last succeeded.",
)

# --- the control API (held by prometheus-client) ---------------------------------------------------------------
CONTROL_REQUESTS = _family(
    "control",
    "counter",
    "celerymeter_control_requests_total",
    ("route", "method", "code"),
    "HTTP requests answered.",
)
CONTROL_LATENCY = _family(
    "control",
    "histogram",
    "celerymeter_control_request_duration_seconds",
    ("route", "method"),
    "Time to answer a request.",
)
CONTROL_AUTH_FAILURES = _family(
    "control",
    "counter",
    "celerymeter_control_auth_failures_total",
    ("reason",),
    "Requests refused for want of a valid token.",
)
CONTROL_FEED_CLIENTS = _family("control", "gauge", "celerymeter_control_feed_clients", (), "Open WebSocket clients.")
CONTROL_FEED_DROPPED = _family(
    "control",
    "counter",
    "celerymeter_control_feed_dropped_total",
    (),
    "Updates that slow WebSocket clients lost.",
)
CONTROL_PROMQL_LATENCY = _family(
    "control",
    "histogram",
    "celerymeter_control_promql_duration_seconds",
    (),
    "Time Prometheus took to answer a query.",
)
CONTROL_PROMQL_FAILURES = _family(
    "control", "counter", "celerymeter_control_promql_failures_total", ("reason",), "Queries that failed."
)
CONTROL_ALERTS = _family(
    "control",
    "counter",
    "celerymeter_control_alerts_total",
    ("status",),
    "Alerts taken from the webhook, without repeats.",
)
CONTROL_REVOCATIONS = _family(
    "control", "counter", "celerymeter_revocations_total", ("outcome",), "Outcomes of revoked task ids."
)
CONTROL_HELD = _family(
    "control", "gauge", "celerymeter_control_held_revocations", (), "Task ids whose revoke is being held."
)
CONTROL_HELD_DROPPED = _family(
    "control",
    "counter",
    "celerymeter_control_held_dropped_total",
    ("reason",),
    "Held task ids given up before they were settled.",
)

CATALOGUE: tuple[Family, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""All families in the order of the page."""

# --- beside the catalogue, only with --compat celery-exporter: its families that we have under other names ------
COMPAT_RUNTIME = _family("compat", "histogram", "celery_task_runtime", TASK, "As celery_task_runtime_seconds.")
COMPAT_WAIT = _family("compat", "histogram", "celery_task_queue_wait_time", TASK, "As celery_task_wait_seconds.")
COMPAT_CONSUMERS = _family(
    "compat", "gauge", "celery_active_consumer_count", QUEUE, "Consumers of the queue, as RabbitMQ counts them."
)
COMPAT_WORKERS = _family("compat", "gauge", "celery_active_worker_count", QUEUE, "Workers that consume the queue.")
COMPAT_PROCESSES = _family("compat", "gauge", "celery_active_process_count", QUEUE, "As celery_queue_pool_slots.")
COMPATIBLE: tuple[Family, ...] = (COMPAT_RUNTIME, COMPAT_WAIT, COMPAT_CONSUMERS, COMPAT_WORKERS, COMPAT_PROCESSES)
