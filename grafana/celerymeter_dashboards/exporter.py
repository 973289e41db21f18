"""The Exporter dashboard: lost events, failing polls, and what is dropped, folded or late."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from celerymeter import metrics as families
from celerymeter.metrics import Family
from celerymeter_dashboards import conditions, control, states, trust
from celerymeter_dashboards.document import assemble, line, section
from celerymeter_dashboards.links import EXPORTER, TASKS, WORKERS, between
from celerymeter_dashboards.panels import About, Line, Panel, chart, limit, stat_panel, timeline
from celerymeter_dashboards.promql import Scope, first_of, latest, most, once, quantile, rate
from celerymeter_dashboards.states import State
from celerymeter_dashboards.stats import stat_value

SCOPE = Scope(("hostname",))
NOT_SCRAPED = "No exporter was scraped in the shown time."
EXPORTERS = conditions.exporters(SCOPE)
SUBSCRIBED = f"{conditions.broker_up(SCOPE)} == 1"
UP_DOWN = {0: State("down", states.BAD), 1: State("up", states.GOOD)}


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return assemble(
        EXPORTER,
        "Can I trust what I see? What the exporter receives, polls, drops and costs; and the control API.",
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
        "Of those that were scraped within a day. Two on one broker count every task once. Red when a cluster has "
        "none.",
        "short",
        NOT_SCRAPED,
    )
    value = f"sum({EXPORTERS})"
    expr = stat_value(value, critical=conditions.exporter_down(SCOPE), warning=conditions.some_exporter_down(SCOPE))
    return stat_panel(about, expr, links=[])


def _brokers() -> Panel:
    about = About(
        "Broker",
        "Up while the event stream is subscribed in every cluster. While it is down counters stand still and gauges of "
        "queues and workers are unknown.",
        "none",
        NOT_SCRAPED,
    )
    expr = stat_value(f"min({conditions.broker_up(SCOPE)})")
    return stat_panel(about, expr, links=[], words=UP_DOWN)


def _last_event() -> Panel:
    about = About(
        "Last event",
        "How long ago; a live worker sends a heartbeat every two seconds. Orange when it is longer than the limit "
        "while workers answer.",
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
        "From the time that an event carries to its receipt, less the offset of the host's clock, over 5 minutes.",
        "s",
        "No event has come in the last 5 minutes.",
    )
    value = quantile(0.99, SCOPE.of(families.EVENT_LAG, part="_bucket"), window="5m")
    return stat_panel(about, stat_value(value, idle=SUBSCRIBED), links=[])


def _missed() -> Panel:
    about = About(
        "Events missed",
        "Task runs of the last 5 minutes whose events never arrived, by the workers' own count. Counters and reports "
        "are short by them.",
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
        "Polls that fail",
        "Of queues and of workers. What a failing poll feeds is unknown after two intervals, and shown as such.",
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
        "On the pages of all chosen exporters. Orange when a cap was reached, so that new names count under __other__.",
        "locale",
        NOT_SCRAPED,
    )
    folded = f"{latest(SCOPE.of(families.FOLDED), 'label')} > 0"
    return stat_panel(about, stat_value(f"sum({SCOPE.of(families.SERIES)})", warning=folded), links=[])


def _up_and_down() -> Panel:
    about = About(
        "Exporters and brokers",
        "Whether each exporter answers its scrapes and is subscribed to events. Blank: it was not scraped.",
        "none",
        NOT_SCRAPED,
    )
    return timeline(
        about,
        Line(EXPORTERS, "{{instance}}"),
        Line(conditions.broker_up(SCOPE), "broker {{cluster}}"),
        words=UP_DOWN,
    )


def _events() -> Panel:
    about = About("Events", "Received a second, by type.", "ops", "No event has come since the exporter started.")
    return chart(about, Line(f"sum by (event) ({rate(SCOPE.of(families.EVENTS), 'event')})", "{{event}}"), stacked=True)


def _lags() -> Panel:
    about = About(
        "Event lag",
        "From the time that an event carries to its receipt, less the offset of the host's clock. Negative lags count "
        "as the smallest bucket.",
        "s",
        "No event came in the shown time.",
    )
    buckets = SCOPE.of(families.EVENT_LAG, part="_bucket")
    lines = [
        Line(quantile(share, buckets), legend, color)
        for share, legend, color in ((0.5, "half", "green"), (0.95, "p95", "orange"), (0.99, "p99", "red"))
    ]
    return chart(about, *lines)


def _three_counts() -> Panel:
    about = About(
        "Runs, counted three ways",
        "A second: by task-started events, and by two counts that the workers keep themselves and that survive lost "
        "events (heartbeats, and inspection, which is polled). Where the events fall short, events were lost.",
        "ops",
        NOT_SCRAPED,
    )
    ways = (
        (families.TASK_STARTED, "events", "green"),
        (families.WORKER_PROCESSED, "heartbeats", "blue"),
        (families.TASK_ACCEPTED, "inspection", "purple"),
    )
    everything = Scope()
    lines = [Line(f"sum({rate(everything.of(family), window='5m')})", legend, color) for family, legend, color in ways]
    return chart(about, *lines, links=[between(EXPORTER, TASKS)])


def _missed_over_time() -> Panel:
    about = About(
        "Runs whose events never arrived",
        "Within 5 minutes, of the five workers with the most; and the runs whose cause is not known yet.",
        "short",
        "No worker was seen in the shown time.",
    )
    selector = SCOPE.of(families.EVENTS_MISSED)
    missed = once(f"increase({selector}[5m])", "hostname")
    limits = SCOPE.recorded("celery:events_missed:effective", severity="warning")
    return chart(
        about,
        Line(most(missed, "hostname", call="increase", selector=selector, above="0"), "{{hostname}} {{cluster}}"),
        Line(f"sum({latest(SCOPE.of(families.EVENTS_UNEXPLAINED), 'hostname')})", "not explained yet", "text"),
        limit(limits, beside=missed),
        links=[between(EXPORTER, WORKERS, picked="worker", labels="series")],
        top=1.0,
    )


def _unusable() -> Panel:
    about = About(
        "Unusable and unmeasured",
        "Within 5 minutes: messages on the event channel that could not be used, further ends of runs that had ended, "
        "waits that could not be measured, and reconnects to the broker.",
        "short",
        NOT_SCRAPED,
    )
    kinds = (
        (families.EVENTS_INVALID, "reason", "invalid: {{reason}}"),
        (families.EVENTS_DUPLICATE, "event", "second end: {{event}}"),
        (families.WAITS_UNMEASURED, "reason", "no wait: {{reason}}"),
    )
    lines = [Line(_occurring(family, label), legend) for family, label, legend in kinds]
    reconnects = f"sum({once(f'increase({SCOPE.of(families.RECONNECTS)}[5m])')})"
    return chart(about, *lines, Line(reconnects, "reconnects"), top=1.0)


def _occurring(family: Family, label: str) -> str:
    """Return the increase within 5 minutes by a label, of the values that occurred in the shown time."""
    selector = SCOPE.of(family)
    occurred = f"sum by ({label}) (increase({selector}[$__range] @ end())) > 0"
    return f"sum by ({label}) ({once(f'increase({selector}[5m])', label)})\nand on ({label}) ({occurred})"


def _poll_ages() -> Panel:
    about = About(
        "Since the last successful poll",
        "By collector. After two intervals its gauges vanish rather than stand still.",
        "s",
        NOT_SCRAPED,
    )
    age = f"time() - {latest(SCOPE.of(families.POLL_LAST_SUCCESS), 'collector')}"
    took = f"max by (collector) ({latest(SCOPE.of(families.POLL_DURATION), 'collector')})"
    return chart(
        about,
        Line(f"max by (collector) ({age})", "{{collector}}"),
        Line(took, "{{collector}}: a poll takes", right="s"),
    )


def _folded() -> Panel:
    about = About(
        "Series, and names beyond a cap",
        "Series on each page (left axis); names that were counted under __other__ within 5 minutes because a cap was "
        "reached (right axis).",
        "short",
        NOT_SCRAPED,
    )
    pages = f"sum by (instance) ({SCOPE.of(families.SERIES)})"
    return chart(
        about,
        Line(pages, "{{instance}}"),
        Line(_occurring(families.FOLDED, "label"), "beyond: {{label}}", right="short"),
    )


def _tracked() -> Panel:
    about = About(
        "Tasks in memory",
        "Unfinished tasks that are followed (left axis), and those dropped within 5 minutes (right axis).",
        "short",
        NOT_SCRAPED,
    )
    tracked = f"sum by (instance) ({SCOPE.of(families.TRACKED)})"
    return chart(
        about,
        Line(tracked, "{{instance}}"),
        Line(_occurring(families.EVICTED, "reason"), "dropped: {{reason}}", right="short"),
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
    cpu = Line(f"rate(process_cpu_seconds_total{target}[$__rate_interval]) {ours}", "CPU {{instance}}")
    return chart(
        about, cpu, Line(f"process_resident_memory_bytes{target} {ours}", "memory {{instance}}", right="bytes")
    )
