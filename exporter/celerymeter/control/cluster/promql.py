"""The queries of a snapshot and of the dashboard, and the values that their answers give. Pure.

Clients compute with the first six fields of the realtime metrics, so these are numbers in every `RealtimeMetrics`: when
one of them cannot be known, none is made and the reason is raised. Every other field is ``None`` when Prometheus does
not know it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from celerymeter.control.cluster.models import (
    Dashboard,
    FiringAlert,
    Health,
    QueueStatus,
    RealtimeMetrics,
    SystemSummary,
    TaskActivity,
    WorkerStatus,
)
from celerymeter.control.routing import utc
from celerymeter.errors import RequestRefused
from celerymeter.prometheus import Sample, Scope, Vector
from celerymeter.prometheus.counters import Counts, Increase, recent_increase, recent_scrapes_query
from celerymeter.prometheus.scope import CLUSTERS, LIVE, only_cluster

WINDOW = 60.0
"""Seconds over which throughput, error rate and run time are taken, as nearly as scrapes allow."""
SUMMARY_WINDOW = 300.0
"""The same for the tasks of the dashboard."""
TOP = 10
MAX_ROWS = 500
"""Workers and queues that are listed; the summary counts all."""
RETRY_AFTER = 5.0

# Two exporters on one broker report the same workers, queues and tasks. Each query therefore takes the maximum over
# exporters: of each worker or queue before these are added up, and of the sums that each exporter has over its tasks.
_UP = "(max by (cluster, hostname) (celery_worker_up{SEL}) == 1)"
_OUR_ALERTS = 'alertname=~"Celery.*"'
# Busy time is an integral: the number of running tasks of one heartbeat misses those that begin and end between two.
_BUSY = "max by (cluster, hostname) (rate(celery_worker_busy_seconds_total{SEL}[5m]))"
_OF_LIVE_WORKERS = f"sum(max by (cluster, hostname) (FAMILY{{SEL}}) and on (cluster, hostname) {_UP})"
SNAPSHOT_QUERIES: Mapping[str, str] = {
    "clusters": CLUSTERS,
    "broker_up": "max(celerymeter_broker_up{SEL})",
    "scraped": "max(timestamp(celerymeter_start_time_seconds{SEL}))",
    "workers": f"count({_UP})",
    "queues": "max by (queue_name) (celery_queue_length{SEL})",
    "queues_polled": 'max(celerymeter_poll_success{SEL, collector="queues"})',
    "active": _OF_LIVE_WORKERS.replace("FAMILY", "celery_worker_tasks_active"),
    "reserved": _OF_LIVE_WORKERS.replace("FAMILY", "celery_worker_tasks_reserved"),
    "scheduled": _OF_LIVE_WORKERS.replace("FAMILY", "celery_worker_tasks_scheduled"),
    "busy_slots": f"sum({_BUSY} and on (cluster, hostname) {_UP})",
    "slots": _OF_LIVE_WORKERS.replace("FAMILY", "celery_worker_pool_size"),
    "in_progress": "max(sum by (cluster, job, instance) (celery_task_in_progress{SEL}))",
    "p95_wait": (
        "histogram_quantile(0.95, max by (le) (sum by (cluster, job, instance, le) ("
        "rate(celery_task_wait_seconds_bucket{SEL}[5m]))))"
    ),
    "scrapes": recent_scrapes_query(60),
    "queue_gauges": (
        'max by (__name__, queue_name) ({SEL, __name__=~"celery_queue_(length|unacked|consumers|pool_slots)"})'
    ),
    "queue_ages": "min by (queue_name) (celery_queue_oldest_task_timestamp_seconds{SEL})",
    # A worker that said `worker-offline` was stopped on purpose and is not down.
    "workers_down": (
        "count((max by (cluster, hostname) (celery_worker_up{SEL}) == 0) unless on (cluster, hostname) "
        "(max by (cluster, hostname) (celery_worker_shutdown{SEL}) == 1))"
    ),
    "exporters": "count(celerymeter_broker_up{SEL})",
}
DASHBOARD_QUERIES: Mapping[str, str] = {
    "worker_gauges": (
        'max by (__name__, hostname) ({SEL, __name__=~"celery_worker_(up|shutdown|tasks_active|tasks_reserved|'
        "tasks_scheduled|pool_size|load1|clock_offset_seconds|task_events_enabled|last_heartbeat_timestamp_seconds)"
        '"})'
    ),
    "worker_busy": f"max by (hostname) ({_BUSY} and on (cluster, hostname) {_UP})",
    "worker_info": "max by (hostname, version, pool) (celery_worker_info{SEL})",
    "task_scrapes": recent_scrapes_query(300, by="name"),
}


def snapshot_queries(scope: Scope) -> dict[str, str]:
    """Return the queries that a snapshot needs, by key.

    Alerts carry only the labels that their rules keep: of ours the cluster, and some have none.
    """
    of_cluster = "" if scope.cluster is None else ", cluster=~$clusters"
    clusters = ("", scope.cluster or "")
    return {key: scope.render(template, window=LIVE) for key, template in SNAPSHOT_QUERIES.items()} | {
        "alerts": Scope().render(f'ALERTS{{alertstate="firing", {_OUR_ALERTS}{of_cluster}}}', clusters=clusters),
        "alerts_since": Scope().render(f"ALERTS_FOR_STATE{{{_OUR_ALERTS}{of_cluster}}}", clusters=clusters),
    }


def dashboard_queries(scope: Scope) -> dict[str, str]:
    """Return the queries that a dashboard needs: those of a snapshot, and more."""
    return snapshot_queries(scope) | {key: scope.render(template) for key, template in DASHBOARD_QUERIES.items()}


def realtime_metrics(found: Mapping[str, Vector], scope: Scope, *, health: Health) -> RealtimeMetrics:
    """Return the metrics from the answers to `snapshot_queries`.

    Raises `AmbiguousCluster`, or `RequestRefused` with ``exporter_unavailable`` or ``broker_unavailable`` when one of
    the first six fields cannot be known.
    """
    require_one_cluster(found, scope)
    _require_current_data(found)
    recent = recent_increase(found["scrapes"], wanted=WINDOW)
    if recent is None:
        raise _unknown("Prometheus has scraped the exporter only once: rates need two scrapes")
    lengths = {name: round(length) for name, length in found["queues"].by("queue_name").items()}
    counts = recent.counts
    ended, failed = counts.ended, counts.total("celery_task_failed_total")
    running = (_count(found["active"]), _count(found["in_progress"]))
    p95_wait = found["p95_wait"].value()
    return RealtimeMetrics(
        active_workers=_count(found["workers"]) or 0,
        pending_tasks=sum(lengths.values()),
        processing_tasks=next((count for count in running if count is not None), 0),
        queue_lengths=lengths,
        current_throughput=ended / recent.seconds,
        error_rate_percent=100 * failed / ended if ended else 0.0,
        finished_in_window=round(ended),
        failed_in_window=round(failed),
        retried_in_window=round(counts.total("celery_task_retried_total")),
        window_seconds=recent.seconds,
        avg_execution_time_ms=mean_runtime_ms(counts),
        busy_percent=_share_percent(found["busy_slots"].value(), found["slots"].value()),
        p95_wait_ms=None if p95_wait is None else 1000 * p95_wait,
        reserved_tasks=_count(found["reserved"]),
        scheduled_tasks=_count(found["scheduled"]),
        system_health=health,
        timestamp=utc(evaluated_at(found)),
        data_age_seconds=data_age(found),
    )


def _share_percent(part: float | None, whole: float | None) -> float | None:
    """Return a share to a tenth of a percent; ``None`` when it cannot be known."""
    return None if part is None or not whole else round(min(100.0, 100 * part / whole), 1)


def mean_runtime_ms(counts: Counts) -> float | None:
    """Return the mean run time of the tasks that succeeded; ``None`` when none did."""
    succeeded = counts.total("celery_task_runtime_seconds_count")
    return 1000 * counts.total("celery_task_runtime_seconds_sum") / succeeded if succeeded else None


def data_age(found: Mapping[str, Vector]) -> float | None:
    """Return the seconds between the newest scrape and the query, both by Prometheus' clock."""
    scraped = found["scraped"].value()
    return None if scraped is None else max(evaluated_at(found) - scraped, 0.0)


