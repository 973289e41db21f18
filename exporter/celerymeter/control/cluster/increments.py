"""How much counters grew of late, exact to the task: whole pages are subtracted, as Prometheus scraped them.

`increase()` would extrapolate (10 tasks become 10.4) and lose what a series is born with. All series of one scrape
share its time, and an exporter's counters start at 0 with its process, so two pages of one process, or one page and the
start of the process, give what happened between them. Windows are given and kept in seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from celerymeter.prometheus import Vector

OTHER_BASES = (20, 60, 300)
"""Seconds back where a page is looked for when the wanted one is missing (Prometheus has just started, scrapes are
rare); every one costs Prometheus a look at all task series.
"""
OLDEST = 300.0
"""Seconds for which the start of a process serves as the page before it."""
ENDED = (
    "celery_task_succeeded_total",
    "celery_task_failed_total",
    "celery_task_revoked_total",
    "celery_task_rejected_total",
)
_STARTED = "celerymeter_start_time_seconds"
_COUNTERS = (
    "celery_task_(succeeded|failed|retried|revoked|rejected)_total|celery_task_runtime_seconds_(sum|count)|" + _STARTED
)
_SUMS = (
    'sum by (__name__, cluster, job, instance{more}) ({{SEL, __name__=~"' + _COUNTERS + '", requeue!="true"}}{offset})'
)
_SCRAPES = "max by (cluster, job, instance) (timestamp(" + _STARTED + "{{SEL}}{offset}))"


def pages_query(*bases: int, by: str = "") -> str:
    """The template of one query for the pages now and so many seconds ago; counters are kept apart ``by`` a label.

    ``base`` tells the pages apart, and ``what`` the scrape times from the sums: ``or`` does not look at names.
    """
    parts = []
    for base in (0, *bases):
        offset = f" offset {base}s" if base else ""
        sums = _SUMS.format(more=f", {by}" if by else "", offset=offset)
        scrapes = f'label_replace({_SCRAPES.format(offset=offset)}, "what", "scraped", "", "")'
        parts += [f'label_replace({inner}, "base", "{base}", "", "")' for inner in (sums, scrapes)]
    return " or ".join(parts)


class Key(NamedTuple):
    """A counter family, and the value of the label by which it was kept apart (or empty)."""

    family: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Increment:
    """What one exporter counted within ``seconds``."""

    seconds: float
    counts: Mapping[Key, float]

    def of(self, family: str, label: str = "") -> float:
        """The growth of one counter; what was not counted is 0, because the page was there."""
        return self.counts.get(Key(family, label), 0.0)

    def ended(self, label: str = "") -> float:
        """Runs that came to an end, whatever end."""
        return sum(self.of(family, label) for family in ENDED)

    @property
    def all_ended(self) -> float:
        """Runs that came to an end, under any label."""
        return sum(count for key, count in self.counts.items() if key.family in ENDED)

    def labels(self) -> tuple[str, ...]:
        """The label values that occur, sorted."""
        return tuple(sorted({key.label for key in self.counts}))


@dataclass(slots=True)
class _Page:
    scraped: float | None = None
    started: float | None = None
    counts: dict[Key, float] = field(default_factory=dict)


def increment(pages: Vector, *, wanted: float, by: str = "") -> Increment | None:
    """The growth over the span nearest to ``wanted`` seconds; ``None`` when there are no two pages to compare.

    Of several exporters of one broker the one that saw the most ends speaks; they are never added up.
    """
    found = [growth for one in _exporters(pages, by) if (growth := _growth(one, wanted)) is not None]
    return max(found, key=lambda growth: growth.all_ended, default=None)


def _exporters(pages: Vector, by: str) -> list[dict[int, _Page]]:
    exporters: dict[tuple[str, ...], dict[int, _Page]] = defaultdict(lambda: defaultdict(_Page))
    for sample in pages:
        page = exporters[sample.key("cluster", "job", "instance")][int(sample.label("base"))]
        family = sample.label("__name__")
        if sample.label("what"):
            page.scraped = sample.value
        elif family == _STARTED:
            page.started = sample.value
        else:
            page.counts[Key(family, sample.label(by) if by else "")] = sample.value
    return list(exporters.values())


def _growth(pages: Mapping[int, _Page], wanted: float) -> Increment | None:
    now = pages.get(0, _Page())
    if now.scraped is None or now.started is None:
        return None
    spans = _spans(now.scraped, now.started, [page for base, page in pages.items() if base])
    nearest = min(spans, key=lambda span: abs(span[0] - wanted), default=None)
    if nearest is None:
        return None
    seconds, base = nearest
    counts = {key: max(value - base.get(key, 0.0), 0.0) for key, value in now.counts.items()}
    return Increment(seconds=seconds, counts=counts)


def _spans(scraped: float, started: float, pages: Sequence[_Page]) -> Iterator[tuple[float, Mapping[Key, float]]]:
    """Seconds back and the counts then: the older pages of the same process, and its start if that was of late."""
    for page in pages:
        if page.scraped is not None and page.scraped < scraped and page.started == started:
            yield scraped - page.scraped, page.counts
    if scraped - started <= OLDEST:
        yield max(scraped - started, 1.0), {}
