"""Links between the dashboards, which keep the time and the variables that both ends have."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

OVERVIEW, TASKS, QUEUES, WORKERS, SCHEDULES, EXPORTER = (
    f"celerymeter-{name}" for name in ("overview", "tasks", "queues", "workers", "schedules", "exporter")
)
TITLES = {
    OVERVIEW: "Celery / Overview",
    TASKS: "Celery / Tasks",
    QUEUES: "Celery / Queues",
    WORKERS: "Celery / Workers",
    SCHEDULES: "Celery / Schedules",
    EXPORTER: "Celery / Exporter",
}
TAG = "celerymeter"
COMMON = ("datasource", "job", "cluster")
VARIABLES = {
    OVERVIEW: (*COMMON, "queue", "task", "worker"),
    TASKS: (*COMMON, "queue", "task", "task_id", "control"),
    QUEUES: (*COMMON, "queue"),
    WORKERS: (*COMMON, "worker"),
    SCHEDULES: (*COMMON, "schedule"),
    EXPORTER: (*COMMON, "worker"),
}
"""The variables of each dashboard, in the order in which they are shown."""
_LABELS = {"queue": "queue_name", "task": "name", "worker": "hostname", "schedule": "schedule"}


@dataclass(frozen=True, slots=True)
class Link:
    """A link on a value."""

    title: str
    url: str
    new_tab: bool = False

    def builder(self) -> dashboard.DashboardLink:
        """Return the builder of the SDK."""
        return dashboard.DashboardLink(self.title).url(self.url).target_blank(self.new_tab)


def between(here: str, there: str, *, picked: str = "", labels: str = "fields") -> Link:
    """Return a link from a value on one dashboard to another.

    ``picked`` is the variable that takes the value's own queue, task or worker, which stands in the row's
    ``fields`` in a table, and in the ``series`` labels in a chart.
    """
    source = "__data.fields" if labels == "fields" else "__field.labels"
    kept = [name for name in VARIABLES[here] if name in VARIABLES[there] and name != picked]
    parameters = ["${__url_time_range}", *(f"${{{name}:queryparam}}" for name in kept)]
    if picked:
        parameters.append(f"var-{picked}=${{{source}.{_LABELS[picked]}:percentencode}}")
    return Link(f"Open {TITLES[there]}", f"/d/{there}?{'&'.join(parameters)}")


def by_area(here: str, label: str) -> Link:
    """Return a link from the row of an alert to the dashboard that its ``label`` names."""
    parameters = ["${__url_time_range}", *(f"${{{name}:queryparam}}" for name in COMMON if name in VARIABLES[here])]
    return Link("Open the dashboard", f"/d/celerymeter-${{__data.fields.{label}}}?{'&'.join(parameters)}")


def report() -> Link:
    """Return a link from the row of a task to its reports in the control API, which asks for a token."""
    url = "${control}/monitoring/reports?task=${__data.fields.name:percentencode}"
    return Link("Reports of this task (the control API asks for a token)", url, new_tab=True)


def where_is_it() -> dashboard.DashboardLink:
    """Return the link from the id in the text box to where that task is, by the control API."""
    return (
        dashboard.DashboardLink("Where is this task?")
        .type(DashboardLinkType.LINK)
        .url("${control}/tasks/${task_id:percentencode}")
        .tooltip("Type an id into Task id. The control API answers, and asks for a token; so does celerymeter task ID.")
        .icon("question")
        .target_blank(True)
    )


def menu() -> dashboard.DashboardLink:
    """Return the links to the other dashboards, at the top of each."""
    return (
        dashboard.DashboardLink("celerymeter")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
        .as_dropdown(False)
    )
