"""All kinds of panels that the dashboards use, in one style, around builders of the foundation SDK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from celerymeter_dashboards import states
from celerymeter_dashboards.links import Link
from celerymeter_dashboards.promql import VariableScope
from celerymeter_dashboards.states import State

Panel = Builder[model.Panel]
_P = TypeVar("_P", stat.Panel, timeseries.Panel, statetimeline.Panel, heatmap.Panel, table.Panel)

DATASOURCE = kinds.DataSourceRef(type_val="prometheus", uid="${datasource}")
LIMIT_COLORS = {"warning": states.WARNING, "critical": states.BAD}


@dataclass(frozen=True, slots=True)
class About:
    """Title, description and unit of a panel; ``empty`` is shown without data, and says why there may be none."""

    title: str
    description: str
    unit: str
    empty: str


@dataclass(frozen=True, slots=True)
class ChartQuery:
    """One query of a chart; ``color`` is for all its series, ``right`` the unit of an axis of its own."""

    expr: str
    legend: str
    color: str = ""
    dashed: bool = False
    right: str = ""


class Scale(Enum):
    """The scale of an axis; a logarithmic one keeps small values visible beside a high limit."""

    LINEAR = "linear"
    LOGARITHMIC = "log"


def limit(expr: str, *, beside: str, severity: str = "warning", legend: str = "") -> ChartQuery:
    """Return the lowest of some threshold series as a dashed line, in the colour of its severity.

    It is drawn only while there is something ``beside`` it, so that a chart without data says why it is empty.
    """
    return ChartQuery(
        f"min({expr}) and on () count({beside})", legend or f"{severity} limit", LIMIT_COLORS[severity], dashed=True
    )


def limits(scope: VariableScope, what: str, label: str, *, beside: str) -> list[ChartQuery]:
    """Return both limits of ``celery:<what>:effective``; the lowest where shown series have their own."""
    return [
        limit(scope.recorded(f"celery:{what}:effective", label, severity=severity), beside=beside, severity=severity)
        for severity in LIMIT_COLORS
    ]


def ref(index: int) -> str:
    """Return the name of the n-th query of a panel: A, B, C …"""
    return chr(ord("A") + index)


def stat_panel(
    about: About, expr: str, *, links: Sequence[Link], words: dict[int, State] | None = None, nothing: str = "none"
) -> stat.Panel:
    """Return a stat panel: one number, or one of ``words``. ``expr`` comes from `stats`, so it always has a value.

    ``nothing`` is shown where there was nothing to measure.
    """
    panel = (
        _styled(stat.Panel(), about)
        .with_target(_query(expr, 0, legend="{{state}}").instant())
        .mappings(states.mapping({**states.absent(nothing), **(words or {})}))
        .color_scheme(_fixed(states.CALM))
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .color_mode(kinds.BigValueColorMode.BACKGROUND_SOLID if words else kinds.BigValueColorMode.VALUE)
        .text_mode(kinds.BigValueTextMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .data_links([link.builder() for link in links])
    )
    for name, color in states.STAT_COLORS.items():
        panel = panel.override_by_name(name, [_color(color)])
    return panel


def chart(
    about: About,
    *lines: ChartQuery,
    stacked: bool = False,
    scale: Scale = Scale.LINEAR,
    links: Sequence[Link] = (),
    top: float | None = None,
) -> Panel:
    """Lines over time, with gaps where there is no value; dashed ones are limits. ``top`` is the axis' soft maximum."""
    panel = (
        _styled(timeseries.Panel(), about)
        .scale_distribution(_SCALES[scale]())
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .line_width(1)
        .fill_opacity(25 if stacked else 0)
        .show_points(kinds.VisibilityMode.AUTO)
        .span_nulls(False)
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .legend(_legend())
        .data_links([link.builder() for link in links])
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if top is not None:
        panel = panel.axis_soft_max(top)
    if scale is not Scale.LOGARITHMIC:
        panel = panel.min(0)
    for index, line in enumerate(lines):
        panel = panel.with_target(_query(line.expr, index, legend=line.legend))
        if properties := _line_properties(line):
            panel = panel.override_by_query(ref(index), properties)
    return panel


def timeline(about: About, *lines: ChartQuery, words: dict[int, State]) -> Panel:
    """States over time, one row a series."""
    panel = (
        _styled(statetimeline.Panel(), about)
        .mappings(states.mapping(words))
        .show_value(kinds.VisibilityMode.NEVER)
        .merge_values(True)
        .fill_opacity(80)
        .line_width(0)
        .row_height(0.8)
        .legend(_legend())
    )
    for index, line in enumerate(lines):
        panel = panel.with_target(_query(line.expr, index, legend=line.legend))
    return panel


def heat_map(about: About, expr: str) -> Panel:
    """Return the distribution of observations over the buckets of a histogram; ``expr`` is by ``le`` alone."""
    query = _query(expr, 0, legend="{{le}}").format(PromQueryFormat.HEATMAP)
    colors = heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).exponent(0.5)
    return (
        _styled(heatmap.Panel(), About(about.title, about.description, "short", about.empty))
        .with_target(query)
        .color(colors)
        .y_axis(heatmap.YAxisConfig().unit(about.unit))
        .tooltip(heatmap.HeatmapTooltip().mode(kinds.TooltipDisplayMode.SINGLE).show_color_scale(False))
        .show_legend()
    )


_SCALES: dict[Scale, Callable[[], common.ScaleDistributionConfig]] = {
    Scale.LINEAR: lambda: common.ScaleDistributionConfig().type(kinds.ScaleDistribution.LINEAR),
    Scale.LOGARITHMIC: lambda: common.ScaleDistributionConfig().type(kinds.ScaleDistribution.LOG).log(10),
}


def _styled(panel: _P, about: About) -> _P:
    return (
        panel.title(about.title)
        .description(about.description)
        .unit(about.unit)
        .no_value(about.empty)
        .datasource(DATASOURCE)
    )


def _query(expr: str, index: int, *, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).ref_id(ref(index)).legend_format(legend).datasource(DATASOURCE)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(kinds.LegendDisplayMode.LIST)
        .placement(kinds.LegendPlacement.BOTTOM)
    )


def _fixed(color: str) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(color)


def _color(color: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})


def _line_properties(line: ChartQuery) -> list[model.DynamicConfigValue]:
    properties = [_color(line.color)] if line.color else []
    if line.right:
        axis = {"unit": line.right, "custom.axisPlacement": "right", "custom.fillOpacity": 0}
        properties += [model.DynamicConfigValue(id_val=key, value=value) for key, value in axis.items()]
    if line.dashed:
        style = {
            "custom.lineStyle": {"fill": "dash", "dash": [8, 6]},
            "custom.fillOpacity": 0,
            "custom.showPoints": "never",
            "custom.stacking": {"mode": "none"},
        }
        properties += [model.DynamicConfigValue(id_val=key, value=value) for key, value in style.items()]
    return properties
