"""The variables at the top of each dashboard."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from celerymeter import metrics as families
from celerymeter_dashboards.panels import DATASOURCE
from celerymeter_dashboards.promql import VariableScope

CONTROL_URL = "http://localhost:8000/celery-admin"
_ALL = model.VariableOption(selected=True, text=["All"], value=["$__all"])
_QUEUES = '{__name__=~"celery_queue_length|celery_task_succeeded_total", job=~"$job", cluster=~"$cluster"}'


def variables(names: tuple[str, ...]) -> list[Builder[model.VariableModel]]:
    """The variables of these names; each is narrowed by those before it."""
    by_queue = VariableScope(("queue_name",) if "queue" in names else ())
    made: dict[str, Builder[model.VariableModel]] = {
        "datasource": dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        "job": _values("job", "Job", f"label_values({families.BUILD_INFO.name}, job)"),
        "cluster": _values("cluster", "Cluster", f'label_values({families.BUILD_INFO.name}{{job=~"$job"}}, cluster)'),
        "queue": _values("queue", "Queue", f"label_values({_QUEUES}, queue_name)"),
        "task": _values("task", "Task", f"label_values({by_queue.of(families.TASK_SUCCEEDED)}, name)"),
        "worker": _values("worker", "Worker", f"label_values({by_queue.of(families.WORKER_UP)}, hostname)"),
        "schedule": _values("schedule", "Schedule", f"label_values({by_queue.of(families.SCHEDULE_DUE)}, schedule)"),
        "task_id": dashboard.TextBoxVariable("task_id")
        .label("Task id")
        .description("Id of one task, for the link “Where is this task?”; no panel uses it."),
        "control": dashboard.TextBoxVariable("control")
        .label("Control API")
        .description("Where your browser reaches the control API; links to reports start with it and need a token.")
        .default_value(CONTROL_URL)
        .current(model.VariableOption(selected=True, text=CONTROL_URL, value=CONTROL_URL)),
    }
    return [made[name] for name in names]


def _values(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query({"query": query, "refId": f"{name}-values"})
        .definition(query)
        .datasource(DATASOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(_ALL)
    )
