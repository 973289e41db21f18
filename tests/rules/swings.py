"""A world for promtool in which the cause of an alert comes and goes again and again, each in a cluster of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.rules.bundle import ALERTS, Alert, alerts, load
from tests.rules.parts import Group, write_test

END = 240
"""Minutes, of the longest."""
FIRST, SECOND, CONTROL = "a:9808", "b:9808", "c:9809"
"""The addresses of two exporters and of the control API."""
FILES = (
    "thresholds",
    "recording",
    "effective",
    "control",
    "slo",
    "workers",
    "queues",
    "tasks",
    "schedules",
    "exporter",
)
FIRST_GROUPS = ("celery-limits", "celery-levels", "celery-effective")
"""Rule files, and which groups are evaluated first: each builds on those before it."""
CAUSE = "swing:cause"
Value = float | None
"""``None`` is a series that is gone."""


@dataclass(frozen=True, slots=True)
class Span:
    """Minutes until the first swing, until the last one is over, and until the last look."""

    first: int
    last: int
    end: int


SHORT, LONG = Span(15, 75, 105), Span(35, 165, END)


@dataclass(frozen=True, slots=True)
class Wave:
    """Minutes: at first the cause is there for ``lead``, then in turn away for ``good`` and there for ``bad``."""

    bad: int
    good: int
    lead: int = 0
    span: Span = SHORT

    def there(self, minute: int) -> bool:
        """Return whether the cause is there."""
        if not self.span.first <= minute < self.span.last:
            return False
        since = minute - self.span.first - self.lead
        return since < 0 or since % (self.bad + self.good) >= self.good

    def values(self, bad: Value, good: Value, before: Value = None) -> list[Value]:
        """A value a minute; ``before`` the first swing as after the last one, unless it is given."""
        early = good if before is None else before
        return [early if minute < self.span.first else bad if self.there(minute) else good for minute in range(END + 1)]


@dataclass(frozen=True, slots=True)
class Series:
    """A series of each exporter, or of ``instance`` alone."""

    name: str
    values: Sequence[Value]
    labels: Mapping[str, str] = field(default_factory=dict)
    instance: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """The parts that another series must have in common to take its place."""
        return (self.name, self.instance, *map(str, sorted(self.labels.items())))


@dataclass(frozen=True, slots=True)
class Case:
    """The series that swing around the limit of one alert; ``labels`` distinguish it from others of its name.

    ``also`` are alerts that the same cause may bring; ``fires`` is whether a swing is long enough for it at all.
    """

    alert: str
    series: tuple[Series, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    fires: bool = True
    each_exporter: bool = False
    span: Span = SHORT

    @property
    def rule(self) -> Alert:
        """The alert itself."""
        [rule] = [one for one in alerts() if one.name == self.alert and self.labels.items() <= one.labels.items()]
        return rule

    @property
    def cluster(self) -> str:
        """Its own."""
        return str(self.rule)


def gauge(name: str, values: Iterable[Value], /, **labels: str) -> Series:
    """Return a gauge from its value at each minute."""
    return Series(name, tuple(values), labels)


def counter(name: str, increments: Iterable[Value], /, **labels: str) -> Series:
    """Return a counter from its growth in each minute."""
    return Series(name, tuple(itertools.accumulate(step or 0.0 for step in increments)), labels)


def moment(name: str, ages: Iterable[Value], /, **labels: str) -> Series:
    """A time in the past: so many seconds ago."""
    return Series(name, tuple(60 * minute - (age or 0.0) for minute, age in enumerate(ages)), labels)


def always(value: float) -> list[Value]:
    """The same at each minute."""
    return [value] * (END + 1)


def _at(instance: str, series: Series) -> Series:
    return replace(series, instance=instance)


def _exporter() -> tuple[Series, ...]:
    return (
        gauge("up", always(1)),
        gauge("celerymeter_build_info", always(1)),
        gauge("celerymeter_start_time_seconds", always(-7200)),
        gauge("celerymeter_broker_up", always(1)),
        moment("celerymeter_last_event_timestamp_seconds", always(0)),
        gauge("celery_worker_up", always(1), hostname="celery@base"),
        gauge("celery_worker_shutdown", always(0), hostname="celery@base"),
        _at(CONTROL, gauge("up", always(1))),
        _at(CONTROL, gauge("celerymeter_control_feed_clients", always(0))),
        _at(CONTROL, gauge("process_start_time_seconds", always(-7200))),
    )


def _spread(series: Series, *, exporters: int) -> Iterator[Series]:
    """On each exporter; the second one never knows the queue of a task."""
    if series.instance:
        yield series
        return
    yield _at(FIRST, series)
    if exporters == 2:
        unknown = {"queue_name": "unknown"} if {"name", "queue_name"} <= series.labels.keys() else {}
        yield _at(SECOND, replace(series, labels={**series.labels, **unknown}))


def _written(values: Sequence[Value]) -> str:
    """As promtool reads them: ``stale`` where a series goes, ``_`` while it is away."""
    words, before = [], None
    for value in values:
        words.append(f"{value:.10g}" if value is not None else "stale" if before is not None else "_")
        before = value
    return " ".join(words)


def series_of(case: Case, *, cluster: str, exporters: int) -> Iterator[dict[str, str]]:
    """Yield the input series of a cluster: what every cluster has, overridden by the case's own."""
    own = {series.key: series for series in (*_exporter(), *case.series)}
    for series in (found for one in own.values() for found in _spread(one, exporters=exporters)):
        labels = {"cluster": cluster, "job": "celery", "instance": series.instance, **series.labels}
        named = ",".join(f'{key}="{value}"' for key, value in labels.items())
        yield {"series": f"{series.name}{{{named}}}", "values": _written(series.values)}


