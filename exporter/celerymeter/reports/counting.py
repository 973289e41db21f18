"""Exact counts of a window: lives are found, pages are read, whole pages are subtracted.

A window means what was scraped in ``(start, end]``. Of several exporters on one broker the one that counted the most
ends speaks for each piece of the window; they are never added up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from celerymeter.prometheus import Matrix, PrometheusClient, Scope
from celerymeter.reports import queries
from celerymeter.reports.lives import Exporter, Life, Need, Span, cut, read_lives
from celerymeter.reports.pages import Counts, read_page
from celerymeter.reports.report import Filters

DAY = 86_400.0
LOOKBACK = 3600.0
"""Seconds before the window in which a life's page is looked for; further back only when it must be."""
FURTHEST = 31 * DAY

Progress = Callable[[str, float], None]
"""Told what is being done, and the share that is done (0 to 1)."""


def _unseen(*_: object) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A life that was up before the window, but whose pages of that time are not there."""

    exporter: Exporter
    started: float
    first_page: float


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """What happened in a window. ``counts`` is ``None`` when it cannot be known; ``gaps`` say why."""

    counts: Counts | None
    lives: tuple[Life, ...] = ()
    gaps: tuple[Gap, ...] = ()
    late_bases: tuple[Gap, ...] = ()
    """Lives whose last page before the window is older than an hour: what they counted since is in the figures."""
    disagreement: float = 0.0
    """Ended tasks by which further exporters on the same broker fell short of the one that spoke."""
    warnings: tuple[str, ...] = ()


class Counting:
    """Counts windows by queries, a page that ends one and begins the next only once.

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
        self._chosen = queries.chosen(filters or Filters())
        self._progress: Progress = progress or _unseen
        self._pages: dict[tuple[Need, bool], Counts] = {}

    def window(self, *, start: float, end: float, histograms: bool = True) -> WindowCounts:
        """What was scraped in ``(start, end]`` (UTC seconds); quantiles need ``histograms``."""
        warnings: set[str] = set()
        lives = self._lives(start - LOOKBACK, end, warnings)
        seen = tuple(life for life in lives if life.last_page(end) is not None and life.pages[-1] > start)
        based, gaps, late = self._find_bases(seen, start, warnings)
        if gaps or not seen:
            return WindowCounts(None, seen, gaps, late, warnings=tuple(sorted(warnings)))
        pieces = cut(based, start=start, end=end)
        pages = self._read(pieces, warnings, histograms=histograms)
        counts, disagreement = _choose(pieces, pages)
        return WindowCounts(counts, based, gaps, late, disagreement, tuple(sorted(warnings)))

    def lives(self, *, start: float, end: float) -> tuple[Life, ...]:
        """The lives that were scraped in this time."""
        return self._lives(start, end, set())

    def _lives(self, start: float, end: float, warnings: set[str]) -> tuple[Life, ...]:
        """A day at a time, so that a month of scrapes is no single answer."""
        answers: list[Matrix] = []
        until = end
        while until > start:
            window = min(DAY, until - start)
            query = self._scope.render(queries.LIVES, window=timedelta(seconds=window))
            answers.append(self._client.samples(query, time=until))
            warnings.update(answers[-1].warnings)
            until -= window
            self._progress("scrapes", (end - until) / (end - start))
        return read_lives(answers)

    def _find_bases(
        self, lives: Iterable[Life], start: float, warnings: set[str]
    ) -> tuple[tuple[Life, ...], tuple[Gap, ...], tuple[Gap, ...]]:
        """Give each life that was up before the window its last page of that time."""
        based, gaps, late = [], [], []
        for life in lives:
            if life.started >= start or life.pages[0] <= start:
                based.append(life)
                continue
            page = self._older_page(life, start, warnings)
            gap = Gap(life.exporter, life.started, life.pages[0])
            if page is not None:
                late.append(gap)
                based.append(Life(life.exporter, life.started, (page, *life.pages)))
            elif start - life.started <= LOOKBACK:
                based.append(life)
            else:
                gaps.append(gap)
        return tuple(based), tuple(gaps), tuple(late)

    def _older_page(self, life: Life, start: float, warnings: set[str]) -> float | None:
        """The newest page of this life before the window, looked for a day at a time."""
        place = life.exporter._asdict()
        until, furthest = start, max(life.started, start - FURTHEST)
        while until > furthest:
            window = min(DAY, until - furthest)
            answer = self._client.samples(
                self._scope.render(queries.PAST, window=timedelta(seconds=window), **place), time=until
            )
            warnings.update(answer.warnings)
            pages = [page for one in read_lives([answer]) if one.started == life.started for page in one.pages]
            if pages:
                return max(pages)
            until -= window
        return None

    def _read(self, pieces: Iterable[Iterable[Span]], warnings: set[str], *, histograms: bool) -> Mapping[Need, Counts]:
        needs = {need for piece in pieces for span in piece for need in _needs(span)}
        pages = {}
        for done, need in enumerate(sorted(needs), start=1):
            known = self._pages.get((need, True))
            pages[need] = self._page(need, warnings, histograms=histograms) if known is None else known
            self._progress("pages", done / len(needs))
        return pages

    def _page(self, need: Need, warnings: set[str], *, histograms: bool) -> Counts:
        query = queries.PAGE if histograms else queries.COUNTS
        answer = self._client.instant(
            self._scope.render(query, **need.exporter._asdict(), **self._chosen), time=need.at
        )
        warnings.update(answer.warnings)
        self._pages[need, histograms] = read_page(answer)
        return self._pages[need, histograms]


def _needs(span: Span) -> Iterable[Need]:
    yield Need(span.life.exporter, span.last)
    if span.base is not None:
        yield Need(span.life.exporter, span.base)


def _choose(pieces: Iterable[Iterable[Span]], pages: Mapping[Need, Counts]) -> tuple[Counts, float]:
    """For each piece the exporter with the most ended tasks, and by how much the others fell short."""
    chosen, disagreement = [], 0.0
    for piece in pieces:
        by_exporter: dict[Exporter, list[Counts]] = defaultdict(list)
        for span in piece:
            base = pages[Need(span.life.exporter, span.base)] if span.base is not None else Counts()
            by_exporter[span.life.exporter].append(pages[Need(span.life.exporter, span.last)].minus(base))
        rivals = sorted((Counts.sum(parts) for parts in by_exporter.values()), key=lambda one: one.ended)
        if rivals:
            chosen.append(rivals[-1])
            disagreement += sum(rivals[-1].ended - rival.ended for rival in rivals[:-1])
    return Counts.sum(chosen), disagreement
