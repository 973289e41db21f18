"""The whole page, family by family in the catalogue's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from celerymeter import metrics as m
from celerymeter.exposition import compat, queues, tasks, workers
from celerymeter.exposition.text import Text
from celerymeter.tracking.tracker import Tracker


@dataclass(frozen=True, slots=True)
class Build:
    """What `celerymeter_build_info` says."""

    version: str
    python: str
    celery: str


class Page:
    """Renders the tracker's state; ``process`` gives the lines of the process and platform collectors.

    The caller holds the tracker's lock. No I/O: a page costs the same whether the broker lives or not.
    """

    def __init__(self, tracker: Tracker, *, build: Build, process: Callable[[], str] = str) -> None:
        self._tracker = tracker
        self._build = build
        self._process = process
        self._tasks = tasks.TaskPage(tracker)
        self._series = 0

    def render(self, now: float) -> bytes:
        """The page as bytes of the text format, at ``now`` (UTC seconds)."""
        text = Text()
        self._tasks.render(text, now)
        workers.render(text, self._tracker, now)
        queues.render(text, self._tracker, now)
        if self._tracker.settings.compat is not None:
            compat.render(text, self._tracker, now)
        self._exporter(text)
        text.add(self._process())
        page = text.bytes()
        self._series = page.count(b"\n") - page.count(b"\n# ") - 1
        return page

    def _exporter(self, text: Text) -> None:
        tracker, build = self._tracker, self._build
        text.rows(m.BUILD_INFO, [((build.version, build.python, build.celery), 1)])
        text.single(m.START_TIME, tracker.started_at)
        text.single(m.BROKER_UP, int(tracker.connected_at is not None))
        text.values(m.WORKER_DUPLICATE, {worker.hostname: int(worker.duplicate) for worker in tracker.workers})
        text.single(m.RECONNECTS, tracker.reconnects)
        self._events(text)
        text.single(m.TRACKED, len(tracker.tasks.runs))
        text.values(m.EVICTED, {reason: tracker.tasks.runs.evicted[reason] for reason in _EVICTIONS})
        text.single(m.SERIES, self._series)
        text.values(m.FOLDED, {label: tracker.pairs.folded[label] for label in _FOLDED})
        self._polls(text)

    def _events(self, text: Text) -> None:
        tracker = self._tracker
        text.values(m.EVENTS, dict(tracker.event_counts))
        text.values(m.EVENTS_INVALID, dict(tracker.rejections))
        text.values(m.EVENTS_MISSED, {worker.hostname: worker.loss.missed for worker in tracker.workers})
        text.values(m.EVENTS_UNEXPLAINED, {worker.hostname: worker.loss.unexplained for worker in tracker.workers})
        text.values(m.EVENTS_DUPLICATE, {event: tracker.tasks.duplicates[event] for event in _ENDS})
        text.histogram(m.EVENT_LAG, tracker.lag)
        text.single(m.LAST_EVENT, tracker.last_event_at)
        text.values(m.WAITS_UNMEASURED, {reason: tracker.waits.unmeasured[reason] for reason in _UNMEASURED})

    def _polls(self, text: Text) -> None:
        polls = self._tracker.polls
        text.values(m.POLL_SUCCESS, {name: int(poll.success) for name, poll in polls.items()})
        text.values(m.POLL_DURATION, {name: poll.duration for name, poll in polls.items()})
        text.values(m.POLL_LAST_SUCCESS, dict(self._tracker.poll_successes))


_EVICTIONS = ("limit", "age", "vanished", "superseded")
_FOLDED = ("name", "queue_name", "exception", "hostname", "pair")
_ENDS = ("task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked")
_UNMEASURED = ("not_sent", "clock_offset", "eta", "negative")