def _causes(cases: Iterable[Case]) -> Group:
    """Rules that record where an alert's expression holds, whether or not it fires."""
    rules = [
        {"record": CAUSE, "expr": f"group by (cluster) (\n{case.rule.expr}\n)", "labels": {"case": case.cluster}}
        for case in cases
    ]
    return {"name": "causes", "rules": rules}


def _changes(series: str, minutes: int) -> str:
    """Return the expression of how often it came or went."""
    return f"changes(((count({series}) > bool 0) or vector(0))[{minutes}m:1m])"


def _expectations(case: Case, *, exporters: int) -> Iterator[dict[str, object]]:
    """It swings and fires at most once, about one thing; nothing else fires in its cluster."""
    end = case.span.end
    there = f'{CAUSE}{{cluster="{case.cluster}",case="{case.cluster}"}}'
    firing = f'cluster="{case.cluster}",alertstate="firing"'
    mine = "".join(f',{key}="{value}"' for key, value in {"alertname": case.alert, **case.labels}.items())
    others = "|".join((case.alert, *case.also))
    number = exporters if case.each_exporter else 1
    expected: tuple[tuple[str, Value], ...] = (
        (f"{_changes(there, end)} >= bool 4", 1),
        (_changes(f"ALERTS{{{firing}{mine}}}", end), 2 if case.fires else 0),
        (f"max_over_time(count(ALERTS{{{firing}{mine}}})[{end}m:1m])", number if case.fires else None),
        (f'count(count_over_time(ALERTS{{{firing},alertname!~"{others}"}}[{end}m]))', None),
    )
    for expr, value in expected:
        samples = [] if value is None else [{"labels": "{}", "value": value}]
        yield {"expr": expr, "eval_time": f"{end}m", "exp_samples": samples}


def _test(cases: Sequence[Case], *, exporters: int) -> dict[str, Any]:
    """All these at once, in one Prometheus."""
    return {
        "name": f"{len(cases)} causes swing, seen by {exporters}",
        "interval": "1m",
        "input_series": [line for case in cases for line in series_of(case, cluster=case.cluster, exporters=exporters)],
        "promql_expr_test": [one for case in cases for one in _expectations(case, exporters=exporters)],
    }


def _groups() -> list[Group]:
    """All groups, in the order in which one builds on the other; without the texts, which nobody here reads."""
    groups = [group for name in FILES for group in load(ALERTS / "rules" / f"{name}.yml")["groups"]]
    for rule in (rule for group in groups for rule in group["rules"]):
        rule.pop("annotations", None)
    groups.sort(
        key=lambda group: next(
            rank for rank, first in enumerate((*FIRST_GROUPS, "")) if group["name"].startswith(first)
        )
    )
    return groups


def write_world(path: Path, tests: Sequence[dict[str, Any]], *, more: Sequence[Group] = ()) -> Path:
    """A promtool test file of these tests, each under all alerts, and ``more`` groups after them."""
    groups = [*_groups(), *more]
    content = {"evaluation_interval": "1m", "group_eval_order": [group["name"] for group in groups], "tests": [*tests]}
    return write_test(path, content, groups)


def write_swings(path: Path, cases: Sequence[Case], *, exporters: int) -> Path:
    """A promtool test of all these."""
    tests = [_test([case for case in cases if case.span is span], exporters=exporters) for span in (SHORT, LONG)]
    return write_world(path, tests, more=[_causes(cases)])
