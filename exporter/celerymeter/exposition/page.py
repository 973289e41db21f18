"""The page: every family of the catalogue, in its order, and where its samples come from.

`WRITERS` has a row for each family, except counters that are a field of `TaskSeries`. Unknown is absent: a row
without a value is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter

from celerymeter import metrics as m
from celerymeter.exposition import queue_writers as queues
from celerymeter.exposition import task_writers as tasks
from celerymeter.exposition.scrape import Build, FailuresByClass, Kept, Scrape
from celerymeter.exposition.text import fill, histogram_template, labels
from celerymeter.exposition.writers import (
    Rows,
    Writer,
    by_consumed_queue,
    by_queue,
    by_recent_reply,
    by_reply,
    by_up_worker,
    by_worker,
    single,
    values,
)
from celerymeter.metrics import Family
from celerymeter.model import OTHER
from celerymeter.tracking.beats import Schedule
from celerymeter.tracking.series import TaskSeries
from celerymeter.tracking.tracker import Tracker

FAMILIES = tuple(family for family in m.CATALOGUE if family.area != "control")
"""The control API has a page of its own."""
EVICTIONS = ("limit", "age", "vanished", "superseded")
FOLDED = ("name", "queue_name", "exception", "hostname", "pair", "shadow", "schedule")
CUT = ("name", "queue_name", "exception", "hostname", "event")
ENDS = ("task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked")
UNMEASURED = ("not_sent", "clock_offset", "eta", "negative")


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


# Writers for workers


def _worker_busy(scrape: Scrape) -> Rows:
    running = scrape.in_progress.worker_busy
    return {worker.hostname: worker.busy.seconds(running.get(worker.hostname, 0.0)) for worker in scrape.workers}


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
    return values(lambda scrape: value(scrape) if scrape.tracker.connected_at is not None else {})


# Writers for the exporter itself


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
    **{family: tasks.number(attrgetter(name)) for family, name in _plain_counters()},
    m.TASK_FAILED: tasks.failed,
    m.TASK_POLLED: tasks.number(lambda series: series.polled),
    m.TASK_REJECTED: tasks.number_by(
        "requeue", true=lambda series: series.rejected_requeued, false=lambda series: series.rejected_end
    ),
    m.TASK_WITHOUT_RESULT: tasks.number(lambda series: series.without_result),
    m.TASK_REVOKED: tasks.number_by(
        "reason",
        revoked=lambda series: series.revoked,
        terminated=lambda series: series.revoked_terminated,
        expired=lambda series: series.revoked_expired,
    ),
    m.TASK_ACCEPTED: values(lambda scrape: dict(scrape.tracker.workers.accepted)),
    m.TASK_EXCEPTIONS: tasks.exceptions,
    m.TASK_RUNTIME: tasks.histogram(lambda series: series.runtime),
    m.TASK_FAILED_RUNTIME: tasks.failed_runtime,
    m.TASK_WAIT: tasks.histogram(lambda series: series.wait),
    m.TASK_IN_PROGRESS: tasks.number(lambda series: series.in_progress),
    m.TASK_OLDEST_START: tasks.oldest_start,
    m.TASK_BUSY: tasks.busy,
    m.TASK_LAST_SUCCESS: values(lambda scrape: scrape.tracker.tasks.counts.last_success),
    m.TASK_THROUGHPUT: tasks.throughput,
    m.TASK_ERROR_RATIO: tasks.error_ratio,
    m.WORKER_UP: _worker_up,
    m.WORKER_SHUTDOWN: _worker_shutdown,
    m.WORKER_FIRST_SEEN: by_worker(lambda worker: worker.first_seen),
    m.WORKER_LAST_HEARTBEAT: by_worker(lambda worker: worker.last_heartbeat),
    m.WORKER_ACTIVE: by_up_worker(lambda worker: worker.active),
    m.WORKER_PROCESSED: by_worker(lambda worker: worker.processed_total),
    m.WORKER_BUSY: values(_worker_busy),
    m.WORKER_RESERVED: by_recent_reply(lambda state: state.reserved),
    m.WORKER_SCHEDULED: by_recent_reply(lambda state: state.scheduled),
    m.WORKER_POOL_SIZE: by_reply(lambda state: state.slots),
    m.WORKER_LOAD1: by_up_worker(lambda worker: worker.load1),
    m.WORKER_CLOCK_OFFSET: by_worker(lambda worker: worker.offset),
    m.WORKER_TASK_EVENTS: by_up_worker(lambda worker: int(not worker.loss.off)),
    m.WORKER_INFO: _worker_info,
    m.WORKER_APPLICATION: _application_info,
    m.QUEUE_LENGTH: by_queue(lambda queue: queue.length),
    m.QUEUE_UNACKED: values(queues.unacked),
    m.QUEUE_OLDEST_TASK: queues.oldest_task,
    m.QUEUE_OLDEST_UNACKED: values(queues.oldest_unacked),
    m.QUEUE_CONSUMERS: values(queues.consumers),
    m.QUEUE_SLOTS: by_consumed_queue(lambda state: state.slots),
    m.QUEUE_FREE_SLOTS: values(queues.free_slots),
    m.DELAYED: single(lambda scrape: scrape.queues.delayed if scrape.queues is not None else None),
    m.QUEUE_VISIBILITY: single(queues.visibility),
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
    m.BROKER_MEMORY_USED: queues.memory(lambda memory: memory.used),
    m.BROKER_MEMORY_MAX: queues.memory(lambda memory: memory.limit),
    m.BROKER_EVICTED: single(_evicted),
    m.BROKER_BLOCKED: queues.memory(lambda memory: None if memory.blocked is None else int(memory.blocked)),
    m.BROKER_ORPHANED: queues.memory(lambda memory: memory.orphaned),
    m.BUILD_INFO: _build_info,
    m.START_TIME: single(lambda scrape: scrape.tracker.started_at),
    m.BROKER_UP: single(lambda scrape: int(scrape.tracker.connected_at is not None)),
    m.WORKER_DUPLICATE: by_worker(lambda worker: int(worker.duplicate)),
    m.RECONNECTS: single(lambda scrape: scrape.tracker.reconnects),
    m.EVENTS: values(lambda scrape: scrape.tracker.event_counts),
    m.EVENTS_INVALID: values(lambda scrape: dict(scrape.tracker.rejections)),
    m.EVENTS_MISSED: by_worker(lambda worker: worker.loss.missed),
    m.EVENTS_UNEXPLAINED: by_worker(lambda worker: worker.loss.unexplained),
    m.EVENTS_DUPLICATE: values(lambda scrape: _of(scrape.tracker.tasks.counts.duplicates, ENDS)),
    m.EVENT_LAG: _event_lag,
    m.LAST_EVENT: single(lambda scrape: scrape.tracker.last_event_at),
    m.WAITS_UNMEASURED: values(lambda scrape: _of(scrape.tracker.tasks.counts.waits_unmeasured, UNMEASURED)),
    m.TRACKED: single(lambda scrape: len(scrape.tracker.tasks.runs)),
    m.EVICTED: values(lambda scrape: _of(scrape.tracker.tasks.runs.evicted, EVICTIONS)),
    m.SERIES: single(lambda scrape: scrape.kept.series),
    m.FOLDED: values(lambda scrape: _of(scrape.tracker.task_series.folded, FOLDED)),
    m.NAMES_CUT: values(lambda scrape: _of(scrape.tracker.task_series.cut, CUT)),
    m.POLL_SUCCESS: values(lambda scrape: {name: int(poll.success) for name, poll in scrape.tracker.polls.items()}),
    m.POLL_DURATION: values(lambda scrape: {name: poll.duration for name, poll in scrape.tracker.polls.items()}),
    m.POLL_LAST_SUCCESS: values(lambda scrape: scrape.tracker.poll_successes),
    # with --compat celery-exporter: what its users query, and we lack under that name
    m.COMPAT_RUNTIME: tasks.histogram(lambda series: series.runtime),
    m.COMPAT_WAIT: tasks.histogram(lambda series: series.wait),
    m.COMPAT_CONSUMERS: by_queue(lambda queue: queue.consumers),
    m.COMPAT_WORKERS: by_consumed_queue(lambda _: 1),
    m.COMPAT_PROCESSES: by_consumed_queue(lambda state: state.slots),
}
