"""Exact counts of a window: find the exporter processes and their scrapes, then subtract whole scrapes.

A window means what Prometheus scraped in ``(start, end]``. `celerymeter.prometheus.counters` says why two scrapes of
one process can be subtracted. Several exporters on one broker count the same tasks: for each piece of the window the
one that saw most tasks end is taken, and they are never added up.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby, pairwise
from typing import NamedTuple

from celerymeter.prometheus import Matrix, PrometheusClient, Scope
from celerymeter.prometheus.counters import Counts, Target, Totals
from celerymeter.reports import queries
from celerymeter.reports.request import Filters

DAY = 86_400.0
LOOKBACK = 3600.0
"""Seconds before the window in which the scrape to count from is searched; older ones are searched only when needed."""
FURTHEST = 31 * DAY
HELD = 8
HELD_COUNTERS = 400_000
"""Scrapes in memory: each has all counters of an exporter, and the next piece needs those at its beginning."""

Progress = Callable[[str, float], None]
"""Called with the current step and the share of it that is done (0 to 1)."""


def _no_progress(*_: object) -> None:
    """Ignore the progress."""


@dataclass(frozen=True, slots=True)
class ExporterProcess:
    """One run of an exporter between two starts, and when Prometheus scraped it (ascending; UTC seconds).

    ``scrapes`` is an array where it was read: a year has three million of them, and a tuple would need 100 MB.
    """

    target: Target
    started: float
    scrapes: Sequence[float]

    def last_scrape(self, at: float) -> float | None:
        """Return the newest scrape not after ``at``."""
        number = bisect_right(self.scrapes, at)
        return self.scrapes[number - 1] if number else None

    def next_scrape(self, at: float) -> float | None:
        """Return the oldest scrape not before ``at``."""
        number = bisect_left(self.scrapes, at)
        return self.scrapes[number] if number < len(self.scrapes) else None


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """The counts of a window; ``counts`` is ``None`` if they cannot be known."""

    counts: Counts | None
    processes: tuple[ExporterProcess, ...] = ()
    without_base: tuple[ExporterProcess, ...] = ()
    """Processes that ran before the window, but no scrape of that time is left: the reason for unknown counts."""
    late_bases: tuple[ExporterProcess, ...] = ()
    """Processes whose last scrape before the window is over an hour older; what they counted since is included."""
    disagreement: float = 0.0
    """Number of ended tasks that other exporters on the broker missed, compared with the one that is used."""
    warnings: tuple[str, ...] = ()


class ScrapeRef(NamedTuple):
    """The scrape of a target at a time."""

    target: Target
    at: float


class Span(NamedTuple):
    """Two scrapes of one process to subtract; without ``base`` the process began later and counts from 0."""

    process: ExporterProcess
    base: float | None
    last: float


class WindowCounter:
    """Counts windows, and reads a scrape that ends one window or piece and begins the next only once.

    It holds a few scrapes at a time, however often exporters restarted in the window.

    Raises `PrometheusUnavailable` and `QueryRejected`.
    """

    def __init__(
        self,
        client: PrometheusClient,
        scope: Scope,
        *,
        filters: Filters | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._client = client
        self._scope = scope
        self._filters = (filters or Filters()).slots()
        self._progress: Progress = progress or _no_progress
        self._scrapes: OrderedDict[tuple[ScrapeRef, bool], Counts] = OrderedDict()

    def count(self, *, start: float, end: float, histograms: bool = True) -> WindowCounts:
        """Count what was scraped in ``(start, end]`` (UTC seconds); quantiles need ``histograms``."""
        warnings: set[str] = set()
        found = self._find_processes(start - LOOKBACK, end, warnings)
        scraped = [process for process in found if process.scrapes[-1] > start]
        processes, without_base, late = self._find_bases(scraped, start, warnings)
        if without_base or not scraped:
            return WindowCounts(None, tuple(scraped), without_base, late, warnings=tuple(sorted(warnings)))
        pieces = cut(processes, start=start, end=end)
        taken, disagreement = Totals(), 0.0
        for done, piece in enumerate(pieces, start=1):
            exporters = sorted(self._subtract(piece, warnings, histograms=histograms), key=lambda counts: counts.ended)
            if exporters:
                taken.add(exporters[-1])
                disagreement += sum(exporters[-1].ended - counts.ended for counts in exporters[:-1])
            self._progress("counters", done / len(pieces))
        return WindowCounts(taken.counts(), processes, without_base, late, disagreement, tuple(sorted(warnings)))

    def processes(self, *, start: float, end: float) -> tuple[ExporterProcess, ...]:
        """Return the exporter processes that were scraped in this time."""
        return self._find_processes(start, end, set())

    def _find_processes(self, start: float, end: float, warnings: set[str]) -> tuple[ExporterProcess, ...]:
        return read_processes(self._scrape_times(queries.SCRAPES, start, end, warnings))

    def _scrape_times(
        self, query: str, start: float, end: float, warnings: set[str], **target: str
    ) -> Iterator[Matrix]:
        """Yield the scrapes of each day, the newest day first: a month of them is too large for one answer."""
        until = end
        while until > start:
            length = min(DAY, until - start)
            rendered = self._scope.render(query, window=timedelta(seconds=length), **target)
            answer = self._client.samples(rendered, time=until)
            warnings.update(answer.warnings)
            yield answer
            until -= length  # not the window's seconds, which are rounded
            self._progress("scrape times", (end - until) / (end - start))

    def _find_bases(
        self, processes: Iterable[ExporterProcess], start: float, warnings: set[str]
    ) -> tuple[tuple[ExporterProcess, ...], ...]:
        """Return the processes with the scrape that each counts from, those without one, and those with a late one."""
        based, missing, late = [], [], []
        for process in processes:
            if process.started >= start or process.scrapes[0] <= start:
                based.append(process)
            elif (older := self._find_older_scrape(process, start, warnings)) is not None:
                late.append(process)
                based.append(replace(process, scrapes=array("d", (older, *process.scrapes))))
            elif start - process.started <= LOOKBACK:
                based.append(process)
            else:
                missing.append(process)
        return tuple(based), tuple(missing), tuple(late)

    def _find_older_scrape(self, process: ExporterProcess, start: float, warnings: set[str]) -> float | None:
        """Return the newest scrape of a process before the window."""
        furthest, target = max(process.started, start - FURTHEST), process.target._asdict()
        for day in self._scrape_times(queries.SCRAPES_OF_TARGET, furthest, start, warnings, **target):
            found = [same.scrapes[-1] for same in read_processes([day]) if same.started == process.started]
            if found:
                return max(found)
        return None

    def _subtract(self, piece: Iterable[Span], warnings: set[str], *, histograms: bool) -> Iterator[Counts]:
        """Yield the counts of each exporter in a piece of the window."""
        by_target: dict[Target, Totals] = defaultdict(Totals)
        for process, base, last in piece:
            before = (
                Counts()
                if base is None
                else self._read_scrape(ScrapeRef(process.target, base), warnings, histograms=histograms)
            )
            counts = self._read_scrape(ScrapeRef(process.target, last), warnings, histograms=histograms)
            by_target[process.target].add(counts.since(before))
        return (totals.counts() for totals in by_target.values())

    def _held(self) -> int:
        return sum(len(counts.values) for counts in self._scrapes.values())

    def _read_scrape(self, scrape: ScrapeRef, warnings: set[str], *, histograms: bool) -> Counts:
        known = self._scrapes.get((scrape, True)) or self._scrapes.get((scrape, histograms))
        if known is not None:
            return known
        query = queries.COUNTERS_AND_HISTOGRAMS if histograms else queries.COUNTERS
        answer = self._client.instant(
            self._scope.render(query, **scrape.target._asdict(), **self._filters), time=scrape.at
        )
        warnings.update(answer.warnings)
        counts = self._scrapes[scrape, histograms] = Counts.read(answer)
        while len(self._scrapes) > HELD or (len(self._scrapes) > 1 and self._held() > HELD_COUNTERS):
            self._scrapes.popitem(last=False)
        return counts


def read_processes(answers: Iterable[Matrix]) -> tuple[ExporterProcess, ...]:
    """Return the processes in raw samples of `celerymeter_start_time_seconds`, oldest first; chunks may overlap."""
    parts: dict[tuple[Target, float], list[array[float]]] = defaultdict(list)
    for matrix in answers:
        for series in matrix:
            for started, points in groupby(series.points, key=lambda point: point.value):
                parts[Target.of(series), started].append(array("d", (point.at for point in points)))
    processes = [ExporterProcess(target, started, _in_order(found)) for (target, started), found in parts.items()]
    return tuple(sorted(processes, key=lambda process: (process.scrapes[0], process.target)))


def _in_order(parts: list[array[float]]) -> array[float]:
    """Return all times ascending, each once; the parts are ascending, and mostly do not overlap."""
    times = array("d")
    for part in sorted(parts, key=lambda part: part[0]):
        times.extend(part)
    ascending = all(before < after for before, after in pairwise(times))
    return times if ascending else array("d", sorted(set(times)))


def cut(processes: Iterable[ExporterProcess], *, start: float, end: float) -> tuple[tuple[Span, ...], ...]:
    """Cut the window wherever a process starts or ends; each piece has a span for each process scraped in it.

    Exporters are scraped at different times. Where one ends, the others are read at their next scrape, and where one
    starts, at their scrape before. So no task is counted twice when one exporter is taken in one piece and another in
    the next.
    """
    processes = tuple(processes)
    ends = {process.scrapes[-1] for process in processes if start < process.scrapes[-1] < end}
    starts = {process.scrapes[0] for process in processes if start < process.scrapes[0] < end}
    edges = [(start, False), *((at, at in ends) for at in sorted(ends | starts)), (end, False)]
    scrapes = [(process, _scrapes_at(process, edges)) for process in processes]
    return tuple(
        tuple(
            Span(process, at[number], last)
            for process, at in scrapes
            if (last := at[number + 1]) is not None and last != at[number]
        )
        for number in range(len(edges) - 1)
    )


def _scrapes_at(process: ExporterProcess, edges: Iterable[tuple[float, bool]]) -> list[float | None]:
    """Return the scrape of a process at each edge, never an older one than at the edge before."""
    found: list[float | None] = []
    for at, a_process_ends in edges:
        scrape = process.last_scrape(at)
        if scrape is not None and a_process_ends:
            scrape = process.next_scrape(at) or scrape
        earlier = found[-1] if found else None
        found.append(scrape if earlier is None or scrape is None else max(earlier, scrape))
    return found
