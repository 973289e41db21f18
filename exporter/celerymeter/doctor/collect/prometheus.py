"""Reads Prometheus: the exporters that it has, its targets, its rules and its Alertmanagers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from celerymeter.bounded_http import Unsendable
from celerymeter.doctor.collect.http import TIMEOUT, failure_of, get
from celerymeter.doctor.evidence import (
    AlertmanagerEvidence,
    Failure,
    PrometheusEvidence,
    RulesEvidence,
    ScrapedExporter,
    ScrapeTarget,
)
from celerymeter.errors import PrometheusError
from celerymeter.prometheus import PrometheusClient, PrometheusSettings, Scope, Vector
from celerymeter.prometheus.counters import Target
from celerymeter.urls import without_password

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes; several come at once, each with a row for each exporter, worker or metric."""
_BY = "by (cluster, job, instance)"
_EXPORTERS = f"max {_BY} (celerymeter_build_info{{SEL}})"
_QUERIES = {
    "exporters": _EXPORTERS,
    "started": f"max {_BY} (celerymeter_start_time_seconds{{SEL}})",
    "broker_up": f"max {_BY} (celerymeter_broker_up{{SEL}})",
    "last_event": f"max {_BY} (celerymeter_last_event_timestamp_seconds{{SEL}})",
    "workers": "max by (cluster, job, instance, hostname) (celery_worker_up{SEL}) == 1",
    # Some families come and go with what runs just now.
    "names": 'group by (cluster, job, instance, __name__) (last_over_time({SEL, __name__=~"celery(meter)?_.+"}[5m]))',
    "others": f'group {_BY} ({{SEL, __name__=~"celery_worker_up|celery_task_received_total"}}) unless {_EXPORTERS}',
    "time": "vector(time())",
    "limits": 'count(celery:queue_backlog:limit{cluster="", queue_name=""})',
}
_LABELS = ("name", "queue_name", "hostname")
_RENAMED = 'count({SEL, __name__=~"celery_.+", exported_$label!=""})'
_UNLABELLED = {
    "name": 'count(celery_task_started_total{SEL, name=""})',
    "queue_name": 'count(celery_task_started_total{SEL, queue_name=""})',
    "hostname": 'count(celery_worker_up{SEL, hostname=""})',
}
_DURATION = re.compile(r"([\d.]+)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PUSH_PATH = re.compile(r"/api/v\d/alerts$")
_ERRORS = re.compile(r'^prometheus_notifications_errors_total\{.*alertmanager="([^"]+)".*\} (\S+)$', re.MULTILINE)


def collect(url: str, *, scope: Scope, timeout: float = TIMEOUT) -> PrometheusEvidence:
    """Read the exporters within the scope, the targets, the rules and the Alertmanagers."""
    shown = without_password(url)
    queries = {key: scope.render(query) for key, query in _QUERIES.items()}
    queries |= {f"renamed {label}": scope.render(_RENAMED.replace("$label", label)) for label in _LABELS}
    queries |= {f"unlabelled {label}": scope.render(query) for label, query in _UNLABELLED.items()}
    try:
        with PrometheusClient(PrometheusSettings(url, timeout=timeout, max_bytes=MAX_ANSWER)) as client:
            sent = time.time()
            found = client.instants(queries)
            now = (sent + time.time()) / 2
    except PrometheusError as error:
        failure = failure_of(error.__cause__ or error, url=url)
        text = failure.text if isinstance(error.__cause__, Unsendable) else str(error)
        return PrometheusEvidence(shown, failure=replace(failure, text=text))
    clock = found["time"].value()
    return PrometheusEvidence(
        shown,
        exporters=_exporters(found),
        targets=_targets(url),
        others=frozenset(sample.label("instance") for sample in found["others"]),
        renamed=frozenset(label for label in _LABELS if found[f"renamed {label}"]),
        unlabelled=frozenset(label for label in _LABELS if found[f"unlabelled {label}"]),
        clock_offset=None if clock is None else now - clock,
        rules=_rules(url, limits=bool(found["limits"])),
        alertmanagers=_alertmanagers(url),
    )


def _exporters(found: dict[str, Vector]) -> tuple[ScrapedExporter, ...]:
    def values(key: str) -> dict[Target, float]:
        return {Target.of(sample): sample.value for sample in found[key]}

    def labels(key: str, label: str, target: Target) -> frozenset[str]:
        return frozenset(sample.label(label) for sample in found[key] if Target.of(sample) == target)

    started, broker_up, last_event = values("started"), values("broker_up"), values("last_event")
    return tuple(
        ScrapedExporter(
            job=target.job,
            instance=target.instance,
            cluster=target.cluster,
            started=started.get(target),
            broker_up=broker_up.get(target) == 1,
            last_event=last_event.get(target),
            workers=labels("workers", "hostname", target),
            names=labels("names", "__name__", target),
        )
        for target in sorted(values("exporters"))
    )


def _targets(url: str) -> tuple[ScrapeTarget, ...] | None:
    """Return the active targets; ``None`` for engines without such a page."""
    targets = (_data(url, "targets?state=active") or {}).get("activeTargets")
    try:
        return None if targets is None else tuple(map(_target, targets))
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _target(found: dict[str, Any]) -> ScrapeTarget:
    labels = found.get("labels") or {}
    return ScrapeTarget(
        url=str(found["scrapeUrl"]),
        healthy=found["health"] == "up",
        error=str(found.get("lastError", "")),
        job=str(labels.get("job", "")),
        instance=str(labels.get("instance", "")),
        interval=_seconds(found.get("scrapeInterval")),
        timeout=_seconds(found.get("scrapeTimeout")),
        took=float(found.get("lastScrapeDuration") or 0),
        scraped=found["health"] != "unknown",
    )


def _seconds(text: object) -> float:
    """Return the seconds of a duration such as ``1m30s`` or ``500ms``; 0 for other text."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(str(text or "")))


def _rules(url: str, *, limits: bool) -> RulesEvidence | None:
    """Return the rules; ``None`` for engines that leave them to others (VictoriaMetrics, Thanos, Mimir)."""
    data = _data(url, "rules")
    if data is None:
        return None
    rules = list(_each_rule(data))
    failing = {str(rule["name"]): str(rule.get("lastError", "")) for rule in rules if rule.get("health") == "err"}
    return RulesEvidence(frozenset(str(rule["name"]) for rule in rules), failing, limits)


def _each_rule(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in data.get("groups") or ():
        yield from group.get("rules") or ()


def _alertmanagers(url: str) -> tuple[AlertmanagerEvidence, ...] | None:
    """Return the Alertmanagers that it uses, each tried from here; ``None`` for engines that do not tell."""
    data = _data(url, "alertmanagers")
    if data is None:
        return None
    page = get(f"{url.rstrip('/')}/metrics")
    errors = (
        {}
        if isinstance(page, Failure)
        else {_place(push): int(float(n)) for push, n in _ERRORS.findall(page.body.decode(errors="replace"))}
    )
    found = []
    for push in (str(one["url"]) for one in data.get("activeAlertmanagers") or ()):
        base = _PUSH_PATH.sub("", push)
        response = get(f"{base}/-/ready")
        failure = response if isinstance(response, Failure) else None
        found.append(AlertmanagerEvidence(without_password(base), failure, errors.get(_place(push), 0)))
    return tuple(found)


def _place(url: str) -> str:
    """Return host, port and path, which are the same wherever Prometheus writes the URL."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}{_PUSH_PATH.sub('', parts.path)}"


def _data(url: str, path: str) -> dict[str, Any] | None:
    response = get(f"{url.rstrip('/')}/api/v1/{path}")
    if isinstance(response, Failure):
        return None
    try:
        data = response.json()["data"]
    except (ValueError, LookupError, TypeError):
        return None
    return data if isinstance(data, dict) else None
