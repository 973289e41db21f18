"""What is marked on every chart: alerts that begin to fire, and workers that go and come."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from celerymeter_dashboards.alarms import FIRING
from celerymeter_dashboards.panels import DATASOURCE

_BY_ALERT = "cluster, alertname, severity"
_BY_WORKER = "cluster, hostname"
_UP = 'celery:worker_up:max{cluster=~"$cluster"}'
_WATCHED = '(time() - max by (cluster) (celerymeter_start_time_seconds{job=~"$job"}) > 120)'
"""Else every worker would seem to start when the exporter does."""
_EARLIER = "offset $__interval"


def marks() -> list[dashboard.AnnotationQuery]:
    """Queries that hold at the moment of a change; what lasts is for the tables to say."""
    return [
        _mark(
            "Alert fires",
            f"count by ({_BY_ALERT}) ({FIRING})\nunless on ({_BY_ALERT}) count by ({_BY_ALERT}) ({FIRING} {_EARLIER})",
            color="red",
            title="{{alertname}} ({{severity}})",
        ),
        _mark(
            "Worker stops",
            f"{_UP} == 0 and on ({_BY_WORKER}) {_UP} {_EARLIER} == 1",
            color="orange",
            title="{{hostname}} stopped",
        ),
        _mark(
            "Worker starts",
            f"{_UP} == 1 unless on ({_BY_WORKER}) {_UP} {_EARLIER} == 1 and on (cluster) {_WATCHED}",
            color="blue",
            title="{{hostname}} started",
        ),
    ]


def _mark(name: str, expr: str, *, color: str, title: str) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expr)
        .step("15s")
        .title_format(title)
        .text_format("{{cluster}}")
        .tag_keys("cluster")
    )
