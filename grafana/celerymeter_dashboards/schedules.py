"""The Schedules dashboard: what is late now, what is due next, what became of what beat sent."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from celerymeter import metrics as families
from celerymeter.metrics import Family
from celerymeter_dashboards import conditions, states
from celerymeter_dashboards.document import assemble, line, section
from celerymeter_dashboards.links import SCHEDULES, TASKS, between
from celerymeter_dashboards.panels import About, ChartQuery, Panel, Scale, chart, limit, stat_panel, timeline
from celerymeter_dashboards.promql import VariableScope, first_of, latest, once, quantile
from celerymeter_dashboards.states import State
from celerymeter_dashboards.stats import levels, stat_value
from celerymeter_dashboards.tables import Column, Key, table_of

SCOPE = VariableScope(("schedule",))
BY = ("schedule", "name")
ROW = "cluster, schedule, name"
LEGEND = "{{schedule}} {{cluster}}"
WATCHED = conditions.broker_up(SCOPE)
LATE = SCOPE.recorded("celery:schedule_late:seconds", "schedule")
FAILURES = SCOPE.recorded("celery:schedule_failures:max", "schedule")
BEAT = SCOPE.recorded("celery:beat_up:max")
LAG = SCOPE.recorded("celery:beat_lag:max")
NO_HOOK = "No beat reports its schedule: call celerymeter.schedule.install(app) where your Celery app is defined."
STATES = {0: State("late", states.BAD), 1: State("fails", states.WARNING), 2: State("good", states.GOOD)}
BEATS = {0: State("down", states.BAD), 1: State("up", states.GOOD)}


def _late(severity: str = "warning") -> str:
    """Select entries that were due and are not sent, beyond their limit."""
    allowed = SCOPE.recorded("celery:schedule_missed:effective", "schedule", severity=severity)
    return f"{LATE} > on (cluster, schedule) group_left () {allowed}"


def _failing() -> str:
    """Select entries whose last runs did not succeed."""
    allowed = SCOPE.recorded("celery:schedule_failures:effective", "schedule", severity="warning")
    return f"{FAILURES} >= on (cluster, schedule) group_left () {allowed}"


def gauge(family: Family) -> str:
    """A gauge by entry."""
    return latest(SCOPE.of(family), *BY)


def grown(family: Family) -> str:
    """The growth of a counter in the shown time, by entry."""
    return once(f"increase({SCOPE.of(family)}[$__range])", *BY)


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return assemble(
        SCHEDULES,
        "What should have run by now and did not? What is due next? Does beat live, and do its runs succeed?",
        section(
            "",
            line(3, _late_now(), _failing_now(), _next(), _missed_total()),
            line(3, _beats(), _duplicates(), _beat_lag(), _entries()),
            line(9, _table()),
        ),
        section(
            "Is everything sent on time?",
            line(8, _missed(), _lateness()),
            line(8, _beat_states(), _lag()),
        ),
        section("What becomes of it?", line(8, _succeeded(), _failed()), line(8, _unsent(), _since())),
    )


def _late_now() -> Panel:
    about = About(
        "Late now",
        "Entries that were due longer ago than their threshold and have not been sent. Orange for any.",
        "locale",
        NO_HOOK,
    )
    value = first_of(f"count({_late()})", f"0 * count({LATE})")
    return stat_panel(about, stat_value(value, warning=_late(), critical=_late("critical"), idle=WATCHED), links=[])


def _failing_now() -> Panel:
    about = About(
        "Sent, but failing",
        "Entries whose last runs failed, expired, or were revoked or rejected, as many in a row as the threshold says.",
        "locale",
        NO_HOOK,
    )
    value = first_of(f"count({_failing()})", f"0 * count({FAILURES})")
    links = [between(SCHEDULES, TASKS)]
    return stat_panel(about, stat_value(value, warning=_failing(), idle=WATCHED), links=links)


def _next() -> Panel:
    about = About("Next due in", "Time until the next entry that is not late is due.", "s", NO_HOOK)
    return stat_panel(about, stat_value(f"-1 * max({LATE} < 0)", idle=WATCHED), links=[])


def _missed_total() -> Panel:
    about = About(
        "Missed",
        "Times in the shown time that an entry was due and nothing was sent: beat was down, frozen, or could not send.",
        "locale",
        NO_HOOK,
    )
    missed = f"sum(clamp_min(round({grown(families.SCHEDULE_DUE)} - on ({ROW}) {grown(families.SCHEDULE_SENT)}), 0))"
    return stat_panel(about, stat_value(missed, warning=f"{missed} > 0", idle=WATCHED), links=[])


def _beats() -> Panel:
    about = About(
        "Beats alive",
        "Nodes on which beat sends heartbeats or answers pings. Red if a cluster that had one has none.",
        "locale",
        "No beat is known: it needs the hook, or Celery 5.7's beat_enable_remote_control.",
    )
    value = f"sum({latest(SCOPE.of(families.BEAT_UP), 'hostname')})"
    return stat_panel(about, stat_value(value, critical=f"{BEAT} == 0", idle=WATCHED), links=[])


def _duplicates() -> Panel:
    about = About(
        "Same schedule sent twice by",
        "Nodes whose beat has entries of another live beat's schedule: these tasks run twice. Two beats on one host "
        "count as one node.",
        "locale",
        NO_HOOK,
    )
    doubled = latest(SCOPE.of(families.BEAT_DUPLICATE), "hostname")
    return stat_panel(about, stat_value(f"sum({doubled})", warning=f"{doubled} == 1", idle=WATCHED), links=[])


def _beat_lag() -> Panel:
    about = About(
        "Beat is behind by",
        "How late beat's last tick was; of one that hangs, how late it is so far. Red above the threshold.",
        "s",
        NO_HOOK,
    )
    allowed = SCOPE.recorded("celery:beat_lag:effective", severity="critical")
    critical = conditions.beyond(LAG, allowed, on="cluster")
    return stat_panel(about, stat_value(f"max({LAG})", critical=critical, idle=WATCHED), links=[])


def _entries() -> Panel:
    about = About("Entries", "Entries in the schedules of all live beats.", "locale", NO_HOOK)
    value = f"sum({latest(SCOPE.of(families.SCHEDULE_ENTRIES), 'hostname')})"
    return stat_panel(about, stat_value(value, idle=WATCHED), links=[])


def _table() -> Panel:
    about = About(
        "Schedules",
        "Late entries first. Due: when it is due next, or was due if it is late. Missed: times in the shown time that "
        "it was due and not sent. In a row: runs that did not succeed since the last success.",
        "short",
        NO_HOOK,
    )
    missed = f"clamp_min(round({grown(families.SCHEDULE_DUE)} - on ({ROW}) {grown(families.SCHEDULE_SENT)}), 0)"
    known = latest(SCOPE.of(families.SCHEDULE_DUE), *BY)
    due = f"1000 * {gauge(families.SCHEDULE_NEXT_DUE)}"
    sent = f"1000 * {gauge(families.SCHEDULE_LAST_SENT)}"
    success = f"1000 * {gauge(families.SCHEDULE_LAST_SUCCESS)}"
    return table_of(
        about,
        [
            Key("schedule", "Schedule", (between(SCHEDULES, SCHEDULES, picked="schedule"),), at_least=180),
            Key("name", "Task", (between(SCHEDULES, TASKS, picked="task"),), at_least=180),
        ],
        [
            Column(
                "State",
                levels(critical=(f"0 * ({_late()})",), warning=(_failing(),), known=known),
                "none",
                width=65,
                words=STATES,
            ),
            Column("Due", due, "dateTimeFromNow", width=150),
            Column("Last sent", sent, "dateTimeFromNow", width=150),
            Column("Last success", success, "dateTimeFromNow", width=150),
            Column("Sent", f"round({grown(families.SCHEDULE_SENT)})", "locale", width=60, decimals=0),
            Column("Missed", missed, "locale", width=70, decimals=0),
            Column("In a row", gauge(families.SCHEDULE_FAILURES), "locale", width=75, decimals=0),
        ],
        sort="State",
    )


def _five(expr: str, family: Family, *, above: str = "> 0") -> str:
    """The five entries of ``expr`` for which a counter grew most in the shown time."""
    ranked = f"max by ({ROW}) (increase({SCOPE.of(family)}[$__range] @ end()))"
    return f"{expr}\nand on ({ROW}) topk(5, {ranked} {above})"


def _missed() -> Panel:
    about = About(
        "Missed over time",
        "Times within 5 minutes that an entry was due and nothing was sent, for the five entries that were due most "
        "often.",
        "short",
        NO_HOOK,
    )
    due, sent = (once(f"increase({SCOPE.of(one)}[5m])", *BY) for one in (families.SCHEDULE_DUE, families.SCHEDULE_SENT))
    missed = f"clamp_min(round({due} - on ({ROW}) {sent}), 0)"
    return chart(about, ChartQuery(_five(missed, families.SCHEDULE_DUE), LEGEND))


def _lateness() -> Panel:
    about = About(
        "Lateness (p95)",
        "95th percentile over an hour of the time from due to sent, for the five entries that were due most often. "
        "Logarithmic scale.",
        "s",
        "Nothing was sent in the shown time.",
    )
    buckets = SCOPE.of(families.SCHEDULE_LATENESS, part="_bucket")
    p95 = quantile(0.95, buckets, "cluster", *BY, window="1h")
    return chart(about, ChartQuery(_five(p95, families.SCHEDULE_DUE), LEGEND), scale=Scale.LOGARITHMIC)


def _beat_states() -> Panel:
    about = About(
        "Beats",
        "Blank: the beat was not known, or the broker was unreachable.",
        "none",
        "No beat is known: it needs the hook, or Celery 5.7's beat_enable_remote_control.",
    )
    up = latest(SCOPE.of(families.BEAT_UP), "hostname")
    return timeline(about, ChartQuery(up, "{{cluster}} {{hostname}}"), words=BEATS)


def _lag() -> Panel:
    about = About(
        "Beat's last tick",
        "How late it was, or is so far: a beat that waits for its database shows here first.",
        "s",
        NO_HOOK,
    )
    allowed = SCOPE.recorded("celery:beat_lag:effective", severity="critical")
    lag = latest(SCOPE.of(families.BEAT_LAG), "hostname")
    return chart(about, ChartQuery(lag, "{{hostname}} {{cluster}}"), limit(allowed, beside=lag, severity="critical"))


def _runs(title: str, description: str, family: Family, *, empty: str) -> Panel:
    about = About(title, description, "short", empty)
    runs = once(f"increase({SCOPE.of(family)}[5m])", *BY)
    link = between(SCHEDULES, TASKS, picked="task", labels="series")
    return chart(about, ChartQuery(_five(runs, family), "{{schedule}} {{name}} {{cluster}}"), links=[link])


def _succeeded() -> Panel:
    text = "Runs within 5 minutes that entries sent and that succeeded, for the five entries with the most."
    empty = "No run of an entry has succeeded in the shown time."
    return _runs("Succeeded", text, families.SCHEDULE_RUNS_SUCCEEDED, empty=empty)


def _failed() -> Panel:
    text = (
        "Runs within 5 minutes that entries sent and that failed, expired, or were revoked or rejected, for the five "
        "entries with the most."
    )
    empty = "No run of an entry has failed in the shown time."
    return _runs("Failed", text, families.SCHEDULE_RUNS_FAILED, empty=empty)


def _unsent() -> Panel:
    about = About(
        "Could not be sent",
        "Times within 5 minutes that beat raised an error when it sent an entry, for the five entries with the most.",
        "short",
        "Everything that was due could be sent.",
    )
    failed = once(f"increase({SCOPE.of(families.SCHEDULE_FAILED)}[5m])", *BY)
    return chart(about, ChartQuery(_five(failed, families.SCHEDULE_FAILED), LEGEND))


def _since() -> Panel:
    about = About(
        "Time since the last success",
        "For the five entries where it is longest. It is a saw: it falls to 0 with each success.",
        "s",
        "No run of an entry has succeeded since the exporter started.",
    )
    since = f"time() - {gauge(families.SCHEDULE_LAST_SUCCESS)}"
    selector = SCOPE.of(families.SCHEDULE_LAST_SUCCESS)
    ranked = f"bottomk(5, max by ({ROW}) (last_over_time({selector}[$__range] @ end())))"
    return chart(about, ChartQuery(f"{since}\nand on ({ROW}) {ranked}", LEGEND))
