"""Curves over time as inline SVG, in colours that the page chooses (CSS variables for light, dark and print).

Written out here, because no small library draws lines with gaps over time without scripts or import hooks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from statistics import median

from markupsafe import Markup

from celerymeter.escaping import terminal
from celerymeter.reports.report import Curve
from celerymeter.reports.request import utc

WIDTH, HEIGHT = 920, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 28, 10, 28
"""Margins around the plot, which hold the labels of the axes."""
GRID_LINES = 5
TIME_LABELS = 6
DAY = 86_400.0


def drawable(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return the curves that have a value, in the order of the colours."""
    return {name: curve for name, curve in curves.items() if any(value is not None for _, value in curve)}


def chart(curves: Mapping[str, Curve]) -> Markup:
    """Return one SVG with a line for each curve, without legend; empty when there is nothing to draw."""
    drawn = drawable(curves)
    times = [at for curve in drawn.values() for at, _ in curve]
    if not times or min(times) == max(times):
        return Markup()
    first, span = min(times), max(times) - min(times)
    highest = max(value for curve in drawn.values() for _, value in curve if value is not None)
    step = _grid_step(highest)
    top = step * max(1, math.ceil(highest / step))
    x_scale, y_scale = (WIDTH - LEFT - RIGHT) / span, (HEIGHT - TOP - BOTTOM) / top
    bottom = HEIGHT - BOTTOM

    parts = [Markup('<svg class="chart" viewBox="0 0 {} {}" role="img">').format(WIDTH, HEIGHT)]
    for number in range(round(top / step) + 1):
        y = bottom - number * step * y_scale
        parts.append(Markup('<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y))
        text = f"{number * step:,.10g}"
        parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 8, y + 4, text))
    for number in range(TIME_LABELS):
        at = first + span * number / (TIME_LABELS - 1)
        x, text = LEFT + (at - first) * x_scale, _time_label(at, span)
        parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x, HEIGHT - 8, text))
    for number, (name, curve) in enumerate(drawn.items(), start=1):
        path = " ".join(
            "M" + " L".join(f"{LEFT + (at - first) * x_scale:.1f},{bottom - value * y_scale:.1f}" for at, value in line)
            for line in _lines(curve)
        )
        parts.append(
            Markup('<path d="{}" stroke="var(--c{})"><title>{}</title></path>').format(path, number, terminal(name))
        )
    return Markup("").join([*parts, Markup("</svg>")])


def _lines(curve: Curve) -> Iterator[list[tuple[float, float]]]:
    """Yield the parts of a curve between gaps; a missing step is a gap. A single point becomes a short line."""
    usual = median(after[0] - before[0] for before, after in pairwise(curve)) if len(curve) > 1 else 0.0
    line: list[tuple[float, float]] = []
    for at, value in curve:
        if line and (value is None or at - line[-1][0] > 1.5 * usual):
            yield line if len(line) > 1 else [line[0], line[0]]
            line = []
        if value is not None:
            line.append((at, value))
    if line:
        yield line if len(line) > 1 else [line[0], line[0]]


def _grid_step(highest: float) -> float:
    """Return 1, 2 or 5 times a power of ten, so that about `GRID_LINES` steps reach the highest value.

    >>> _grid_step(870.0), _grid_step(0.3), _grid_step(0.0)
    (200.0, 0.1, 1.0)
    """
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest / GRID_LINES))
    return float(f"{next(power * factor for factor in (1, 2, 5, 10) if highest / (power * factor) <= GRID_LINES):.10g}")


def _time_label(at: float, span: float) -> str:
    pattern = "%H:%M" if span <= DAY else "%m-%d %H:%M" if span <= 7 * DAY else "%m-%d"
    return utc(at).strftime(pattern)
