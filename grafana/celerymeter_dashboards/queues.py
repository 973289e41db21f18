"""The Queues dashboard: length, age of the oldest message, time until empty, and consumers."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from celerymeter import metrics as families
from celerymeter_dashboards import charts, conditions, states
from celerymeter_dashboards.document import assemble, line, section
from celerymeter_dashboards.links import QUEUES, TASKS, WORKERS, between
from celerymeter_dashboards.panels import About, ChartQuery, Panel, Scale, chart, heat_map, limit, limits, stat_panel
from celerymeter_dashboards.promql import WINDOW, VariableScope, first_of, latest, most, once, rate
from celerymeter_dashboards.stats import stat_value
from celerymeter_dashboards.tables import Column, Key, table_of

SCOPE = VariableScope(("queue_name",))
POLLED = f"max({SCOPE.of(families.POLL_SUCCESS, collector='queues')}) == 1"
SUBSCRIBED = f"{conditions.broker_up(SCOPE)} == 1"
LEGEND = "{{queue_name}} {{cluster}}"
NOT_POLLED = "The queues could not be polled."


def recorded(name: str) -> str:
    """A recorded series of queues."""
    return SCOPE.recorded(f"celery:{name}", "queue_name")


LENGTH, AGE, DRAIN = recorded("queue_length:max"), recorded("queue_age:seconds"), recorded("queue_drain:seconds")
CONSUMERS, SLOTS = recorded("queue_consumers:max"), recorded("queue_slots:max")
UNACKED, UNACKED_AGE = recorded("queue_unacked:max"), recorded("queue_unacked_age:seconds")
UNREAD = conditions.queues_unread(SCOPE)
EMPTY_IN = f"({DRAIN} unless on (cluster, queue_name) ({UNREAD}))"
OWN_SHARE = SCOPE.recorded("celery:queue_task_busy:ratio", "queue_name")
TOTAL_SHARE = SCOPE.recorded("celery:task_busy:ratio")


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return assemble(
        QUEUES,
        "How long are the queues, and how long do messages wait? When will the queues be empty? Which workers consume "
        "them?",
        section(
            "",
            line(3, _waiting(), _oldest(), _drain(), _unread()),
            line(3, _arriving(), _started(), _unacked(), _busy()),
            line(9, _table()),
            line(7, _users()),
            line(8, charts.lengths(SCOPE, QUEUES), _ages()),
        ),
        section("Do they keep up?", line(8, _flow(), _drains()), line(8, charts.waits(SCOPE, QUEUES), _wait_spread())),
        section(
            "Who works on them?", line(8, _saturation(), _consumers()), line(8, _unacked_over_time(), _unacked_ages())
        ),
    )


def _waiting() -> Panel:
    about = About(
        "Waiting messages",
        "Messages that wait in all chosen queues. Orange or red if one queue is above its threshold.",
        "locale",
        NOT_POLLED,
    )
    critical, warning = (
        conditions.queues_beyond(SCOPE, "queue_backlog", "celery:queue_length:max", severity)
        for severity in ("critical", "warning")
    )
    value = first_of(f"sum({latest(SCOPE.of(families.QUEUE_LENGTH), 'queue_name')})", f"0 * ({POLLED})")
    expr = stat_value(value, critical=critical, warning=warning)
    return stat_panel(about, expr, links=[])


def _oldest() -> Panel:
    about = About(
        "Oldest message",
        "Age of the oldest message at the head of any chosen queue. 'None': no queue has a message whose age is known.",
        "s",
        NOT_POLLED,
    )
    critical, warning = (
        conditions.queues_beyond(SCOPE, "queue_age", "celery:queue_age:seconds", severity)
        for severity in ("critical", "warning")
    )
    expr = stat_value(f"max({AGE})", critical=critical, warning=warning, idle=POLLED)
    return stat_panel(about, expr, links=[])


def _drain() -> Panel:
    about = About(
        "Empty in",
        "Time until the slowest queue is empty at the pace of the last 5 minutes, if no more messages arrive. 'Never' "
        "(red): no worker consumes a queue that has messages and was used within 6 hours; or no queue with messages "
        "started anything. Orange if one of them started nothing.",
        "s",
        "No message waits in a queue that starts tasks.",
    )
    abandoned = conditions.queues_abandoned(SCOPE)
    stalled = f"{LENGTH} > 0 unless on (cluster, queue_name) ({DRAIN} or {UNREAD})"
    value = first_of(
        f"{states.NEVER} + 0 * count({abandoned})", f"max({EMPTY_IN})", f"{states.NEVER} + 0 * count({stalled})"
    )
    expr = stat_value(value, critical=abandoned, warning=stalled, idle=POLLED)
    return stat_panel(about, expr, links=[], nothing="no starts")


def _unread() -> Panel:
    about = About(
        "Queues without workers",
        "Queues with waiting messages that no live worker consumes. Red if one of them was used within 6 hours.",
        "locale",
        NOT_POLLED,
    )
    value = first_of(f"count({UNREAD})", f"0 * ({POLLED})")
    return stat_panel(
        about, stat_value(value, critical=conditions.queues_abandoned(SCOPE)), links=[between(QUEUES, WORKERS)]
    )


def _arriving() -> Panel:
    about = About(
        "Tasks sent",
        "Tasks sent per second over 5 minutes. Producers must set task_send_sent_event.",
        "suffix:/s",
        "Producers send no task-sent events.",
    )
    value = f"sum({rate(SCOPE.of(families.TASK_SENT), window='5m')})"
    expr = stat_value(f"{value} and on () {SUBSCRIBED}", idle=SUBSCRIBED)
    return stat_panel(about, expr, links=[between(QUEUES, TASKS)])


def _started() -> Panel:
    about = About("Tasks started", "Runs started per second over 5 minutes.", "suffix:/s", charts.NO_RUNS)
    value = f"sum({rate(SCOPE.of(families.TASK_STARTED), window='5m')})"
    expr = stat_value(f"{value} and on () {SUBSCRIBED}", idle=SUBSCRIBED)
    return stat_panel(about, expr, links=[between(QUEUES, TASKS)])


def _unacked() -> Panel:
    about = About(
        "Unacknowledged",
        "Messages that workers hold: running, prefetched, or waiting for their ETA. Orange if the oldest is close to "
        "the visibility timeout, after which Redis delivers it again.",
        "locale",
        "RabbitMQ gives this number only through its management API.",
    )
    expr = stat_value(f"sum({UNACKED})", warning=_redelivery(), idle=POLLED)
    return stat_panel(about, expr, links=[between(QUEUES, WORKERS)])


def _redelivery() -> str:
    share = f"{UNACKED_AGE} / on (cluster) group_left () {latest(SCOPE.of(families.QUEUE_VISIBILITY))}"
    return f"{share} > on (cluster) group_left () {SCOPE.recorded('celery:redelivery:effective', severity='warning')}"


def _busy() -> Panel:
    about = About(
        "Slots busy (busiest queue)",
        "For the busiest queue: share of the time of its workers' slots that its own tasks took, over 5 minutes. A "
        "worker may consume several queues; 'Who uses the slots' names the tasks.",
        "percentunit",
        "Nothing has run, or no worker consumes any of them.",
    )
    value = f"max({_share_of_slots(window='5m')})"
    return stat_panel(about, stat_value(value, idle=POLLED), links=[between(QUEUES, WORKERS)])


def _share_of_slots(window: str) -> str:
    used = rate(SCOPE.of(families.TASK_BUSY), "queue_name", window=window)
    return f"{used} / on (cluster, queue_name) ({SLOTS} > 0)"


def _users() -> Panel:
    """Return the table that names the tasks behind a queue's waits, as the alerts about it do."""
    about = About(
        "Who uses the slots",
        "The three tasks of each queue that took the largest share of its workers' slots in the last 10 minutes. If "
        "the tasks of a queue in trouble took less than 30%, the task that took most of all busy time, which may be "
        "of another queue. Queues in trouble first.",
        "percentunit",
        "No task ran in the last 10 minutes.",
    )
    on = "on (cluster, queue_name)"
    own = f"topk by (cluster, queue_name) (3, {OWN_SHARE})"
    others = f"topk by (cluster) (1, {TOTAL_SHARE})"
    state = conditions.queue_states(SCOPE)
    stalled = conditions.queues_stalled(SCOPE)  # no task is to blame: its workers have free slots
    in_trouble = f"({state}) < {states.GOOD_LEVEL} and {on} {SLOTS} > 0 unless {on} ({stalled})"
    starved = f"0 * ({in_trouble} unless {on} {OWN_SHARE} > 0.3) + on (cluster) group_left (name) {others}"
    rows = f"({own} or {starved})"
    return table_of(
        about,
        [
            Key("queue_name", "Queue", (between(QUEUES, QUEUES, picked="queue"),), at_least=120),
            Key("name", "Task", (between(QUEUES, TASKS, picked="task"),), at_least=220),
        ],
        [
            Column(
                "Queue is",
                f"0 * {rows} + {on} group_left () ({state})",
                "none",
                width=90,
                words=states.LEVELS,
            ),
            Column("Of the queue's slots", own, width=150, decimals=0, unit="percentunit"),
            Column(
                "Of all busy time",
                f"0 * {rows} + on (cluster, name) group_left () {TOTAL_SHARE}",
                width=130,
                decimals=0,
                unit="percentunit",
            ),
        ],
        sort="Queue is",
    )


