"""What a person can try while the demo runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from celerymeter.demo.processes import Process

QUERIES = {
    "tasks per second, by task": "sum by (name) (rate(celery_task_succeeded_total[1m]))",
    "95th percentile of the wait, by queue": (
        "histogram_quantile(0.95, sum by (le, queue_name) (rate(celery_task_wait_seconds_bucket[5m])))"
    ),
    "queue lengths": "max by (queue_name) (celery_queue_length)",
}


def graph(prometheus_url: str, query: str) -> str:
    """A link to Prometheus' page with a query in it."""
    return f"{prometheus_url}/graph?g0.tab=0&g0.range_input=15m&g0.expr={quote(query, safe='')}"


def guide(values: Mapping[str, str], *, env: Path, victim: Process) -> str:
    """The text: the addresses, as in ``env``, and what to do with them."""
    prometheus = values["PROMETHEUS_URL"]
    api = f"{values['CELERYMETER_CONTROL_URL']}/celery-admin"
    lines = [
        "",
        f"Ready. Addresses, also in {env}:",
        *(f"  {name}={value}" for name, value in values.items()),
        "",
        f"Try next (first: set -a; . {env}):",
        f"  curl -s {values['CELERYMETER_EXPORTER_URL']}/metrics | grep celery_task_succeeded_total",
        f"  curl -s -H 'Authorization: Bearer '$CELERYMETER_TOKEN {api}/monitoring/metrics/realtime",
        f"  curl -s {api}/system/health    and all it can do: {values['CELERYMETER_CONTROL_URL']}/docs",
        f"  celerymeter doctor --broker-url {values['BROKER_URL']} --prometheus-url {prometheus}",
        *(f"  {title}: {graph(prometheus, query)}" for title, query in QUERIES.items()),
        f"  alerts: {prometheus}/alerts, and what is sent: {values['ALERTMANAGER_URL']}",
        f"  kill -9 {victim.pid}    ends the {victim.name}: see its alert come, and go when it is started again",
        "  ^C stops everything.",
        "",
    ]
    return "\n".join(lines)
