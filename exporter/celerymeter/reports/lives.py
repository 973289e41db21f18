"""The lives of exporters: a life is one process, found by its start time; its pages are its scrapes.

Counters start at 0 with a process, never fall and never vanish while it lives, and all series of one page share its
time. So whole pages can be subtracted, and no sample in between needs to be read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
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
        return max((page for page in self.pages if page <= at), default=None)


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


class Piece(NamedTuple):
    """A part of the window, ``(start, end]``, in which no life begins or ends."""

    start: float
    end: float


def cut(lives: Iterable[Life], *, start: float, end: float) -> tuple[Piece, ...]:
    """The window's pieces: it is cut where a life's pages begin or end."""
    edges = {start, end}
    for life in lives:
        edges |= {page for page in (life.pages[0], life.pages[-1]) if start < page < end}
    ordered = sorted(edges)
    return tuple(Piece(before, after) for before, after in pairwise(ordered))


class Need(NamedTuple):
    """A page that must be read: of which exporter, and when it was scraped."""

    exporter: Exporter
    at: float


class Span(NamedTuple):
    """What one life adds to one piece: the page at its end less the page at its beginning (``None``: from 0)."""

    life: Life
    base: float | None
    last: float


def spans(lives: Iterable[Life], piece: Piece) -> tuple[Span, ...]:
    """One span for each life that was scraped within the piece."""
    found = []
    for life in lives:
        last = life.last_page(piece.end)
        if last is not None and last > piece.start:
            found.append(Span(life, life.last_page(piece.start), last))
    return tuple(found)
