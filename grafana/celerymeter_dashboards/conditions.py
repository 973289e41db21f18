"""Conditions behind colours and verdicts: firing alerts, and comparisons with the threshold series."""

from __future__ import annotations

from celerymeter import metrics as families
from celerymeter_dashboards.promql import VariableScope, first_of, latest
from celerymeter_dashboards.states import IDLE_LEVEL, NOT_KNOWN
from celerymeter_dashboards.stats import levels

FIRING = 'ALERTS{alertname=~"Celery.+", alertstate="firing", severity=~"critical|warning", cluster=~"$cluster|"}'
"""An alert about the whole monitoring has no cluster and belongs to every choice of one."""
FIRING_CRITICAL = FIRING.replace("critical|warning", "critical")
FIRING_WARNING = FIRING.replace("critical|warning", "warning")
LISTED = FIRING.replace("critical|warning", "critical|warning|info")
"""Info is context: it is listed, and colours nothing."""
SINCE = FIRING.replace("ALERTS", "ALERTS_FOR_STATE").replace('alertstate="firing", ', "")
LISTED_SINCE = LISTED.replace("ALERTS", "ALERTS_FOR_STATE").replace('alertstate="firing", ', "")
RULES_RUN = 'ALERTS{alertname="Watchdog", area="exporter"}'
LIMITS_MISSING = 'ALERTS{alertname="CeleryThresholdsMissing", alertstate="firing"}'


def beyond(value: str, limit: str, *, on: str) -> str:
    """Select the series of ``value`` that are above their limit."""
    return f"{value} > on ({on}) {limit}"


def exporters(scope: VariableScope) -> str:
    """Return 1 for each exporter that answers, else 0; a target is an exporter if it was one within a day."""
    known = f"max_over_time({scope.of(families.BUILD_INFO)}[1d])"
    return f'(up{{job=~"$job", cluster=~"$cluster"}} and on (cluster, job, instance) {known})'


def exporter_down(scope: VariableScope) -> str:
    """Select clusters in which no exporter answers."""
    return f"max by (cluster) ({exporters(scope)}) == 0"


def some_exporter_down(scope: VariableScope) -> str:
    """Select exporters that do not answer."""
    return f"{exporters(scope)} == 0"


def rules_missing(scope: VariableScope) -> str:
    """Select exporters when Prometheus does not evaluate the bundled rules."""
    return f"{exporters(scope)} unless on () count({RULES_RUN})"


def limits_missing(scope: VariableScope) -> str:
    """Select exporters of clusters without limits, and the alert that limits are missing everywhere."""
    some_limit = scope.recorded("celery:event_silence:effective", severity="warning")
    return f"({exporters(scope)} unless on (cluster) {some_limit}) or {LIMITS_MISSING}"


def broker_up(scope: VariableScope) -> str:
    """Return 1 where the event stream is subscribed."""
    return scope.recorded("celery:broker_up:max")


def connected(scope: VariableScope, expr: str) -> str:
    """Return ``expr`` where the event stream is subscribed; elsewhere counters stand still, not at a rate of 0."""
    return f"({expr} and on (cluster) {latest(scope.of(families.BROKER_UP))} == 1)"


def broker_down(scope: VariableScope) -> str:
    """Select clusters whose event stream is not subscribed."""
    return f"{broker_up(scope)} == 0"


def no_workers(scope: VariableScope) -> str:
    """Select clusters without a live worker."""
    return f"{scope.recorded('celery:workers_up:count')} == 0"


def workers_down(scope: VariableScope) -> str:
    """Select workers that became silent without a worker-offline event."""
    up = scope.recorded("celery:worker_up:max", "hostname")
    return f"{up} == 0 unless on (cluster, hostname) {latest(scope.of(families.WORKER_SHUTDOWN), 'hostname')} == 1"


def worker_states(scope: VariableScope) -> str:
    """Return the state of each worker, as a number of `states.WORKERS`."""
    up = scope.recorded("celery:worker_up:max", "hostname")
    left = f"{latest(scope.of(families.WORKER_SHUTDOWN), 'hostname')} == 1"
    return f"1 + ({up} == 0 and on (cluster, hostname) {left})\nor 2 * {up}"


def queues_beyond(scope: VariableScope, what: str, value: str, severity: str) -> str:
    """Select queues whose ``value`` is above the limit ``celery:<what>:effective``."""
    limit = scope.recorded(f"celery:{what}:effective", "queue_name", severity=severity)
    return beyond(scope.recorded(value, "queue_name"), limit, on="cluster, queue_name")


def queues_unread(scope: VariableScope) -> str:
    """Select queues with messages that no live worker consumes."""
    length, consumers = (
        latest(scope.of(family), "queue_name") for family in (families.QUEUE_LENGTH, families.QUEUE_CONSUMERS)
    )
    return f"{length} > 0 and on (cluster, queue_name) {consumers} == 0"


def queues_abandoned(scope: VariableScope) -> str:
    """Select unread queues that were used within 6 hours; nobody waits for the messages of a disused queue."""
    return scope.recorded("celery:queue_abandoned:length", "queue_name")


def queues_not_draining(scope: VariableScope) -> str:
    """Select queues whose oldest message is late and that grow, or need too long to get empty."""
    return scope.recorded("celery:queue_not_draining:length", "queue_name")


