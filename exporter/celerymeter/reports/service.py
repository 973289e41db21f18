"""The performance report of a window: reads Prometheus, and composes the report."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from celerymeter.prometheus import PrometheusClient, Scope
from celerymeter.prometheus.counters import ENDS, Counts
from celerymeter.reports import advice, metrics, queries
from celerymeter.reports.capacity import CapacityPlanner
from celerymeter.reports.counting import Progress, WindowCounter, WindowCounts
from celerymeter.reports.formatting import in_language
from celerymeter.reports.history import ExecutionCurves, HistoryReader, Rates, alert_clusters, peak, per_second
from celerymeter.reports.metrics import RUNTIME, WAIT, Gauges
from celerymeter.reports.names import unknown_names
from celerymeter.reports.quality import (
    COMPARABLE,
    DEFAULT_INTERVAL,
    SETTLED_AFTER,
    interval,
    judge,
    scrapes_present,
    settled,
)
from celerymeter.reports.report import (
    AlertRow,
    CapacityRow,
    History,
    Note,
    Peak,
    QueueRow,
    Redelivery,
    Report,
    TimeRange,
)
from celerymeter.reports.request import Filters, ReportRequest, Window, choose_scope, utc

MEANING = "what Prometheus scraped after start, up to and including end"
MOST_ROWS = 1000
MOST_ALERTS = 200
MOST_CURVES = 50
MOST_REPLAYED = 3
MOST_REPLAYED_TASKS = 20_000
LONGEST_REPLAYED = 25 * 3600.0
"""Queues, tasks of each, and seconds of a window that a report replays, so that it takes a second or two at most."""
"""Tasks, queues and workers that are listed, alerts, and queues whose length is listed over time: those with the most.
A report is held in memory, stored and sent, so it must not grow with the names that a cluster ever had."""


@dataclass(frozen=True, slots=True)
class _QueryResults:
    """Everything that was read from Prometheus for one report."""

    scope: Scope
    """Narrowed to one cluster."""
    counted: WindowCounts
    before: WindowCounts
    rates: Rates
    execution: ExecutionCurves | None
    gauges: Gauges
    capacity: Mapping[str, float]
    queue_capacity: Mapping[str, float]
    """The `slot_seconds` of each worker, and of the workers of each queue."""
    chart_step: float
    visibility_timeout: float | None
    objective: float | None
    wait_targets: Mapping[str, float]
    alerts: tuple[AlertRow, ...]
    unknown_names: tuple[Note, ...]


class ReportService:
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

    def report(self, request: ReportRequest, *, report_id: str | None = None) -> Report:
        """Make the report; what cannot be known in it is ``None``, and its ``unknown`` has the reason."""
        window = request.window
        scope = choose_scope(self._client, self._scope, window)
        data = self._read(request, scope)
        report = _bounded(_compose(data, request, report_id=report_id or uuid.uuid4().hex, now=self._clock()))
        report = replace(report, capacity=self._capacity(report, scope, window))
        return in_language(replace(report, recommendations=advice.recommend(report)), request.language)

    def _capacity(self, report: Report, scope: Scope, window: Window) -> tuple[CapacityRow, ...]:
        """Return the slots that the busiest queues with a wait target needed."""
        rows = [row for row in report.queues if row.wait_target_ms is not None and row.ends.total]
        if window.seconds > LONGEST_REPLAYED or report.filters.task is not None:
            return ()
        planner = CapacityPlanner(self._client, scope, window)
        return tuple(_capacity_row(planner, row) for row in rows[:MOST_REPLAYED])

    def wait_until_settled(self, window: Window, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait until no sample of the window can still arrive: two scrapes after its end, at least half a minute."""
        counter = WindowCounter(self._client, choose_scope(self._client, self._scope, window))
        every = interval(counter.processes(start=window.end - 3600, end=window.end)) or DEFAULT_INTERVAL
        while (left := window.end + max(SETTLED_AFTER, 2 * every) - self._clock()) > 0:
            sleep(min(left, 1.0))

    def _read(self, request: ReportRequest, scope: Scope) -> _QueryResults:
        window = request.window
        history = HistoryReader(self._client, scope, window, request.filters)
        counter = WindowCounter(self._client, scope, filters=request.filters, progress=self._progress)
        counted = counter.count(start=window.start, end=window.end)
        before = counter.count(start=window.start - window.seconds, end=window.start, histograms=False)
        pairs, bounds = _sizes(counted.counts or Counts())
        visibility = scope.render(queries.VISIBILITY_TIMEOUT, window=timedelta(seconds=window.seconds))
        gauges = history.gauges()
        return _QueryResults(
            scope=scope,
            counted=counted,
            before=before,
            rates=history.rates(series=pairs * len(ENDS)),
            execution=history.execution(series=pairs * bounds),
            gauges={**gauges, "busy": history.busy(gauges["pool_size"])},
            capacity=history.slot_seconds(gauges["pool_size"]),
            queue_capacity=history.slot_seconds(gauges["queue_slots"]),
            chart_step=history.chart_step,
            visibility_timeout=self._client.instant(visibility, time=window.end).value(),
            objective=self._client.instant(queries.OBJECTIVE, time=window.end).value(),
            wait_targets=self._client.instant(scope.render(queries.WAIT_TARGETS), time=window.end).by("queue_name"),
            alerts=history.alerts(),
            unknown_names=self._unknown_names(counted.counts, request, scope),
        )

    def _unknown_names(self, counts: Counts | None, request: ReportRequest, scope: Scope) -> tuple[Note, ...]:
        """Return a note for each chosen name that Prometheus does not have."""
        if counts is None or any(key.name and not key.schedule for key in counts.values):
            return ()
        return unknown_names(self._client, scope, request.window, request.filters)


