"""The metrics object: what is going on now, in one round of queries.

The six figures that clients compute with are numbers whenever the object exists: when one of them cannot be known,
`Metrics` is not made and the reason is raised. Every other figure is ``None`` when Prometheus does not know it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from celerymeter.control.health import Status
from celerymeter.control.live.increments import Increment, increment, pages_query
from celerymeter.errors import RequestRefused
from celerymeter.prometheus import Scope, Vector
from celerymeter.prometheus.clusters import CLUSTERS, RECENT, only_cluster

WINDOW = 60.0
"""Seconds over which throughput, error rate and run time are taken, as nearly as scrapes allow."""
RETRY_AFTER = 5.0

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
    "pages": pages_query(60),
}


@dataclass(frozen=True, slots=True)
class Metrics:
    """What is going on now. ``at`` is when Prometheus was asked (its clock, UTC seconds)."""

    at: float
    active_workers: int
    pending_tasks: int
    processing_tasks: int
    queue_lengths: Mapping[str, int]
    current_throughput: float
    error_rate_percent: float
    finished_in_window: int
    failed_in_window: int
    retried_in_window: int
    window_seconds: float
    avg_execution_time_ms: float | None
    p95_wait_ms: float | None
    reserved_tasks: int | None
    scheduled_tasks: int | None
    data_age_seconds: float | None
    system_health: Status = "healthy"

    def judged(self, health: Status) -> Metrics:
        """The same, with the health of the whole."""
        return replace(self, system_health=health)


def queries(scope: Scope) -> dict[str, str]:
    """The round of queries for `metrics`."""
    return {
        key: scope.render(template, window=RECENT) if key == "clusters" else scope.render(template)
        for key, template in QUERIES.items()
    }


def metrics(found: Mapping[str, Vector], scope: Scope) -> Metrics:
    """The metrics object from the answers to `queries`.

    Raises `AmbiguousCluster`, or `RequestRefused` with ``exporter_unavailable`` or ``broker_unavailable`` when one of
    the six figures cannot be known.
    """
    only_cluster(scope, tuple(sorted({sample.label("cluster") for sample in found["clusters"]})))
    _require_sight(found)
    recent = increment(found["pages"], wanted=WINDOW)
    if recent is None:
        raise _unknown("Prometheus has scraped the exporter only once: figures per second need two scrapes")
    lengths = {name: round(length) for name, length in found["queues"].by("queue_name").items()}
    return Metrics(
        at=_evaluated_at(found),
        active_workers=_count(found["workers"]) or 0,
        pending_tasks=sum(lengths.values()),
        processing_tasks=_first(_count(found["active"]), _count(found["in_progress"])),
        queue_lengths=lengths,
        current_throughput=recent.all_ended / recent.seconds,
        error_rate_percent=_percent(recent.of("celery_task_failed_total"), recent.all_ended),
        finished_in_window=round(recent.all_ended),
        failed_in_window=round(recent.of("celery_task_failed_total")),
        retried_in_window=round(recent.of("celery_task_retried_total")),
        window_seconds=recent.seconds,
        avg_execution_time_ms=mean_runtime_ms(recent),
        p95_wait_ms=_milliseconds(found["p95_wait"].value()),
        reserved_tasks=_count(found["reserved"]),
        scheduled_tasks=_count(found["scheduled"]),
        data_age_seconds=data_age(found),
    )


def mean_runtime_ms(growth: Increment, label: str = "") -> float | None:
    """Mean run time of the tasks that succeeded; ``None`` when none did."""
    count = growth.of("celery_task_runtime_seconds_count", label)
    return 1000 * growth.of("celery_task_runtime_seconds_sum", label) / count if count else None


def data_age(found: Mapping[str, Vector]) -> float | None:
    """Seconds between the newest scrape and the query, both by Prometheus' clock."""
    scraped = found["scraped"].value()
    return None if scraped is None else max(_evaluated_at(found) - scraped, 0.0)


def _require_sight(found: Mapping[str, Vector]) -> None:
    """Figures come from an exporter that Prometheus scrapes, that reaches its broker, and that has looked at it."""
    broker_up = found["broker_up"].value()
    if broker_up is None:
        raise _unknown("Prometheus has no current samples of a celerymeter exporter for this cluster")
    if broker_up == 0:
        raise RequestRefused("broker_unavailable", "the exporter cannot reach the broker", retry_after=RETRY_AFTER)
    if not len(found["queues"]) and found["queues_polled"].value() != 1:
        raise _unknown("the exporter could not look at the queues")


def _unknown(why: str) -> RequestRefused:
    return RequestRefused("exporter_unavailable", why, retry_after=RETRY_AFTER)


def _evaluated_at(found: Mapping[str, Vector]) -> float:
    return max(sample.at for sample in found["broker_up"])


def _count(vector: Vector) -> int | None:
    value = vector.value()
    return None if value is None else round(value)


def _first(*counts: int | None) -> int:
    return next((count for count in counts if count is not None), 0)


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else 1000 * seconds
