"""The catalogue: every metric family is declared here, and nowhere else.

The metric tables of the documentation are made of it; rules, dashboards and the golden page are checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]
Area = Literal["tasks", "workers", "queues", "schedules", "exporter", "control", "compat"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. ``name`` is as exposed (counters end in ``_total``)."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    area: Area


class _Section:
    """Declares the families of one area."""

    def __init__(self, area: Area) -> None:
        self._area = area

    def counter(self, name: str, labels: tuple[str, ...], text: str) -> Family:
        return Family(name=name, kind="counter", labels=labels, help=text, area=self._area)

    def gauge(self, name: str, labels: tuple[str, ...], text: str) -> Family:
        return Family(name=name, kind="gauge", labels=labels, help=text, area=self._area)

    def histogram(self, name: str, labels: tuple[str, ...], text: str) -> Family:
        return Family(name=name, kind="histogram", labels=labels, help=text, area=self._area)

    def summary(self, name: str, labels: tuple[str, ...], text: str) -> Family:
        return Family(name=name, kind="summary", labels=labels, help=text, area=self._area)


TASK = ("name", "queue_name")
HOST = ("hostname",)
QUEUE = ("queue_name",)

# --- tasks ---------------------------------------------------------------------------------------------------
_tasks = _Section("tasks")
TASK_SENT = _tasks.counter("celery_task_sent_total", TASK, "Tasks sent (task-sent events).")
TASK_RECEIVED = _tasks.counter("celery_task_received_total", TASK, "Tasks received by a worker.")
TASK_STARTED = _tasks.counter("celery_task_started_total", TASK, "Task runs started.")
TASK_SUCCEEDED = _tasks.counter("celery_task_succeeded_total", TASK, "Task runs that succeeded.")
TASK_FAILED = _tasks.counter("celery_task_failed_total", TASK, "Task runs that failed, whatever the exception.")
TASK_RETRIED = _tasks.counter("celery_task_retried_total", TASK, "Task runs that ended in a retry.")
TASK_POLLED = _tasks.counter(
    "celery_task_retried_without_exception_total",
    TASK,
    "Retried runs whose retry names no exception: a task that polls with self.retry(), as celery.chord_unlock does.",
)
TASK_REJECTED = _tasks.counter(
    "celery_task_rejected_total", (*TASK, "requeue"), 'Task runs rejected; with requeue="true" the task has not ended.'
)
TASK_REDELIVERED = _tasks.counter(
    "celery_task_redelivered_total",
    TASK,
    "Runs started again without a retry, while unfinished or after they ended: tasks that may have run twice.",
)
TASK_WITHOUT_RESULT = _tasks.counter(
    "celery_task_ended_without_result_total",
    TASK,
    "Runs that ended without an event, although we heard their worker: Ignore, or a result backend that is down.",
)
TASK_SHUTDOWN_LOST = _tasks.counter(
    "celery_task_shutdown_lost_total",
    TASK,
    "Runs of workers that shut down whose end was not reported within --drain-time: they outlived the grace period.",
)
TASK_REVOKED = _tasks.counter(
    "celery_task_revoked_total", (*TASK, "reason"), "Tasks revoked: revoked, terminated or expired."
)
TASK_ACCEPTED = _tasks.counter(
    "celery_task_accepted_total", ("name",), "Task runs begun, as the workers count them (inspect stats)."
)
TASK_EXCEPTIONS = _tasks.counter(
    "celery_task_exceptions_total", (*TASK, "exception"), "Failed task runs by exception class."
)
TASK_PROCESS_LOST = _tasks.counter(
    "celery_task_process_lost_total",
    TASK,
    "Runs whose pool process died: WorkerLostError, or a message that was returned to the broker after its start.",
)
TASK_RUNTIME = _tasks.histogram(
    "celery_task_runtime_seconds", TASK, "Run time of succeeded tasks, as the worker measured it."
)
TASK_FAILED_RUNTIME = _tasks.summary(
    "celery_task_failed_runtime_seconds", TASK, "Run time of failed tasks, from started to failed."
)
TASK_WAIT = _tasks.histogram(
    "celery_task_wait_seconds", TASK, "Wait from sent (or its ETA) to started, corrected for clock offsets."
)
TASK_IN_PROGRESS = _tasks.gauge("celery_task_in_progress", TASK, "Task runs started and not finished.")
TASK_OLDEST_START = _tasks.gauge(
    "celery_task_oldest_start_timestamp_seconds", TASK, "Start of the oldest unfinished run; absent if there is none."
)
TASK_BUSY = _tasks.counter(
    "celery_task_busy_seconds_total", TASK, "Seconds that runs took a slot, runs in progress included."
)
TASK_LAST_SUCCESS = _tasks.gauge(
    "celery_task_last_success_timestamp_seconds", ("name",), "When a task of this name last succeeded."
)
TASK_THROUGHPUT = _tasks.gauge(
    "celery_task_throughput_per_second", TASK, "Finished tasks per second over the rate window."
)
TASK_ERROR_RATIO = _tasks.gauge(
    "celery_task_error_ratio",
    TASK,
    "Share of failed tasks among those finished in the rate window; absent if none finished.",
)

# --- workers -------------------------------------------------------------------------------------------------
_workers = _Section("workers")
WORKER_UP = _workers.gauge("celery_worker_up", HOST, "1 while the worker is alive.")
WORKER_SHUTDOWN = _workers.gauge("celery_worker_shutdown", HOST, "1 after the worker shut down (worker-offline event).")
WORKER_FIRST_SEEN = _workers.gauge(
    "celery_worker_first_seen_timestamp_seconds", HOST, "When this worker process was first seen."
)
WORKER_LAST_HEARTBEAT = _workers.gauge(
    "celery_worker_last_heartbeat_timestamp_seconds", HOST, "When the worker's last heartbeat arrived."
)
WORKER_ACTIVE = _workers.gauge("celery_worker_tasks_active", HOST, "Tasks the worker runs, by its heartbeat.")
WORKER_PROCESSED = _workers.counter(
    "celery_worker_tasks_processed_total", HOST, "Task runs begun, by the worker's heartbeats."
)
WORKER_BUSY = _workers.counter(
    "celery_worker_busy_seconds_total", HOST, "Seconds that the worker's slots were taken, runs in progress included."
)
WORKER_RESERVED = _workers.gauge("celery_worker_tasks_reserved", HOST, "Tasks prefetched and waiting in the worker.")
WORKER_SCHEDULED = _workers.gauge("celery_worker_tasks_scheduled", HOST, "Tasks in the worker that wait for their ETA.")
WORKER_POOL_SIZE = _workers.gauge("celery_worker_pool_size", HOST, "Slots: tasks the worker can run at once.")
WORKER_LOAD1 = _workers.gauge("celery_worker_load1", HOST, "Load average (1 minute) of the worker's host.")
WORKER_CLOCK_OFFSET = _workers.gauge(
    "celery_worker_clock_offset_seconds", HOST, "Our clock minus the worker's, as measured."
)
WORKER_TASK_EVENTS = _workers.gauge(
    "celery_worker_task_events_enabled", HOST, "0 when the worker works but sends no task events."
)
WORKER_INFO = _workers.gauge(
    "celery_worker_info",
    (*HOST, "version", "pool", "mode"),
    "Celery version and pool of the worker, and whether it sends task events or aggregates them (mode).",
)
WORKER_APPLICATION = _workers.gauge(
    "celery_worker_application_info",
    (*HOST, "version"),
    "Version of the worker's application, as given to celerymeter.stamp.install or celerymeter.aggregate.install.",
)

# --- queues --------------------------------------------------------------------------------------------------
_queues = _Section("queues")
QUEUE_LENGTH = _queues.gauge("celery_queue_length", QUEUE, "Ready messages, all priorities.")
QUEUE_UNACKED = _queues.gauge("celery_queue_unacked", QUEUE, "Messages delivered and not acknowledged.")
QUEUE_OLDEST_TASK = _queues.gauge(
    "celery_queue_oldest_task_timestamp_seconds",
    (*QUEUE, "source"),
    "When the queue's oldest message was sent: from its stamp, its event, or as observed.",
)
QUEUE_OLDEST_UNACKED = _queues.gauge(
    "celery_queue_oldest_unacked_timestamp_seconds",
    QUEUE,
    "When the oldest unacknowledged message was delivered (Redis).",
)
QUEUE_CONSUMERS = _queues.gauge("celery_queue_consumers", QUEUE, "Workers that consume the queue.")
QUEUE_SLOTS = _queues.gauge("celery_queue_pool_slots", QUEUE, "Pool slots of the workers that consume the queue.")
QUEUE_FREE_SLOTS = _queues.gauge(
    "celery_queue_free_slots", QUEUE, "Pool slots without a run, of the workers that consume the queue."
)
DELAYED = _queues.gauge(
    "celery_delayed_tasks", (), "Tasks that RabbitMQ holds until their ETA (native delayed delivery)."
)
QUEUE_VISIBILITY = _queues.gauge(
    "celery_queue_visibility_timeout_seconds",
    (),
    "Time after which Redis redelivers an unacknowledged message: the shortest that a worker is configured with, "
    "unless --transport-option visibility_timeout is given.",
)

# --- schedules: beat with the hook (celerymeter.schedule), or with its own remote control ----------------------
_schedules = _Section("schedules")
SCHEDULE = ("schedule", "name")
BEAT_UP = _schedules.gauge("celery_beat_up", HOST, "1 while this beat is alive.")
BEAT_LAG = _schedules.gauge(
    "celery_beat_lag_seconds", HOST, "How late beat's last tick was; of one that hangs, how late it is so far."
)
BEAT_DUPLICATE = _schedules.gauge(
    "celery_beat_duplicate", HOST, "1 when another live beat has entries of this one's schedule: they are sent twice."
)
SCHEDULE_ENTRIES = _schedules.gauge("celery_schedule_entries", HOST, "Entries in the schedule of this beat.")
SCHEDULE_DUE = _schedules.counter(
    "celery_schedule_due_total", SCHEDULE, "Times that the entry was due, those that beat slept through included."
)
SCHEDULE_SENT = _schedules.counter("celery_schedule_sent_total", SCHEDULE, "Times that beat sent the entry's task.")
SCHEDULE_FAILED = _schedules.counter(
    "celery_schedule_failed_total", SCHEDULE, "Times that beat could not send the entry's task."
)
SCHEDULE_RUNS_SUCCEEDED = _schedules.counter(
    "celery_schedule_runs_succeeded_total", SCHEDULE, "Tasks sent by the entry that succeeded."
)
SCHEDULE_RUNS_FAILED = _schedules.counter(
    "celery_schedule_runs_failed_total",
    SCHEDULE,
    "Tasks sent by the entry that failed, expired, were revoked or rejected.",
)
SCHEDULE_FAILURES = _schedules.gauge(
    "celery_schedule_consecutive_failures", SCHEDULE, "How many of its tasks in a row did not succeed."
)
SCHEDULE_LATENESS = _schedules.histogram(
    "celery_schedule_lateness_seconds", SCHEDULE, "From due to sent, by beat's clock."
)
SCHEDULE_INTERVAL = _schedules.gauge(
    "celery_schedule_interval_seconds", SCHEDULE, "Time between two runs of an entry whose schedule is an interval."
)
SCHEDULE_LAST_SENT = _schedules.gauge(
    "celery_schedule_last_sent_timestamp_seconds", SCHEDULE, "When beat last sent the entry's task."
)
SCHEDULE_NEXT_DUE = _schedules.gauge(
    "celery_schedule_next_due_timestamp_seconds",
    SCHEDULE,
    "When the entry is due next; in the past if it is late. Absent if it is disabled or will not be due again.",
)
SCHEDULE_LAST_SUCCESS = _schedules.gauge(
    "celery_schedule_last_success_timestamp_seconds", SCHEDULE, "When a task that the entry sent last succeeded."
)
BROKER_MEMORY_USED = _queues.gauge(
    "celery_broker_memory_used_bytes", (), "Memory that the broker uses (RabbitMQ: the node nearest to its limit)."
)
BROKER_MEMORY_MAX = _queues.gauge(
    "celery_broker_memory_max_bytes",
    (),
    "Limit of that memory: maxmemory, or RabbitMQ's high watermark; absent without one.",
)
BROKER_EVICTED = _queues.counter("celery_broker_evicted_keys_total", (), "Keys that Redis deleted for lack of memory.")
BROKER_BLOCKED = _queues.gauge(
    "celery_broker_blocked", (), "1 while the broker takes no new messages, for lack of memory or disk."
)
BROKER_ORPHANED = _queues.gauge(
    "celery_broker_orphaned_bytes", (), "Size of messages for event receivers and remote control that nobody reads."
)

# --- the exporter itself -------------------------------------------------------------------------------------
_exporter = _Section("exporter")
BUILD_INFO = _exporter.gauge("celerymeter_build_info", ("version", "python", "celery"), "Versions of this exporter.")
START_TIME = _exporter.gauge(
    "celerymeter_start_time_seconds",
    (),
    "Since when the counters count: the exporter's start, or what --state-file continues.",
)
BROKER_UP = _exporter.gauge("celerymeter_broker_up", (), "1 while the event stream is subscribed.")
WORKER_DUPLICATE = _exporter.gauge(
    "celerymeter_worker_duplicate", HOST, "1 when two processes send under one node name."
)
RECONNECTS = _exporter.counter("celerymeter_broker_reconnects_total", (), "Event stream subscriptions renewed.")
EVENTS = _exporter.counter("celerymeter_events_total", ("event",), "Events received, by type.")
EVENTS_INVALID = _exporter.counter(
    "celerymeter_events_invalid_total", ("reason",), "Messages on the event channel that could not be used."
)
EVENTS_MISSED = _exporter.counter(
    "celerymeter_events_missed_total", HOST, "Task runs whose events never arrived, from heartbeats."
)
EVENTS_UNEXPLAINED = _exporter.gauge(
    "celerymeter_events_unexplained", HOST, "Task runs without events that are not yet known to be lost."
)
EVENTS_DUPLICATE = _exporter.counter(
    "celerymeter_events_duplicate_total", ("event",), "End events of runs that had already ended."
)
EVENT_LAG = _exporter.histogram(
    "celerymeter_event_lag_seconds", (), "From an event's timestamp to its receipt, less the clock offset."
)
LAST_EVENT = _exporter.gauge(
    "celerymeter_last_event_timestamp_seconds", (), "When the newest event arrived; absent before the first."
)
WAITS_UNMEASURED = _exporter.counter(
    "celerymeter_waits_unmeasured_total", ("reason",), "Started tasks whose wait could not be measured."
)
TRACKED = _exporter.gauge("celerymeter_tracked_tasks", (), "Unfinished tasks in memory.")
EVICTED = _exporter.counter(
    "celerymeter_tracked_tasks_evicted_total", ("reason",), "Unfinished tasks dropped from memory."
)
SERIES = _exporter.gauge("celerymeter_series", (), "Series in the last scrape.")
FOLDED = _exporter.counter(
    "celerymeter_series_folded_total",
    ("label",),
    "Label values beyond a limit, or shadow names, counted under __other__.",
)
NAMES_CUT = _exporter.counter(
    "celerymeter_names_cut_total", ("label",), "Names longer than 200 characters, or with control characters."
)
POLL_SUCCESS = _exporter.gauge("celerymeter_poll_success", ("collector",), "1 when the last poll succeeded.")
POLL_DURATION = _exporter.gauge("celerymeter_poll_duration_seconds", ("collector",), "How long the last poll took.")
POLL_LAST_SUCCESS = _exporter.gauge(
    "celerymeter_poll_last_success_timestamp_seconds", ("collector",), "When a poll last succeeded."
)

# --- the control API (held by prometheus-client) ---------------------------------------------------------------
_control = _Section("control")
CONTROL_REQUESTS = _control.counter(
    "celerymeter_control_requests_total", ("route", "method", "code"), "HTTP requests answered."
)
CONTROL_LATENCY = _control.histogram(
    "celerymeter_control_request_duration_seconds", ("route", "method"), "Time to answer a request."
)
CONTROL_AUTH_FAILURES = _control.counter(
    "celerymeter_control_auth_failures_total", ("reason",), "Requests refused because of a missing or invalid token."
)
CONTROL_FEED_CLIENTS = _control.gauge("celerymeter_control_feed_clients", (), "Open WebSocket clients.")
CONTROL_FEED_DROPPED = _control.counter(
    "celerymeter_control_feed_dropped_total", (), "Updates that slow WebSocket clients lost."
)
CONTROL_PROMQL_LATENCY = _control.histogram(
    "celerymeter_control_promql_duration_seconds", (), "Time Prometheus took to answer a query."
)
CONTROL_PROMQL_FAILURES = _control.counter(
    "celerymeter_control_promql_failures_total", ("reason",), "Queries that failed."
)
CONTROL_ALERTS = _control.counter(
    "celerymeter_control_alerts_total", ("status",), "Alerts received by the webhook, without repeats."
)
CONTROL_REVOCATIONS = _control.counter("celerymeter_revocations_total", ("outcome",), "Outcomes of revoked task ids.")
CONTROL_HELD = _control.gauge(
    "celerymeter_control_held_revocations", (), "Task ids whose revoke is not settled and is sent again."
)
CONTROL_HELD_DROPPED = _control.counter(
    "celerymeter_control_held_dropped_total", ("reason",), "Task ids given up before their revoke was settled."
)
CONTROL_EVICTED = _control.counter(
    "celerymeter_control_evicted_total",
    ("what",),
    "Things forgotten early because too many of them came, or too large.",
)
CONTROL_UNREADABLE = _control.counter(
    "celerymeter_control_unreadable_rows_total",
    ("table",),
    "Rows of the state directory that somebody else or a broken disk changed, found and left out.",
)

CATALOGUE: tuple[Family, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""All families in the order of the page."""

# --- beside the catalogue, only with --compat celery-exporter: its families that we have under other names ------
_compat = _Section("compat")
COMPAT_RUNTIME = _compat.histogram("celery_task_runtime", TASK, "As celery_task_runtime_seconds.")
COMPAT_WAIT = _compat.histogram("celery_task_queue_wait_time", TASK, "As celery_task_wait_seconds.")
COMPAT_CONSUMERS = _compat.gauge(
    "celery_active_consumer_count", QUEUE, "Consumers of the queue, as RabbitMQ counts them."
)
COMPAT_WORKERS = _compat.gauge("celery_active_worker_count", QUEUE, "Workers that consume the queue.")
COMPAT_PROCESSES = _compat.gauge("celery_active_process_count", QUEUE, "As celery_queue_pool_slots.")
COMPATIBLE: tuple[Family, ...] = (COMPAT_RUNTIME, COMPAT_WAIT, COMPAT_CONSUMERS, COMPAT_WORKERS, COMPAT_PROCESSES)
