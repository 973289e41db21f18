"""How far a window's figures can be trusted. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

from celerymeter.reports.counting import WindowCounts
from celerymeter.reports.lives import Exporter, Life
from celerymeter.reports.report import Note, Quality
from celerymeter.reports.window import Window

FEW_SCRAPES = 99.0
"""Percent of scrapes below which figures are limited: what ended and was scraped is exact, but when is not."""
COMPARABLE = 90.0
"""Percent of its scrapes that the window before must have to be compared with."""
SETTLED_AFTER = 30.0
"""Seconds, or two scrapes if that is longer: VictoriaMetrics answers no younger instant as it will later."""


def interval(lives: Iterable[Life]) -> float | None:
    """Seconds between two scrapes, usually."""
    gaps = [after - before for life in lives for before, after in pairwise(life.pages)]
    return median(gaps) if gaps else None


def settled(window: Window, *, now: float, scrape_interval: float | None) -> bool:
    """Whether all scrapes of the window have certainly arrived."""
    return now - window.end >= max(SETTLED_AFTER, 2 * (scrape_interval or 0.0))


def scrapes_present(counted: WindowCounts, window: Window) -> float | None:
    """Percent of the scrapes that there should be, of the exporter that has most."""
    every = interval(counted.lives)
    most = max(map(len, _pages_within(counted.lives, window).values()), default=0)
    return min(100.0, 100 * most * every / window.seconds) if every and most else None


def judge(counted: WindowCounts, window: Window, notes: Sequence[Note]) -> Quality:
    """The verdict, without its words; ``notes`` are limits that were found elsewhere."""
    pages = _pages_within(counted.lives, window)
    every = interval(counted.lives)
    best = max(pages.values(), key=len, default=[])
    present = scrapes_present(counted, window)
    missed, folded = _total(counted, "missed"), _total(counted, "folded")
    found = [*notes, *_limits(counted, present, missed, folded)]
    if _apart(counted, every or 0.0, window):
        found.append(Note("exporters_disagree"))
    return Quality(
        verdict="unusable" if counted.counts is None else "limited" if found else "complete",
        words="",
        scrapes_present_percent=present,
        scrape_interval_seconds=every,
        longest_gap_seconds=_longest_gap(best, window) if best else None,
        exporters=len(pages),
        exporter_restarts=_restarts(counted.lives),
        events_missed=missed,
        series_folded=folded,
        disagreement_tasks=None if counted.counts is None else round(counted.disagreement),
        query_warnings=counted.warnings,
        notes=tuple(found),
    )


def _limits(counted: WindowCounts, present: float | None, missed: int | None, folded: int | None) -> Iterable[Note]:
    if present is not None and present < FEW_SCRAPES:
        yield Note("scrapes_missing")
    if missed:
        yield Note("events_missed")
    if folded:
        yield Note("series_folded")
    if counted.late_bases:
        yield Note("late_base")
    if _restarts(counted.lives):
        yield Note("restarted")
    if counted.warnings:
        yield Note("query_warnings")


def _apart(counted: WindowCounts, every: float, window: Window) -> bool:
    """Whether exporters differ by more than their moments of scraping explain: one scrape at each edge of a life."""
    ended = 0.0 if counted.counts is None else counted.counts.ended
    return counted.disagreement > 2 * len(counted.lives) * max(1.0, ended * every / window.seconds)


def _restarts(lives: Sequence[Life]) -> int:
    """Lives that followed another of the same exporter: as that one was scraped in the window, these began in it."""
    return len(lives) - len({life.exporter for life in lives})


def _pages_within(lives: Iterable[Life], window: Window) -> dict[Exporter, list[float]]:
    pages: dict[Exporter, list[float]] = defaultdict(list)
    for life in lives:
        pages[life.exporter] += [page for page in life.pages if window.start < page <= window.end]
    return {exporter: sorted(found) for exporter, found in pages.items() if found}


def _longest_gap(pages: Sequence[float], window: Window) -> float:
    return max(after - before for before, after in pairwise((window.start, *pages, window.end)))


def _total(counted: WindowCounts, what: str) -> int | None:
    return None if counted.counts is None else round(counted.counts.total(what))
