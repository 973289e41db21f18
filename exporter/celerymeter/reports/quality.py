"""The quality of a report's data: missing scrapes, missed events, exporters that disagree. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, islice, pairwise
from statistics import median

from celerymeter.prometheus.counters import Target
from celerymeter.reports.counting import ExporterProcess, WindowCounts
from celerymeter.reports.metrics import rounded
from celerymeter.reports.report import Note, Quality
from celerymeter.reports.request import Window

FEW_SCRAPES = 99.0
"""Percent of scrapes. Below it the report is limited: counts are exact, but the time at which tasks ended is not."""
ENOUGH_GAPS = 10_000
"""Scrapes of each process from which the usual interval is taken: a day of them."""
DEFAULT_INTERVAL = 15.0
"""Seconds between two scrapes, where there are not two of them."""
SETTLED_AFTER = 30.0
"""Seconds, or two scrapes if that is longer. VictoriaMetrics may still change its answers about later instants."""
COMPARABLE = 90.0
"""Percent of its scrapes that the window before needs for a comparison."""


def interval(processes: Iterable[ExporterProcess]) -> float | None:
    """Return the usual number of seconds between two scrapes."""
    gaps = [after - before for process in processes for before, after in islice(pairwise(process.scrapes), ENOUGH_GAPS)]
    return rounded(median(gaps)) if gaps else None


def settled(window: Window, *, now: float, scrape_interval: float | None) -> bool:
    """Return True when all scrapes of the window have certainly arrived."""
    return now - window.end >= max(SETTLED_AFTER, 2 * (scrape_interval or 0.0))


def scrapes_present(counted: WindowCounts, window: Window) -> float | None:
    """Return the percentage of the expected scrapes that are there, for the exporter with most of them."""
    every = interval(counted.processes) or DEFAULT_INTERVAL
    most = max(map(len, _scrapes_within(counted.processes, window).values()), default=0)
    return rounded(min(100.0, 100 * most * every / window.seconds)) if most else None


def judge(counted: WindowCounts, window: Window, notes: Sequence[Note]) -> Quality:
    """Return the verdict, still without its sentences; ``notes`` are limits that were found elsewhere."""
    scrapes = _scrapes_within(counted.processes, window)
    best = max(scrapes.values(), key=len, default=array("d"))
    present = scrapes_present(counted, window)
    restarts = len(counted.processes) - len({process.target for process in counted.processes})
    missed = _total(counted, "celerymeter_events_missed_total")
    folded = _total(counted, "celerymeter_series_folded_total")
    limits = {
        "scrapes_missing": present is not None and present < FEW_SCRAPES,
        "events_missed": missed,
        "series_folded": folded,
        "late_base": counted.late_bases,
        "restarted": restarts,
        "query_warnings": counted.warnings,
        "exporters_disagree": _disagree(counted, window),
    }
    found = [*notes, *(Note(code) for code, applies in limits.items() if applies)]
    return Quality(
        verdict="unusable" if counted.counts is None else "limited" if found else "complete",
        words="",
        scrapes_present_percent=present,
        scrape_interval_seconds=interval(counted.processes),
        longest_gap_seconds=rounded(_longest_gap(best, window)) if best else None,
        exporters=len(scrapes),
        exporter_restarts=restarts,
        events_missed=missed,
        series_folded=folded,
        disagreement_tasks=None if counted.counts is None else round(counted.disagreement),
        query_warnings=counted.warnings,
        notes=tuple(found),
    )


def _disagree(counted: WindowCounts, window: Window) -> bool:
    """Return True when exporters differ by more than their different scrape times explain.

    That is the tasks of one scrape interval at each edge of a process.
    """
    ended = 0.0 if counted.counts is None else counted.counts.ended
    every = interval(counted.processes) or 0.0
    return counted.disagreement > 2 * len(counted.processes) * max(1.0, ended * every / window.seconds)


def _scrapes_within(processes: Iterable[ExporterProcess], window: Window) -> dict[Target, array[float]]:
    """Return the scrapes of each exporter in the window; a process begins after the one before it ended."""
    scrapes: dict[Target, array[float]] = defaultdict(lambda: array("d"))
    for process in sorted(processes, key=lambda process: process.scrapes[0]):
        first, end = (bisect_right(process.scrapes, at) for at in (window.start, window.end))
        scrapes[process.target].extend(process.scrapes[first:end])
    return {target: found for target, found in scrapes.items() if found}


def _longest_gap(scrapes: Sequence[float], window: Window) -> float:
    return max(after - before for before, after in pairwise(chain((window.start,), scrapes, (window.end,))))


def _total(counted: WindowCounts, family: str) -> int | None:
    return None if counted.counts is None else round(counted.counts.total(family))
