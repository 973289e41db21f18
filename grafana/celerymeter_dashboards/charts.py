"""Charts that more than one dashboard shows."""

from __future__ import annotations

from celerymeter import metrics as families
from celerymeter_dashboards.conditions import connected
from celerymeter_dashboards.links import QUEUES, TASKS, between
from celerymeter_dashboards.panels import About, ChartQuery, Panel, Scale, chart, limit, limits
from celerymeter_dashboards.promql import VariableScope, most, rate

NO_RUNS = "No task has ended in the shown time."
NO_WAITS = "No task has started in the shown time, or waits cannot be measured: the Exporter dashboard says why."
NO_QUEUES = "No queue is known yet, or the queues could not be polled."
OUTCOMES = (
    (families.TASK_FAILED, "failed", "red"),
    (families.TASK_RETRIED, "retried", "yellow"),
    (families.TASK_REJECTED, "rejected", "purple"),
    (families.TASK_REVOKED, "revoked", "blue"),
    (families.TASK_SUCCEEDED, "succeeded", "green"),
)
"""The few at the bottom of the stack, where they can be read off the axis."""


def outcomes(scope: VariableScope, here: str) -> Panel:
    """Throughput by outcome."""
    about = About(
        "Throughput",
        "Task runs that ended per second, by result. Blank: the broker or the exporter was unreachable.",
        "suffix:/s",
        "No task is known yet, nothing was scraped, or the broker was unreachable.",
    )
    lines = [
        ChartQuery(f"sum({connected(scope, rate(scope.of(family)))})", outcome, color)
        for family, outcome, color in OUTCOMES
    ]
    return chart(about, *lines, stacked=True, links=[] if here == TASKS else [between(here, TASKS)])


def failing(scope: VariableScope, here: str) -> Panel:
    """Error ratios against their limits."""
    about = About(
        "Failing tasks over time",
        "Share of failed runs among those that ended within 5 minutes, for the five tasks that failed most in the "
        "shown time. Limits: the lowest of the shown tasks.",
        "percentunit",
        NO_RUNS,
    )
    ratio = scope.recorded("celery:task_errors:ratio5m", "name")
    worst = most(
        ratio,
        "name",
        call="max_over_time",
        selector=scope.stored("celery:task_failed:increase5m", "name"),
    )
    link = between(here, TASKS, picked="task", labels="series")
    lines = limits(scope, "error_ratio", "name", beside=ratio)
    return chart(about, ChartQuery(worst, "{{name}} {{cluster}}"), *lines, links=[link])


def waits(scope: VariableScope, here: str) -> Panel:
    """Waits by queue against their targets."""
    about = About(
        "Waits over time (p95)",
        "95th percentile over 15 minutes of the time that tasks waited before they started, for the five queues with "
        "the longest waits in the shown time. Logarithmic scale. Target: the lowest of the shown queues.",
        "s",
        NO_WAITS,
    )
    p95 = f"({scope.recorded('celery:queue_wait:p95', 'queue_name')} >= 0)"
    longest = most(
        p95,
        "queue_name",
        call="max_over_time",
        selector=scope.stored("celery:queue_wait:p95", "queue_name"),
    )
    target = limit(scope.recorded("celery:wait_target:effective", "queue_name"), beside=p95, legend="target")
    link = between(here, QUEUES, picked="queue", labels="series")
    return chart(
        about, ChartQuery(longest, "{{queue_name}} {{cluster}}"), target, scale=Scale.LOGARITHMIC, links=[link]
    )


def lengths(scope: VariableScope, here: str) -> Panel:
    """Queue lengths against their limits."""
    about = About(
        "Waiting messages over time",
        "Waiting messages of the five queues that were longest in the shown time. Limits: the lowest of the shown "
        "queues.",
        "short",
        NO_QUEUES,
    )
    length = scope.recorded("celery:queue_length:max", "queue_name")
    longest = most(
        length,
        "queue_name",
        call="max_over_time",
        selector=scope.stored("celery:queue_length:max", "queue_name"),
    )
    link = between(here, QUEUES, picked="queue", labels="series")
    lines = limits(scope, "queue_backlog", "queue_name", beside=length)
    return chart(about, ChartQuery(longest, "{{queue_name}} {{cluster}}"), *lines, links=[link])
