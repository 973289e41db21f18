"""Counters sampled at steps, turned into what was counted in each step. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from celerymeter.prometheus import Matrix, Point
from celerymeter.reports.lives import Exporter, Life

Steps = dict[float, float]
"""What was counted in the step that ends at a time (UTC seconds)."""


def by_exporter(matrix: Matrix, lives: Iterable[Life], *, step: float) -> dict[tuple[Exporter, str], Steps]:
    """The growth of each series, by its exporter and its bucket (``""`` when it has none)."""
    of: dict[Exporter, list[Life]] = defaultdict(list)
    for life in lives:
        of[life.exporter].append(life)
    found = {}
    for series in matrix:
        exporter = Exporter(series.label("cluster"), series.label("job"), series.label("instance"))
        found[exporter, series.label("le")] = growth(series.points, of[exporter], step=step)
    return found


def growth(points: Sequence[Point], lives: Sequence[Life], *, step: float) -> Steps:
    """One exporter's sum, step by step: a new life counts from 0, and a step over a gap is left out."""
    grown = {}
    if points and (life := _life_at(points[0].at, lives)) and life.started > points[0].at - step:
        grown[points[0].at] = points[0].value
    for before, after in pairwise(points):
        if after.at - before.at > 1.5 * step:
            continue
        same = _life_at(before.at, lives) is _life_at(after.at, lives)
        grown[after.at] = max(0.0, after.value - before.value) if same else after.value
    return grown


def highest(steps: Iterable[Mapping[float, float]]) -> Steps:
    """Of several exporters the one that saw most, step by step."""
    best: Steps = {}
    for one in steps:
        for at, value in one.items():
            best[at] = max(value, best.get(at, 0.0))
    return best


def _life_at(at: float, lives: Sequence[Life]) -> Life | None:
    """The newest life that had been scraped by then."""
    return max((life for life in lives if life.pages[0] <= at), key=lambda life: life.pages[0], default=None)
