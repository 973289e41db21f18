"""The dashboard object: the metrics object, and what stands behind it by worker, queue, task and alert."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from celerymeter.control.health import FiringAlert, QueueFigure, Status
from celerymeter.control.live import figures
from celerymeter.control.live.figures import Metrics
from celerymeter.control.live.increments import Increment, increment, pages_query
from celerymeter.prometheus import Sample, Scope, Vector

WINDOW = 300.0
TOP = 10
MAX_ROWS = 500
"""Workers and queues that are listed; the summary counts all."""

_FILTER = 'alertname=~"Celery.*"'
_QUEUE = 'max by (__name__, queue_name) ({SEL, __name__=~"celery_queue_(length|unacked|consumers|pool_slots)"})'
STATE_QUERIES: Mapping[str, str] = {
    "queue_figures": _QUEUE,
    "queue_ages": "min by (queue_name) (celery_queue_oldest_task_timestamp_seconds{SEL})",
    "workers_down": (
        "count((max by (cluster, hostname) (celery_worker_up{SEL}) == 0) unless on (cluster, hostname) "
        "(max by (cluster, hostname) (celery_worker_shutdown{SEL}) == 1))"
    ),
    "exporters": "count(celerymeter_broker_up{SEL})",
}
QUERIES: Mapping[str, str] = {
    "worker_figures": (
        'max by (__name__, hostname) ({SEL, __name__=~"celery_worker_(up|shutdown|tasks_active|tasks_reserved|'
        "tasks_scheduled|pool_size|load1|clock_offset_seconds|task_events_enabled|last_heartbeat_timestamp_seconds)"
        '"})'
    ),
    "worker_info": "max by (hostname, version, pool) (celery_worker_info{SEL})",
    "task_pages": pages_query(300, by="name"),
}


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker; what is not known of it is ``None``."""

    hostname: str
    status: str
    """``up``, ``down`` or ``shut_down``."""
    version: str | None
    pool: str | None
    pool_size: float | None
    active_tasks: float | None
    reserved_tasks: float | None
    scheduled_tasks: float | None
    load1: float | None
    clock_offset_seconds: float | None
    task_events_enabled: bool | None
    heartbeat_age_seconds: float | None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task over the dashboard's window."""

    name: str
    finished: int
    failed: int
    retried: int
    throughput: float
    error_rate_percent: float
    avg_execution_time_ms: float | None


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Everything on one page. ``window_seconds`` is what the task rows cover."""

    metrics: Metrics
    workers: tuple[WorkerRow, ...]
    workers_total: int
    workers_down: int
    queues: tuple[QueueFigure, ...]
    queues_total: int
    busiest_tasks: tuple[TaskRow, ...]
    most_failing_tasks: tuple[TaskRow, ...]
    firing_alerts: tuple[FiringAlert, ...]
    window_seconds: float | None

    def judged(self, health: Status) -> Dashboard:
        """The same, with the health of the whole."""
        return replace(self, metrics=self.metrics.judged(health))


def state_queries(scope: Scope) -> dict[str, str]:
    """What the system's state takes beyond `figures.queries`."""
    return {key: scope.render(template) for key, template in STATE_QUERIES.items()} | _alert_queries(scope)


def queries(scope: Scope) -> dict[str, str]:
    """What `dashboard` takes beyond both."""
    return {key: scope.render(template) for key, template in QUERIES.items()}


def _alert_queries(scope: Scope) -> dict[str, str]:
    """Alerts carry the labels that their rules keep: of ours the cluster, and some have none."""
    of_cluster = "" if scope.cluster is None else ", cluster=~$clusters"
    clusters = ("", scope.cluster or "")
    return {
        "alerts": Scope().render(f'ALERTS{{alertstate="firing", {_FILTER}{of_cluster}}}', clusters=clusters),
        "alerts_since": Scope().render(f"ALERTS_FOR_STATE{{{_FILTER}{of_cluster}}}", clusters=clusters),
    }


