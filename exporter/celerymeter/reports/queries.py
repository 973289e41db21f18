"""The PromQL of reports: constants with slots (`celerymeter.prometheus.scope`), never built from input.

`celerymeter.reports.request.Filters` fills ``$name`` and ``$queue``.
"""

from __future__ import annotations

SCRAPES = "celerymeter_start_time_seconds{SEL}[$window]"
"""Every scrape of every exporter: a sample's timestamp is the scrape, its value the start of the process."""
SCRAPES_OF_TARGET = "celerymeter_start_time_seconds{SEL, cluster=$cluster, job=$job, instance=$instance}[$window]"

PROCESSES = (
    "max by (cluster, job, instance) (celerymeter_start_time_seconds{SEL}"
    " and last_over_time(celerymeter_start_time_seconds{SEL}[$window]))"
)
"""The process of each exporter, at the steps at which its counters are read; ``window`` is two steps. Without it,
Prometheus' lookback would add five minutes to an exporter that ended unnoticed."""

_TARGET = "SEL, cluster=$cluster, job=$job, instance=$instance"
_FILTER = "name=~$name, queue_name=~$queue"
COUNTERS = (
    f"sum by (__name__, name, queue_name, reason) (last_over_time({{{_TARGET}, {_FILTER},"
    ' __name__=~"celery_task_(succeeded|failed|retried|rejected|revoked|redelivered)_total'
    '|celery_task_(runtime|wait)_seconds_(sum|count)|celery_task_busy_seconds_total", requeue!="true"}[100ms]))'
    f" or sum by (__name__, hostname) (last_over_time({{{_TARGET},"
    ' __name__=~"celery_worker_(tasks_processed|busy_seconds)_total|celerymeter_(events_missed|series_folded)_total"'
    "}[100ms]))"
    f" or sum by (__name__, schedule, name, le) (last_over_time({{{_TARGET}, name=~$name,"
    ' __name__=~"celery_schedule_(due|sent|failed|runs_succeeded|runs_failed)_total'
    '|celery_schedule_lateness_seconds_bucket"}[100ms]))'
)
"""The counters of one scrape, at its timestamp. A window of 100 ms leaves out the scrape of the process before, which
Prometheus' lookback of 5 minutes would add."""
COUNTERS_AND_HISTOGRAMS = (
    f"{COUNTERS} or sum by (__name__, name, le) (last_over_time({{{_TARGET}, {_FILTER},"
    ' __name__=~"celery_task_(runtime|wait)_seconds_bucket"}[100ms]))'
    f" or sum by (__name__, queue_name, le) (last_over_time({{{_TARGET}, {_FILTER},"
    ' __name__="celery_task_wait_seconds_bucket"}[100ms]))'
)
"""The same with histograms: by task, and waits by queue, because both at once would be many times as much."""

_ENDS = f'{{SEL, __name__=~"celery_task_(succeeded|failed|rejected|revoked)_total", requeue!="true", {_FILTER}}}'
ENDED = f"sum by (cluster, job, instance) ({_ENDS})"
FAILED = "sum by (cluster, job, instance) (celery_task_failed_total{SEL, name=~$name, queue_name=~$queue})"
RUNTIME_BUCKETS = (
    "sum by (cluster, job, instance, le) (celery_task_runtime_seconds_bucket{SEL, name=~$name, queue_name=~$queue})"
)
RECORDED_RATE = "max(celery:tasks_ended:rate5m{SEL})"
"""Tasks per second over five minutes, as the bundled rules record it."""
RECORDED_MEAN = "max(avg_over_time(celery:tasks_ended:rate5m{SEL}[$window]))"

BUSY = "sum by (cluster, job, instance, hostname) (celery_worker_busy_seconds_total{SEL})"
"""The time for which a worker's slots ran tasks. An integral, because a gauge misses tasks between two scrapes."""
_TASK_COUNTERS = "celery_task_(sent|received|started|succeeded|failed|retried|rejected|revoked)_total"
TASK_NAMES = (
    "group by (name) (last_over_time({SEL, name=~$chosen, "
    f'__name__=~"{_TASK_COUNTERS}|celery_schedule_due_total"}}[$window]))'
)
QUEUE_NAMES = (
    "group by (queue_name) (last_over_time({SEL, queue_name=~$chosen, "
    f'__name__=~"{_TASK_COUNTERS}|celery_queue_(length|pool_slots)"}}[$window]))'
)
"""The names of tasks and of queues; ``chosen`` is one of them, or any."""

GAUGES = {
    "queue_lengths": "max by (queue_name) (celery_queue_length{SEL, queue_name=~$queue})",
    "queue_slots": "max by (queue_name) (celery_queue_pool_slots{SEL, queue_name=~$queue})",
    "pool_size": "max by (hostname) (celery_worker_pool_size{SEL})",
    "worker_up": "max by (hostname) (celery_worker_up{SEL})",
    "reserved": "max by (hostname) (celery_worker_tasks_reserved{SEL})",
    "unacked_age": "time() - min(celery_queue_oldest_unacked_timestamp_seconds{SEL})",
}
"""By the key under which the report lists the query."""
VISIBILITY_TIMEOUT = "max(last_over_time(celery_queue_visibility_timeout_seconds{SEL}[$window]))"
ALERTS = (
    "max by (alertname, severity, queue_name, schedule, name, hostname) (last_over_time("
    'ALERTS{alertname=~"Celery.+", alertstate="firing", cluster=~$clusters}[$window]))'
)
"""Alerts that fired at some time within each step. Rules keep few labels of a target, so only the cluster chooses."""
WAIT_TARGETS = "max by (queue_name) (celery:wait_target:effective{SEL})"
"""Seconds within which tasks should start, as the bundled rules record them; infinite where nobody chose a target."""
OBJECTIVE = 'max(celery:success_objective:limit{cluster="", name=""})'
"""The share of tasks that should succeed, from the bundled thresholds, which carry no target labels; 0 is none."""
WAIT_OBJECTIVES = "max by (queue_name) (celery:wait_objective:effective{SEL})"
"""The share of tasks that should start within the target."""

_BY_EXPORTER = "sum by (cluster, job, instance)"
DEMAND = {
    "sent": f"{_BY_EXPORTER} (celery_task_sent_total{{SEL, queue_name=$queue}})",
    "taken": f"{_BY_EXPORTER} (celery_task_received_total{{SEL, queue_name=$queue}})",
    "started": f"{_BY_EXPORTER} (celery_task_started_total{{SEL, queue_name=$queue}})",
    "busy": f"{_BY_EXPORTER} (celery_task_busy_seconds_total{{SEL, queue_name=$queue}})",
}
"""The tasks that a queue was sent and their run times, as counters."""
QUEUE_STATE = {
    "length": "max(celery_queue_length{SEL, queue_name=$queue})",
    "slots": "max(celery_queue_pool_slots{SEL, queue_name=$queue})",
    "all_queue_slots": "sum(max by (queue_name) (celery_queue_pool_slots{SEL}))",
    "all_slots": "sum(max by (hostname) (celery_worker_pool_size{SEL}) and on (hostname) celery_worker_up{SEL} == 1)",
    "scheduled": "sum(max by (hostname) (celery_worker_tasks_scheduled{SEL}))",
}
"""Its length and slots; and the slots of all queues and of all workers, which differ where queues share workers."""
