"""The page: every family of the catalogue, in its order, and where its samples come from.

`WRITERS` has a row for each family, except counters that are a field of `TaskSeries`. Unknown is absent: a row
without a value is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter

from celerymeter import metrics as m
from celerymeter.exposition.scrape import Build, FailuresByClass, Kept, Scrape
from celerymeter.exposition.text import fill, histogram_template, labels
from celerymeter.metrics import Family
from celerymeter.model import OTHER, UNKNOWN, BrokerMemory, QueueState, WorkerState
from celerymeter.tracking.beats import Schedule
from celerymeter.tracking.series import Histogram, TaskSeries
from celerymeter.tracking.tracker import Tracker
from celerymeter.tracking.worker import Worker

FAMILIES = tuple(family for family in m.CATALOGUE if family.area != "control")
"""The control API has a page of its own."""
EVICTIONS = ("limit", "age", "vanished", "superseded")
FOLDED = ("name", "queue_name", "exception", "hostname", "pair", "shadow", "schedule")
CUT = ("name", "queue_name", "exception", "hostname", "event")
ENDS = ("task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked")
UNMEASURED = ("not_sent", "clock_offset", "eta", "negative")

Rows = Mapping[str, float | None]
"""Values by the family's only label."""
Writer = Callable[[Scrape, Family], None]
"""Adds one family to the page."""


class Page:
    """Renders the tracker's state; ``process`` gives the lines of the process and platform collectors.

    The caller holds the tracker's lock. No I/O: a page costs the same whether the broker lives or not.
    """

    def __init__(self, tracker: Tracker, *, build: Build, process: Callable[[], str] = str) -> None:
        settings = tracker.settings
        self._tracker = tracker
        self._process = process
        self._families = FAMILIES if settings.compat is None else (*FAMILIES, *m.COMPATIBLE)
        self._kept = Kept(
            build,
            names=(*m.TASK, "hostname") if settings.task_hostname_label else m.TASK,
            failures=FailuresByClass() if settings.compat is not None else None,
        )

    def render(self, now: float) -> list[bytes]:
        """The page in the text format at ``now`` (UTC seconds), in parts: it may have many megabytes."""
        scrape = Scrape(self._tracker, self._kept, now)
        for family in self._families:
            writer_of(family)(scrape, family)
        scrape.text.add(self._process())
        parts = scrape.text.encoded()
        self._kept.series = sum(_count_samples(part) for part in parts)
        return parts


def _count_samples(part: bytes) -> int:
    return part.count(b"\n") - part.count(b"\n# ") - part.startswith(b"# ")


def writer_of(family: Family) -> Writer:
    """The writer of a family; raises `LookupError` for one that has none."""
    writer = WRITERS.get(family)
    if writer is None:
        raise LookupError(
            f"{family.name} is declared in celerymeter/metrics.py, but WRITERS in celerymeter/exposition/page.py"
            " does not say where its samples come from, and it is no celery_task_X_total whose X is a field of"
            " TaskSeries in celerymeter/tracking/series.py"
        )
    return writer


# Writers for any family


def _single(value: Callable[[Scrape], float | None]) -> Writer:
    """A family without labels."""
    return lambda scrape, family: scrape.text.single(family, value(scrape))


def _values(rows: Callable[[Scrape], Rows]) -> Writer:
    """A family with one label."""
    return lambda scrape, family: scrape.text.values(family, rows(scrape))


def _workers(value: Callable[[Worker], float | None]) -> Writer:
    """A value of every worker."""
    return _values(lambda scrape: {worker.hostname: value(worker) for worker in scrape.workers})


def _up_workers(value: Callable[[Worker], float | None]) -> Writer:
    """A value of every worker that is up."""
    return _values(lambda scrape: {worker.hostname: value(worker) for worker in scrape.up})


def _replies(value: Callable[[WorkerState], float | None]) -> Writer:
    """A value of every worker's last reply."""
    return _values(lambda scrape: {state.hostname: value(state) for state in scrape.replies or ()})


def _held_tasks(value: Callable[[WorkerState], float | None]) -> Writer:
    """A count of tasks that every worker holds, as long as it replies."""
    return _values(lambda scrape: {state.hostname: value(state) for state in scrape.recent_replies})


def _by_queue(value: Callable[[QueueState], float | None]) -> Writer:
    """A value of every queue."""
    return _values(lambda scrape: scrape.by_queue(value))


def _by_consumed_queue(value: Callable[[WorkerState], int | None]) -> Writer:
    """A value of every worker, added up by the queues that it consumes."""
    return _values(lambda scrape: scrape.by_consumed_queue(value))


