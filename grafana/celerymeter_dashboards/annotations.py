"""Marks on every chart: alerts that began to fire, workers that stopped or started, and deployments."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from celerymeter import metrics as families
from celerymeter_dashboards.conditions import FIRING, SINCE
from celerymeter_dashboards.panels import DATASOURCE
from celerymeter_dashboards.promql import VariableScope, latest

_BY_WORKER = "cluster, hostname"
_EVERY = VariableScope()
_UP = f"{_EVERY.recorded('celery:worker_up:max')} == 1"
_DOWN = f"{_EVERY.recorded('celery:worker_up:max')} == 0"
_WAS_DOWN = f"min_over_time({_EVERY.stored('celery:worker_up:max')}[5m]) == 0"
_UNSEEN = f"unless on ({_BY_WORKER}) present_over_time({_EVERY.stored('celery:worker_up:max')}[5m] offset 5m)"
"""Over a time, because all workers are unseen in the moment in which the exporter is restarted."""
_WATCHED = latest(f"{_EVERY.of(families.START_TIME)} offset 6m")
"""Without it all workers would seem to start with the exporter or Prometheus; rules need a minute to see them."""

RESTARTED = "several workers restarted within 5 minutes"


def marks() -> list[dashboard.AnnotationQuery]:
    """Return the queries; the first two give the time of the mark as their value, so that no step misses it."""
    alerts = f"max by (cluster, alertname, severity) ({SINCE} and ignoring (alertstate) {FIRING})"
    heartbeats = latest(_EVERY.of(families.WORKER_LAST_HEARTBEAT), "hostname")
    started = f"{_UP} and on ({_BY_WORKER}) {_WAS_DOWN}\nor {_UP} {_UNSEEN} and on (cluster) {_WATCHED}"
    new = _EVERY.recorded("celery:workers_of_new_version:count")
    restarted = _EVERY.recorded("celery:workers_restarted:count")
    return [
        _mark("Alert fires", f"1000 * {alerts}", color="red", title="{{alertname}} ({{severity}})", value_is_time=True),
        _mark(
            "Worker stops",
            f"1000 * ({heartbeats}\nand on ({_BY_WORKER}) {_DOWN})",
            color="orange",
            title="{{hostname}}: last heartbeat",
            value_is_time=True,
        ),
        _mark("Worker starts", started, color="blue", title="{{hostname}}: up for less than 5 minutes"),
        _mark(
            "Deployment",
            f"{_with_text(new, 'version $1', of='version')}\nor on (cluster) {_with_text(restarted, RESTARTED)}",
            color="purple",
            title="{{what}}",
        ),
    ]


def _with_text(expr: str, text: str, *, of: str = "cluster") -> str:
    """The same with a label ``what``, which the title of a mark shows."""
    return f'label_replace({expr}, "what", "{text}", "{of}", "(.*)")'


def _mark(name: str, expr: str, *, color: str, title: str, value_is_time: bool = False) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expr)
        .step("15s")
        .use_value_for_time(value_is_time)
        .title_format(title)
        .text_format("{{cluster}}")
        .tag_keys("cluster")
    )
