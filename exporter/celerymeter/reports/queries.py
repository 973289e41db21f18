"""The PromQL of reports: constants with slots (`celerymeter.prometheus.scope`), never built from input."""

from __future__ import annotations

from celerymeter.prometheus.scope import Value
from celerymeter.reports.report import Filters


def chosen(filters: Filters) -> dict[str, Value]:
    """Slots ``$name`` and ``$queue``: exactly this task or queue, or any."""
    return {"name": _matched(filters.task), "queue": _matched(filters.queue)}


def _matched(text: str | None) -> Value:
    return ".*" if text is None else (text,)


LIVES = "celerymeter_start_time_seconds{SEL}[$window]"
"""Every scrape of every exporter: the sample's time is the page, its value the life."""

PAST = "celerymeter_start_time_seconds{SEL, cluster=$cluster, job=$job, instance=$instance}[$window]"
"""The same of one exporter."""

_TARGET = "SEL, cluster=$cluster, job=$job, instance=$instance"
_CHOSEN = "name=~$name, queue_name=~$queue"
COUNTS = (
    f"sum by (__name__, name, queue_name) (last_over_time({{{_TARGET}, {_CHOSEN},"
    ' __name__=~"celery_task_(succeeded|failed|retried|rejected|revoked)_total'
    '|celery_task_(runtime|failed_runtime|wait)_seconds_(sum|count)", requeue!="true"}[100ms]))'
    f" or sum by (__name__, hostname) (last_over_time({{{_TARGET},"
    ' __name__=~"celery_worker_tasks_processed_total|celerymeter_events_missed_total|celerymeter_series_folded_total"'
    "}[100ms]))"
)
"""One page at its own time: the short window keeps out the page of a process before, which lookback would show."""
PAGE = (
    f"{COUNTS} or sum by (__name__, name, le) (last_over_time({{{_TARGET}, {_CHOSEN},"
    ' __name__=~"celery_task_(runtime|wait)_seconds_bucket"}[100ms]))'
    f" or sum by (__name__, queue_name, le) (last_over_time({{{_TARGET}, {_CHOSEN},"
    ' __name__="celery_task_wait_seconds_bucket"}[100ms]))'
)
"""The same with histograms: by task, and waits by queue, which is far less than by both."""

_ENDS = f'{{SEL, __name__=~"celery_task_(succeeded|failed|rejected|revoked)_total", requeue!="true", {_CHOSEN}}}'
ENDED = f"sum by (cluster, job, instance) ({_ENDS})"
"""All ends of tasks that an exporter counted."""
FAILED = "sum by (cluster, job, instance) (celery_task_failed_total{SEL, name=~$name, queue_name=~$queue})"
RUNTIME_BUCKETS = (
    "sum by (cluster, job, instance, le) (celery_task_runtime_seconds_bucket{SEL, name=~$name, queue_name=~$queue})"
)
RECORDED_RATE = "max(celery:tasks_ended:rate5m{SEL})"
"""Tasks per second over five minutes, as the shipped rules record it."""
RECORDED_MEAN = "max(avg_over_time(celery:tasks_ended:rate5m{SEL}[$window]))"
"""The same over a longer step."""

QUEUE_LENGTHS = "max by (queue_name) (celery_queue_length{SEL, queue_name=~$queue})"
BUSY = (
    "100 * max by (hostname) (celery_worker_tasks_active{SEL}) / (max by (hostname) (celery_worker_pool_size{SEL}) > 0)"
)
"""Percent of a worker's slots that run a task."""
POOL_SIZE = "max by (hostname) (celery_worker_pool_size{SEL})"
RESERVED = "max by (hostname) (celery_worker_tasks_reserved{SEL})"
UNACKED_AGE = "time() - min(celery_queue_oldest_unacked_timestamp_seconds{SEL})"
VISIBILITY = "max(last_over_time(celery_queue_visibility_timeout_seconds{SEL}[$window]))"
OBJECTIVE = 'max(celery:success_objective:limit{cluster="", name=""})'
"""The share of tasks that should succeed, by the shipped limits; they carry no target labels."""
