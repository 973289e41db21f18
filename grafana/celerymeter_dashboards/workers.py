"""The Workers dashboard: which are up, how busy they are, their clocks and their events."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from celerymeter import metrics as families
from celerymeter.metrics import Family
from celerymeter_dashboards import conditions, states
from celerymeter_dashboards.document import assemble, line, section
from celerymeter_dashboards.links import EXPORTER, QUEUES, TASKS, WORKERS, between
from celerymeter_dashboards.panels import About, ChartQuery, Panel, chart, limit, stat_panel, timeline
from celerymeter_dashboards.promql import VariableScope, first_of, latest, most, once, rate
from celerymeter_dashboards.stats import stat_value
from celerymeter_dashboards.tables import Column, Key, table_of

SCOPE = VariableScope(("hostname",))
LEGEND = "{{hostname}} {{cluster}}"
ROW = "cluster, hostname"
UP = SCOPE.recorded("celery:worker_up:max", "hostname")
ANY = SCOPE.recorded("celery:workers_up:count")
BUSY = SCOPE.recorded("celery:worker_saturation:ratio", "hostname")
NONE_SEEN = "No worker was seen, or the broker or the exporter was out of reach."


def gauge(family: Family) -> str:
    """A gauge by worker."""
    return latest(SCOPE.of(family), "hostname")


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return assemble(
        WORKERS,
        "Which workers are up, and how busy are they? Are their clocks right? Do they send events?",
        section(
            "",
            line(3, _active(), _down(), _slots(), _running()),
            line(3, _prefetched(), _scheduled(), _clock(), _silent()),
            line(8, _table()),
            line(9, _states()),
        ),
        section(
            "How busy are they?",
            line(8, _saturation(), _used_by()),
            line(8, _users(), _runs()),
            line(8, _load(), _held()),
        ),
        section("Are they healthy?", line(8, _heartbeats(), _changes()), line(8, _clocks(), _missed())),
    )


def _active() -> Panel:
    about = About(
        "Active workers",
        "Workers that send heartbeats. Red if a cluster has none.",
        "locale",
        NONE_SEEN,
    )
    value = first_of(f"count({UP} == 1)", f"0 * count({ANY})")
    return stat_panel(about, stat_value(value, critical=conditions.no_workers(SCOPE)), links=[])


def _down() -> Panel:
    about = About(
        "Workers down",
        "Workers whose heartbeats stopped within the last hour without a worker-offline event. A worker that was shut "
        "down is not counted.",
        "locale",
        NONE_SEEN,
    )
    down = conditions.workers_down(SCOPE)
    value = first_of(f"count({down})", f"0 * count({ANY})")
    return stat_panel(about, stat_value(value, warning=down), links=[])


def _slots() -> Panel:
    about = About(
        "Slots busy",
        "Share of the time of all live workers' slots in which they ran a task, over 5 minutes. Orange if it is above "
        "the threshold in one cluster.",
        "percentunit",
        "No live worker reports its slots.",
    )
    expr = stat_value(conditions.slots_busy(SCOPE), warning=conditions.pools_saturated(SCOPE), idle=ANY)
    return stat_panel(about, expr, links=[between(WORKERS, QUEUES)])


def _running() -> Panel:
    about = About(
        "Running tasks",
        "Tasks that run at this moment, from the workers' heartbeats.",
        "locale",
        "No live worker sends heartbeats.",
    )
    return stat_panel(about, stat_value(conditions.running(SCOPE)), links=[between(WORKERS, TASKS)])


def _prefetched() -> Panel:
    about = About(
        "Prefetched",
        "Tasks that workers have taken from the queues and not started. If one worker has many while others are idle, "
        "lower worker_prefetch_multiplier.",
        "locale",
        "No worker answered the last inspection.",
    )
    return stat_panel(
        about, stat_value(f"sum({gauge(families.WORKER_RESERVED)})", idle=ANY), links=[between(WORKERS, QUEUES)]
    )


def _scheduled() -> Panel:
    about = About(
        "Waiting for their ETA",
        "Tasks that workers hold until their ETA.",
        "locale",
        "No worker answered the last inspection.",
    )
    return stat_panel(about, stat_value(f"sum({gauge(families.WORKER_SCHEDULED)})", idle=ANY), links=[])


def _clock() -> Panel:
    about = About(
        "Largest clock difference",
        "The largest difference between a worker's clock and the exporter's, in either direction. Orange above the "
        "threshold.",
        "s",
        "No worker has sent a heartbeat.",
    )
    value = f"max(abs({gauge(families.WORKER_CLOCK_OFFSET)}))"
    return stat_panel(about, stat_value(value, warning=conditions.clocks_off(SCOPE), idle=ANY), links=[])


def _silent() -> Panel:
    about = About(
        "Workers without task events",
        "Workers that run tasks, according to their heartbeats, but send no task events. Start them with -E; otherwise "
        "their tasks are not counted.",
        "locale",
        NONE_SEEN,
    )
    silent = conditions.silent_workers(SCOPE)
    value = first_of(f"count({silent})", f"0 * count({ANY})")
    return stat_panel(about, stat_value(value, warning=silent), links=[between(WORKERS, EXPORTER)])


def _table() -> Panel:
    about = About(
        "Workers",
        "Workers without heartbeats first. Click a name to choose the worker. Busy: share of the slots' time in which "
        "they ran a task, over 5 minutes. Running: tasks at this moment. ETA: tasks that wait for it. Heartbeat: time "
        "since the last one. Events: totals means that the worker counts its tasks itself.",
        "short",
        NONE_SEEN,
    )
    heartbeat = f"time() - {gauge(families.WORKER_LAST_HEARTBEAT)}"
    runs = rate(SCOPE.of(families.WORKER_PROCESSED), "hostname", window="5m")
    sent, counting = gauge(families.WORKER_TASK_EVENTS), SCOPE.of(families.WORKER_INFO, mode="aggregate")
    events = f"({sent}\n+ on ({ROW}) {latest(counting, 'hostname')})\nor {sent}"
    return table_of(
        about,
        [Key("hostname", "Worker", (between(WORKERS, WORKERS, picked="worker"),), at_least=210)],
        [
            Column("State", conditions.worker_states(SCOPE), "none", width=65, words=states.WORKERS),
            Column("Slots", gauge(families.WORKER_POOL_SIZE), width=55),
            Column("Busy", BUSY, "percentunit", width=60, decimals=0),
            Column("Running", gauge(families.WORKER_ACTIVE), width=75),
            Column("Prefetched", gauge(families.WORKER_RESERVED), width=90),
            Column("ETA", gauge(families.WORKER_SCHEDULED), width=50),
            Column("Runs/s", runs, width=65, decimals=2),
            Column("Load", gauge(families.WORKER_LOAD1), width=55, decimals=1),
            Column("Heartbeat", heartbeat, "s", width=85, decimals=0),
            Column("Clock off", gauge(families.WORKER_CLOCK_OFFSET), "s", width=80),
            Column("Events", events, "none", width=70, words=states.EVENTS),
        ],
        sort="State",
    )


def _states() -> Panel:
    about = About(
        "Up and down",
        "The twelve workers that were down longest in the shown time. Blank: the worker was not known, or the broker "
        "was unreachable.",
        "none",
        NONE_SEEN,
    )
    up = SCOPE.stored("celery:worker_up:max", "hostname")
    ranked = f"bottomk(12, avg_over_time({up}[$__range] @ end()))"
    expr = f"({conditions.worker_states(SCOPE)})\nand on ({ROW}) {ranked}"
    return timeline(about, ChartQuery(expr, "{{cluster}} {{hostname}}"), words=states.WORKERS)


def _five(expr: str, family: Family, call: str = "max_over_time") -> str:
    return most(expr, "hostname", call=call, selector=SCOPE.of(family))


def _last(family: Family) -> str:
    """Return the last value of a gauge by worker in the shown time, which may be long before its end."""
    return latest(f"last_over_time({SCOPE.of(family)}[$__range] @ end())", "hostname")


def _saturation() -> Panel:
    about = About(
        "Slots busy over time",
        "Share of the slots' time in which they ran a task, over 5 minutes, for the five workers that worked most in "
        "the shown time.",
        "percentunit",
        "No live worker reports its slots.",
    )
    limits = SCOPE.recorded("celery:worker_saturation:effective", severity="warning")
    return chart(
        about, ChartQuery(_five(BUSY, families.WORKER_BUSY, "increase"), LEGEND), limit(limits, beside=BUSY), top=1.0
    )


def _used_by() -> Panel:
    about = About(
        "Slots used by task",
        "Slots that each task used on average, for the five tasks that used most in the shown time, of all workers.",
        "short",
        "No task has run in the shown time.",
    )
    busy = SCOPE.of(families.TASK_BUSY)
    ranked = f"topk(5, {once(f'increase({busy}[$__range] @ end())', 'name')} > 0)"
    expr = f"{rate(busy, 'name')}\nand on (cluster, name) {ranked}"
    link = between(WORKERS, TASKS, picked="task", labels="series")
    return chart(about, ChartQuery(expr, "{{name}} {{cluster}}"), stacked=True, links=[link])


def _users() -> Panel:
    about = About(
        "Who uses the slots",
        "Time that the runs of each task took slots in the shown time, unfinished runs included, and its share of the "
        "time of all tasks. Tasks of all workers, the ten largest.",
        "short",
        "No task has run in the shown time.",
    )
    busy = once(f"increase({SCOPE.of(families.TASK_BUSY)}[$__range])", "name")
    largest = f"topk(10, {busy} > 0)"
    runs = once(f"increase({SCOPE.of(families.TASK_STARTED)}[$__range])", "name")
    return table_of(
        about,
        [Key("name", "Task", (between(WORKERS, TASKS, picked="task"),), at_least=200)],
        [
            Column("Slot time", largest, "s", width=90),
            Column(
                "Share",
                f"{largest} / on (cluster) group_left () (sum by (cluster) ({busy}) > 0)",
                "percentunit",
                width=65,
                decimals=0,
            ),
            Column("Runs", f"{runs} and on (cluster, name) {largest}", "locale", width=65, decimals=0),
        ],
        sort="Slot time",
        largest_first=True,
    )


def _runs() -> Panel:
    about = About(
        "Runs started",
        "Runs per second from the workers' own count, which is right even if events are lost, for the five busiest "
        "workers.",
        "suffix:/s",
        NONE_SEEN,
    )
    runs = rate(SCOPE.of(families.WORKER_PROCESSED), "hostname")
    return chart(
        about, ChartQuery(_five(runs, families.WORKER_PROCESSED, "increase"), LEGEND), links=[between(WORKERS, TASKS)]
    )


def _load() -> Panel:
    about = About(
        "Load of the hosts",
        "Load average over one minute, for the five workers on the most loaded hosts.",
        "short",
        "No heartbeat was seen in the shown time.",
    )
    return chart(about, ChartQuery(_five(gauge(families.WORKER_LOAD1), families.WORKER_LOAD1), LEGEND))


def _held() -> Panel:
    about = About(
        "Prefetched tasks",
        "Tasks taken from the queues and not started, for the five workers that hold the most.",
        "short",
        "No worker answered an inspection.",
    )
    return chart(about, ChartQuery(_five(gauge(families.WORKER_RESERVED), families.WORKER_RESERVED), LEGEND))


def _heartbeats() -> Panel:
    about = About(
        "Since the last heartbeat",
        "Time since the last heartbeat, for the five workers where it is longest. A worker is down after three missed "
        "heartbeats.",
        "s",
        "No heartbeat was seen in the shown time.",
    )
    ago = f"time() - {gauge(families.WORKER_LAST_HEARTBEAT)}"
    ranked = f"bottomk(5, {_last(families.WORKER_LAST_HEARTBEAT)})"
    return chart(about, ChartQuery(f"{ago}\nand on ({ROW}) {ranked}", LEGEND))


def _changes() -> Panel:
    about = About(
        "Changes between up and down",
        "Changes within 30 minutes, for the five workers with the most. A restart is two changes.",
        "short",
        "No worker is known to have gone or come in the shown time.",
    )
    changes = f"changes({SCOPE.stored('celery:worker_up:max', 'hostname')}[30m])"
    up = SCOPE.stored("celery:worker_up:max", "hostname")
    ranked = most(changes, "hostname", call="changes", selector=up, above="0")
    limits = SCOPE.recorded("celery:worker_flapping:effective", severity="warning")
    return chart(about, ChartQuery(ranked, LEGEND), limit(limits, beside=f"{changes} > 0"))


def _clocks() -> Panel:
    about = About(
        "Clock differences",
        "Difference between a worker's clock and the exporter's, in either direction, for the five workers where it is "
        "largest.",
        "s",
        "No heartbeat was seen in the shown time.",
    )
    offset = f"abs({gauge(families.WORKER_CLOCK_OFFSET)})"
    ranked = f"topk(5, abs({_last(families.WORKER_CLOCK_OFFSET)}))"
    limits = SCOPE.recorded("celery:clock_offset:effective", severity="warning")
    return chart(about, ChartQuery(f"{offset}\nand on ({ROW}) {ranked}", LEGEND), limit(limits, beside=offset))


def _missed() -> Panel:
    about = About(
        "Runs whose events never arrived",
        "Runs within 5 minutes from the workers' own count, for the five workers with the most. No other counter "
        "contains them.",
        "short",
        "No run of the shown time is known to lack its events.",
    )
    missed = once(f"increase({SCOPE.of(families.EVENTS_MISSED)}[5m])", "hostname")
    links = [between(WORKERS, EXPORTER, picked="worker", labels="series")]
    ranked = most(missed, "hostname", call="increase", selector=SCOPE.of(families.EVENTS_MISSED), above="0")
    return chart(about, ChartQuery(ranked, LEGEND), links=links)
