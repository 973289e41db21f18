"""Metrics over time: the peak, and the curves of the charts.

Counters and gauges are read at aligned steps. Queries that would make Prometheus read too many samples are left out, or
answered from recorded series.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from celerymeter.prometheus import Matrix, Point, PrometheusClient, Scope
from celerymeter.prometheus.counters import Target
from celerymeter.prometheus.values import Series
from celerymeter.reports import queries
from celerymeter.reports.increases import ScrapedSteps, Steps, increases_by_exporter
from celerymeter.reports.metrics import quantile, rounded, slot_seconds, without_gaps
from celerymeter.reports.report import AlertRow, AlertSpan, Curve, Peak
from celerymeter.reports.request import Filters, Window, utc

FINEST = 60.0
"""Seconds; a peak is the mean over at least this long."""
MOST_STEPS = 10_000
FINEST_GAUGE = 15.0
"""Seconds between two points of a gauge's curve at least."""
CHART_POINTS = 240
QUANTILE_POINTS = 60
MOST_SAMPLES = 60_000_000
"""Raw samples that one range query may make Prometheus read; a third of it is the limit for steps times series."""
RECORDED_STEP = 300.0
LISTED_SPANS = 20
"""Times at which one alert fired, the newest; their number and sum are of all."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Ended and failed tasks per step; ``source`` is ``raw``, ``recorded``, or empty when there is no data."""

    step: float
    ended: Steps
    failed: Steps
    source: str


@dataclass(frozen=True, slots=True)
class ExecutionCurves:
    """Quantiles of execution time over time, in ms."""

    p50: Curve = ()
    p95: Curve = ()
    p99: Curve = ()


class HistoryReader:
    """Reads the curves of one window; raises `PrometheusUnavailable` and `QueryRejected`."""

    def __init__(self, client: PrometheusClient, scope: Scope, window: Window, filters: Filters) -> None:
        self._client = client
        self._scope = scope
        self._window = window
        self._values = {**filters.slots(), "clusters": alert_clusters(scope)}
        self._filters = filters

    @property
    def chart_step(self) -> float:
        """Seconds between two points of a gauge's curve."""
        return self._step(FINEST_GAUGE, CHART_POINTS)

    def rates(self, *, series: int) -> Rates:
        """Return ended and failed tasks per step; ``series`` is how many a raw query has to add up."""
        step = self._step(FINEST, MOST_STEPS)
        if self._affordable(series, step):
            found = self._increases({"ended": queries.ENDED, "failed": queries.FAILED}, step)
            ended, failed = (_highest(found[key].values()) for key in ("ended", "failed"))
            return Rates(step, ended, failed, "raw" if ended else "")
        step = max(RECORDED_STEP, step)
        query = queries.RECORDED_MEAN if step > RECORDED_STEP else queries.RECORDED_RATE
        recorded = Matrix() if self._filters != Filters() else self._range(query, step)
        steps = {point.at: point.value * step for series_ in recorded for point in series_.points}
        return Rates(step, steps, {}, "recorded" if steps else "")

    def execution(self, *, series: int) -> ExecutionCurves | None:
        """Return quantiles of execution time over time; ``None`` when that is too much to read."""
        step = self._step(FINEST, QUANTILE_POINTS)
        if not self._affordable(series, step):
            return None
        found = self._increases({"buckets": queries.RUNTIME_BUCKETS}, step)["buckets"]
        by_bound: dict[str, list[Steps]] = defaultdict(list)
        for (_, bound), steps in found.items():
            by_bound[bound].append(steps)
        buckets = {float(bound): _highest(steps) for bound, steps in by_bound.items()}
        curves: list[list[tuple[float, float | None]]] = [[], [], []]
        for at in sorted({at for steps in buckets.values() for at in steps}):
            counts = {bound: steps.get(at, 0.0) for bound, steps in buckets.items()}
            for curve, q in zip(curves, (0.5, 0.95, 0.99), strict=True):
                seconds = quantile(q, counts)
                curve.append((at, None if seconds is None else rounded(1000 * seconds)))
        return ExecutionCurves(*map(tuple, curves))

    def gauges(self) -> dict[str, dict[str, Curve]]:
        """Return the curves by the key of their query, then by queue or worker (empty where there is only one)."""
        step = self.chart_step
        found = self._client.together({key: partial(self._range, query, step) for key, query in queries.GAUGES.items()})
        curves = {
            key: {series.label("queue_name") or series.label("hostname"): _curve(series.points) for series in matrix}
            for key, matrix in found.items()
        }
        first, last = math.ceil(self._window.start / step), math.floor(self._window.end / step)
        times = [number * step for number in range(first, last + 1)]
        exists: dict[str, Curve] = {
            name: tuple((at, 1.0) for at, _ in curve) for name, curve in curves["queue_lengths"].items()
        }
        pool_size = without_gaps(curves["pool_size"], present=curves["worker_up"], times=times)
        queue_slots = without_gaps(curves["queue_slots"], present=exists, times=times)
        return {**curves, "pool_size": pool_size, "queue_slots": queue_slots}

    def slot_seconds(self, slots: Mapping[str, Curve]) -> dict[str, float]:
        """Return the time that slots had in the window, from their numbers over time."""
        step = self.chart_step
        points = math.floor(self._window.end / step) - math.ceil(self._window.start / step) + 1
        return slot_seconds(slots, seconds=self._window.seconds, points=points)

    def alerts(self) -> tuple[AlertRow, ...]:
        """Return the alerts that fired, critical ones and those that fired longest first."""
        step = self.chart_step
        found = self._range(queries.ALERTS, step)
        rows = [
            row
            for series in found
            if self._concerns(series) and (row := alert_row(series, self._window, step=step)) is not None
        ]
        return tuple(sorted(rows, key=lambda row: (_rank(row.severity), -row.firing_seconds, row.alert, row.subject)))

    def _concerns(self, alert: Series) -> bool:
        """Return False for alerts about another task or queue than the chosen one."""
        task, queue = alert.label("name"), alert.label("queue_name")
        filters = self._filters
        return (not task or filters.task in (None, task)) and (not queue or filters.queue in (None, queue))

    def busy(self, pool_sizes: Mapping[str, Curve]) -> dict[str, Curve]:
        """Return the percentage of its slots that each worker used over each step of at least a minute."""
        step = self.chart_step * math.ceil(FINEST / self.chart_step)
        by_worker: dict[str, list[Steps]] = defaultdict(list)
        for (_, hostname), steps in self._increases({"busy": queries.BUSY}, step, label="hostname")["busy"].items():
            by_worker[hostname].append(steps)
        curves: dict[str, Curve] = {}
        for hostname, exporters in by_worker.items():
            slots = dict(pool_sizes.get(hostname, ()))
            curves[hostname] = tuple(
                (at, rounded(min(100.0, 100 * seconds / (step * size))))
                for at, seconds in sorted(_highest(exporters).items())
                if (size := slots.get(at))
            )
        return curves

    def _increases(
        self, counters: Mapping[str, str], step: float, *, label: str = "le"
    ) -> dict[str, dict[tuple[Target, str], Steps]]:
        """Return the increases that queries of counters find, by their key, then by exporter and a label."""
        read = {key: partial(self._range, query, step) for key, query in counters.items()}
        read["processes"] = partial(self._range, queries.PROCESSES, step, reach=2 * step)
        found = self._client.together(read)
        first = math.ceil(self._window.start / step) * step
        scraped = ScrapedSteps.read(found["processes"], first=first, step=step)
        return {key: increases_by_exporter(found[key], scraped, label=label) for key in counters}

    def _affordable(self, series: int, step: float) -> bool:
        samples = series * self._window.seconds / 10.0
        return samples <= MOST_SAMPLES and series * self._window.seconds / step <= MOST_SAMPLES / 3

    def _step(self, finest: float, points: int) -> float:
        """Return whole seconds between two points, for at most so many points."""
        return float(math.ceil(max(finest, self._window.seconds / points)))

    def _range(self, query: str, step: float, *, reach: float | None = None) -> Matrix:
        """Return a query's values at the steps; its ``$window`` is ``reach``, by default a step."""
        start = math.ceil(self._window.start / step) * step
        end = math.floor(self._window.end / step) * step
        if end < start:
            return Matrix()
        rendered = self._scope.render(query, window=timedelta(seconds=reach or step), **self._values)
        return self._client.range(rendered, start=start, end=end, step=step)


