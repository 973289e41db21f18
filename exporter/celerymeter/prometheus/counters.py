"""Exact increases of counters: a scrape of an exporter is subtracted from a later scrape of the same process. Pure.

`increase()` extrapolates (10 tasks become 10.4) and ignores the value with which a series is born. An exporter's
counters start at 0 with its process, never fall and never vanish while it runs, and all series of one scrape share its
timestamp. So the difference between two scrapes of one process is what was counted between them, and the first scrape
of a new process (another `celerymeter_start_time_seconds`: a counter reset) is what was counted since its start.

Times are UTC seconds, spans are seconds, counts are whole tasks or events, and families named ``_seconds_sum`` hold
seconds. Two exporters on one broker count the same tasks: the one that saw most of them end is chosen, they are never
added up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from celerymeter.prometheus.values import Sample, Series, Vector

ENDS: Final = (
    "celery_task_succeeded_total",
    "celery_task_failed_total",
    "celery_task_revoked_total",
    "celery_task_rejected_total",
)
"""A task ends in one of these ways. A retry is not an end, nor is a rejection that requeues (``requeue="true"``)."""
START_TIME: Final = "celerymeter_start_time_seconds"
OLDEST_START: Final = 300.0
"""Seconds for which the start of a process serves as the scrape before its first."""


class Target(NamedTuple):
    """One exporter, by its target labels in Prometheus."""

    cluster: str
    job: str
    instance: str

    @classmethod
    def of(cls, found: Sample | Series) -> Target:
        """Return the target that a sample or series was scraped from."""
        return cls(found.label("cluster"), found.label("job"), found.label("instance"))


class Key(NamedTuple):
    """One counter: its family and the labels that a query kept; ``le`` is the upper bound of a bucket."""

    family: str
    name: str = ""
    queue_name: str = ""
    le: str = ""
    hostname: str = ""
    reason: str = ""
    schedule: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Values of counters at one scrape, or their increases between two; a counter that is not here is 0."""

    values: Mapping[Key, float] = field(default_factory=dict)

    @staticmethod
    def read(samples: Iterable[Sample]) -> Counts:
        """Return the counters in an answer; samples without a name of a family are ignored."""
        values: dict[Key, float] = defaultdict(float)
        for sample in samples:
            if sample.label("__name__"):
                values[Key(*sample.key("__name__", "name", "queue_name", "le", "hostname", "reason", "schedule"))] += (
                    sample.value
                )
        return Counts(dict(values))

    def since(self, base: Counts) -> Counts:
        """Return what was counted after ``base``, an earlier scrape of the process.

        Counters that did not change are left out, except for those of workers, for which 0 means idle.
        """
        increases = {key: value - base.values.get(key, 0.0) for key, value in self.values.items()}
        return Counts({key: value for key, value in increases.items() if value or key.hostname})

    def total(self, family: str, *, name: str | None = None, reason: str | None = None) -> float:
        """Return the sum of one family, over all labels, of one task, or of one reason."""
        return sum(
            value
            for key, value in self.values.items()
            if key.family == family and name in (None, key.name) and reason in (None, key.reason)
        )

    @property
    def ended(self) -> float:
        """Number of tasks that ended, with whatever result."""
        return sum(value for key, value in self.values.items() if key.family in ENDS)

    def split(self, label: Literal["name", "queue_name", "hostname", "schedule"]) -> dict[str, Counts]:
        """Return the counters by the values of a label; those without it are left out."""
        parts: dict[str, dict[Key, float]] = defaultdict(dict)
        for key, value in self.values.items():
            if text := getattr(key, label):
                parts[text][key] = value
        return {text: Counts(values) for text, values in parts.items()}


class Totals:
    """A sum of counts, to which more are added one after another."""

    def __init__(self) -> None:
        self._values: dict[Key, float] = {}

    def add(self, part: Counts) -> None:
        """Add counts."""
        for key, value in part.values.items():
            self._values[key] = self._values.get(key, 0.0) + value

    def counts(self) -> Counts:
        """Return the sum so far."""
        return Counts(dict(self._values))


@dataclass(frozen=True, slots=True)
class Increase:
    """The counts of one exporter within ``seconds``."""

    seconds: float
    counts: Counts


# The latest increase, for "how many tasks per second now". One instant query reads the newest scrape and older ones.

_RECENT_COUNTERS: Final = (
    "celery_task_(succeeded|failed|retried|revoked|rejected)_total"
    f"|celery_task_runtime_seconds_(sum|count)|{START_TIME}"
)


def recent_scrapes_query(*ages: int, by: str = "") -> str:
    """Return the template of a query for the newest scrape and the scrapes ``ages`` seconds before.

    Counters are kept apart ``by`` a label. ``age`` distinguishes the scrapes, and ``what`` their timestamps from the
    counters, because ``or`` does not look at metric names.
    """
    parts = []
    for age in (0, *ages):
        offset = f" offset {age}s" if age else ""
        labels = "__name__, cluster, job, instance" + (f", {by}" if by else "")
        counters = f'sum by ({labels}) ({{SEL, __name__=~"{_RECENT_COUNTERS}", requeue!="true"}}{offset})'
        times = f"max by (cluster, job, instance) (timestamp({START_TIME}{{SEL}}{offset}))"
        times = f'label_replace({times}, "what", "scraped", "", "")'
        parts += [f'label_replace({inner}, "age", "{age}", "", "")' for inner in (counters, times)]
    return " or ".join(parts)


def recent_increase(found: Vector, *, wanted: float) -> Increase | None:
    """Return the increase over the span nearest to ``wanted`` seconds, from the answer to `recent_scrapes_query`.

    ``None`` when no exporter has two scrapes to compare.
    """
    exporters: dict[Target, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in found:
        exporters[Target.of(sample)][sample.label("age")].append(sample)
    increases = []
    for by_age in exporters.values():
        newest = _scrape(by_age.pop("0", []))
        older = [scrape for samples in by_age.values() if (scrape := _scrape(samples)) is not None]
        spans = [] if newest is None else list(_increases(newest, older))
        if spans:
            increases.append(min(spans, key=lambda increase: abs(increase.seconds - wanted)))
    return max(increases, key=lambda increase: increase.counts.ended, default=None)


@dataclass(frozen=True, slots=True)
class _Scrape:
    at: float
    process_start: float
    counts: Counts


def _scrape(samples: Iterable[Sample]) -> _Scrape | None:
    """Return one scrape of one exporter; ``None`` when its time or its process is not known."""
    counters = list(samples)
    at = [sample.value for sample in counters if sample.label("what")]
    start = [sample.value for sample in counters if sample.label("__name__") == START_TIME]
    counters = [sample for sample in counters if sample.label("__name__") != START_TIME]
    return _Scrape(at[0], start[0], Counts.read(counters)) if at and start else None


def _increases(newest: _Scrape, older: Iterable[_Scrape]) -> Iterator[Increase]:
    """Yield the increases since older scrapes of the same process, and since its start when that was recent."""
    for base in older:
        if base.at < newest.at and base.process_start == newest.process_start:
            yield Increase(newest.at - base.at, newest.counts.since(base.counts))
    if newest.at - newest.process_start <= OLDEST_START:
        yield Increase(max(newest.at - newest.process_start, 1.0), newest.counts)
