"""Curves as inline SVG, drawn by pygal in colours that the page chooses (CSS variables: light, dark, print)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from itertools import pairwise
from statistics import median

import pygal
from pygal.style import Style

from celerymeter.reports.report import Curve

# pygal adds a finder for its plugins, in a form that Python 3.11 warns of at every failed import; we use no plugin
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

WIDTH, HEIGHT = 920, 280
MARKS = 6
"""Labels of the time axis."""
DAY = 86_400.0
_SCRIPTS = re.compile(r"<script.*?</script>|<!--.*?-->", re.DOTALL)
_STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="var(--soft)",
    foreground_strong="var(--text)",
    foreground_subtle="var(--line)",
    guide_stroke_color="var(--line)",
    major_guide_stroke_color="var(--line)",
    colors=tuple(f"var(--c{number})" for number in range(1, 9)),
    opacity="1",
    opacity_hover="1",
    transition="0s",
    font_family="inherit",
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=14,
)


def drawable(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Those that have a value, in the order of the colours."""
    return {name: curve for name, curve in curves.items() if any(value is not None for _, value in curve)}


def chart(curves: Mapping[str, Curve]) -> str:
    """One SVG of lines over time, without legend; empty when there is nothing to draw."""
    drawn = drawable(curves)
    times = [at for curve in drawn.values() for at, _ in curve]
    if not times or min(times) == max(times):
        return ""
    plot = pygal.XY(
        style=_STYLE,
        js=[],
        width=WIDTH,
        height=HEIGHT,
        explicit_size=False,
        disable_xml_declaration=True,
        no_prefix=True,
        dots_size=0,
        show_dots=False,
        allow_interruptions=True,
        include_x_axis=True,
        show_legend=False,
        margin=8,
        range=(0, 1.05 * _highest(drawn) or 1),
        max_scale=6,
        x_labels=_marks(min(times), max(times)),
        x_value_formatter=_formatter(max(times) - min(times)),
        value_formatter=lambda value: f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}",
    )
    for name, curve in drawn.items():
        plot.add(name, _with_gaps(curve))
    return _SCRIPTS.sub("", plot.render(is_unicode=True))


def _with_gaps(curve: Curve) -> list[tuple[float, float | None]]:
    """A missing step interrupts the line."""
    usual = median(after[0] - before[0] for before, after in pairwise(curve)) if len(curve) > 1 else 0.0
    points: list[tuple[float, float | None]] = list(curve[:1])
    for before, after in pairwise(curve):
        if after[0] - before[0] > 1.5 * usual:
            points.append((before[0] + usual, None))
        points.append(after)
    return points


def _highest(curves: Mapping[str, Curve]) -> float:
    return max(value for curve in curves.values() for _, value in curve if value is not None)


def _marks(first: float, last: float) -> list[float]:
    return [first + (last - first) * number / (MARKS - 1) for number in range(MARKS)]


def _formatter(seconds: float) -> object:
    pattern = "%H:%M" if seconds <= DAY else "%m-%d %H:%M" if seconds <= 7 * DAY else "%m-%d"
    return lambda at: datetime.fromtimestamp(at, timezone.utc).strftime(pattern)
