"""Tables of queues, tasks, workers and alerts: one instant query a column, joined by the labels of the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, prometheus, table
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from celerymeter_dashboards import states
from celerymeter_dashboards.links import Link
from celerymeter_dashboards.panels import DATASOURCE, About, Panel, ref
from celerymeter_dashboards.states import State


@dataclass(frozen=True, slots=True)
class Key:
    """A label that names the row."""

    label: str
    title: str
    links: tuple[Link, ...] = ()
    width: int = 0
    at_least: int = 140
    """Its width where the screen is narrow."""
    words: dict[str, State] | None = None
    last: bool = False
    """True when it comes after the columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of values with the labels of the rows; ``words`` colours the background of a cell by its value."""

    title: str
    expr: str
    unit: str = "short"
    width: int = 0
    decimals: int | None = None
    words: dict[int, State] | None = None
    never: bool = False
    """True when `states.NEVER` may be among its values."""


def table_of(
    about: About, keys: Sequence[Key], columns: Sequence[Column], *, sort: str, largest_first: bool = False
) -> Panel:
    """A table that begins with the lowest value of the column titled ``sort``, which is the worst.

    The cluster stands last, where series carry one.
    """
    names = [f"Value #{ref(index)}" for index in range(len(columns))] if len(columns) > 1 else ["Value"]
    leading, trailing = ([key.label for key in keys if key.last == last] for last in (False, True))
    order = [*leading, *names, *trailing, "cluster"]
    panel = (
        table.Panel()
        .title(about.title)
        .description(about.description)
        .unit(about.unit)
        .no_value(about.empty)
        .datasource(DATASOURCE)
        .cell_height(kinds.TableCellHeight.SM)
        .sort_by([common.TableSortByFieldState().display_name(sort).desc(largest_first)])
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(_organized(order))
        .override_by_name("cluster", _properties(Key("cluster", "Cluster", width=110, at_least=90)))
    )
    for key in keys:
        panel = panel.override_by_name(key.label, _properties(key))
    row = ", ".join(("cluster", *(key.label for key in keys)))
    for index, (name, column) in enumerate(zip(names, columns, strict=True)):
        query = (
            prometheus.Dataquery()
            .expr(f"max by ({row}) ({column.expr})")
            .ref_id(ref(index))
            .format(PromQueryFormat.TABLE)
            .instant()
        )
        panel = panel.with_target(query.datasource(DATASOURCE))
        panel = panel.override_by_name(name, _column_options(column))
    return panel


def _organized(order: Sequence[str]) -> model.DataTransformerConfig:
    options = {
        "excludeByName": {"Time": True},
        "indexByName": {name: index for index, name in enumerate(order)},
        "renameByName": {},
    }
    return model.DataTransformerConfig(id_val="organize", options=options)


def _properties(key: Key) -> list[model.DynamicConfigValue]:
    properties: dict[str, object] = {"displayName": key.title, "custom.minWidth": key.at_least}
    if key.width:
        properties["custom.width"] = key.width
    if key.words:
        properties |= _worded(key.words)
    if key.links:
        links = [{"title": link.title, "url": link.url, "targetBlank": link.new_tab} for link in key.links]
        properties["links"] = links
    return _values(properties)


def _column_options(column: Column) -> list[model.DynamicConfigValue]:
    properties: dict[str, object] = {
        "displayName": column.title,
        "unit": column.unit,
        "custom.align": "right",
        "noValue": "-",
    }
    if column.width:
        properties["custom.width"] = column.width
    if column.decimals is not None:
        properties["decimals"] = column.decimals
    if column.words:
        properties |= _worded(column.words)
    if column.never:
        properties["mappings"] = states.mapping({states.NEVER: states.absent("")[states.NEVER]})
        properties["custom.cellOptions"] = {"type": "color-text"}
        properties["color"] = {"mode": "fixed", "fixedColor": "text"}
    return _values(properties)


def _worded(words: Mapping[int, State] | Mapping[str, State]) -> dict[str, object]:
    return {
        "mappings": states.mapping(words),
        "custom.cellOptions": {"type": "color-background", "mode": "basic"},
        "custom.align": "center",
        "color": {"mode": "fixed", "fixedColor": "transparent"},
    }


def _values(properties: dict[str, object]) -> list[model.DynamicConfigValue]:
    return [model.DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()]