# Writers for task families: the many, so from label text that is made once


def _tasks(number: Callable[[TaskSeries], float]) -> Writer:
    """A number of every task series."""

    def write(scrape: Scrape, family: Family) -> None:
        scrape.text.head(family)
        scrape.text.column(family, scrape.tags, map(number, scrape.series))

    return write


def _tasks_by(label: str, **numbers: Callable[[TaskSeries], float]) -> Writer:
    """A number of every task series for each value of one more label."""

    def write(scrape: Scrape, family: Family) -> None:
        scrape.text.head(family)
        for value, number in numbers.items():
            scrape.text.column(family, scrape.tags, map(number, scrape.series), f',{label}="{value}"')

    return write


def _task_histogram(histogram_of: Callable[[TaskSeries], Histogram]) -> Writer:
    def write(scrape: Scrape, family: Family) -> None:
        scrape.text.head(family)
        templates = scrape.kept.templates
        for series, tag in zip(scrape.series, scrape.tags, strict=True):
            histogram = histogram_of(series)
            template = templates.get((family.name, series))
            if template is None:
                template = histogram_template(family.name, tag, histogram.bounds)
                templates[family.name, series] = template
            scrape.text.add(fill(template, histogram))

    return write


def _failed(scrape: Scrape, family: Family) -> None:
    """Failures; with `--compat` by exception, whose values add up to what is there without it."""
    scrape.text.head(family)
    if scrape.kept.failures is None:
        scrape.text.column(family, scrape.tags, (series.failed for series in scrape.series))
        return
    for series, tag in zip(scrape.series, scrape.tags, strict=True):
        by_class = scrape.kept.failures.by_class(series, scrape.now)
        scrape.text.column(family, [tag], [series.failed - sum(by_class.values())])
        _write_by_class(scrape, family, tag, by_class)


def _exceptions(scrape: Scrape, family: Family) -> None:
    scrape.text.head(family)
    for series, tag in zip(scrape.series, scrape.tags, strict=True):
        counts: Mapping[str, int] = series.exceptions
        if series.retry_exceptions:
            counts = Counter(series.exceptions) + Counter(series.retry_exceptions)
        if counts:
            _write_by_class(scrape, family, tag, counts)


def _write_by_class(scrape: Scrape, family: Family, tag: str, counts: Mapping[str, int]) -> None:
    tags = [f"{tag},{labels(('exception',), (exception,))}" for exception in counts]
    scrape.text.column(family, tags, counts.values())


def _failed_runtime(scrape: Scrape, family: Family) -> None:
    scrape.text.head(family)
    name = family.name
    for series, tag in zip(scrape.series, scrape.tags, strict=True):
        total, count = series.failed_runtime_sum, series.failed_runtime_count
        scrape.text.add(f"{name}_sum{{{tag}}} {total!r}\n{name}_count{{{tag}}} {count}\n")


def _oldest_start(scrape: Scrape, family: Family) -> None:
    scrape.text.head(family)
    oldest = scrape.in_progress.oldest
    known = [(tag, oldest[series]) for series, tag in zip(scrape.series, scrape.tags, strict=True) if series in oldest]
    scrape.text.column(family, [tag for tag, _ in known], (start for _, start in known))


def _task_busy(scrape: Scrape, family: Family) -> None:
    scrape.text.head(family)
    running = scrape.in_progress.busy
    scrape.text.column(family, scrape.tags, (series.busy.seconds(running.get(series, 0.0)) for series in scrape.series))


def _worker_busy(scrape: Scrape) -> Rows:
    running = scrape.in_progress.worker_busy
    return {worker.hostname: worker.busy.seconds(running.get(worker.hostname, 0.0)) for worker in scrape.workers}


def _throughput(scrape: Scrape, family: Family) -> None:
    scrape.text.head(family)
    scrape.text.column(family, scrape.tags, (rate for rate, _ in scrape.rates))


def _error_ratio(scrape: Scrape, family: Family) -> None:
    scrape.text.head(family)
    known = [(tag, ratio) for tag, (_, ratio) in zip(scrape.tags, scrape.rates, strict=True) if ratio is not None]
    scrape.text.column(family, [tag for tag, _ in known], (ratio for _, ratio in known))


# Writers for schedules


def _schedules(value: Callable[[Schedule], float | None]) -> Writer:
    """A value of every schedule."""
    return lambda scrape, family: scrape.text.rows(
        family, [(schedule.labels, value(schedule)) for schedule in scrape.tracker.schedules]
    )