def alert_clusters(scope: Scope) -> tuple[str, ...]:
    """Return the cluster of the scope and none: an alert about the whole monitoring has no cluster."""
    return ("", scope.cluster or "")


def alert_row(series: Series, window: Window, *, step: float) -> AlertRow | None:
    """Return an alert from the steps in which it fired; ``None`` when there are none."""
    spans: list[list[float]] = []
    for at, _ in series.points:
        if spans and at - spans[-1][1] <= 1.5 * step:
            spans[-1][1] = at
        else:
            spans.append([max(window.start, at - step), at])
    if not spans:
        return None
    still = spans[-1][1] > window.end - step
    times = [AlertSpan(utc(start), utc(end)) for start, end in spans]
    if still:
        times[-1] = replace(times[-1], end=None)
        spans[-1][1] = window.end
    return AlertRow(
        alert=series.label("alertname"),
        severity=series.label("severity"),
        subject=" ".join(
            filter(None, (series.label(label) for label in ("queue_name", "schedule", "name", "hostname")))
        ),
        firing_seconds=rounded(sum(end - start for start, end in spans)),
        times=len(spans),
        spans=tuple(times[-LISTED_SPANS:]),
    )


def _rank(severity: str) -> int:
    return {"critical": 0, "warning": 1}.get(severity, 2)


def peak(rates: Rates) -> Peak | None:
    """Return the step in which most tasks ended; the first of several."""
    if not rates.ended:
        return None
    at = min(rates.ended, key=lambda end: (-rates.ended[end], end))
    return Peak(utc(at - rates.step), rounded(rates.ended[at] / rates.step), rates.step, rates.source)


def per_second(steps: Mapping[float, float], *, step: float) -> Curve:
    """Return rates per second, as means over groups of steps so that at most `CHART_POINTS` remain."""
    times = sorted(steps)
    size = max(1, math.ceil(len(times) / CHART_POINTS))
    groups = [times[i : i + size] for i in range(0, len(times), size)]
    return tuple((group[-1], rounded(sum(steps[at] for at in group) / (step * len(group)))) for group in groups)


def _curve(points: Iterable[Point]) -> Curve:
    return tuple((point.at, rounded(point.value) if math.isfinite(point.value) else None) for point in points)


def _highest(exporters: Iterable[Mapping[float, float]]) -> Steps:
    """Return the steps of the exporter that saw most, step by step."""
    best: Steps = {}
    for steps in exporters:
        for at, value in steps.items():
            best[at] = max(value, best.get(at, 0.0))
    return best