def _table() -> Panel:
    about = About(
        "Queues",
        "Worst queue first. Click a name to choose the queue. Limit: the threshold of the backlog warning. Empty in: "
        "at the pace of the last 5 minutes; never if no worker consumes the queue. Unacked: messages that workers "
        "hold.",
        "short",
        charts.NO_QUEUES,
    )
    sent, started = (
        rate(SCOPE.of(family), "queue_name", window="5m") for family in (families.TASK_SENT, families.TASK_STARTED)
    )
    backlog = SCOPE.recorded("celery:queue_backlog:effective", "queue_name", severity="warning")
    return table_of(
        about,
        [Key("queue_name", "Queue", (between(QUEUES, QUEUES, picked="queue"),), at_least=160)],
        [
            Column("State", conditions.queue_states(SCOPE), "none", width=75, words=states.LEVELS),
            Column("Waiting", LENGTH, "locale", width=75),
            Column("Limit", f"{backlog} and on (cluster, queue_name) {LENGTH}", "locale", width=55),
            Column("Oldest", AGE, "s", width=80),
            Column("Sent/s", sent, width=65, decimals=2),
            Column("Started/s", started, width=80, decimals=2),
            Column("Empty in", f"{EMPTY_IN} or {states.NEVER} + 0 * ({UNREAD})", "s", width=80, never=True),
            Column("Wait p95", f"{recorded('queue_wait:p95')} >= 0", "s", width=80),
            Column("Unacked", UNACKED, "locale", width=80),
            Column("Workers", CONSUMERS, width=75),
            Column("Slots", SLOTS, width=55),
        ],
        sort="State",
    )


