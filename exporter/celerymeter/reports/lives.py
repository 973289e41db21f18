"""The lives of exporters: a life is one process, found by its start time; its pages are its scrapes.

Counters start at 0 with a process, never fall and never vanish while it lives, and all series of one page share its
time. So whole pages can be subtracted, and no sample in between needs to be read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from celerymeter.prometheus import Matrix


class Exporter(NamedTuple):
    """An exporter's place in Prometheus: its target labels."""

    cluster: str
    job: str
    instance: str


@dataclass(frozen=True, slots=True)
class Life:
    """One process of an exporter: when it started, and when Prometheus scraped it (ascending; UTC seconds)."""

    exporter: Exporter
    started: float
    pages: tuple[float, ...]

    def last_page(self, at: float) -> float | None:
        """The newest page not after ``at``."""
        number = bisect_right(self.pages, at)
        return self.pages[number - 1] if number else None

    def next_page(self, at: float) -> float | None:
        """The oldest page not before ``at``."""
        number = bisect_left(self.pages, at)
        return self.pages[number] if number < len(self.pages) else None


def read_lives(answers: Iterable[Matrix]) -> tuple[Life, ...]:
    """The lives in raw samples of `celerymeter_start_time_seconds`, oldest first; chunks may overlap."""
    pages: dict[tuple[Exporter, float], set[float]] = defaultdict(set)
    for matrix in answers:
        for series in matrix:
            exporter = Exporter(series.label("cluster"), series.label("job"), series.label("instance"))
            for point in series.points:
                pages[exporter, point.value].add(point.at)
    lives = (Life(exporter, started, tuple(sorted(found))) for (exporter, started), found in pages.items())
    return tuple(sorted(lives, key=lambda life: (life.pages[0], life.exporter)))


class Need(NamedTuple):
    """A page that must be read: of which exporter, and when it was scraped."""

    exporter: Exporter
    at: float


class Span(NamedTuple):
    """What one life adds to one piece of the window: the page at its end less that at its beginning (``None``: 0)."""

    life: Life
    base: float | None
    last: float


class _Edge(NamedTuple):
    """A time at which the window is cut; ``after``: a life ended, so others are read at their next page."""

    at: float
    after: bool = False


def cut(lives: Iterable[Life], *, start: float, end: float) -> tuple[tuple[Span, ...], ...]:
    """The window's pieces, cut where a life's pages begin or end, each as one span for each life scraped in it.

    Exporters are scraped at different moments. Where one falls silent another is read at its next page, and where one
    begins, at its page before: so whoever speaks in the one piece and in the next, no task is counted twice.
    """
    lives = tuple(lives)
    edges = _edges(lives, start=start, end=end)
    marks = [(life, _marks(life, edges)) for life in lives]
    return tuple(
        tuple(
            Span(life, at[number], last)
            for life, at in marks
            if (last := at[number + 1]) is not None and last != at[number]
        )
        for number in range(len(edges) - 1)
    )


def _edges(lives: Iterable[Life], *, start: float, end: float) -> list[_Edge]:
    ends = {life.pages[-1] for life in lives if start < life.pages[-1] < end}
    begins = {life.pages[0] for life in lives if start < life.pages[0] < end}
    return [_Edge(start), *(_Edge(at, at in ends) for at in sorted(ends | begins)), _Edge(end)]


def _marks(life: Life, edges: Iterable[_Edge]) -> list[float | None]:
    """The page of a life at each edge, never an earlier one than at the edge before."""
    found: list[float | None] = []
    for edge in edges:
        page = life.last_page(edge.at)
        if page is not None and edge.after:
            page = life.next_page(edge.at) or page
        earlier = found[-1] if found else None
        found.append(page if earlier is None or page is None else max(earlier, page))
    return found