def _lateness(scrape: Scrape, family: Family) -> None:
    schedules = list(scrape.tracker.schedules)
    if schedules:
        scrape.text.head(family)
    for schedule in schedules:
        tag = labels(family.labels, schedule.labels)
        template = histogram_template(family.name, tag, schedule.lateness.bounds)
        scrape.text.add(fill(template, schedule.lateness))


def _beats(value: Callable[[Scrape], Rows]) -> Writer:
    """A value of every beat; unknown while our own subscription is down."""
    return _values(lambda scrape: value(scrape) if scrape.tracker.connected_at is not None else {})


# Writers for single families


def _worker_up(scrape: Scrape, family: Family) -> None:
    """Liveness is unknown, hence absent, while our own subscription is down."""
    if scrape.tracker.connected_at is not None:
        up: dict[str, float | None] = {worker.hostname: int(worker.up) for worker in scrape.workers}
        if scrape.tracker.workers.other_seen is not None:
            up[OTHER] = 1
        scrape.text.values(family, up)


def _worker_shutdown(scrape: Scrape, family: Family) -> None:
    if scrape.tracker.connected_at is not None:
        scrape.text.values(family, {worker.hostname: int(worker.shut_down) for worker in scrape.workers})


def _worker_info(scrape: Scrape, family: Family) -> None:
    scrape.text.rows(
        family, [((worker.hostname, worker.version, worker.pool, worker.mode), 1) for worker in scrape.workers]
    )


def _application_info(scrape: Scrape, family: Family) -> None:
    given = [worker for worker in scrape.workers if worker.application]
    scrape.text.rows(family, [((worker.hostname, worker.application), 1) for worker in given])


def _unacked(scrape: Scrape) -> Rows:
    unacked = scrape.by_queue(lambda queue: queue.unacked)
    if scrape.queues is not None:
        for label, count in ((OTHER, scrape.queues.unacked_other), (UNKNOWN, scrape.queues.unacked_unknown)):
            if count:
                unacked[label] = (unacked.get(label) or 0) + count
    return unacked


def _oldest_task(scrape: Scrape, family: Family) -> None:
    """Send time of each queue's oldest message from the best source: its stamp, its event, or the first poll."""
    oldest: dict[tuple[str, ...], float | None] = {}
    for queue in scrape.queues.queues if scrape.queues is not None else ():
        if (head := queue.head) is None:
            continue
        sent_at, source = head.seen_since, "observed"
        if head.stamped_at is not None:
            sent_at, source = head.stamped_at, "stamp"
        elif head.uuid is not None and (by_event := scrape.tracker.tasks.sent_at(head.uuid)) is not None:
            sent_at, source = by_event, "event"
        key = (scrape.tracker.task_series.queue(queue.name), source)
        oldest[key] = min(sent_at, oldest.get(key) or sent_at)
    scrape.text.rows(family, oldest.items())


def _oldest_unacked(scrape: Scrape) -> Rows:
    least: dict[str, float | None] = {}
    for queue in scrape.queues.queues if scrape.queues is not None else ():
        if queue.oldest_unacked_at is not None:
            label = scrape.tracker.task_series.queue(queue.name)
            least[label] = min(queue.oldest_unacked_at, least.get(label) or queue.oldest_unacked_at)
    return least


def _consumers(scrape: Scrape) -> Rows:
    """Workers that list each queue; where that is not known what the broker itself counts."""
    return {**scrape.by_queue(lambda queue: queue.consumers), **scrape.by_consumed_queue(lambda _: 1)}


def _free_slots(scrape: Scrape) -> Rows:
    """Slots without a run; by heartbeats where a worker sends no task events."""
    taken = {
        worker.hostname: scrape.in_progress.by_worker[worker.hostname] if not worker.loss.off else worker.active or 0
        for worker in scrape.up
    }
    return scrape.by_consumed_queue(lambda state: max(0, (state.slots or 0) - taken.get(state.hostname, 0)))


def _visibility(scrape: Scrape) -> float | None:
    return scrape.tracker.visibility_timeout() if scrape.queues is not None else None


def _memory(value: Callable[[BrokerMemory], int | None]) -> Writer:
    return _single(lambda scrape: value(scrape.queues.memory) if scrape.queues is not None else None)


def _evicted(scrape: Scrape) -> float | None:
    """A counter stays, however old the last poll is."""
    return scrape.tracker.queues.memory.evicted if scrape.tracker.queues is not None else None