def _ages() -> Panel:
    about = About(
        "Age of the oldest message",
        "Age of the oldest message, for the five queues with the oldest ones in the shown time. Logarithmic scale. "
        "Limits: the lowest of the shown queues.",
        "s",
        NOT_POLLED,
    )
    ages = _five(f"{AGE} > 0", "celery:queue_age:seconds")
    return chart(
        about,
        ChartQuery(ages, LEGEND),
        *limits(SCOPE, "queue_age", "queue_name", beside=LENGTH),
        scale=Scale.LOGARITHMIC,
    )


def _five(expr: str, ranked_by: str) -> str:
    return most(expr, "queue_name", call="max_over_time", selector=SCOPE.stored(ranked_by, "queue_name"))


def _flow() -> Panel:
    about = About(
        "Sent and started",
        "Tasks per second. Queues grow while more tasks are sent than started. Blank: the broker was unreachable.",
        "suffix:/s",
        charts.NO_RUNS,
    )
    return chart(
        about,
        ChartQuery(f"sum({conditions.connected(SCOPE, rate(SCOPE.of(families.TASK_SENT)))})", "sent", "blue"),
        ChartQuery(f"sum({conditions.connected(SCOPE, rate(SCOPE.of(families.TASK_STARTED)))})", "started", "green"),
        links=[between(QUEUES, TASKS)],
    )


