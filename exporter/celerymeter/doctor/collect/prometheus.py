"""Prometheus: which exporters it has and how it has them, and which targets it tries."""

from __future__ import annotations

import time
from typing import Any

from celerymeter.doctor.collect import rules
from celerymeter.doctor.collect.failures import failure_of
from celerymeter.doctor.collect.http import get
from celerymeter.doctor.evidence import Failure, PrometheusEvidence, Scraped, Target
from celerymeter.errors import PrometheusError
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope, Vector
from celerymeter.urls import without_password

_OURS = "max by (cluster, job, instance) (celerymeter_build_info{SEL})"
_BY = "by (cluster, job, instance)"
_QUERIES = {
    "exporters": _OURS,
    "started": f"max {_BY} (celerymeter_start_time_seconds{{SEL}})",
    "broker_up": f"max {_BY} (celerymeter_broker_up{{SEL}})",
    "last_event": f"max {_BY} (celerymeter_last_event_timestamp_seconds{{SEL}})",
    "workers": "max by (cluster, job, instance, hostname) (celery_worker_up{SEL}) == 1",
    "names": 'group by (cluster, job, instance, __name__) ({SEL, __name__=~"celery(meter)?_.+"})',
    "others": f'group {_BY} ({{SEL, __name__=~"celery_worker_up|celery_task_received_total"}}) unless {_OURS}',
    "time": "vector(time())",
}
_LABELS = ("name", "queue_name", "hostname")
_RENAMED = 'count({SEL, __name__=~"celery_.+", exported_$label!=""})'
_UNLABELLED = {
    "name": 'count(celery_task_started_total{SEL, name=""})',
    "queue_name": 'count(celery_task_started_total{SEL, queue_name=""})',
    "hostname": 'count(celery_worker_up{SEL, hostname=""})',
}
_DURATIONS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def look(url: str, *, scope: Scope) -> PrometheusEvidence:
    """Ask for exporters within the scope, for the targets, the rules and the Alertmanagers."""
    shown = without_password(url)
    try:
        with PrometheusClient(PrometheusSettings(url)) as client:
            sent = time.time()
            queries = {key: scope.render(query) for key, query in _QUERIES.items()}
            queries |= {f"renamed {label}": scope.render(_RENAMED.replace("$label", label)) for label in _LABELS}
            queries |= {f"unlabelled {label}": scope.render(query) for label, query in _UNLABELLED.items()}
            found = client.instants(queries)
            now = (sent + time.time()) / 2
            limits = bool(client.instant(rules.LIMITS))
    except PrometheusError as error:
        return PrometheusEvidence(shown, failure=Failure(failure_of(error).kind, str(error)))
    clock = found["time"].value()
    return PrometheusEvidence(
        shown,
        exporters=_exporters(found),
        targets=_targets(url),
        others=frozenset(sample.label("instance") for sample in found["others"]),
        renamed=frozenset(label for label in _LABELS if found[f"renamed {label}"]),
        unlabelled=frozenset(label for label in _LABELS if found[f"unlabelled {label}"]),
        clock_offset=None if clock is None else now - clock,
        rules=rules.loaded(url, limits=limits),
        alertmanagers=rules.alertmanagers(url),
    )


def _exporters(found: dict[str, Vector]) -> tuple[Scraped, ...]:
    """Every exporter with what belongs to it."""

    def key(sample: Any) -> tuple[str, ...]:
        return tuple(sample.key("cluster", "job", "instance"))

    def values(what: str) -> dict[tuple[str, ...], float]:
        return {key(sample): sample.value for sample in found[what]}

    def words(what: str, label: str, of: tuple[str, ...]) -> frozenset[str]:
        return frozenset(sample.label(label) for sample in found[what] if key(sample) == of)

    started, up, last = values("started"), values("broker_up"), values("last_event")
    return tuple(
        Scraped(
            job=one[1],
            instance=one[2],
            cluster=one[0],
            started=started.get(one),
            broker_up=up.get(one) == 1,
            last_event=last.get(one),
            workers=words("workers", "hostname", one),
            names=words("names", "__name__", one),
        )
        for one in sorted(values("exporters"))
    )


def _targets(url: str) -> tuple[Target, ...] | None:
    """The active targets; engines other than Prometheus may have no such page."""
    answer = get(f"{url.rstrip('/')}/api/v1/targets?state=active")
    if isinstance(answer, Failure):
        return None
    try:
        told: list[dict[str, Any]] = answer.json()["data"]["activeTargets"]
        return tuple(map(_target, told))
    except (ValueError, LookupError, TypeError):
        return None


def _target(told: dict[str, Any]) -> Target:
    labels = told.get("labels") or {}
    return Target(
        url=str(told["scrapeUrl"]),
        healthy=told["health"] == "up",
        error=str(told.get("lastError", "")),
        job=str(labels.get("job", "")),
        instance=str(labels.get("instance", "")),
        interval=_seconds(told.get("scrapeInterval")),
        timeout=_seconds(told.get("scrapeTimeout")),
        took=float(told.get("lastScrapeDuration") or 0),
    )


def _seconds(text: object) -> float:
    """``1m30s`` or ``500ms`` as Prometheus writes durations; 0 for what is none."""
    total, number = 0.0, ""
    for char in str(text or "").replace("ms", "u"):
        if char.isdigit() or char == ".":
            number += char
        else:
            total += float(number or 0) * (0.001 if char == "u" else _DURATIONS.get(char, 0.0))
            number = ""
    return total
