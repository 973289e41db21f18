"""The Exporter dashboard: lost events, failing polls, and what is dropped, folded or late."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from celerymeter import metrics as families
from celerymeter.metrics import Family
from celerymeter_dashboards import conditions, control, states, trust
from celerymeter_dashboards.document import assemble, line, section
from celerymeter_dashboards.links import EXPORTER, TASKS, WORKERS, between
from celerymeter_dashboards.panels import About, ChartQuery, Panel, chart, limit, stat_panel, timeline
from celerymeter_dashboards.promql import VariableScope, first_of, latest, most, once, quantile, rate
from celerymeter_dashboards.states import State
from celerymeter_dashboards.stats import stat_value

SCOPE = VariableScope(("hostname",))
NOT_SCRAPED = "No exporter was scraped in the shown time."
EXPORTERS = conditions.exporters(SCOPE)
SUBSCRIBED = f"{conditions.broker_up(SCOPE)} == 1"
UP_DOWN = {0: State("down", states.BAD), 1: State("up", states.GOOD)}


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return assemble(
        EXPORTER,
        "Does the exporter receive every event and succeed in every poll? What does it drop, and what does it cost? "
        "Also: the control API.",
        section(
            "",
            line(3, trust.panel(SCOPE, EXPORTER), _exporters(), _brokers(), _last_event()),
            line(3, _lag(), _missed(), _polls(), _series()),
            line(7, _up_and_down(), _events()),
        ),
        section("Is every event seen?", line(8, _lags(), _three_counts()), line(8, _missed_over_time(), _unusable())),
        section(
            "Is every poll answered, and what does it hold and cost?",
            line(8, _poll_ages(), _cost()),
            line(8, _folded(), _tracked()),
        ),
        section("The control API", line(8, control.requests(SCOPE), control.answer_times(SCOPE))),
    )


def _exporters() -> Panel:
    about = About(
        "Exporters that answer",
        "Exporters that answer, of those that were scraped within a day. If two read one broker, every task is still "
        "counted once. Red if a cluster has none.",
        "short",
        NOT_SCRAPED,
    )
    value = f"sum({EXPORTERS})"
    expr = stat_value(value, critical=conditions.exporter_down(SCOPE), warning=conditions.some_exporter_down(SCOPE))
    return stat_panel(about, expr, links=[])


def _brokers() -> Panel:
    about = About(
        "Broker",
        "Up while the exporters of all clusters are subscribed to events. While the broker is down, counters do not "
        "change, and gauges of queues and workers are unknown.",
        "none",
        NOT_SCRAPED,
    )
    expr = stat_value(f"min({conditions.broker_up(SCOPE)})")
    return stat_panel(about, expr, links=[], words=UP_DOWN)


def _last_event() -> Panel:
    about = About(
        "Since the last event",
        "Time since the last event. A live worker sends a heartbeat every two seconds. Orange if it is longer than the "
        "threshold although workers answer.",
        "s",
        "No event has come since the exporter started.",
    )
    value = f"time() - min({latest(SCOPE.of(families.LAST_EVENT))})"
    return stat_panel(
        about,
        stat_value(
            value, critical=conditions.broker_down(SCOPE), warning=conditions.events_stopped(SCOPE), idle=SUBSCRIBED
        ),
        links=[],
    )


def _lag() -> Panel:
    about = About(
        "Event lag (p99)",
        "Time from an event's timestamp to its receipt over 5 minutes, corrected for the clock offset of the host.",
        "s",
        "No event has come in the last 5 minutes.",
    )
    value = quantile(0.99, SCOPE.of(families.EVENT_LAG, part="_bucket"), window="5m")
    return stat_panel(about, stat_value(value, idle=SUBSCRIBED), links=[])


def _missed() -> Panel:
    about = About(
        "Events missed",
        "Task runs of the last 5 minutes whose events never arrived, from the workers' own count. Counters and reports "
        "do not contain them.",
        "locale",
        NOT_SCRAPED,
    )
    value = f"sum(round({SCOPE.recorded('celery:events_missed:increase5m')}))"
    return stat_panel(
        about,
        stat_value(value, warning=conditions.events_missed(SCOPE), idle=SUBSCRIBED),
        links=[between(EXPORTER, WORKERS)],
    )


def _polls() -> Panel:
    about = About(
        "Failing polls",
        "Failing polls of queues and workers. After two intervals the metrics of a failing poll are shown as unknown.",
        "short",
        NOT_SCRAPED,
    )
    failing = conditions.polls_failing(SCOPE)
    known = latest(SCOPE.of(families.POLL_SUCCESS), "collector")
    value = first_of(f"count({failing})", f"0 * count({known})")
    return stat_panel(about, stat_value(value, warning=failing), links=[])


def _series() -> Panel:
    about = About(
        "Series",
        "Series that the chosen exporters serve. Orange if a limit was reached: new names are then counted under "
        "__other__.",
        "locale",
        NOT_SCRAPED,
    )
    folded = f"{latest(SCOPE.of(families.FOLDED), 'label')} > 0"
    return stat_panel(about, stat_value(f"sum({SCOPE.of(families.SERIES)})", warning=folded), links=[])


def _up_and_down() -> Panel:
    about = About(
        "Exporters and brokers",
        "Shows when each exporter answered its scrapes and was subscribed to events. Blank: it was not scraped.",
        "none",
        NOT_SCRAPED,
    )
    return timeline(
        about,
        ChartQuery(EXPORTERS, "{{instance}}"),
        ChartQuery(conditions.broker_up(SCOPE), "broker {{cluster}}"),
        words=UP_DOWN,
    )


def _events() -> Panel:
    about = About(
        "Events", "Events received per second, by type.", "suffix:/s", "No event has come since the exporter started."
    )
    return chart(
        about, ChartQuery(f"sum by (event) ({rate(SCOPE.of(families.EVENTS), 'event')})", "{{event}}"), stacked=True
    )


def _lags() -> Panel:
    about = About(
        "Event lag",
        "Time from an event's timestamp to its receipt, corrected for the clock offset of the host. Negative values "
        "are counted in the smallest bucket.",
        "s",
        "No event came in the shown time.",
    )
    buckets = SCOPE.of(families.EVENT_LAG, part="_bucket")
    lines = [
        ChartQuery(quantile(share, buckets), legend, color)
        for share, legend, color in ((0.5, "median", "green"), (0.95, "p95", "orange"), (0.99, "p99", "red"))
    ]
    return chart(about, *lines)


def _three_counts() -> Panel:
    about = About(
        "Runs, counted three ways",
        "Runs per second, counted by task-started events and by two counters of the workers themselves: in heartbeats "
        "and in inspect stats. The latter do not depend on events. Where the line of the events is lower, events were "
        "lost.",
        "suffix:/s",
        NOT_SCRAPED,
    )
    ways = (
        (families.TASK_STARTED, "events", "green"),
        (families.WORKER_PROCESSED, "heartbeats", "blue"),
        (families.TASK_ACCEPTED, "inspection", "purple"),
    )
    everything = VariableScope()
    lines = [
        ChartQuery(f"sum({rate(everything.of(family), window='5m')})", legend, color) for family, legend, color in ways
    ]
    return chart(about, *lines, links=[between(EXPORTER, TASKS)])


def _missed_over_time() -> Panel:
    about = About(
        "Runs whose events never arrived",
        "Runs within 5 minutes, for the five workers with the most, and the runs without events whose cause is not yet "
        "known.",
        "short",
        "No worker was seen in the shown time.",
    )
    selector = SCOPE.of(families.EVENTS_MISSED)
    missed = once(f"increase({selector}[5m])", "hostname")
    limits = SCOPE.recorded("celery:events_missed:effective", severity="warning")
    return chart(
        about,
        ChartQuery(most(missed, "hostname", call="increase", selector=selector, above="0"), "{{hostname}} {{cluster}}"),
        ChartQuery(f"sum({latest(SCOPE.of(families.EVENTS_UNEXPLAINED), 'hostname')})", "not explained yet", "text"),
        limit(limits, beside=missed),
        links=[between(EXPORTER, WORKERS, picked="worker", labels="series")],
        top=1.0,
    )


def _unusable() -> Panel:
    about = About(
        "Unusable and unmeasured",
        "Counts within 5 minutes: messages on the event channel that could not be used, duplicate ends of a run, waits "
        "that could not be measured, and reconnects to the broker.",
        "short",
        NOT_SCRAPED,
    )
    kinds = (
        (families.EVENTS_INVALID, "reason", "invalid: {{reason}}"),
        (families.EVENTS_DUPLICATE, "event", "second end: {{event}}"),
        (families.WAITS_UNMEASURED, "reason", "no wait: {{reason}}"),
    )
    lines = [ChartQuery(_occurring(family, label), legend) for family, label, legend in kinds]
    reconnects = f"sum({once(f'increase({SCOPE.of(families.RECONNECTS)}[5m])')})"
    return chart(about, *lines, ChartQuery(reconnects, "reconnects"), top=1.0)


def _occurring(family: Family, label: str) -> str:
    """Return the increase within 5 minutes by a label, of the values that occurred in the shown time."""
    selector = SCOPE.of(family)
    occurred = f"sum by ({label}) (increase({selector}[$__range] @ end())) > 0"
    return f"sum by ({label}) ({once(f'increase({selector}[5m])', label)})\nand on ({label}) ({occurred})"


def _poll_ages() -> Panel:
    about = About(
        "Since the last successful poll",
        "Time since the last successful poll of each collector. After two intervals its gauges disappear, so that no "
        "old value is shown.",
        "s",
        NOT_SCRAPED,
    )
    age = f"time() - {latest(SCOPE.of(families.POLL_LAST_SUCCESS), 'collector')}"
    took = f"max by (collector) ({latest(SCOPE.of(families.POLL_DURATION), 'collector')})"
    return chart(
        about,
        ChartQuery(f"max by (collector) ({age})", "{{collector}}"),
        ChartQuery(took, "{{collector}}: a poll takes", right="s"),
    )


def _folded() -> Panel:
    about = About(
        "Series, and names over a limit",
        "Series of each exporter (left axis), and names that were counted under __other__ within 5 minutes because a "
        "limit was reached (right axis).",
        "short",
        NOT_SCRAPED,
    )
    pages = f"sum by (instance) ({SCOPE.of(families.SERIES)})"
    return chart(
        about,
        ChartQuery(pages, "{{instance}}"),
        ChartQuery(_occurring(families.FOLDED, "label"), "over a limit: {{label}}", right="short"),
    )


def _tracked() -> Panel:
    about = About(
        "Tasks in memory",
        "Unfinished tasks in memory (left axis), and those dropped within 5 minutes (right axis).",
        "short",
        NOT_SCRAPED,
    )
    tracked = f"sum by (instance) ({SCOPE.of(families.TRACKED)})"
    return chart(
        about,
        ChartQuery(tracked, "{{instance}}"),
        ChartQuery(_occurring(families.EVICTED, "reason"), "dropped: {{reason}}", right="short"),
    )


def _cost() -> Panel:
    about = About(
        "What the exporter costs",
        "Share of one core (left axis) and resident memory (right axis) of each exporter.",
        "percentunit",
        NOT_SCRAPED,
    )
    target = '{job=~"$job", cluster=~"$cluster"}'
    ours = f"and on (cluster, job, instance) {latest(SCOPE.of(families.BUILD_INFO), 'job', 'instance')}"
    cpu = ChartQuery(f"rate(process_cpu_seconds_total{target}[$__rate_interval]) {ours}", "CPU {{instance}}")
    return chart(
        about, cpu, ChartQuery(f"process_resident_memory_bytes{target} {ours}", "memory {{instance}}", right="bytes")
    )
