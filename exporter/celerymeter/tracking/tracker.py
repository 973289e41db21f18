"""The tracker: one event stream and two pollers in, the state of every series out."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial

from celerymeter import escaping
from celerymeter.model import OTHER, UNKNOWN, Event, PollOutcome, QueuesSnapshot, WorkersSnapshot
from celerymeter.settings import ExporterSettings
from celerymeter.totals_message import TOTALS, VERSION
from celerymeter.tracking.clocks import SteadyTime
from celerymeter.tracking.loss import Doubts
from celerymeter.tracking.runs import InProgress
from celerymeter.tracking.schedules import BEAT_EVENTS, RUN_ENDS, ScheduleTable
from celerymeter.tracking.series import Histogram, RateWindow, TaskSeriesTable
from celerymeter.tracking.tasks import TaskTracker
from celerymeter.tracking.totals import TotalsTable
from celerymeter.tracking.worker import Worker
from celerymeter.tracking.workers import WorkerTable

MAX_RESTARTS = 20
"""Workers that started again, whose runs are looked for at once; those of others are looked for at the next tick."""
LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
MAX_EVENT_TYPES = 50


class Tracker:
    """Everything the exporter knows. Not thread-safe: the caller holds one lock around each call.

    ``now`` and ``at`` are UTC seconds by our clock and may jump; no counter ever falls.
    """

    def __init__(self, settings: ExporterSettings, *, now: float) -> None:
        self.settings = settings
        self.started_at = now
        self.connected_at: float | None = None
        self.reconnects = 0
        self.last_event_at: float | None = None
        self.event_counts: dict[str, int] = defaultdict(int)
        self.rejections: Counter[str] = Counter()
        self.lag = Histogram(LAG_BUCKETS)
        self.polls: dict[str, PollOutcome] = {}
        self.poll_successes: dict[str, float] = {}
        self._polled_at: dict[str, float] = {}
        """Time at which a poll last returned anything, even if incomplete."""
        self.queues: QueuesSnapshot | None = None
        self.task_series = TaskSeriesTable(
            settings.limits,
            runtime_buckets=settings.runtime_buckets,
            wait_buckets=settings.wait_buckets,
            by_host=settings.task_hostname_label,
        )
        self.workers = WorkerTable(
            limit=settings.limits.workers,
            retention=settings.worker_retention,
            drain_time=settings.drain_time,
            solo_grace=settings.solo_grace,
            table=self.task_series,
        )
        self.tasks = TaskTracker(
            self.task_series,
            self.workers,
            limit=settings.limits.tracked_tasks,
            count_retry_exceptions=settings.count_retry_exceptions,
            since=now,
        )
        self._steady = SteadyTime(now)
        self.totals = TotalsTable(self.tasks, self.workers, settings, since=now, reject=self.reject)
        self.schedules = ScheduleTable(
            retention=settings.worker_retention,
            poll_interval=settings.poll_interval,
            folded=self.task_series.folded,
            last_success=self.tasks.counts.last_success,
        )
        self.rates = RateWindow(settings.rate_window, now)
        self._was_connected = False
        self._restarts = 0
        self._aggregating: set[str] = set()
        self._doubts = Doubts(2 * settings.limits.workers)
        self._restarted: dict[str, float] = {}
        """Workers that started again since the last tick, beyond `MAX_RESTARTS`, and when."""
        self._outlived: Counter[tuple[str, str, str]] = Counter()
        self._queues_of_totals: frozenset[str] = frozenset()
        """Queues whose tasks are counted by totals only."""
        self._of_runs: dict[str, Callable[[Event, float, Worker | None], None]] = {
            "task-received": self.tasks.received,
            "task-started": self.tasks.started,
            "task-succeeded": self.tasks.ended,
            "task-failed": self.tasks.ended,
            "task-retried": self.tasks.ended,
            "task-rejected": self.tasks.ended,
            "task-revoked": self.tasks.ended,
            "task-cancelled": self.tasks.ended,
        }
        self._of_others: dict[str, Callable[[Event, float], None]] = {
            "task-sent": self._sent,
            "worker-online": self._worker,
            "worker-heartbeat": self._worker,
            "worker-offline": self._worker,
            TOTALS: self._totals,
            **dict.fromkeys(BEAT_EVENTS, self._of_beat),
        }
        self._follows_runs = False

    # From the stream

    def apply(self, events: Sequence[Event], at: float) -> None:
        """Take events in the order of receipt.

        Nearly all are of runs, so what they all need stands here rather than in functions: a call costs as much as
        the work in it.
        """
        counts, of_runs, find = self.event_counts, self._of_runs, self.workers.get
        lags, lag_sum = self.lag.counts, 0.0
        for event in events:
            kind = event.type
            handler = of_runs.get(kind)
            if handler is not None:
                worker = find(event.hostname) or self.workers.seen(event.hostname, at)
                if worker is None:
                    event.hostname = OTHER
                else:
                    event.hostname = worker.hostname  # one string for all its runs, and quickly compared
                    worker.last_seen = at
                    if not worker.loss.hearing and (event.celerymeter_counted or not worker.heard(at)):
                        handler = _in_totals
                    if worker.offset is not None:
                        lag = at - event.timestamp - worker.offset
                        if lag > 0.0:
                            lag_sum += lag
                            lags[bisect_left(LAG_BUCKETS, lag)] += 1
                        else:
                            lags[0] += 1
                handler(event, at, worker)
            elif (handle := self._of_others.get(kind)) is not None:
                handle(event, at)
            else:
                kind = self._custom(event, at)
            counts[kind] += 1
        self.lag.sum += lag_sum
        if events:
            self.last_event_at = at

    def reject(self, reason: str, count: int = 1) -> None:
        """Count messages that could not be used."""
        self.rejections[reason] += count

    def connected(self, at: float) -> None:
        """The event stream is subscribed."""
        if self.connected_at is None and self._was_connected:
            self.reconnects += 1
            self.workers.reconnected(at)
        self._was_connected = True
        self.connected_at = at

    def disconnected(self) -> None:
        """The event stream is gone."""
        self.connected_at = None

    def _custom(self, event: Event, at: float) -> str:
        """Take an event of an application's own: a sign of life, counted by the type that is returned."""
        if (worker := self.workers.get(event.hostname)) is not None:
            worker.last_seen = at
        if event.type in self.event_counts:
            return event.type
        kind = escaping.name(event.type)
        if kind != event.type:
            self.task_series.cut["event"] += 1
        return kind if kind in self.event_counts or len(self.event_counts) < MAX_EVENT_TYPES else OTHER

    def _sent(self, event: Event, at: float) -> None:
        self.lag.observe(at - self.tasks.sent(event, at))

    def _sent_to_any(self, event: Event, at: float) -> None:
        """Take a `task-sent` while some workers send totals: no event of theirs would end a run."""
        queue = self.workers.routes.queue_of(event)
        if queue in self._queues_of_totals:
            name, queue = self.task_series.name(event.name or UNKNOWN), self.task_series.queue(queue or UNKNOWN)
            self.task_series.get(name, queue).sent += 1
            self.lag.observe(at - self.tasks.producers.observe(event, at))
        else:
            self._sent(event, at)

    def _totals(self, event: Event, at: float) -> None:
        """Take the totals of an aggregating worker."""
        totals = event.totals
        if totals is None or totals.version != VERSION:
            self.reject("fields")
            return
        worker = self.workers.seen(event.hostname, at)
        event.hostname = OTHER if worker is None else worker.hostname
        self._doubts.heard(totals.instance)
        if worker is not None and worker.loss.aggregated == totals.failed:
            if totals.failed:
                worker.loss.restart()
            else:
                worker.loss.aggregate()
                self._aggregating.add(worker.hostname)
                if self._restarts < MAX_RESTARTS:
                    self._restarts += 1
                    self._forget_aggregated(at)
            self._of_others["task-sent"] = self._sent_to_any
        self.totals.take(event, totals, self._steady.at(at), worker)

    def _forget_aggregated(self, at: float) -> None:
        """The runs of workers that send totals from now on are counted there."""
        self.tasks.runs.forget_workers(self._aggregating, at)
        self._aggregating.clear()

    def _worker(self, event: Event, at: float) -> None:
        worker = self.workers.seen(event.hostname, at)
        if worker is None:
            return
        shutting_down, begun, pid = worker.offline_at is not None, worker.begun, worker.pid
        renewed = worker.event(event, at)
        if worker.offset is not None:
            self.lag.observe(at - event.timestamp - worker.offset)
        if renewed:
            self._process_lost(worker, begun, self._steady.at(at), offline=shutting_down, pid=pid)
        if worker.duplicate:  # the other process still runs what it ran
            return
        if renewed and self._restarts < MAX_RESTARTS:
            self._restarts += 1
            self._outlived += self.tasks.runs.workers_lost({worker.hostname}, at, was_shutting_down=shutting_down)
        elif renewed:
            self._restarted[worker.hostname] = at

    def _process_lost(self, worker: Worker, begun: int, now: float, *, offline: bool, pid: int) -> None:
        """A process is gone; if it aggregated, what it began after its last totals is known from elsewhere, if at all.

        The last totals of that name may be of another process than ``pid``: then its own are on their way.
        """
        instance = self.totals.worker_lost(worker.hostname, offline=offline)
        if instance is not None and begun > instance.begun and instance.pid in (0, pid):
            self._doubts.add(instance.id, worker.loss, begun - instance.begun, now)

    def _of_beat(self, event: Event, at: float) -> None:
        """Take an event of the hook in beat; from the first one on the ends of tasks concern schedules too."""
        if event.beat is None:  # an application's own event under this name
            return
        if not self._follows_runs:
            self._follows_runs = True
            for kind in RUN_ENDS:
                self._of_runs[kind] = partial(self._ended, self._of_runs[kind])
        self.schedules.event(event, event.beat, at, connected_at=self.connected_at)

    def _ended(
        self, handler: Callable[[Event, float, Worker | None], None], event: Event, at: float, worker: Worker | None
    ) -> None:
        handler(event, at, worker)
        self.schedules.ended(event, at)

    # From the pollers

    def asking(self) -> None:
        """A poll of the workers is about to be sent."""
        self.workers.asking()

    def inspected(self, snapshot: WorkersSnapshot) -> None:
        """Take the workers' replies to one poll; ``snapshot.at`` is when it was sent."""
        self._polled_at["workers"] = snapshot.at
        self.workers.inspected(snapshot, heard_names=self.tasks.labels.names_received)
        active = {
            host: state.active
            for host, state in snapshot.workers.items()
            if state.active is not None and (worker := self.workers.get(host)) and not worker.loss.aggregated
        }
        before, self._queues_of_totals = self._queues_of_totals, self.workers.aggregated_queues()
        if self._queues_of_totals - before:
            self.tasks.runs.forget_queues(self._queues_of_totals - before, snapshot.at)
        for host, state in snapshot.workers.items():
            if state.held and host in active:
                self.tasks.learn_held(host, state.held, at=snapshot.at)
        replied_at = snapshot.replied_at or snapshot.at
        self.tasks.reconcile(active, at=snapshot.at, replied_at=replied_at, connected_at=self.connected_at)

    def beats_answered(self, hostnames: Collection[str], at: float) -> None:
        """Take the node names of the beats that answered a ping."""
        self.schedules.pinged(hostnames, at)

    def queues_seen(self, snapshot: QueuesSnapshot) -> None:
        """Take the broker's queues at one poll."""
        self.queues = snapshot
        self._polled_at["queues"] = snapshot.at

    def polled(self, outcome: PollOutcome) -> None:
        """Note how a poll went."""
        self.polls[outcome.collector] = outcome
        if outcome.success:
            self.poll_successes[outcome.collector] = self._polled_at[outcome.collector] = outcome.at

    # Time

    def tick(self, now: float) -> Counter[tuple[str, str, str]]:
        """Let time pass; to be called about once a second.

        Return how many runs were given up since the last call because they had not ended when their workers shut down,
        by worker, task and queue.
        """
        steady = self._steady.at(now)
        self.tasks.tick(now)
        lost = self.workers.judge(now, connected_at=self.connected_at, poll_interval=self.settings.poll_interval)
        if lost:
            self._outlived += self.tasks.runs.workers_lost(lost, now)
            for hostname in lost.intersection(self.totals.hostnames()):
                worker = self.workers.get(hostname)
                if worker is None:  # it made room for others
                    self.totals.worker_lost(hostname, offline=False)
                else:
                    shut_down = worker.offline_at is not None
                    self._process_lost(worker, worker.begun, steady, offline=shut_down, pid=worker.pid)
        self._doubts.judge(steady)
        self._restarts = 0
        if self._restarted:
            self.tasks.runs.workers_restarted(self._restarted)
            self._restarted = {}
        if self._aggregating:
            self._forget_aggregated(now)
        self.totals.add_up()
        self.totals.forget_silent(steady)
        self.tasks.runs.workers_idle(self.workers.idle())
        self.tasks.runs.count_without_result()
        self.schedules.judge(now, connected_at=self.connected_at)
        self.rates.sample(self.task_series, now)
        outlived, self._outlived = self._outlived, Counter()
        return outlived

    # What others read

    def is_fresh(self, collector: str, now: float) -> bool:
        """Return True if a poll's gauges may be served: its last values are recent, and the broker is up."""
        last = self._polled_at.get(collector)
        return self.connected_at is not None and last is not None and now - last <= 2 * self.settings.poll_interval

    def in_progress(self, now: float) -> InProgress:
        """Add up the runs in progress; while nothing is heard they last until the last event."""
        sums = self.tasks.runs.in_progress(now if self.connected_at is not None else self.last_event_at or now)
        self.totals.add_in_progress(sums)
        return sums

    def known_queues(self) -> frozenset[str]:
        """Queues that workers consume or tasks were sent to."""
        consumed = {queue for worker in self.workers if worker.state for queue in worker.state.queues or ()}
        sent_to = {series.labels[1] for series in self.task_series if series.sent} - self.tasks.counts.broadcasts
        return frozenset(consumed | {queue for queue in sent_to if not escaping.was_changed(queue)})

    def visibility_timeout(self) -> float | None:
        """Return the time after which Redis redelivers: as given in our settings, else the shortest of the workers'."""
        ours = self.queues.visibility_timeout if self.queues is not None else None
        if ours is None or "visibility_timeout" in self.settings.broker.transport_options:
            return ours
        states = (worker.state for worker in self.workers)
        theirs = (state.visibility_timeout for state in states if state is not None)
        return min((timeout for timeout in theirs if timeout is not None), default=ours)

    def wants_poll(self) -> bool:
        """Return True if the workers should be polled at once."""
        return any(worker.wanted for worker in self.workers)


def _in_totals(_event: Event, _at: float, _worker: Worker | None) -> None:
    """Ignore a task event whose worker counts it in its totals."""