def _capacity_row(planner: CapacityPlanner, row: QueueRow) -> CapacityRow:
    found = planner.capacity(
        row.queue_name,
        target=(row.wait_target_ms or 0.0) / 1000,
        objective=planner.objective(row.queue_name),
        most_tasks=MOST_REPLAYED_TASKS,
    )
    return CapacityRow(
        row.queue_name,
        row.wait_target_ms or 0.0,
        found.slots,
        found.slots_at_least,
        found.slots_at_most,
        found.present_slots,
        found.saved_slot_hours,
        found.unknown.get("slots"),
    )


def _sizes(counts: Counts) -> tuple[int, int]:
    """Return how many (task, queue) pairs and bucket bounds a query over time would have to read."""
    pairs = {(key.name, key.queue_name) for key in counts.values if key.name and not key.le}
    bounds = {key.le for key in counts.values if key.family == f"{RUNTIME}_bucket"}
    return len(pairs), len(bounds)


def _compose(data: _QueryResults, request: ReportRequest, *, report_id: str, now: float) -> Report:
    """Return the report, still without advice and sentences."""
    window, counts, known = request.window, data.counted.counts, data.counted.counts or Counts()
    highest = peak(data.rates) or _peak_of_short_window(counts, window)
    change = metrics.change(counts, data.before.counts if _watched_before(data, window) else None)
    ends = metrics.ends(known)
    tasks = metrics.task_rows(known)
    all_tasks = request.filters == Filters()
    users = metrics.slot_users(known, data.queue_capacity, all_tasks=all_tasks)
    return Report(
        report_id=report_id,
        generated_at=utc(now),
        language=request.language,
        cluster=data.scope.cluster or "",
        filters=request.filters,
        time_range=TimeRange(utc(window.start), utc(window.end), window.seconds, window.assumed_zone, MEANING),
        settled=settled(window, now=now, scrape_interval=interval(data.counted.processes)),
        total_tasks=None if counts is None else ends.total,
        successful_tasks=None if counts is None else ends.successful,
        failed_tasks=None if counts is None else ends.failed,
        retried_tasks=None if counts is None else ends.retried,
        revoked_tasks=None if counts is None else ends.revoked,
        rejected_tasks=None if counts is None else ends.rejected,
        expired_tasks=None if counts is None else ends.expired,
        redelivered_runs=None if counts is None else ends.redelivered,
        error_rate_percent=ends.error_rate_percent,
        avg_execution_time_ms=metrics.mean_ms(known, RUNTIME),
        execution_time_ms=metrics.quantiles_ms(known, RUNTIME),
        avg_wait_time_ms=metrics.mean_ms(known, WAIT),
        wait_time_ms=metrics.quantiles_ms(known, WAIT),
        average_throughput=None if counts is None else metrics.rounded(counts.ended / window.seconds),
        peak_throughput=None if highest is None else highest.tasks_per_second,
        peak=highest,
        avg_busy_percent=metrics.busy_percent(counts, data.capacity, all_tasks=all_tasks),
        error_budget=metrics.error_budget(counts, data.objective),
        redelivery=_redelivery(data),
        previous_window=change,
        tasks=tasks,
        queues=()
        if counts is None
        else metrics.queue_rows(counts, data.gauges["queue_lengths"], wait_targets=data.wait_targets, users=users),
        workers=metrics.worker_rows(counts, data.gauges, data.capacity),
        schedules=() if request.filters.queue else metrics.schedule_rows(known),
        slowest_tasks=metrics.top_tasks(tasks, lambda task: task.execution_time_ms.p95),
        alerts=data.alerts,
        most_failing_tasks=metrics.top_tasks(tasks, lambda task: task.ends.failed),
        unknown=metrics.unknown_reasons(data.counted, highest, change),
        data_quality=judge(data.counted, window, _notes(data, highest)),
        history=_history(data),
        queries=_shown_queries(data.scope, request),
    )