def evaluated_at(found: Mapping[str, Vector]) -> float:
    """Return the time of the queries by Prometheus' clock (UTC seconds)."""
    return max(sample.at for sample in found["broker_up"])


def require_one_cluster(found: Mapping[str, Vector], scope: Scope) -> None:
    """Raise `AmbiguousCluster` when the answers are of several clusters and none was chosen."""
    only_cluster(scope, tuple(sorted({sample.label("cluster") for sample in found["clusters"]})))


def _require_current_data(found: Mapping[str, Vector]) -> None:
    """Raise unless Prometheus scrapes an exporter that reaches its broker and has polled the queues."""
    broker_up = found["broker_up"].value()
    if broker_up is None:
        raise _unknown("Prometheus has no current samples of a celerymeter exporter for this cluster")
    if broker_up == 0:
        raise RequestRefused("broker_unavailable", "the exporter cannot reach the broker", retry_after=RETRY_AFTER)
    if not len(found["queues"]) and found["queues_polled"].value() != 1:
        raise _unknown("the exporter could not poll the queues")


def _unknown(why: str) -> RequestRefused:
    return RequestRefused("exporter_unavailable", why, retry_after=RETRY_AFTER)


def _count(vector: Vector) -> int | None:
    value = vector.value()
    return None if value is None else round(value)


