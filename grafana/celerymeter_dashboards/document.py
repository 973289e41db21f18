"""Dashboards made of lines of panels, and their JSON files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from celerymeter_dashboards.annotations import marks
from celerymeter_dashboards.links import TAG, TITLES, VARIABLES, menu, where_is_it
from celerymeter_dashboards.panels import Panel
from celerymeter_dashboards.variables import variables

COLUMNS = 24
_MENU = model.DashboardLinkPlacement.IN_CONTROLS_MENU


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side, of one height, that share the width evenly."""

    height: int
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Lines under a heading; the first section of a dashboard has none."""

    title: str
    lines: tuple[Line, ...]


def line(height: int, *panels: Panel) -> Line:
    """A line of panels."""
    return Line(height, panels)


def section(title: str, *lines: Line) -> Section:
    """Lines under a heading."""
    return Section(title, lines)


def assemble(uid: str, description: str, *sections: Section) -> model.Dashboard:
    """Return the dashboard; panels are numbered in reading order."""
    builder = (
        dashboard.Dashboard(TITLES[uid])
        .uid(uid)
        .description(description)
        .tags([TAG, "celery"])
        .time("now-1h", "now")
        .refresh("5s")
        .timepicker(dashboard.TimePicker().refresh_intervals(["5s", "10s", "30s", "1m", "5m"]))
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(menu())
    )
    if "task_id" in VARIABLES[uid]:
        builder = builder.link(where_is_it())
    for variable in variables(VARIABLES[uid]):
        builder = builder.with_variable(variable)
    for annotation in marks():
        builder = builder.annotation(annotation)
    document = builder.build()
    document.panels = _placed(sections)
    return document


def _placed(sections: Sequence[Section]) -> list[model.Panel | model.RowPanel]:
    panels: list[model.Panel | model.RowPanel] = []
    y = 0
    for section in sections:
        if section.title:
            position = model.GridPos(h=1, w=COLUMNS, x=0, y=y)
            panels.append(model.RowPanel(title=section.title, id_val=len(panels) + 1, grid_pos=position, panels=[]))
            y += 1
        for row in section.lines:
            width = COLUMNS // len(row.panels)
            for index, builder in enumerate(row.panels):
                panel = builder.build()
                panel.id_val = len(panels) + 1
                panel.grid_pos = model.GridPos(h=row.height, w=width, x=index * width, y=y)
                panels.append(panel)
            y += row.height
    return panels


def text(document: model.Dashboard) -> str:
    """Return the content of the file.

    The SDK (0.0.21) hides every link and annotation in a menu (``placement``) and offers no way to leave that out.
    """
    plain = json.loads(json.dumps(document, cls=JSONEncoder))
    return json.dumps(_without_placement(plain), indent=2, sort_keys=True) + "\n"


def _without_placement(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_placement(inner) for key, inner in value.items() if key != "placement" or inner != _MENU}
    return [_without_placement(inner) for inner in value] if isinstance(value, list) else value
