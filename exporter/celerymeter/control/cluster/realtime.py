"""The realtime metrics, in one round of queries.

Clients compute with the first six fields, so these are numbers in every `RealtimeMetrics`: when one of them cannot be
known, none is made and the reason is raised. Every other field is ``None`` when Prometheus does not know it.
"""

from __future__ import annotations

from collections.abc import Mapping

from celerymeter.control.cluster.models import Health, RealtimeMetrics
from celerymeter.control.routing import utc
from celerymeter.errors import RequestRefused
from celerymeter.prometheus import Scope, Vector
from celerymeter.prometheus.counters import Counts, recent_increase, recent_scrapes_query
from celerymeter.prometheus.scope import CLUSTERS, RECENT, only_cluster

WINDOW = 60.0
"""Seconds over which throughput, error rate and run time are taken, as nearly as scrapes allow."""
RETRY_AFTER = 5.0

# Two exporters on one broker report the same workers, queues and tasks. Each query therefore takes the maximum over
# exporters: of each worker or queue before these are added up, and of the sums that each exporter has over its tasks.
_UP = "(max by (cluster, hostname) (celery_worker_up{SEL}) == 1)"
_OF_LIVE_WORKERS = f"sum(max by (cluster, hostname) (FAMILY{{SEL}}) and on (cluster, hostname) {_UP})"
QUERIES: Mapping[str, str] = {
    "clusters": CLUSTERS,
    "broker_up": "max(celerymeter_broker_up{SEL})",
    "scraped": "max(timestamp(celerymeter_start_time_seconds{SEL}))",
    "workers": f"count({_UP})",
    "queues": "max by (queue_name) (celery_queue_length{SEL})",
    "queues_polled": 'max(celerymeter_poll_success{SEL, collector="queues"})',
    "active": _OF_LIVE_WORKERS.replace("FAMILY", "celery_worker_tasks_active"),
    "reserved": _OF_LIVE_WORKERS.replace("FAMILY", "celery_worker_tasks_reserved"),
    "scheduled": _OF_LIVE_WORKERS.replace("FAMILY", "celery_worker_tasks_scheduled"),
    "in_progress": "max(sum by (cluster, job, instance) (celery_task_in_progress{SEL}))",
    "p95_wait": (
        "histogram_quantile(0.95, max by (le) (sum by (cluster, job, instance, le) ("
        "rate(celery_task_wait_seconds_bucket{SEL}[5m]))))"
    ),
    "scrapes": recent_scrapes_query(60),
}


def queries(scope: Scope) -> dict[str, str]:
    """Return the queries that `realtime_metrics` needs, by key."""
    return {
        key: scope.render(template, window=RECENT) if key == "clusters" else scope.render(template)
        for key, template in QUERIES.items()
    }


def realtime_metrics(found: Mapping[str, Vector], scope: Scope, *, health: Health) -> RealtimeMetrics:
    """Return the metrics from the answers to `queries`.

    Raises `AmbiguousCluster`, or `RequestRefused` with ``exporter_unavailable`` or ``broker_unavailable`` when one of
    the first six fields cannot be known.
    """
    only_cluster(scope, tuple(sorted({sample.label("cluster") for sample in found["clusters"]})))
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
        p95_wait_ms=None if p95_wait is None else 1000 * p95_wait,
        reserved_tasks=_count(found["reserved"]),
        scheduled_tasks=_count(found["scheduled"]),
        system_health=health,
        timestamp=utc(evaluated_at(found)),
        data_age_seconds=data_age(found),
    )


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
