"""The `task-sent` of retries and replacements, which come while the run before them still runs."""

from __future__ import annotations

from dataclasses import dataclass

from celerymeter.model import UNKNOWN, Event
from celerymeter.tracking.clocks import ProducerClocks
from celerymeter.tracking.counting import Close, RunCounter
from celerymeter.tracking.identity import is_replacement, place_ahead
from celerymeter.tracking.labels import RunLabels, strip
from celerymeter.tracking.run import Run
from celerymeter.tracking.runs import RunTable
from celerymeter.tracking.series import TaskSeriesTable
from celerymeter.tracking.workers import WorkerTable

MAX_SENT_AHEAD = 8
"""Of one run."""


@dataclass(frozen=True, slots=True)
class TaskParts:
    """What the parts of a `TaskTracker` share; ``close`` ends a run."""

    table: TaskSeriesTable
    runs: RunTable
    workers: WorkerTable
    labels: RunLabels
    counts: RunCounter
    producers: ProducerClocks
    limit: int
    close: Close


class SentAhead:
    """Counts such an event at once, and keeps it until its run begins."""

    def __init__(self, parts: TaskParts) -> None:
        self._table, self._runs, self._workers = parts.table, parts.runs, parts.workers
        self._labels, self._counts, self._producers = parts.labels, parts.counts, parts.producers
        self._limit, self._close = parts.limit, parts.close
        self._kept = 0
        """At least the number of `task-sent` that runs keep; `tick` counts them anew."""

    def tick(self) -> None:
        """Count what is kept anew, when it may be much."""
        if self._kept > self._limit // 8:
            self._kept = self._runs.count_sent_ahead()

    def keep(self, run: Run, event: Event, at: float) -> None:
        """Count the `task-sent` of a run that follows ``run``, and keep what is needed of it for then."""
        routed = self._workers.routes.queue_of(event)
        name, queue = event.name or run.name or UNKNOWN, routed or run.queue or UNKNOWN
        self._counts.sent(self._table.name(name), self._table.queue(queue))
        if self._kept >= self._limit // 4:
            self._runs.evicted["limit"] += 1
            return
        self._kept += 1
        strip(event, run)
        if routed is not None:
            event.queue, event.exchange, event.routing_key = self._table.queue.clean(routed), None, None
        if run.sent_ahead is None:
            run.sent_ahead = [event]
            run.replaced = is_replacement(run, event)
            if run.replaced and run.started is not None and not run.end_pending:
                self._close(run, at, remember=False)
        elif len(run.sent_ahead) < MAX_SENT_AHEAD:
            run.sent_ahead.insert(place_ahead(run.sent_ahead, event), event)

    def take(self, run: Run, ahead: list[Event] | None) -> Run:
        """Give a run its `task-sent`, which came before the run before it was over."""
        if ahead:
            self._labels.address(run, ahead[0], self._producers.sent_at(ahead[0]))
            if ahead[1:]:
                run.sent_ahead = ahead[1:]
                run.replaced = is_replacement(run, ahead[1])
        return run

    def take_try(self, run: Run, ahead: list[Event] | None, retries: int) -> Run:
        """Give a run its `task-sent`, unless only that of a later try has come."""
        if ahead and (ahead[0].retries or 0) > retries:
            run.sent_ahead = ahead
            return run
        return self.take(run, ahead)