def dashboard(found: Mapping[str, Vector], scope: Scope, *, health: Health, links: Mapping[str, str]) -> Dashboard:
    """Return the dashboard from the answers to `dashboard_queries`; raises as `realtime_metrics` does."""
    metrics = realtime_metrics(found, scope, health=health)
    workers, queues, alerts = _worker_statuses(found), queue_statuses(found), firing_alerts(found)
    recent = recent_increase(found["task_scrapes"], wanted=SUMMARY_WINDOW)
    tasks = [] if recent is None else list(_activities(recent))
    return Dashboard(
        real_time_metrics=metrics,
        system_summary=SystemSummary(
            system_health=health,
            total_workers=len(workers),
            active_workers=metrics.active_workers,
            down_workers=sum(worker.status == "down" for worker in workers),
            total_queues=len(queues),
            pending_tasks=metrics.pending_tasks,
            processing_tasks=metrics.processing_tasks,
            firing_alerts=len(alerts),
            window_seconds=None if recent is None else recent.seconds,
        ),
        workers=workers[:MAX_ROWS],
        queues=queues[:MAX_ROWS],
        busiest_tasks=_top(tasks, lambda task: task.finished),
        most_failing_tasks=_top(tasks, lambda task: task.failed),
        firing_alerts=alerts,
        links=links,
    )


def queue_statuses(found: Mapping[str, Vector]) -> tuple[QueueStatus, ...]:
    """Return every queue, by name."""
    rows = _rows(found["queue_gauges"], "queue_name", "celery_queue_")
    ages = {sample.label("queue_name"): _age(sample.value, sample.at) for sample in found["queue_ages"]}
    return tuple(
        QueueStatus(
            name=name,
            length=row.get("length"),
            unacked=row.get("unacked"),
            consumers=row.get("consumers"),
            oldest_task_age_seconds=ages.get(name),
        )
        for name, row in sorted(rows.items())
    )


def firing_alerts(found: Mapping[str, Vector]) -> tuple[FiringAlert, ...]:
    """Return the alerts that fire in Prometheus, the longest first; series do not hold an alert's annotations."""
    # Any target may expose a series of this name, of any value.
    since = {_identity(sample): sample.value for sample in found["alerts_since"] if math.isfinite(sample.value)}
    alerts = [
        FiringAlert(
            name=sample.label("alertname"),
            severity=sample.label("severity") or "none",
            message=" ".join([sample.label("alertname"), *_subject(sample.labels)]),
            timestamp=utc(min(max(0.0, since.get(_identity(sample), sample.at)), sample.at)),
        )
        for sample in found["alerts"]
    ]
    return tuple(sorted(alerts, key=lambda alert: (alert.timestamp, alert.name, alert.message)))


def _identity(sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in sample.labels.items() if name not in ("__name__", "alertstate"))


def _subject(labels: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(labels.items()) if name in ("queue_name", "name", "hostname")]


def _worker_statuses(found: Mapping[str, Vector]) -> tuple[WorkerStatus, ...]:
    """Return every worker, by name; those that are not up come first."""
    now = evaluated_at(found)
    busy = found["worker_busy"].by("hostname")
    infos = {sample.label("hostname"): sample for sample in found["worker_info"]}
    workers = []
    for hostname, row in sorted(_rows(found["worker_gauges"], "hostname", "celery_worker_").items()):
        info, events = infos.get(hostname), row.get("task_events_enabled")
        not_up: Literal["down", "shut_down"] = "shut_down" if row.get("shutdown") == 1 else "down"
        worker = WorkerStatus(
            hostname=hostname,
            status="up" if row.get("up") == 1 else not_up,
            version=None if info is None else info.label("version") or None,
            pool=None if info is None else info.label("pool") or None,
            pool_size=row.get("pool_size"),
            busy_percent=_share_percent(busy.get(hostname), row.get("pool_size")),
            active_tasks=row.get("tasks_active"),
            reserved_tasks=row.get("tasks_reserved"),
            scheduled_tasks=row.get("tasks_scheduled"),
            load1=row.get("load1"),
            clock_offset_seconds=row.get("clock_offset_seconds"),
            task_events_enabled=None if events is None else events == 1,
            heartbeat_age_seconds=_age(row.get("last_heartbeat_timestamp_seconds"), now),
        )
        workers.append(worker)
    return tuple(sorted(workers, key=lambda worker: worker.status == "up"))


def _activities(recent: Increase) -> Iterator[TaskActivity]:
    for name, counts in recent.counts.split("name").items():
        finished, failed = counts.ended, counts.total("celery_task_failed_total")
        yield TaskActivity(
            name=name,
            finished=round(finished),
            failed=round(failed),
            retried=round(counts.total("celery_task_retried_total")),
            throughput=finished / recent.seconds,
            error_rate_percent=100 * failed / finished if finished else 0.0,
            avg_execution_time_ms=mean_runtime_ms(counts),
        )


def _top(tasks: Iterable[TaskActivity], key: Callable[[TaskActivity], int]) -> tuple[TaskActivity, ...]:
    """Return the ten tasks with the largest ``key``, without those whose key is 0."""
    return tuple(sorted((task for task in tasks if key(task)), key=lambda task: (-key(task), task.name))[:TOP])


def _rows(vector: Vector, label: str, prefix: str) -> dict[str, dict[str, float]]:
    """Return samples of several families as one row for each label value, by family name without its prefix."""
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in vector:
        rows[sample.label(label)][sample.label("__name__").removeprefix(prefix)] = sample.value
    return rows


def _age(timestamp: float | None, now: float) -> float | None:
    return None if timestamp is None else max(now - timestamp, 0.0)
