"""Input of the metric families: the tracker at the time of a scrape, and state that is kept between scrapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from celerymeter.exposition.text import PageText, labels
from celerymeter.model import OTHER, QueuesSnapshot, QueueState, WorkerState
from celerymeter.tracking.series import TaskSeries
from celerymeter.tracking.tracker import Tracker

NEWBORN = 60.0
"""Seconds for which a new class of exceptions stays at 0 with `--compat`, so that every scraper sees it there:
`increase()` does not see what a series is born with."""

FIRST_HEARTBEATS = 10.0
"""Seconds of subscription after which every worker that sends heartbeats was heard."""

HELD_TASKS = 60.0
"""Seconds after its last reply, or four polls, for which a worker counts as holding the tasks that it listed: they come
and go, unlike its slots and queues."""

WORKER_DIRECT = ".dq2"
"""How the queue ends that each worker has to itself with `worker_direct` (`celery.utils.nodenames`): workers that are
gone leave theirs behind."""


@dataclass(frozen=True, slots=True)
class Build:
    """The labels of `celerymeter_build_info`."""

    version: str
    python: str
    celery: str


class FailuresByClass:
    """Failures by exception class for `--compat`; those of a class's first minute stay without a name, for good."""

    def __init__(self) -> None:
        self._born: dict[tuple[TaskSeries, str], float] = {}
        self._unnamed: dict[tuple[TaskSeries, str], int] = {}

    def by_class(self, series: TaskSeries, now: float) -> dict[str, int]:
        """The failures of a series by class; no count ever falls, also when the clock jumps."""
        return {
            exception: count - self._without_name(series, exception, count, now)
            for exception, count in series.exceptions.items()
        }

    def _without_name(self, series: TaskSeries, exception: str, count: int, now: float) -> int:
        key = series, exception
        if key not in self._unnamed:
            self._born[key] = now
        if key in self._born:
            if now - self._born[key] < NEWBORN:
                self._unnamed[key] = count
            else:
                del self._born[key]
        return self._unnamed[key]


@dataclass(slots=True)
class Kept:
    """State that is kept between scrapes."""

    build: Build
    names: tuple[str, ...]
    """The labels of a task series."""
    failures: FailuresByClass | None = None
    series: int = 0
    """Series in the last scrape."""
    tags: dict[TaskSeries, str] = field(default_factory=dict)
    """The labels of each task series as text, without braces."""
    templates: dict[tuple[str, TaskSeries], str] = field(default_factory=dict)
    """The lines of each histogram, by family and series."""

    def tag(self, series: TaskSeries) -> str:
        """The labels of a series."""
        tag = self.tags.get(series)
        if tag is None:
            tag = self.tags[series] = labels(self.names, series.labels)
        return tag


class Scrape:
    """One page in the making: the tracker as of ``now``, and what several families need of it."""

    def __init__(self, tracker: Tracker, kept: Kept, now: float) -> None:
        self.text = PageText()
        self.tracker = tracker
        self.kept = kept
        self.now = now
        self.series = list(tracker.task_series)
        self.tags = [kept.tag(series) for series in self.series]
        self.rates = [tracker.rates.of(series, now) for series in self.series]
        self.workers = list(tracker.workers)
        self.in_progress = tracker.in_progress(now)
        self.up = [worker for worker in self.workers if worker.up]
        self.replies: list[WorkerState] | None = None
        """The last replies of workers that are up; ``None`` when the last poll is too long ago."""
        if tracker.is_fresh("workers", now):
            self.replies = [worker.state for worker in self.up if worker.state is not None]
        recent = max(HELD_TASKS, 4 * tracker.settings.poll_interval)
        self.recent_replies = [
            worker.state
            for worker in (self.up if self.replies is not None else ())
            if worker.state is not None and worker.has_replied(now, within=recent)
        ]
        """Those of them that are not older than `HELD_TASKS`."""
        self.queues: QueuesSnapshot | None = tracker.queues if tracker.is_fresh("queues", now) else None
        self.queue_labels = self._label_queues(self.queues.queues if self.queues is not None else ())
        """The label of each queue that was polled or that a worker consumes."""

    def _label_queues(self, polled: Collection[QueueState]) -> dict[str, str]:
        """Give labels to the queues that are configured, consumed or not empty, then to the others as far as they go.

        Brokers keep queues that nobody uses any more, in any number. Such a queue has a label only while there is room;
        one that a worker had to itself has none.
        """
        cap = self.tracker.task_series.queue
        used = {queue.name for queue in polled if queue.length or queue.consumers or queue.head}
        used.update(queue.name for queue in polled if queue.unacked or queue.oldest_unacked_at is not None)
        used.update(self.tracker.settings.queues)
        used.update(name for worker in self.up if worker.state is not None for name in worker.state.queues or ())
        idle = {queue.name for queue in polled if not queue.name.endswith(WORKER_DIRECT)} - used
        passing = {name for name in used if name.endswith(WORKER_DIRECT)}
        labels = {name: cap(name) for name in sorted(used - passing)}
        lent: set[str] = set()
        for name in (*sorted(passing), *sorted(idle)):
            label = cap.clean(name)
            if cap.known(label) is None and label not in lent:
                if len(lent) < cap.room:
                    lent.add(label)
                else:
                    self.tracker.task_series.folded["queue_name"] += 1
                    label = OTHER
            labels[name] = label
        return labels

    def by_queue(self, value: Callable[[QueueState], float | None]) -> dict[str, float | None]:
        """A value of each queue; values of queues that share a label are added up."""
        totals: dict[str, float | None] = defaultdict(float)
        for queue in self.queues.queues if self.queues is not None else ():
            label = self.queue_labels.get(queue.name)
            if label is not None and (number := value(queue)) is not None:
                totals[label] = (totals[label] or 0) + number
        return totals

    def by_consumed_queue(self, value: Callable[[WorkerState], int | None]) -> dict[str, float | None]:
        """A value of each worker added up by the queues that it consumes.

        A sum is known when every worker that is up has said which queues it consumes, and 0 only then: a worker may
        have remote control turned off, or reply in what nobody may decode. ``None`` makes its queues' sums unknown.
        """
        if self.replies is None or any(worker.unanswered for worker in self.up):
            return {}
        label_of = self.queue_labels
        queues = self.queues.queues if self.queues is not None and self._all_workers_known() else ()
        known_labels = {label_of[queue.name] for queue in queues if queue.name in label_of}
        totals: dict[str, float | None] = dict.fromkeys(sorted(known_labels), 0)
        for state in self.replies:
            number = value(state)
            for label in sorted({label_of[name] for name in state.queues or ()}):
                known = totals.get(label, 0)
                totals[label] = None if known is None or number is None else known + number
        return totals

    def _all_workers_known(self) -> bool:
        """True if a queue that no worker listed has no consumer."""
        connected_at, workers = self.tracker.connected_at, self.tracker.workers
        if workers.other_seen is not None or any(worker.queues_stale for worker in self.up):
            return False
        # Just after the start a worker may not have had the time to send its first heartbeat.
        return bool(self.up) or (connected_at is not None and self.now - connected_at > FIRST_HEARTBEATS)