def _bounded(report: Report) -> Report:
    """Return the report without the rows beyond the limits, and a note if there were any."""
    lengths = report.history.queue_lengths
    longest = sorted(lengths, key=lambda name: -(metrics.largest(lengths[name]) or 0.0))[:MOST_CURVES]
    within = replace(
        report,
        tasks=report.tasks[:MOST_ROWS],
        queues=report.queues[:MOST_ROWS],
        workers=report.workers[:MOST_ROWS],
        schedules=report.schedules[:MOST_ROWS],
        alerts=report.alerts[:MOST_ALERTS],
        history=replace(report.history, queue_lengths={name: lengths[name] for name in sorted(longest)}),
    )
    lists = [
        (report.tasks, MOST_ROWS),
        (report.queues, MOST_ROWS),
        (report.workers, MOST_ROWS),
        (report.schedules, MOST_ROWS),
        (report.alerts, MOST_ALERTS),
    ]
    if all(len(rows) <= most for rows, most in lists):
        return within
    quality = report.data_quality
    return replace(within, data_quality=replace(quality, notes=(*quality.notes, Note("rows_left_out"))))


def _peak_of_short_window(counts: Counts | None, window: Window) -> Peak | None:
    """Return the mean of a window that is too short for steps."""
    if counts is None or window.seconds > 180:
        return None
    return Peak(utc(window.start), metrics.rounded(counts.ended / window.seconds), window.seconds, "window")


def _watched_before(data: _QueryResults, window: Window) -> bool:
    before = Window(window.start - window.seconds, window.start)
    return (scrapes_present(data.before, before) or 0.0) >= COMPARABLE


def _redelivery(data: _QueryResults) -> Redelivery | None:
    oldest = metrics.largest(data.gauges["unacked_age"].get("", ()))
    return Redelivery(oldest, data.visibility_timeout) if oldest is not None and data.visibility_timeout else None


def _notes(data: _QueryResults, highest: Peak | None) -> list[Note]:
    notes = list(data.unknown_names)
    if highest is not None and highest.source == "recorded":
        notes.append(Note("peak_recorded"))
    if data.execution is None:
        notes.append(Note("execution_not_drawn"))
    return notes


def _history(data: _QueryResults) -> History:
    execution = data.execution or ExecutionCurves()
    return History(
        step_seconds=data.chart_step,
        throughput=per_second(data.rates.ended, step=data.rates.step),
        failures=per_second(data.rates.failed, step=data.rates.step),
        execution_p50=execution.p50,
        execution_p95=execution.p95,
        execution_p99=execution.p99,
        queue_lengths=data.gauges["queue_lengths"],
    )


def _shown_queries(scope: Scope, request: ReportRequest) -> dict[str, str]:
    """Return the PromQL behind every metric, with placeholders for the exporter."""
    hour = timedelta(hours=1)
    target = {"cluster": scope.cluster or "", "job": "JOB", "instance": "INSTANCE"}
    values = request.filters.slots()
    shown = {
        "scrapes": queries.SCRAPES,
        "counts": queries.COUNTERS_AND_HISTOGRAMS,
        "peak_throughput": queries.ENDED,
        "failures": queries.FAILED,
        "execution_over_time": queries.RUNTIME_BUCKETS,
        "busy": queries.BUSY,
        "alerts": queries.ALERTS,
        "wait_targets": queries.WAIT_TARGETS,
        **queries.GAUGES,
        "visibility_timeout": queries.VISIBILITY_TIMEOUT,
        "success_objective": queries.OBJECTIVE,
    }
    values["clusters"] = alert_clusters(scope)
    return {key: scope.render(query, window=hour, **target, **values) for key, query in shown.items()}