def queues_stalled(scope: VariableScope) -> str:
    """Select queues of which idle workers take nothing; only the alert knows for how long that has been so."""
    stalled = {"alertname": "CeleryQueueStalled", "alertstate": "firing"}
    return f"max by (cluster, queue_name) ({scope.stored('ALERTS', 'queue_name', **stalled)})"


def queues_in_trouble(scope: VariableScope, severity: str) -> tuple[str, ...]:
    """Return conditions: queues that are too long or too old, that do not get empty, or that nobody takes from."""
    beyond_limits = (
        queues_beyond(scope, "queue_backlog", "celery:queue_length:max", severity),
        queues_beyond(scope, "queue_age", "celery:queue_age:seconds", severity),
    )
    if severity == "warning":
        return beyond_limits
    return (*beyond_limits, queues_not_draining(scope), queues_abandoned(scope), queues_stalled(scope))


def queue_states(scope: VariableScope) -> str:
    """Return the state of each queue, as a number of `states.LEVELS`."""
    return levels(
        critical=queues_in_trouble(scope, "critical"),
        warning=(*queues_in_trouble(scope, "warning"), waits_beyond(scope)),
        known=scope.recorded("celery:queue_length:max", "queue_name"),
    )


def task_states(scope: VariableScope) -> str:
    """Return the state of each task, as a number of `states.LEVELS`; idle when no run ended within 5 minutes."""
    ended = scope.recorded("celery:task_ended:increase5m", "name")
    worse = levels(
        critical=(tasks_failing(scope, "critical"),),
        warning=(tasks_failing(scope, "warning"),),
        known=f"({ended} > 0)",
    )
    idle = f"{IDLE_LEVEL} + 0 * ({ended} and on (cluster) {broker_up(scope)} == 1)"
    return f"{worse}\nor {idle}\nor {NOT_KNOWN} + 0 * {ended}"


def running(scope: VariableScope) -> str:
    """Return the number of tasks that live workers run; 0 when no worker is alive."""
    active = latest(scope.of(families.WORKER_ACTIVE), "hostname")
    live = f"{scope.recorded('celery:worker_up:max', 'hostname')} == 1"
    return first_of(
        f"sum({active} and on (cluster, hostname) {live})", f"0 * sum({scope.recorded('celery:workers_up:count')})"
    )


def slots_busy(scope: VariableScope) -> str:
    """Return the share of the slots of live workers that was busy, as a mean over 5 minutes."""
    slots = latest(scope.of(families.WORKER_POOL_SIZE), "hostname")
    live = f"{scope.recorded('celery:worker_up:max', 'hostname')} == 1"
    busy = f"sum({scope.recorded('celery:worker_saturation:ratio', 'hostname')} * on (cluster, hostname) {slots})"
    return f"{busy} / (sum({slots} and on (cluster, hostname) {live}) > 0)"


def pools_saturated(scope: VariableScope) -> str:
    """Select clusters nearly all of whose slots are busy."""
    limit = scope.recorded("celery:worker_saturation:effective", severity="warning")
    return beyond(scope.recorded("celery:pool_saturation:ratio"), limit, on="cluster")


def tasks_failing(scope: VariableScope, severity: str) -> str:
    """Select tasks whose error ratio is above its limit, if enough of their runs ended."""
    on = "cluster, name"
    over = beyond(
        scope.recorded("celery:task_errors:ratio5m", "name"),
        scope.recorded("celery:error_ratio:effective", "name", severity=severity),
        on=on,
    )
    ended = scope.recorded("celery:task_ended:increase5m", "name")
    return f"{over} and on ({on}) {ended} >= on ({on}) {scope.recorded('celery:error_tasks:effective', 'name')}"


def waits_beyond(scope: VariableScope) -> str:
    """Select queues in which 5% of the tasks wait longer than the target."""
    target = scope.recorded("celery:wait_target:effective", "queue_name")
    return beyond(scope.recorded("celery:queue_wait:p95", "queue_name"), target, on="cluster, queue_name")


def events_stopped(scope: VariableScope) -> str:
    """Select clusters without an event for too long, although workers consume queues."""
    silence = f"time() - {latest(scope.of(families.LAST_EVENT))}"
    limit = scope.recorded("celery:event_silence:effective", severity="warning")
    consumers = f"sum by (cluster) ({scope.recorded('celery:queue_consumers:max')})"
    return f"{beyond(silence, limit, on='cluster')} and on (cluster) {consumers} > 0"


def polls_failing(scope: VariableScope) -> str:
    """Select collectors whose last poll failed."""
    return f"{latest(scope.of(families.POLL_SUCCESS), 'collector')} == 0"


def events_missed(scope: VariableScope) -> str:
    """Select clusters that lost the events of more runs within 5 minutes than the limit allows."""
    limit = scope.recorded("celery:events_missed:effective", severity="warning")
    return beyond(scope.recorded("celery:events_missed:increase5m"), limit, on="cluster")


def silent_workers(scope: VariableScope) -> str:
    """Select workers that run tasks without sending events."""
    return f"{latest(scope.of(families.WORKER_TASK_EVENTS), 'hostname')} == 0"


def clocks_off(scope: VariableScope) -> str:
    """Select workers whose clock differs too much from ours."""
    offset = f"abs({latest(scope.of(families.WORKER_CLOCK_OFFSET), 'hostname')})"
    limit = scope.recorded("celery:clock_offset:effective", severity="warning")
    return f"{offset} > on (cluster) group_left () {limit}"