def _drains() -> Panel:
    about = About(
        "Empty in, over time",
        "Time until a queue is empty at the pace of the last 5 minutes, for the five slowest queues in the shown time. "
        "A queue that starts nothing, or that no worker consumes, has no line.",
        "s",
        "No message waited in a queue that started tasks.",
    )
    return chart(about, ChartQuery(_five(EMPTY_IN, "celery:queue_drain:seconds"), LEGEND))


def _wait_spread() -> Panel:
    about = About(
        "Distribution of waits", "Runs started per second in each bucket of waiting time.", "s", charts.NO_WAITS
    )
    return heat_map(about, f"sum by (le) ({rate(SCOPE.of(families.TASK_WAIT, part='_bucket'), 'le')})")


def _saturation() -> Panel:
    about = About(
        "Slots busy over time",
        "Share of the time of its workers' slots that a queue's own tasks took, for the five busiest queues.",
        "percentunit",
        "Nothing has run, or no worker consumes any of them.",
    )
    took = once(f"increase({SCOPE.of(families.TASK_BUSY)}[$__range] @ end())", "queue_name")
    expr = f"{_share_of_slots(window=WINDOW)}\nand on (cluster, queue_name) topk(5, {took})"
    return chart(about, ChartQuery(expr, LEGEND), top=1.0, links=[between(QUEUES, WORKERS)])


def _consumers() -> Panel:
    about = About(
        "Workers by queue",
        "Live workers that consume the queue, for the five queues with the most.",
        "short",
        NOT_POLLED,
    )
    expr = _five(CONSUMERS, "celery:queue_consumers:max")
    return chart(about, ChartQuery(expr, LEGEND), links=[between(QUEUES, WORKERS)])


def _unacked_over_time() -> Panel:
    about = About(
        "Unacknowledged messages",
        "Messages delivered to a worker and not acknowledged, for the five queues with the most.",
        "short",
        "Nothing was delivered, or the broker does not report it (RabbitMQ without its management API).",
    )
    return chart(about, ChartQuery(_five(UNACKED, "celery:queue_unacked:max"), LEGEND))


def _unacked_ages() -> Panel:
    about = About(
        "Age of the oldest unacknowledged message",
        "On Redis a message is delivered again at the visibility timeout, although the first worker still has it. The "
        "warning comes earlier. Logarithmic scale.",
        "s",
        "Nothing is unacknowledged, or the broker is not Redis.",
    )
    timeout = latest(SCOPE.of(families.QUEUE_VISIBILITY))
    share = SCOPE.recorded("celery:redelivery:effective", severity="warning")
    return chart(
        about,
        ChartQuery(_five(f"{UNACKED_AGE} > 0", "celery:queue_unacked_age:seconds"), LEGEND),
        limit(f"{timeout} * on (cluster) {share}", beside=UNACKED),
        limit(timeout, beside=UNACKED, severity="critical", legend="visibility timeout"),
        scale=Scale.LOGARITHMIC,
    )
