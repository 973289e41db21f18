"""The Tasks dashboard: rates, durations and errors of one task or of all."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from celerymeter import metrics as families
from celerymeter_dashboards import charts, conditions, states
from celerymeter_dashboards.document import assemble, line, section
from celerymeter_dashboards.links import QUEUES, TASKS, WORKERS, between, report
from celerymeter_dashboards.panels import About, ChartQuery, Panel, Scale, chart, heat_map, limit, stat_panel
from celerymeter_dashboards.promql import VariableScope, latest, once, quantile, rate
from celerymeter_dashboards.stats import stat_value
from celerymeter_dashboards.tables import Column, Key, table_of

SCOPE = VariableScope(("queue_name", "name"))
QUANTILES = ((0.5, "median", "green"), (0.95, "p95", "orange"), (0.99, "p99", "red"))
IDLE = f"{conditions.broker_up(SCOPE)} == 1"
BURN_WINDOWS = (("1h", "red"), ("6h", "orange"), ("3d", "blue"))


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return assemble(
        TASKS,
        "How often does a task run? How long does it run and wait? Which exceptions make it fail?",
        section(
            "",
            line(3, _runs(), _failing(), _run_time(), _wait()),
            line(3, _running(), _oldest(), _retried(), _last_success()),
            line(8, charts.outcomes(SCOPE, TASKS), charts.failing(SCOPE, TASKS)),
        ),
        section("Which task is it?", line(10, _table())),
        section("How long does it take?", line(8, _run_times(), _waits()), line(8, _run_time_spread(), _wait_spread())),
        section("What goes wrong?", line(8, _exceptions(), _not_done()), line(8, _burn(), _in_progress())),
    )


def _runs() -> Panel:
    about = About(
        "Runs", "Runs that succeeded or failed, per second over the last 5 minutes.", "suffix:/s", charts.NO_RUNS
    )
    ended = " + ".join(f"sum({_rate5m(family)})" for family in (families.TASK_SUCCEEDED, families.TASK_FAILED))
    return stat_panel(about, stat_value(f"{ended} and on () {IDLE}", idle=IDLE), links=[], nothing="no runs")


def _rate5m(family: families.Family) -> str:
    return rate(SCOPE.of(family), window="5m")


def _failing() -> Panel:
    about = About(
        "Failing runs",
        "Share of failed runs among those that ended in the last 5 minutes. Orange or red if one task is above its "
        "threshold.",
        "percentunit",
        charts.NO_RUNS,
    )
    succeeded, failed = (f"sum({_rate5m(family)})" for family in (families.TASK_SUCCEEDED, families.TASK_FAILED))
    expr = stat_value(
        f"{failed} / ({succeeded} + {failed} > 0)",
        critical=conditions.tasks_failing(SCOPE, "critical"),
        warning=conditions.tasks_failing(SCOPE, "warning"),
        idle=IDLE,
    )
    return stat_panel(about, expr, links=[], nothing="no runs")


def _run_time() -> Panel:
    about = About(
        "Run time (p95)",
        "95th percentile over 15 minutes: 19 of 20 successful runs took less. Orange if one task is above its "
        "threshold.",
        "s",
        charts.NO_RUNS,
    )
    slow = conditions.beyond(
        SCOPE.recorded("celery:task_runtime:p95", "name"),
        SCOPE.recorded("celery:task_runtime:effective", "name", severity="warning"),
        on="cluster, name",
    )
    value = quantile(0.95, SCOPE.of(families.TASK_RUNTIME, part="_bucket"), window="15m")
    return stat_panel(about, stat_value(value, warning=slow, idle=IDLE), links=[], nothing="no runs")


def _wait() -> Panel:
    about = About(
        "Wait (p95)",
        "95th percentile over 15 minutes of the time from sent (or the ETA) to started: 19 of 20 runs started sooner. "
        "Orange if one queue is above its target.",
        "s",
        charts.NO_WAITS,
    )
    value = quantile(0.95, SCOPE.of(families.TASK_WAIT, part="_bucket"), window="15m")
    expr = stat_value(value, warning=conditions.waits_beyond(SCOPE), idle=IDLE)
    return stat_panel(about, expr, links=[between(TASKS, QUEUES)], nothing="no runs")


def _running() -> Panel:
    about = About("Running now", "Runs that have started and not ended.", "locale", "The broker is out of reach.")
    expr = stat_value(f"sum({once(SCOPE.of(families.TASK_IN_PROGRESS))})", idle=IDLE)
    return stat_panel(about, expr, links=[between(TASKS, WORKERS)])


def _oldest() -> Panel:
    about = About(
        "Oldest run",
        "Age of the run that started first. Orange if a run is older than the threshold of its task.",
        "s",
        "Nothing is running.",
    )
    oldest = SCOPE.recorded("celery:task_oldest:seconds", "name")
    limits = SCOPE.recorded("celery:task_stuck:effective", "name", severity="warning")
    expr = stat_value(f"max({oldest})", warning=conditions.beyond(oldest, limits, on="cluster, name"), idle=IDLE)
    return stat_panel(about, expr, links=[between(TASKS, WORKERS)])


def _retried() -> Panel:
    about = About(
        "Retried",
        "Share of the runs started in the last 5 minutes that ended in a retry. Orange if one task is above its "
        "threshold.",
        "percentunit",
        "Nothing has started in the last 5 minutes.",
    )
    on = "cluster, name"
    retried, started = (SCOPE.recorded(f"celery:task_{what}:increase5m", "name") for what in ("retried", "started"))
    limits = SCOPE.recorded("celery:retry_ratio:effective", "name", severity="warning")
    enough = f"{retried} >= on ({on}) {SCOPE.recorded('celery:retries:effective', 'name')}"
    storm = f"{conditions.beyond(f'{retried} / on ({on}) ({started} > 0)', limits, on=on)} and on ({on}) {enough}"
    expr = stat_value(f"sum({retried}) / (sum({started}) > 0)", warning=storm, idle=IDLE)
    return stat_panel(about, expr, links=[], nothing="no runs")


def _last_success() -> Panel:
    about = About("Since the last success", "Time since the last successful run.", "s", "No run has succeeded yet.")
    value = f"time() - max({latest(SCOPE.of(families.TASK_LAST_SUCCESS), 'name')})"
    return stat_panel(about, stat_value(value, idle=IDLE), links=[], nothing="never")


def _table() -> Panel:
    about = About(
        "Tasks",
        "Counts over the shown time, worst state first. Share: failed runs of all runs. The state compares the last 5 "
        "minutes with the thresholds of each task. Click a name to choose the task or to open its stored reports. The "
        "control API requires a token for reports, so your browser needs a proxy that adds one; otherwise use "
        "celerymeter report --task NAME.",
        "short",
        "No task is known yet, or nothing is scraped.",
    )
    runs, failed, retried = (
        once(f"increase({SCOPE.of(family)}[$__range])", "name")
        for family in (families.TASK_STARTED, families.TASK_FAILED, families.TASK_RETRIED)
    )
    total, count = (
        once(f"increase({SCOPE.of(families.TASK_RUNTIME, part=part)}[$__range])", "name") for part in ("_sum", "_count")
    )
    worst = f"max_over_time({SCOPE.stored('celery:task_runtime:p95', 'name')}[$__range]) >= 0"
    return table_of(
        about,
        [Key("name", "Task", (between(TASKS, TASKS, picked="task"), report()), at_least=245)],
        [
            Column("State", conditions.task_states(SCOPE), "none", width=75, words=states.LEVELS),
            Column("Runs", runs, "locale", width=65, decimals=0),
            Column("Failed", failed, "locale", width=65, decimals=0),
            Column("Share", f"{failed} / ({runs} > 0)", "percentunit", width=65, decimals=1),
            Column("Retried", retried, "locale", width=70, decimals=0),
            Column("Mean run", f"{total} / ({count} > 0)", "s", width=80),
            Column("Worst p95", worst, "s", width=85),
            Column("Running", once(SCOPE.of(families.TASK_IN_PROGRESS), "name"), width=70),
            Column(
                "Last success",
                f"1000 * {latest(SCOPE.of(families.TASK_LAST_SUCCESS), 'name')}",
                "dateTimeFromNow",
                width=135,
            ),
        ],
        sort="State",
    )


def _run_times() -> Panel:
    about = About(
        "Run time",
        "Run time of successful runs, as the workers measured it. Failed runs are left out, since fast failures would "
        "hide slow runs. Logarithmic scale. Limit: the lowest of the shown tasks.",
        "s",
        charts.NO_RUNS,
    )
    limits = SCOPE.recorded("celery:task_runtime:effective", "name", severity="warning")
    ran = SCOPE.recorded("celery:task_succeeded:increase5m", "name")
    lines = *_quantiles(families.TASK_RUNTIME), limit(limits, beside=f"{ran} > 0")
    return chart(about, *lines, scale=Scale.LOGARITHMIC)


def _waits() -> Panel:
    about = About(
        "Wait",
        "Time from sent (or the ETA) to started, corrected for clock offsets. Logarithmic scale. Target: the lowest of "
        "the shown queues.",
        "s",
        charts.NO_WAITS,
    )
    target = SCOPE.recorded("celery:wait_target:effective", "queue_name")
    waited = SCOPE.recorded("celery:queue_wait:increase5m", "queue_name")
    lines = *_quantiles(families.TASK_WAIT), limit(target, beside=f"{waited} > 0", legend="target")
    return chart(about, *lines, scale=Scale.LOGARITHMIC, links=[between(TASKS, QUEUES)])


def _quantiles(family: families.Family) -> list[ChartQuery]:
    buckets = SCOPE.of(family, part="_bucket")
    return [ChartQuery(quantile(share, buckets), legend, color) for share, legend, color in QUANTILES]


def _run_time_spread() -> Panel:
    about = About(
        "Distribution of run times", "Successful runs per second in each bucket of run time.", "s", charts.NO_RUNS
    )
    return heat_map(about, f"sum by (le) ({rate(SCOPE.of(families.TASK_RUNTIME, part='_bucket'), 'le')})")


def _wait_spread() -> Panel:
    about = About(
        "Distribution of waits", "Runs started per second in each bucket of waiting time.", "s", charts.NO_WAITS
    )
    return heat_map(about, f"sum by (le) ({rate(SCOPE.of(families.TASK_WAIT, part='_bucket'), 'le')})")


def _exceptions() -> Panel:
    about = About(
        "Exceptions",
        "Failed runs per second by exception class, for the five most frequent classes in the shown time.",
        "suffix:/s",
        "Nothing has failed in the shown time.",
    )
    selector = SCOPE.of(families.TASK_EXCEPTIONS)
    ranked = f"topk(5, sum by (exception) (increase({selector}[$__range] @ end())) > 0)"
    expr = f"sum by (exception) ({rate(selector, 'exception')})\nand on (exception) {ranked}"
    return chart(about, ChartQuery(expr, "{{exception}}"), stacked=True)


def _not_done() -> Panel:
    about = About(
        "Retried, rejected, revoked",
        "Runs per second. Requeued: rejected with requeue, so the message went back to the queue and the task has not "
        "ended.",
        "suffix:/s",
        charts.NO_RUNS,
    )
    rejected, requeued = (rate(SCOPE.of(families.TASK_REJECTED, requeue=again)) for again in ("false", "true"))
    return chart(
        about,
        ChartQuery(f"sum({rate(SCOPE.of(families.TASK_RETRIED))})", "retried", "yellow"),
        ChartQuery(f"sum({rejected})", "rejected", "purple"),
        ChartQuery(f"sum({requeued})", "requeued", "blue"),
        ChartQuery(f"sum by (reason) ({rate(SCOPE.of(families.TASK_REVOKED), 'reason')})", "{{reason}}"),
    )


def _burn() -> Panel:
    about = About(
        "Error budget burn",
        "Burn rate of the worst shown task over three windows: 1 uses up the error budget exactly. An alert fires if "
        "the rate of a window is above the dashed line of this window, and so is the rate of a shorter window.",
        "short",
        "Nothing has run, or there is too little history: the budget rules need an hour of it.",
    )
    lines = [
        ChartQuery(f"max({SCOPE.recorded(f'celery:error_burn:rate{window}', 'name')} >= 0)", window, color)
        for window, color in BURN_WINDOWS
    ]
    known = SCOPE.recorded("celery:error_burn:rate1h", "name")
    for window, severity in (("1h", "critical"), ("3d", "warning")):
        allowed = SCOPE.recorded("celery:burn_rate:effective", window=window)
        lines.append(limit(allowed, beside=known, severity=severity, legend=f"limit of {window}"))
    return chart(about, *lines)


def _in_progress() -> Panel:
    about = About(
        "Running, and for how long",
        "Runs that have started and not ended (left axis), and the age of the oldest (right axis).",
        "short",
        "Nothing has run yet, or the broker is out of reach.",
    )
    running = ChartQuery(f"sum({once(SCOPE.of(families.TASK_IN_PROGRESS))})", "running", "blue")
    oldest = ChartQuery(
        f"max({SCOPE.recorded('celery:task_oldest:seconds', 'name')})", "age of the oldest", "orange", right="s"
    )
    return chart(about, running, oldest)