def _build_info(scrape: Scrape, family: Family) -> None:
    build = scrape.kept.build
    scrape.text.rows(family, [((build.version, build.python, build.celery), 1)])


def _event_lag(scrape: Scrape, family: Family) -> None:
    scrape.text.histogram(family, scrape.tracker.lag)


def _of(counts: Mapping[str, int], names: Iterable[str]) -> Rows:
    """The counts of these names, 0 where nothing was counted."""
    return {name: counts.get(name, 0) for name in names}


def _plain_counters() -> Iterator[tuple[Family, str]]:
    """Yield each ``celery_task_X_total`` by task and queue whose ``X`` is a field of `TaskSeries`, and ``X``."""
    for family in FAMILIES:
        name = family.name.removeprefix("celery_task_").removesuffix("_total")
        if family.kind == "counter" and family.labels == m.TASK and name in TaskSeries.__slots__:
            yield family, name


WRITERS: Mapping[Family, Writer] = {
    **{family: _tasks(attrgetter(name)) for family, name in _plain_counters()},
    m.TASK_FAILED: _failed,
    m.TASK_POLLED: _tasks(lambda series: series.polled),
    m.TASK_REJECTED: _tasks_by(
        "requeue", true=lambda series: series.rejected_requeued, false=lambda series: series.rejected_end
    ),
    m.TASK_WITHOUT_RESULT: _tasks(lambda series: series.without_result),
    m.TASK_REVOKED: _tasks_by(
        "reason",
        revoked=lambda series: series.revoked,
        terminated=lambda series: series.revoked_terminated,
        expired=lambda series: series.revoked_expired,
    ),
    m.TASK_ACCEPTED: _values(lambda scrape: dict(scrape.tracker.workers.accepted)),
    m.TASK_EXCEPTIONS: _exceptions,
    m.TASK_RUNTIME: _task_histogram(lambda series: series.runtime),
    m.TASK_FAILED_RUNTIME: _failed_runtime,
    m.TASK_WAIT: _task_histogram(lambda series: series.wait),
    m.TASK_IN_PROGRESS: _tasks(lambda series: series.in_progress),
    m.TASK_OLDEST_START: _oldest_start,
    m.TASK_BUSY: _task_busy,
    m.TASK_LAST_SUCCESS: _values(lambda scrape: scrape.tracker.tasks.counts.last_success),
    m.TASK_THROUGHPUT: _throughput,
    m.TASK_ERROR_RATIO: _error_ratio,
    m.WORKER_UP: _worker_up,
    m.WORKER_SHUTDOWN: _worker_shutdown,
    m.WORKER_FIRST_SEEN: _workers(lambda worker: worker.first_seen),
    m.WORKER_LAST_HEARTBEAT: _workers(lambda worker: worker.last_heartbeat),
    m.WORKER_ACTIVE: _up_workers(lambda worker: worker.active),
    m.WORKER_PROCESSED: _workers(lambda worker: worker.processed_total),
    m.WORKER_BUSY: _values(_worker_busy),
    m.WORKER_RESERVED: _held_tasks(lambda state: state.reserved),
    m.WORKER_SCHEDULED: _held_tasks(lambda state: state.scheduled),
    m.WORKER_POOL_SIZE: _replies(lambda state: state.slots),
    m.WORKER_LOAD1: _up_workers(lambda worker: worker.load1),
    m.WORKER_CLOCK_OFFSET: _workers(lambda worker: worker.offset),
    m.WORKER_TASK_EVENTS: _up_workers(lambda worker: int(not worker.loss.off)),
    m.WORKER_INFO: _worker_info,
    m.WORKER_APPLICATION: _application_info,
    m.QUEUE_LENGTH: _by_queue(lambda queue: queue.length),
    m.QUEUE_UNACKED: _values(_unacked),
    m.QUEUE_OLDEST_TASK: _oldest_task,
    m.QUEUE_OLDEST_UNACKED: _values(_oldest_unacked),
    m.QUEUE_CONSUMERS: _values(_consumers),
    m.QUEUE_SLOTS: _by_consumed_queue(lambda state: state.slots),
    m.QUEUE_FREE_SLOTS: _values(_free_slots),
    m.DELAYED: _single(lambda scrape: scrape.queues.delayed if scrape.queues is not None else None),
    m.QUEUE_VISIBILITY: _single(_visibility),
    m.BEAT_UP: _beats(lambda scrape: {name: int(up) for name, up in scrape.tracker.schedules.up(scrape.now).items()}),
    m.BEAT_LAG: _beats(lambda scrape: {name: beat.lag for name, beat in scrape.tracker.schedules.newest().items()}),
    m.BEAT_DUPLICATE: _beats(
        lambda scrape: {name: int(same) for name, same in scrape.tracker.schedules.duplicates(scrape.now).items()}
    ),
    m.SCHEDULE_ENTRIES: _beats(
        lambda scrape: {name: beat.count for name, beat in scrape.tracker.schedules.newest().items()}
    ),
    m.SCHEDULE_DUE: _schedules(lambda schedule: schedule.due),
    m.SCHEDULE_SENT: _schedules(lambda schedule: schedule.sent),
    m.SCHEDULE_FAILED: _schedules(lambda schedule: schedule.failed),
    m.SCHEDULE_RUNS_SUCCEEDED: _schedules(lambda schedule: schedule.runs_succeeded),
    m.SCHEDULE_RUNS_FAILED: _schedules(lambda schedule: schedule.runs_failed),
    m.SCHEDULE_FAILURES: _schedules(lambda schedule: schedule.failures),
    m.SCHEDULE_LATENESS: _lateness,
    m.SCHEDULE_INTERVAL: _schedules(lambda schedule: schedule.every),
    m.SCHEDULE_LAST_SENT: _schedules(lambda schedule: schedule.last_sent_at),
    m.SCHEDULE_NEXT_DUE: _schedules(lambda schedule: schedule.due_at),
    m.SCHEDULE_LAST_SUCCESS: _schedules(lambda schedule: schedule.last_success_at),
    m.BROKER_MEMORY_USED: _memory(lambda memory: memory.used),
    m.BROKER_MEMORY_MAX: _memory(lambda memory: memory.limit),
    m.BROKER_EVICTED: _single(_evicted),
    m.BROKER_BLOCKED: _memory(lambda memory: None if memory.blocked is None else int(memory.blocked)),
    m.BROKER_ORPHANED: _memory(lambda memory: memory.orphaned),
    m.BUILD_INFO: _build_info,
    m.START_TIME: _single(lambda scrape: scrape.tracker.started_at),
    m.BROKER_UP: _single(lambda scrape: int(scrape.tracker.connected_at is not None)),
    m.WORKER_DUPLICATE: _workers(lambda worker: int(worker.duplicate)),
    m.RECONNECTS: _single(lambda scrape: scrape.tracker.reconnects),
    m.EVENTS: _values(lambda scrape: scrape.tracker.event_counts),
    m.EVENTS_INVALID: _values(lambda scrape: dict(scrape.tracker.rejections)),
    m.EVENTS_MISSED: _workers(lambda worker: worker.loss.missed),
    m.EVENTS_UNEXPLAINED: _workers(lambda worker: worker.loss.unexplained),
    m.EVENTS_DUPLICATE: _values(lambda scrape: _of(scrape.tracker.tasks.counts.duplicates, ENDS)),
    m.EVENT_LAG: _event_lag,
    m.LAST_EVENT: _single(lambda scrape: scrape.tracker.last_event_at),
    m.WAITS_UNMEASURED: _values(lambda scrape: _of(scrape.tracker.tasks.counts.waits_unmeasured, UNMEASURED)),
    m.TRACKED: _single(lambda scrape: len(scrape.tracker.tasks.runs)),
    m.EVICTED: _values(lambda scrape: _of(scrape.tracker.tasks.runs.evicted, EVICTIONS)),
    m.SERIES: _single(lambda scrape: scrape.kept.series),
    m.FOLDED: _values(lambda scrape: _of(scrape.tracker.task_series.folded, FOLDED)),
    m.NAMES_CUT: _values(lambda scrape: _of(scrape.tracker.task_series.cut, CUT)),
    m.POLL_SUCCESS: _values(lambda scrape: {name: int(poll.success) for name, poll in scrape.tracker.polls.items()}),
    m.POLL_DURATION: _values(lambda scrape: {name: poll.duration for name, poll in scrape.tracker.polls.items()}),
    m.POLL_LAST_SUCCESS: _values(lambda scrape: scrape.tracker.poll_successes),
    # with --compat celery-exporter: what its users query, and we lack under that name
    m.COMPAT_RUNTIME: _task_histogram(lambda series: series.runtime),
    m.COMPAT_WAIT: _task_histogram(lambda series: series.wait),
    m.COMPAT_CONSUMERS: _by_queue(lambda queue: queue.consumers),
    m.COMPAT_WORKERS: _by_consumed_queue(lambda _: 1),
    m.COMPAT_PROCESSES: _by_consumed_queue(lambda state: state.slots),
}