def dashboard(found: Mapping[str, Vector], scope: Scope) -> Dashboard:
    """The dashboard from the answers to all three rounds of queries; raises as `figures.metrics` does."""
    metrics = figures.metrics(found, scope)
    workers = _workers(found, metrics.at)
    queues = queue_figures(found)
    recent = increment(found["task_pages"], wanted=WINDOW, by="name")
    tasks = () if recent is None else tuple(_task(name, recent) for name in recent.labels() if name)
    return Dashboard(
        metrics=metrics,
        workers=workers[:MAX_ROWS],
        workers_total=len(workers),
        workers_down=sum(worker.status == "down" for worker in workers),
        queues=queues[:MAX_ROWS],
        queues_total=len(queues),
        busiest_tasks=_top(tasks, lambda task: task.finished),
        most_failing_tasks=_top(tasks, lambda task: task.failed),
        firing_alerts=firing_alerts(found),
        window_seconds=None if recent is None else recent.seconds,
    )


def queue_figures(found: Mapping[str, Vector]) -> tuple[QueueFigure, ...]:
    """Every queue, by name."""
    rows = _rows(found["queue_figures"], "queue_name", "celery_queue_")
    ages = {sample.label("queue_name"): _age(sample.value, sample.at) for sample in found["queue_ages"]}
    return tuple(
        QueueFigure(
            name=name,
            length=row.get("length"),
            unacked=row.get("unacked"),
            consumers=row.get("consumers"),
            oldest_task_age=ages.get(name),
        )
        for name, row in sorted(rows.items())
    )


def firing_alerts(found: Mapping[str, Vector]) -> tuple[FiringAlert, ...]:
    """Alerts that fire by Prometheus' own account, the longest first; their texts are not in series."""
    since = {_identity(sample): sample.value for sample in found["alerts_since"]}
    alerts = [
        FiringAlert(
            name=sample.label("alertname"),
            severity=sample.label("severity") or "none",
            message=_in_words(sample.labels),
            since=since.get(_identity(sample), sample.at),
        )
        for sample in found["alerts"]
    ]
    return tuple(sorted(alerts, key=lambda alert: (alert.since, alert.name, alert.message)))


def _identity(sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in sample.labels.items() if name not in ("__name__", "alertstate"))


def _in_words(labels: Mapping[str, str]) -> str:
    what = [f"{name}={value}" for name, value in sorted(labels.items()) if name in ("queue_name", "name", "hostname")]
    return " ".join([labels.get("alertname", ""), *what])


def _workers(found: Mapping[str, Vector], now: float) -> tuple[WorkerRow, ...]:
    info = {sample.label("hostname"): sample for sample in found["worker_info"]}
    rows = _rows(found["worker_figures"], "hostname", "celery_worker_")
    workers = [_worker(hostname, row, info.get(hostname), now) for hostname, row in sorted(rows.items())]
    return tuple(sorted(workers, key=lambda worker: worker.status == "up"))


def _worker(hostname: str, row: Mapping[str, float], info: Sample | None, now: float) -> WorkerRow:
    events = row.get("task_events_enabled")
    down = "shut_down" if row.get("shutdown") == 1 else "down"
    return WorkerRow(
        hostname=hostname,
        status="up" if row.get("up") == 1 else down,
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


def _task(name: str, recent: Increment) -> TaskRow:
    finished, failed = recent.ended(name), recent.of("celery_task_failed_total", name)
    return TaskRow(
        name=name,
        finished=round(finished),
        failed=round(failed),
        retried=round(recent.of("celery_task_retried_total", name)),
        throughput=finished / recent.seconds,
        error_rate_percent=100 * failed / finished if finished else 0.0,
        avg_execution_time_ms=figures.mean_runtime_ms(recent, name),
    )


def _top(tasks: Iterable[TaskRow], key: Callable[[TaskRow], int]) -> tuple[TaskRow, ...]:
    """The first ten by ``key``, without those that have none."""
    return tuple(sorted((task for task in tasks if key(task)), key=lambda task: (-key(task), task.name))[:TOP])


def _rows(vector: Vector, label: str, prefix: str) -> dict[str, dict[str, float]]:
    """Samples of several families as one row a label value; columns are the families without their prefix."""
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in vector:
        rows[sample.label(label)][sample.label("__name__").removeprefix(prefix)] = sample.value
    return rows


def _age(timestamp: float | None, now: float) -> float | None:
    return None if timestamp is None else max(now - timestamp, 0.0)
