"""The short tables of the Overview, each row of which leads to the dashboard that explains it."""

from __future__ import annotations

from celerymeter import metrics as families
from celerymeter_dashboards import conditions, states
from celerymeter_dashboards.links import OVERVIEW, QUEUES, TASKS, WORKERS, between, by_area
from celerymeter_dashboards.panels import About, Panel
from celerymeter_dashboards.promql import VariableScope, latest, rate
from celerymeter_dashboards.states import State
from celerymeter_dashboards.tables import Column, Key, table_of

_COLORS = {"critical": states.BAD, "warning": states.WARNING, "info": states.CALM}
_RANKS = {severity: f"{rank} {severity}" for rank, severity in enumerate(_COLORS, 1)}
"""A table sorts texts by the alphabet, where info would come before warning."""


def alerts() -> Panel:
    """Firing alerts."""
    about = About(
        "Firing alerts",
        "Alerts that fire, with their queue, task or worker, and since when. Info needs no action: it notifies nobody "
        "and colours nothing.",
        "none",
        "No alert fires; or the rules do not run, and then the value above is unknown.",
    )
    since = f"1000 * ({conditions.LISTED_SINCE} and ignoring (alertstate) {conditions.LISTED})"
    named = f'label_join({since}, "subject", " ", "queue_name", "schedule", "name", "hostname")'
    led = f'label_replace({named}, "leads_to", "$1", "area", "(.+)")'
    for dashboard_name, label, value in (
        ("exporter", "area", "control"),
        ("tasks", "name", ".+"),
        ("queues", "queue_name", ".+"),
        ("schedules", "schedule", ".+"),
    ):
        led = f'label_replace({led}, "leads_to", "{dashboard_name}", "{label}", "{value}")'
    for severity, rank in _RANKS.items():
        led = f'label_replace({led}, "rank", "{rank}", "severity", "{severity}")'
    shown = {rank: State(severity, _COLORS[severity]) for severity, rank in _RANKS.items()}
    return table_of(
        about,
        [
            Key("rank", "Severity", width=90, words=shown),
            Key("alertname", "Alert", width=220),
            Key("subject", "Where", at_least=260),
            Key("leads_to", "See", (by_area(OVERVIEW, "leads_to"),), width=80, last=True),
        ],
        [Column("Since", led, "dateTimeFromNow", width=115)],
        sort="Severity",
    )


def queues(scope: VariableScope) -> Panel:
    """Queues, worst first."""
    about = About(
        "Queues",
        "Worst queue first. The limit is the threshold of the backlog warning.",
        "short",
        "No queue is known: nothing was sent and no worker consumes one, or the queues could not be polled.",
    )
    length = scope.recorded("celery:queue_length:max", "queue_name")
    backlog = scope.recorded("celery:queue_backlog:effective", "queue_name", severity="warning")
    return table_of(
        about,
        [Key("queue_name", "Queue", (between(OVERVIEW, QUEUES, picked="queue"),), at_least=110)],
        [
            Column("State", conditions.queue_states(scope), "none", width=75, words=states.LEVELS),
            Column("Waiting", length, "locale", width=75),
            Column("Limit", f"{backlog} and on (cluster, queue_name) {length}", "locale", width=60),
            Column("Oldest", scope.recorded("celery:queue_age:seconds", "queue_name"), "s", width=80),
            Column("Workers", scope.recorded("celery:queue_consumers:max", "queue_name"), width=75),
        ],
        sort="State",
    )


def tasks(scope: VariableScope) -> Panel:
    """Tasks, worst first."""
    about = About(
        "Tasks",
        "Worst task first. Runs are those of the last 5 minutes; the run time is the 95th percentile over 15 minutes.",
        "short",
        "No task has run since the exporter started, or nothing is scraped.",
    )
    ended = scope.recorded("celery:task_ended:increase5m", "name")
    return table_of(
        about,
        [Key("name", "Task", (between(OVERVIEW, TASKS, picked="task"),), at_least=260)],
        [
            Column("State", conditions.task_states(scope), "none", width=80, words=states.LEVELS),
            Column("Runs/s", f"{ended} / 300", "short", width=65, decimals=2),
            Column("Failed", scope.recorded("celery:task_errors:ratio5m", "name"), "percentunit", width=70, decimals=1),
            Column("Run p95", f"{scope.recorded('celery:task_runtime:p95', 'name')} >= 0", "s", width=85),
        ],
        sort="State",
    )


def workers(scope: VariableScope) -> Panel:
    """Workers, worst first."""
    about = About(
        "Workers",
        "Workers without heartbeats first. Busy: share of the slots' time in which they ran a task, over 5 minutes. "
        "Heartbeat: time since the last one.",
        "short",
        "No worker is known, or the broker or the exporter is unreachable.",
    )
    heartbeat = f"time() - {latest(scope.of(families.WORKER_LAST_HEARTBEAT), 'hostname')}"
    return table_of(
        about,
        [Key("hostname", "Worker", (between(OVERVIEW, WORKERS, picked="worker"),), at_least=195)],
        [
            Column("State", conditions.worker_states(scope), "none", width=70, words=states.WORKERS),
            Column(
                "Busy",
                scope.recorded("celery:worker_saturation:ratio", "hostname"),
                "percentunit",
                width=60,
                decimals=0,
            ),
            Column("Runs/s", rate(scope.of(families.WORKER_PROCESSED), "hostname", window="5m"), width=65, decimals=2),
            Column("Heartbeat", heartbeat, "s", width=85, decimals=0),
        ],
        sort="State",
    )
