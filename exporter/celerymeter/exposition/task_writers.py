"""Writers of task families: the many, so from label text that is made once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from celerymeter.exposition.scrape import Scrape
from celerymeter.exposition.text import fill, histogram_template, labels
from celerymeter.exposition.writers import Writer
from celerymeter.metrics import Family
from celerymeter.tracking.series import Histogram, TaskSeries


def number(number_of: Callable[[TaskSeries], float]) -> Writer:
    """A number of every task series."""

    def write(scrape: Scrape, family: Family) -> None:
        scrape.text.head(family)
        scrape.text.column(family, scrape.tags, map(number_of, scrape.series))

    return write


def number_by(label: str, **numbers: Callable[[TaskSeries], float]) -> Writer:
    """A number of every task series for each value of one more label."""

    def write(scrape: Scrape, family: Family) -> None:
        scrape.text.head(family)
        for value, number_of in numbers.items():
            scrape.text.column(family, scrape.tags, map(number_of, scrape.series), f',{label}="{value}"')

    return write


def histogram(histogram_of: Callable[[TaskSeries], Histogram]) -> Writer:
    """A histogram of every task series."""

    def write(scrape: Scrape, family: Family) -> None:
        scrape.text.head(family)
        templates = scrape.kept.templates
        for series, tag in zip(scrape.series, scrape.tags, strict=True):
            found = histogram_of(series)
            template = templates.get((family.name, series))
            if template is None:
                template = histogram_template(family.name, tag, found.bounds)
                templates[family.name, series] = template
            scrape.text.add(fill(template, found))

    return write


def failed(scrape: Scrape, family: Family) -> None:
    """Failures; with `--compat` by exception, whose values add up to what is there without it."""
    scrape.text.head(family)
    if scrape.kept.failures is None:
        scrape.text.column(family, scrape.tags, (series.failed for series in scrape.series))
        return
    for series, tag in zip(scrape.series, scrape.tags, strict=True):
        by_class = scrape.kept.failures.by_class(series, scrape.now)
        scrape.text.column(family, [tag], [series.failed - sum(by_class.values())])
        _write_by_class(scrape, family, tag, by_class)


def exceptions(scrape: Scrape, family: Family) -> None:
    """Exceptions by class; those of retries are there only if they are counted at all."""
    scrape.text.head(family)
    for series, tag in zip(scrape.series, scrape.tags, strict=True):
        counts: Mapping[str, int] = series.exceptions
        if series.retry_exceptions:
            counts = Counter(series.exceptions) + Counter(series.retry_exceptions)
        if counts:
            _write_by_class(scrape, family, tag, counts)


def _write_by_class(scrape: Scrape, family: Family, tag: str, counts: Mapping[str, int]) -> None:
    tags = [f"{tag},{labels(('exception',), (exception,))}" for exception in counts]
    scrape.text.column(family, tags, counts.values())


def failed_runtime(scrape: Scrape, family: Family) -> None:
    """Sum and count of the run times of failures."""
    scrape.text.head(family)
    name = family.name
    for series, tag in zip(scrape.series, scrape.tags, strict=True):
        total, count = series.failed_runtime_sum, series.failed_runtime_count
        scrape.text.add(f"{name}_sum{{{tag}}} {total!r}\n{name}_count{{{tag}}} {count}\n")


def oldest_start(scrape: Scrape, family: Family) -> None:
    """Start of the oldest run in progress, where there is one."""
    scrape.text.head(family)
    oldest = scrape.in_progress.oldest
    known = [(tag, oldest[series]) for series, tag in zip(scrape.series, scrape.tags, strict=True) if series in oldest]
    scrape.text.column(family, [tag for tag, _ in known], (start for _, start in known))


def busy(scrape: Scrape, family: Family) -> None:
    """Seconds of slots that ended runs took, and those in progress so far."""
    scrape.text.head(family)
    running = scrape.in_progress.busy
    scrape.text.column(family, scrape.tags, (series.busy.seconds(running.get(series, 0.0)) for series in scrape.series))


def throughput(scrape: Scrape, family: Family) -> None:
    """Ended runs a second in the rate window."""
    scrape.text.head(family)
    scrape.text.column(family, scrape.tags, (rate for rate, _ in scrape.rates))


def error_ratio(scrape: Scrape, family: Family) -> None:
    """Share of failures among the ended runs of the rate window, where any ended."""
    scrape.text.head(family)
    known = [(tag, ratio) for tag, (_, ratio) in zip(scrape.tags, scrape.rates, strict=True) if ratio is not None]
    scrape.text.column(family, [tag for tag, _ in known], (ratio for _, ratio in known))
