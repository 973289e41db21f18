"""The Overview dashboard, for a person on call: health, since when, and which queue, task or worker."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from celerymeter import metrics as families
from celerymeter_dashboards import charts, conditions, lists, states, trust
from celerymeter_dashboards.document import assemble, line, section
from celerymeter_dashboards.links import EXPORTER, OVERVIEW, QUEUES, TASKS, WORKERS, between
from celerymeter_dashboards.panels import About, ChartQuery, Panel, chart, stat_panel, timeline
from celerymeter_dashboards.promql import VariableScope, first_of, latest
from celerymeter_dashboards.states import State
from celerymeter_dashboards.stats import level, stat_value, verdict

SCOPE = VariableScope(("queue_name", "name", "hostname"))
HEALTH = {
    0: State("no exporter", states.BAD),
    1: State("broker down", states.BAD),
    2: State("no workers", states.BAD),
    3: State("unhealthy", states.BAD),
    4: State("degraded", states.WARNING),
    5: State("healthy", states.GOOD),
}


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return assemble(
        OVERVIEW,
        "Is the cluster healthy? If not, since when, and which queue, task or worker causes it? Can this page be "
        "trusted?",
        section(
            "",
            line(3, _health(), _alerts_firing(), trust.panel(SCOPE, OVERVIEW), _wait()),
            line(3, _workers(), _pending(), _busy(), _errors()),
            line(8, charts.outcomes(SCOPE, OVERVIEW), _parts()),
        ),
        section(
            "Which one is it?",
            line(7, lists.alerts()),
            line(8, lists.queues(SCOPE), lists.workers(SCOPE)),
            line(8, lists.tasks(SCOPE)),
        ),
        section(
            "How it got there",
            line(8, charts.failing(SCOPE, OVERVIEW), charts.waits(SCOPE, OVERVIEW)),
            line(8, charts.lengths(SCOPE, OVERVIEW), _slots_over_time()),
        ),
    )


def _health() -> Panel:
    about = About(
        "Health",
        "Unhealthy while a critical alert fires, degraded while a warning fires. A broker that is down and a cluster "
        "without workers show at once, before any alert. The rows of 'What is wrong, and since when' have details. "
        "Unknown: nothing is scraped, or the rules do not run; 'Can I trust this page?' says which.",
        "none",
        "Nothing is scraped, or the rules do not run.",
    )
    expr = verdict(
        conditions.exporter_down(SCOPE),
        conditions.broker_down(SCOPE),
        conditions.no_workers(SCOPE),
        conditions.FIRING_CRITICAL,
        conditions.FIRING_WARNING,
        conditions.broker_up(SCOPE),
    )
    links = [between(OVERVIEW, there) for there in (EXPORTER, WORKERS, QUEUES, TASKS)]
    return stat_panel(about, expr, links=links, words=HEALTH)


def _alerts_firing() -> Panel:
    about = About(
        "Alerts firing",
        "Critical and warning alerts that fire now. Red if one of them is critical. Info is listed below, not counted.",
        "locale",
        "Prometheus has not evaluated the alert rules.",
    )
    value = first_of(f"count({conditions.FIRING})", f"0 * count({conditions.RULES_RUN})")
    expr = stat_value(value, critical=conditions.FIRING_CRITICAL, warning=conditions.FIRING_WARNING)
    return stat_panel(about, expr, links=[between(OVERVIEW, there) for there in (WORKERS, QUEUES, TASKS, EXPORTER)])


def _wait() -> Panel:
    about = About(
        "Longest wait (p95)",
        "95th percentile of the waiting time in the slowest queue over 15 minutes: 19 of 20 tasks started sooner. "
        "Orange if it is above the queue's target.",
        "s",
        "No task has started in the last 15 minutes, or waits cannot be measured.",
    )
    value = f"max({SCOPE.recorded('celery:queue_wait:p95', 'queue_name')} >= 0)"
    expr = stat_value(value, warning=conditions.waits_beyond(SCOPE), idle=f"{conditions.broker_up(SCOPE)} == 1")
    return stat_panel(about, expr, links=[between(OVERVIEW, QUEUES)], nothing="no runs")


def _workers() -> Panel:
    about = About(
        "Active workers",
        "Workers that send heartbeats. Red if a cluster has none, orange if a worker disappeared without a "
        "worker-offline event.",
        "locale",
        "The broker is unreachable, so the value is unknown.",
    )
    up = f"{SCOPE.recorded('celery:worker_up:max', 'hostname')} == 1"
    value = first_of(f"count({up})", f"0 * count({SCOPE.recorded('celery:workers_up:count')})")
    expr = stat_value(value, critical=conditions.no_workers(SCOPE), warning=conditions.workers_down(SCOPE))
    return stat_panel(about, expr, links=[between(OVERVIEW, WORKERS)])


def _pending() -> Panel:
    about = About(
        "Pending tasks",
        "Messages that wait in all queues. Orange or red if one queue is above its threshold for length or age. "
        "Red also if a queue does not get empty in time, or has messages that no worker takes.",
        "locale",
        "The queues could not be polled.",
    )
    length = latest(SCOPE.of(families.QUEUE_LENGTH), "queue_name")
    value = first_of(f"sum({length})", f"0 * (max({SCOPE.of(families.POLL_SUCCESS, collector='queues')}) == 1)")
    critical, warning = (
        " or ".join(conditions.queues_in_trouble(SCOPE, severity)) for severity in ("critical", "warning")
    )
    expr = stat_value(value, critical=critical, warning=warning)
    return stat_panel(about, expr, links=[between(OVERVIEW, QUEUES)])


def _busy() -> Panel:
    about = About(
        "Slots busy",
        "Share of the time of all slots in which they ran a task, over 5 minutes. Orange if nearly all slots of a "
        "cluster are busy.",
        "percentunit",
        "No live worker reports its slots.",
    )
    expr = stat_value(
        conditions.slots_busy(SCOPE),
        warning=conditions.pools_saturated(SCOPE),
        idle=SCOPE.recorded("celery:workers_up:count"),
    )
    return stat_panel(about, expr, links=[between(OVERVIEW, WORKERS)])


def _errors() -> Panel:
    about = About(
        "Failing tasks",
        "Share of failed runs among those that ended in the last 5 minutes. Orange or red if one task is above its "
        "threshold.",
        "percentunit",
        "Nothing has ended in the last 5 minutes.",
    )
    failed = SCOPE.recorded("celery:task_failed:increase5m", "name")
    ended = SCOPE.recorded("celery:task_ended:increase5m", "name")
    expr = stat_value(
        f"sum({failed}) / (sum({ended}) > 0)",
        critical=conditions.tasks_failing(SCOPE, "critical"),
        warning=conditions.tasks_failing(SCOPE, "warning"),
        idle=f"{conditions.broker_up(SCOPE)} == 1",
    )
    return stat_panel(about, expr, links=[between(OVERVIEW, TASKS)], nothing="no runs")


def _parts() -> Panel:
    about = About(
        "What is wrong, and since when",
        "The state of each part over time, with the colours and thresholds of the values above. Grey: nothing ran "
        "within 5 minutes. Purple: unknown.",
        "none",
        "Nothing is scraped, or the recording rules do not run.",
    )
    return timeline(about, *(ChartQuery(expr, name) for name, expr in _levels().items()), words=states.LEVELS)


def _levels() -> dict[str, str]:
    return {
        "Exporter": level(
            critical=(conditions.exporter_down(SCOPE),),
            warning=(conditions.some_exporter_down(SCOPE),),
            known=conditions.exporters(SCOPE),
        ),
        "Broker": level(critical=(conditions.broker_down(SCOPE),), known=conditions.broker_up(SCOPE)),
        "Workers": level(
            critical=(conditions.no_workers(SCOPE),),
            warning=(conditions.workers_down(SCOPE),),
            known=SCOPE.recorded("celery:workers_up:count"),
        ),
        "Queues": level(
            critical=conditions.queues_in_trouble(SCOPE, "critical"),
            warning=(*conditions.queues_in_trouble(SCOPE, "warning"), conditions.waits_beyond(SCOPE)),
            known=SCOPE.recorded("celery:queue_length:max", "queue_name"),
        ),
        "Tasks": level(
            critical=(conditions.tasks_failing(SCOPE, "critical"),),
            warning=(conditions.tasks_failing(SCOPE, "warning"),),
            known=f"{SCOPE.recorded('celery:task_ended:increase5m', 'name')} > 0",
            idle=f"{conditions.broker_up(SCOPE)} == 1",
        ),
        "Events": level(
            critical=(conditions.events_stopped(SCOPE),),
            warning=(
                conditions.events_missed(SCOPE),
                conditions.silent_workers(SCOPE),
                conditions.polls_failing(SCOPE),
            ),
            known=f"{conditions.broker_up(SCOPE)} == 1",
        ),
    }


def _slots_over_time() -> Panel:
    about = About(
        "Busy slots over time",
        "Slots of all live workers, and how many of them ran a task, as a mean over 5 minutes.",
        "short",
        "No exporter knew of workers in the shown time.",
    )
    none = f"0 * sum({SCOPE.recorded('celery:workers_up:count')})"
    return chart(
        about,
        ChartQuery(first_of(f"sum({SCOPE.recorded('celery:pool_busy:sum')})", none), "busy", "blue"),
        ChartQuery(first_of(f"sum({SCOPE.recorded('celery:pool_slots:sum')})", none), "slots", "text"),
        links=[between(OVERVIEW, WORKERS)],
    )
