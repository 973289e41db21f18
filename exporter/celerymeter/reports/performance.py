"""The performance report of a window: what is read, and in which order."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from celerymeter.prometheus import PrometheusClient, Scope, choose_cluster
from celerymeter.reports import advice, figures, queries
from celerymeter.reports.counting import Counting, Progress, WindowCounts
from celerymeter.reports.history import Curves, Historian, Rates, peak, thinned
from celerymeter.reports.language import in_language
from celerymeter.reports.pages import ENDS, Counts
from celerymeter.reports.quality import COMPARABLE, SETTLED_AFTER, interval, judge, scrapes_present, settled
from celerymeter.reports.report import Curve, Filters, History, Note, Peak, Redelivery, Report, TimeRange
from celerymeter.reports.rows import largest
from celerymeter.reports.window import Window

MEANING = "what Prometheus scraped after start, up to and including end"
DEFAULT_OBJECTIVE = 0.99
DEFAULT_INTERVAL = 15.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for."""

    window: Window
    filters: Filters = field(default_factory=Filters)
    language: str = "en"


@dataclass(frozen=True, slots=True)
class _Read:
    """All that Prometheus said."""

    counted: WindowCounts
    before: WindowCounts
    rates: Rates
    curves: Curves | None
    gauges: Mapping[str, Mapping[str, Curve]]
    visibility: float | None
    objective: float | None

    @property
    def counts(self) -> Counts | None:
        """The window's figures, where they are known."""
        return self.counted.counts


class Performance:
    """Makes reports; raises `PrometheusUnavailable`, `QueryRejected` and `AmbiguousCluster`."""

    def __init__(
        self,
        client: PrometheusClient,
        scope: Scope,
        *,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._scope = scope
        self._progress = progress
        self._clock = clock

    def report(self, question: Question, *, report_id: str | None = None) -> Report:
        """The report; what cannot be known in it is ``None`` with a reason."""
        window = question.window
        length = timedelta(seconds=window.seconds)
        scope = choose_cluster(self._client, self._scope, time=window.end, window=length)
        historian = Historian(self._client, scope, window, question.filters)
        read = self._read(scope, question, historian)
        return self._composed(read, question, scope, historian, report_id or uuid.uuid4().hex)

    def _read(self, scope: Scope, question: Question, historian: Historian) -> _Read:
        window = question.window
        counting = Counting(self._client, scope, filters=question.filters, progress=self._progress)
        counted = counting.window(start=window.start, end=window.end)
        before = counting.window(start=window.start - window.seconds, end=window.start, histograms=False)
        sizes = _sizes(counted.counts)
        length = timedelta(seconds=window.seconds)
        return _Read(
            counted=counted,
            before=before,
            rates=historian.rates(counted.lives, series=sizes["ends"]),
            curves=historian.execution(counted.lives, series=sizes["buckets"]),
            gauges=historian.gauges(),
            visibility=self._one(scope.render(queries.VISIBILITY, window=length), window.end),
            objective=self._one(queries.OBJECTIVE, window.end),
        )

    def _one(self, query: str, at: float) -> float | None:
        return self._client.instant(query, time=at).value()

    def _composed(self, read: _Read, question: Question, scope: Scope, historian: Historian, report_id: str) -> Report:
        window, now = question.window, self._clock()
        highest = peak(read.rates) or _whole_window(read.counts, window)
        every = interval(read.counted.lives)
        notes = _notes(read, highest)
        change = figures.change(read.counts, read.before.counts if _watched_before(read, window) else None)
        report = Report(
            report_id=report_id,
            generated_at=_utc(now),
            language=question.language,
            cluster=scope.cluster or "",
            filters=question.filters,
            time_range=TimeRange(_utc(window.start), _utc(window.end), window.seconds, window.assumed_zone, MEANING),
            settled=settled(window, now=now, scrape_interval=every),
            **figures.totals(read.counts),
            **figures.times(read.counts, window),
            peak_throughput=None if highest is None else highest.tasks_per_second,
            peak=highest,
            avg_busy_percent=figures.busy(read.gauges),
            error_budget=figures.error_budget(read.counts, read.objective, default=DEFAULT_OBJECTIVE),
            redelivery=_redelivery(read),
            previous_window=change,
            **figures.rows(read.counts, read.gauges),
            unknown=figures.unknown(read.counted, highest, change),
            data_quality=judge(read.counted, window, notes),
            history=_history(read, historian),
            queries=_queries(scope, historian, question.filters),
        )
        return in_language(replace(report, recommendations=advice.recommend(report)), question.language)


def wait_until_settled(
    client: PrometheusClient,
    scope: Scope,
    window: Window,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> None:
    """Wait until nothing of the window can still arrive: two scrapes after its end, at least half a minute."""
    lives = Counting(client, scope).lives(start=window.end - 3600, end=window.end)
    wanted = window.end + max(SETTLED_AFTER, 2 * (interval(lives) or DEFAULT_INTERVAL))
    while (left := wanted - clock()) > 0:
        sleep(min(left, 1.0))


def _sizes(counts: Counts | None) -> dict[str, int]:
    """How many series a query over time would have to add up."""
    keys = () if counts is None else counts.values
    pairs = len({(key.name, key.queue_name) for key in keys if key.name and not key.le})
    bounds = len({key.le for key in keys if key.what == "runtime_bucket"})
    return {"ends": pairs * len(ENDS), "buckets": pairs * bounds}


def _whole_window(counts: Counts | None, window: Window) -> Peak | None:
    """For a window that is too short for steps."""
    if counts is None or window.seconds > 180:
        return None
    return Peak(_utc(window.start), counts.ended / window.seconds, window.seconds, "window")


def _notes(read: _Read, highest: Peak | None) -> list[Note]:
    notes = []
    if highest is not None and highest.source == "recorded":
        notes.append(Note("peak_recorded"))
    if read.curves is None:
        notes.append(Note("execution_not_drawn"))
    return notes


def _watched_before(read: _Read, window: Window) -> bool:
    before = Window(window.start - window.seconds, window.start)
    return (scrapes_present(read.before, before) or 0.0) >= COMPARABLE


def _redelivery(read: _Read) -> Redelivery | None:
    oldest = largest(read.gauges["unacked_age"].get("", ()))
    return None if oldest is None or not read.visibility else Redelivery(oldest, read.visibility)


def _history(read: _Read, historian: Historian) -> History:
    curves = read.curves or Curves()
    return History(
        step_seconds=historian.chart_step,
        throughput=thinned(read.rates.ended, step=read.rates.step),
        failures=thinned(read.rates.failed, step=read.rates.step),
        execution_p50=curves.p50,
        execution_p95=curves.p95,
        execution_p99=curves.p99,
        queue_lengths=read.gauges["queue_lengths"],
    )


def _queries(scope: Scope, historian: Historian, filters: Filters) -> dict[str, str]:
    place = {"cluster": scope.cluster or "", "job": "JOB", "instance": "INSTANCE"}
    return {
        "scrapes": scope.render(queries.LIVES, window=timedelta(hours=1)),
        "counts": scope.render(queries.PAGE, **place, **queries.chosen(filters)),
        **historian.queries(),
        "visibility_timeout": scope.render(queries.VISIBILITY, window=timedelta(hours=1)),
        "success_objective": queries.OBJECTIVE,
    }


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)
