"""The dashboard object: the realtime metrics, and the workers, queues, tasks and alerts behind them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from celerymeter.control.cluster.models import (
    Dashboard,
    FiringAlert,
    Health,
    QueueStatus,
    SystemSummary,
    TaskActivity,
    WorkerStatus,
)
from celerymeter.control.cluster.realtime import evaluated_at, mean_runtime_ms, realtime_metrics
from celerymeter.control.routing import utc
from celerymeter.prometheus import Sample, Scope, Vector
from celerymeter.prometheus.counters import Increase, recent_increase, recent_scrapes_query

WINDOW = 300.0
TOP = 10
MAX_ROWS = 500
"""Workers and queues that are listed; the summary counts all."""

_OUR_ALERTS = 'alertname=~"Celery.*"'
_QUEUE = 'max by (__name__, queue_name) ({SEL, __name__=~"celery_queue_(length|unacked|consumers|pool_slots)"})'
STATE_QUERIES: Mapping[str, str] = {
    "queue_gauges": _QUEUE,
    "queue_ages": "min by (queue_name) (celery_queue_oldest_task_timestamp_seconds{SEL})",
    # A worker that said `worker-offline` was stopped on purpose and is not down.
    "workers_down": (
        "count((max by (cluster, hostname) (celery_worker_up{SEL}) == 0) unless on (cluster, hostname) "
        "(max by (cluster, hostname) (celery_worker_shutdown{SEL}) == 1))"
    ),
    "exporters": "count(celerymeter_broker_up{SEL})",
}
QUERIES: Mapping[str, str] = {
    "worker_gauges": (
        'max by (__name__, hostname) ({SEL, __name__=~"celery_worker_(up|shutdown|tasks_active|tasks_reserved|'
        "tasks_scheduled|pool_size|load1|clock_offset_seconds|task_events_enabled|last_heartbeat_timestamp_seconds)"
        '"})'
    ),
    "worker_info": "max by (hostname, version, pool) (celery_worker_info{SEL})",
    "task_scrapes": recent_scrapes_query(300, by="name"),
}


def state_queries(scope: Scope) -> dict[str, str]:
    """Return the queries for the components, queues and alerts of a snapshot, beyond those of the metrics.

    Alerts carry only the labels that their rules keep: of ours the cluster, and some have none.
    """
    of_cluster = "" if scope.cluster is None else ", cluster=~$clusters"
    clusters = ("", scope.cluster or "")
    return {key: scope.render(template) for key, template in STATE_QUERIES.items()} | {
        "alerts": Scope().render(f'ALERTS{{alertstate="firing", {_OUR_ALERTS}{of_cluster}}}', clusters=clusters),
        "alerts_since": Scope().render(f"ALERTS_FOR_STATE{{{_OUR_ALERTS}{of_cluster}}}", clusters=clusters),
    }


def queries(scope: Scope) -> dict[str, str]:
    """Return the queries that a dashboard needs beyond those of a snapshot."""
    return {key: scope.render(template) for key, template in QUERIES.items()}


def dashboard(found: Mapping[str, Vector], scope: Scope, *, health: Health, links: Mapping[str, str]) -> Dashboard:
    """Return the dashboard from the answers to all queries; raises as `realtime_metrics` does."""
    metrics = realtime_metrics(found, scope, health=health)
    workers, queues, alerts = _worker_statuses(found), queue_statuses(found), firing_alerts(found)
    recent = recent_increase(found["task_scrapes"], wanted=WINDOW)
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
    since = {_identity(sample): sample.value for sample in found["alerts_since"]}
    alerts = [
        FiringAlert(
            name=sample.label("alertname"),
            severity=sample.label("severity") or "none",
            message=" ".join([sample.label("alertname"), *_subject(sample.labels)]),
            timestamp=utc(since.get(_identity(sample), sample.at)),
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
