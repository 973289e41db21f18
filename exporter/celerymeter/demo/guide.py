"""What a person can try while the demo runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from celerymeter.demo.processes import Process
from celerymeter.demo.site import shown

QUERIES = {
    "tasks per second": "sum by (name) (rate(celery_task_succeeded_total[1m]))",
    "95 % wait less than": (
        "histogram_quantile(0.95, sum by (le, queue_name) (rate(celery_task_wait_seconds_bucket[5m])))"
    ),
    "queue lengths": "max by (queue_name) (celery_queue_length)",
}


def graph(prometheus_url: str, query: str) -> str:
    """A link to Prometheus' page with a query in it."""
    return f"{prometheus_url}/graph?g0.tab=0&g0.range_input=15m&g0.expr={quote(query, safe='')}"


def program() -> str:
    """How to call us: by name where the shell finds us, else by the script beside this interpreter."""
    ours = Path(sys.executable).with_name("celerymeter")
    if shutil.which("celerymeter") == str(ours):
        return "celerymeter"
    return str(shown(ours))


def guide(values: Mapping[str, str], *, env: Path, victim: Process, slack: Path | None = None) -> str:
    """The text: the addresses, as in ``env``, and what to do with them; ``slack`` is the file of its webhook's URL."""
    prometheus, control = values["PROMETHEUS_URL"], values["CELERYMETER_CONTROL_URL"]
    lines = [
        "",
        f"Ready. The addresses are in {env} too:",
        *(f"  {name}={value}" for name, value in values.items()),
        "",
        "Look:",
        f"  alerts                {prometheus}/alerts",
        f"  notifications         {values['ALERTMANAGER_URL']}",
        *([f"  Slack                 warnings and criticals, by the webhook in {shown(slack)}"] if slack else ()),
        f"  the control API       {control}/docs",
        *(f"  {title:21} {graph(prometheus, query)}" for title, query in QUERIES.items()),
        "",
        "Try, in another terminal:",
        f"  set -a; . {env}; set +a",
        "  curl -s $CELERYMETER_EXPORTER_URL/metrics | grep celery_task_succeeded_total",
        '  curl -s -H "Authorization: Bearer $CELERYMETER_TOKEN" '
        "$CELERYMETER_CONTROL_URL/celery-admin/monitoring/metrics/realtime",
        f"  {program()} doctor --broker-url $BROKER_URL --prometheus-url $PROMETHEUS_URL",
        f"  kill -9 {victim.pid}    the {victim.name} is gone: its alert comes, and goes when it is started again",
        "",
        "^C stops everything.",
        "",
    ]
    return "\n".join(lines)
