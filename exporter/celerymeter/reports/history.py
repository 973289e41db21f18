"""How figures went over the window: the peak, and the curves of the charts.

Read at aligned steps. What would make Prometheus read too many samples is left out, or taken from recorded series.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial

from celerymeter.prometheus import Matrix, PrometheusClient, Scope
from celerymeter.reports import queries
from celerymeter.reports.growth import Steps, by_exporter, highest
from celerymeter.reports.lives import Life
from celerymeter.reports.quantiles import quantile
from celerymeter.reports.report import Curve, Filters, Peak
from celerymeter.reports.window import Window

FINEST = 60.0
"""Seconds; peaks are means over at least so long."""
MOST_STEPS = 10_000
CHART_POINTS = 240
QUANTILE_POINTS = 60
MOST_SAMPLES = 60_000_000
"""Raw samples that one range query may make Prometheus read, and steps times series that it may compute."""
RECORDED_STEP = 300.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Ends and failures per step, and where they were read: ``raw``, ``recorded`` or nowhere (empty)."""

    step: float
    ended: Steps
    failed: Steps
    source: str


@dataclass(frozen=True, slots=True)
class Curves:
    """Quantiles of execution in ms by quantile."""

    p50: Curve = ()
    p95: Curve = ()
    p99: Curve = ()


class Historian:
    """Reads curves of one window; raises `PrometheusUnavailable` and `QueryRejected`."""

    def __init__(self, client: PrometheusClient, scope: Scope, window: Window, filters: Filters) -> None:
        self._client = client
        self._scope = scope
        self._window = window
        self._values = queries.chosen(filters)
        self._filtered = filters != Filters()

    @property
    def chart_step(self) -> float:
        """Seconds between two points of a gauge's curve."""
        return _whole(max(FINEST, self._window.seconds / CHART_POINTS))

    def queries(self) -> dict[str, str]:
        """The PromQL behind the curves."""
        return {
            "peak_throughput": self._scope.render(queries.ENDED, **self._values),
            "failures": self._scope.render(queries.FAILED, **self._values),
            "execution_over_time": self._scope.render(queries.RUNTIME_BUCKETS, **self._values),
            **{key: self._scope.render(query, **self._values) for key, query in _GAUGES.items()},
        }

    def rates(self, lives: Iterable[Life], *, series: int) -> Rates:
        """Ends and failures per step; ``series`` is how many a raw query has to add up."""
        step = _whole(max(FINEST, self._window.seconds / MOST_STEPS))
        if self._affordable(series, step):
            calls = {key: partial(self._range, query, step) for key, query in _RATES.items()}
            found = self._client.together(calls)
            ended, failed = (highest(by_exporter(found[key], lives, step=step).values()) for key in _RATES)
            return Rates(step, ended, failed, "raw" if ended else "")
        step = _whole(max(RECORDED_STEP, step))
        recorded = Matrix() if self._filtered else self._recorded(step)
        steps = {point.at: point.value * step for one in recorded for point in one.points}
        return Rates(step, steps, {}, "recorded" if steps else "")

    def execution(self, lives: Iterable[Life], *, series: int) -> Curves | None:
        """Quantiles of execution over time; ``None`` when that is too much to read."""
        step = _whole(max(FINEST, self._window.seconds / QUANTILE_POINTS))
        if not self._affordable(series, step):
            return None
        found = by_exporter(self._range(queries.RUNTIME_BUCKETS, step), lives, step=step)
        by_le: dict[str, list[Steps]] = defaultdict(list)
        for (_, le), steps in found.items():
            by_le[le].append(steps)
        buckets = {float(le): highest(steps) for le, steps in by_le.items()}
        times = sorted({at for steps in buckets.values() for at in steps})
        at_time = {at: {le: steps.get(at, 0.0) for le, steps in buckets.items()} for at in times}
        return Curves(*(tuple((at, _ms(quantile(q, at_time[at]))) for at in times) for q in (0.5, 0.95, 0.99)))

    def gauges(self) -> dict[str, dict[str, Curve]]:
        """Curves by figure, then by queue or worker; an empty name where there is only one."""
        found = self._client.together(
            {key: partial(self._range, query, self.chart_step) for key, query in _GAUGES.items()}
        )
        return {key: _curves(matrix) for key, matrix in found.items()}

    def _affordable(self, series: int, step: float) -> bool:
        samples = series * self._window.seconds / 10.0
        return samples <= MOST_SAMPLES and series * self._window.seconds / step <= MOST_SAMPLES / 3

    def _recorded(self, step: float) -> Matrix:
        longer = step > RECORDED_STEP
        return self._range(queries.RECORDED_MEAN if longer else queries.RECORDED_RATE, step)

    def _range(self, query: str, step: float) -> Matrix:
        start = math.ceil(self._window.start / step) * step
        end = math.floor(self._window.end / step) * step
        if end < start:
            return Matrix()
        rendered = self._scope.render(query, window=timedelta(seconds=step), **self._values)
        return self._client.range(rendered, start=start, end=end, step=step)


_RATES = {"ended": queries.ENDED, "failed": queries.FAILED}
_GAUGES = {
    "queue_lengths": queries.QUEUE_LENGTHS,
    "busy": queries.BUSY,
    "pool_size": queries.POOL_SIZE,
    "reserved": queries.RESERVED,
    "unacked_age": queries.UNACKED_AGE,
}


def peak(rates: Rates) -> Peak | None:
    """The step in which most tasks ended; the first of several."""
    if not rates.ended:
        return None
    at = min(rates.ended, key=lambda end: (-rates.ended[end], end))
    begins = datetime.fromtimestamp(at - rates.step, timezone.utc)
    return Peak(begins, rates.ended[at] / rates.step, rates.step, rates.source)


def thinned(steps: Mapping[float, float], *, step: float) -> Curve:
    """Rates per second of at most `CHART_POINTS` groups of steps."""
    times = sorted(steps)
    size = max(1, math.ceil(len(times) / CHART_POINTS))
    groups = [times[i : i + size] for i in range(0, len(times), size)]
    return tuple((group[-1], sum(steps[at] for at in group) / (step * len(group))) for group in groups)


def _curves(matrix: Matrix) -> dict[str, Curve]:
    return {
        series.label("queue_name") or series.label("hostname"): tuple(
            (point.at, point.value if math.isfinite(point.value) else None) for point in series.points
        )
        for series in matrix
    }


def _whole(seconds: float) -> float:
    return float(math.ceil(seconds))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
