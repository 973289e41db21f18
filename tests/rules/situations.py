"""Healthy situations and real incidents, each in a cluster of its own, as series for promtool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.rules.swings import END, Series, Value, always, counter, gauge, moment

QUEUE = {"queue_name": "orders"}
TASK = {"name": "shop.pay", **QUEUE}
EXPECTED = Mapping[str, str]
"""Severity by alert name; two severities of one alert as ``warning critical``."""


@dataclass(frozen=True, slots=True)
class Situation:
    """The series of a cluster for four hours, and every alert above info that may fire in it, by severity."""

    name: str
    series: tuple[Series, ...]
    fires: EXPECTED = field(default_factory=dict)


def timeline(at: Callable[[int], Value]) -> list[Value]:
    """Return a value for each minute."""
    return [at(minute) for minute in range(END + 1)]


@dataclass(frozen=True, slots=True)
class Life:
    """Minutes in which a worker is up, and announced its shutdown, and the minute in which it was first seen."""

    up: Callable[[int], Value] = lambda _: 1
    shutdown: Callable[[int], Value] = lambda _: 0
    since: int = -120


ALWAYS = Life()


def worker(
    hostname: str,
    life: Life = ALWAYS,
    *,
    slots: int = 4,
    busy: float = 0,
    reserved: float = 0,
    scheduled: float = 0,
    processed: float = 1,
    heartbeats: bool = True,
) -> tuple[Series, ...]:
    """Return the series of one worker; ``busy`` slots on average, ``processed`` runs begun a minute."""
    own = {"hostname": hostname}
    there = timeline(life.up)
    alive = [1.0 if value == 1 else None for value in there]
    series = (
        gauge("celery_worker_up", there, **own),
        gauge("celery_worker_shutdown", [None if v is None else life.shutdown(m) for m, v in enumerate(there)], **own),
        gauge(
            "celery_worker_first_seen_timestamp_seconds",
            [None if v is None else 60.0 * life.since for v in there],
            **own,
        ),
        gauge("celery_worker_pool_size", [None if v is None else slots for v in alive], **own),
        gauge("celery_worker_tasks_reserved", [None if v is None else reserved for v in alive], **own),
        gauge("celery_worker_tasks_scheduled", [None if v is None else scheduled for v in alive], **own),
        counter("celery_worker_busy_seconds_total", always(60 * busy), **own),
    )
    if not heartbeats:
        return series
    return (
        *series,
        moment("celery_worker_last_heartbeat_timestamp_seconds", always(1), **own),
        gauge("celery_worker_tasks_active", [None if v is None else busy for v in alive], **own),
        counter("celery_worker_tasks_processed_total", always(processed), **own),
    )


def queue(
    name: str = "orders",
    *,
    length: Callable[[int], Value] = lambda _: 0,
    age: Callable[[int], Value] | None = None,
    consumers: Callable[[int], Value] = lambda _: 1,
    slots: int = 4,
    free: Callable[[int], Value] = lambda _: 4,
) -> tuple[Series, ...]:
    """Return the series of one queue; ``age`` of its oldest message in seconds."""
    own = {"queue_name": name}
    series = (
        gauge("celery_queue_length", timeline(length), **own),
        gauge("celery_queue_consumers", timeline(consumers), **own),
        gauge("celery_queue_pool_slots", always(slots), **own),
        gauge("celery_queue_free_slots", timeline(free), **own),
    )
    if age is None:
        return series
    then = [None if seconds is None else 60 * minute - seconds for minute, seconds in enumerate(timeline(age))]
    return (*series, gauge("celery_queue_oldest_task_timestamp_seconds", then, **own, source="stamp"))


def runs(per_minute: Callable[[int], Value] = lambda _: 10, /, ended: float = 1.0, **labels: str) -> tuple[Series, ...]:
    """Return the counters of a task that is sent, received, started and succeeds (a share of its runs)."""
    own = {**TASK, **labels}
    steps = timeline(per_minute)
    return (
        *(counter(f"celery_task_{what}_total", steps, **own) for what in ("sent", "received", "started")),
        counter("celery_task_succeeded_total", [(step or 0) * ended for step in steps], **own),
        counter("celery_task_failed_total", always(0), **own),
    )


def silent(
    sent: Callable[[int], Value] = lambda _: 10, received: Callable[[int], Value] = lambda _: 0
) -> tuple[Series, ...]:
    """Return the counters of a task with ``send_events=False``, in the queue of the others."""
    own = {"name": "shop.log"}
    return (
        counter("celery_task_sent_total", timeline(sent), **own, **QUEUE),
        counter("celery_task_received_total", timeline(received), **own, **QUEUE),
        counter("celery_task_accepted_total", timeline(sent), **own),
        counter("celery_task_accepted_total", always(10), name=TASK["name"]),
    )


def between(begin: int, end: int, inside: Value, outside: Value = 0) -> Callable[[int], Value]:
    """Return a timeline with one value from ``begin`` until before ``end`` and another elsewhere."""
    return lambda minute: inside if begin <= minute < end else outside


def goodbye(at: int) -> Life:
    """A worker that announces its shutdown; it is forgotten after an hour."""
    return Life(
        up=lambda minute: 1 if minute < at else 0 if minute < at + 60 else None,
        shutdown=lambda minute: 1 if minute >= at else 0,
    )


def killed(at: int) -> Life:
    """A worker that disappears; it is forgotten after an hour."""
    return Life(up=lambda minute: 1 if minute < at else 0 if minute < at + 60 else None)


def born(at: int) -> Life:
    """A worker that starts in minute ``at``."""
    return Life(up=lambda minute: 1 if minute >= at else None, since=at)


def scaled(number: int) -> Life:
    """One of the workers that an autoscaler stops for five minutes of twenty."""
    return Life(
        up=lambda minute: 1 if (minute // 5 + number) % 4 < 3 else 0,
        shutdown=lambda minute: 0 if (minute // 5 + number) % 4 < 3 else 1,
    )


BASE_GONE = worker("celery@base", goodbye(30))
"""The worker that every cluster has, scaled away."""


def _batch(minute: int) -> float:
    """Return the length of a queue that gets 3,000 messages at once and processes 30 a minute."""
    return max(0.0, 3000 - 30 * (minute - 29)) if minute >= 30 else 0.0


def _burst(minute: int) -> float:
    """Return the length of a queue that gets 300 messages every hour and processes 30 a minute."""
    return max(0.0, 300 - 30 * (minute % 60))


ENTRY = {"schedule": "sync", "name": "shop.sync"}


def schedule(sent: Callable[[int], bool], *, up: Callable[[int], Value] = lambda _: 1) -> tuple[Series, ...]:
    """Return the series of a beat and of one entry that is due every five minutes, ``sent`` unless that says no."""
    due: list[Value] = []
    for minute in range(END + 1):
        before = due[-1] if due else 0.0
        late = (before or 0.0) <= 60 * minute
        due.append(60.0 * (minute + 5) if late and sent(minute) else before)
    return (
        gauge("celery_beat_up", timeline(up), hostname="celerybeat@a"),
        gauge("celery_beat_duplicate", always(0), hostname="celerybeat@a"),
        counter("celery_schedule_due_total", always(0.2), **ENTRY),
        gauge("celery_schedule_next_due_timestamp_seconds", due, **ENTRY),
        gauge("celery_schedule_consecutive_failures", always(0), **ENTRY),
    )


HEALTHY = (
    Situation(
        "beat is replaced within a minute, ten times",
        (*queue(), *runs(), *schedule(lambda m: m % 20 > 0, up=lambda m: 0 if m % 20 == 0 else 1)),
    ),
    Situation("scaled to zero", (*BASE_GONE, *queue(consumers=between(0, 30, 1), free=between(0, 30, 4)))),
    Situation(
        "long tasks of one queue fill the only workers of another",
        (
            *worker("celery@a", busy=4),
            *worker("celery@idle"),
            *queue("imports", free=lambda _: 0),
            *queue("orders", length=lambda _: 3, age=lambda minute: 60.0 * (minute % 20), free=lambda _: 0),
            *queue("mail"),
            *runs(lambda minute: 1 if minute % 20 == 0 else 0),
        ),
    ),
    Situation(
        "one export of 20 minutes",
        (
            *runs(between(40, 41, 1)),
            *(
                counter("celery_task_runtime_seconds_bucket", timeline(between(60, 61, 1)), **TASK, le=le)
                for le in ("3600.0", "+Inf")
            ),
            counter("celery_task_runtime_seconds_count", timeline(between(60, 61, 1)), **TASK),
            gauge("celery_task_oldest_start_timestamp_seconds", timeline(between(40, 60, 2400, None)), **TASK),
        ),
    ),
    Situation(
        "tasks of an hour fill a worker that has prefetched more",
        (
            *worker("celery@a", busy=4, reserved=16, processed=0),
            *worker("celery@idle", processed=0),
            *queue(free=lambda _: 0),
            *runs(lambda minute: 4 if minute % 60 == 0 else 0),
        ),
    ),
    Situation(
        "a disused queue with one message, ten workers",
        (
            *(series for number in range(10) for series in worker(f"celery@{number}")),
            *queue(
                "disused",
                length=lambda _: 1,
                age=lambda minute: 86400 + 60.0 * minute,
                consumers=lambda _: 0,
                free=lambda _: 0,
            ),
            *queue(),
        ),
    ),
    Situation(
        "a nightly batch of 3,000 messages that is processed in 100 minutes",
        (
            *worker("celery@a", busy=4),
            *queue(
                length=_batch, age=lambda m: 60.0 * (m - 30) if 30 <= m < 130 else None, free=between(30, 130, 0, 4)
            ),
            *runs(between(30, 130, 30))[1:],
            counter("celery_task_sent_total", timeline(between(30, 31, 3000)), **TASK),
        ),
        {"CeleryQueueBacklog": "warning", "CeleryQueueHeadOld": "warning"},
    ),
    Situation(
        "hourly bursts of 300 messages that are processed in 10 minutes",
        (
            *worker("celery@a", busy=2),
            *queue(length=_burst, age=lambda m: 60.0 * (m % 60) if m % 60 < 10 else None),
            *runs(lambda minute: 30 if minute % 60 < 10 else 0),
        ),
        {"CeleryQueueBacklog": "warning"},
    ),
    Situation(
        "five pods killed and replaced within a minute",
        (
            *(series for number in range(5) for series in worker(f"celery@old{number}", killed(60))),
            *(series for number in range(5) for series in worker(f"celery@new{number}", born(61))),
            *queue(),
            *runs(),
        ),
    ),
    Situation(
        "a killed pod whose replacement is scaled away",
        (
            *worker("celery@old", killed(60)),
            *worker(
                "celery@new",
                Life(
                    up=lambda m: 1 if 61 <= m < 70 else 0 if 70 <= m < 130 else None,
                    shutdown=lambda m: 1 if m >= 70 else 0,
                    since=61,
                ),
            ),
            *queue(),
            *runs(),
        ),
    ),
    Situation(
        "a deploy that takes longer than its grace period",
        (
            *(series for number in range(3) for series in worker(f"celery@old{number}", goodbye(60))),
            *(series for number in range(3) for series in worker(f"celery@new{number}", born(62))),
            *queue(),
            *runs(),
        ),
    ),
    Situation(
        "idle workers without heartbeats",
        (
            *worker("celery@base", heartbeats=False),
            moment("celerymeter_last_event_timestamp_seconds", timeline(lambda minute: 60.0 * minute)),
            *queue(),
        ),
    ),
    Situation(
        "a task that polls with self.retry(), and chords",
        (
            *runs(lambda _: 31, ended=1 / 31),
            counter("celery_task_retried_total", always(30), **TASK),
            counter("celery_task_retried_without_exception_total", always(30), **TASK),
            *runs(lambda _: 60, ended=1 / 60, name="celery.chord_unlock"),
            counter("celery_task_retried_total", always(59), **{**TASK, "name": "celery.chord_unlock"}),
            counter(
                "celery_task_retried_without_exception_total", always(59), **{**TASK, "name": "celery.chord_unlock"}
            ),
        ),
    ),
    Situation(
        "hour-long tasks with acks late, and the visibility timeout of the workers",
        (
            *worker("celery@a", busy=4),
            *queue(free=lambda _: 0),
            *runs(lambda minute: 4 if minute % 60 == 0 else 0),
            gauge("celery_queue_visibility_timeout_seconds", always(86400)),
            moment("celery_queue_oldest_unacked_timestamp_seconds", timeline(lambda m: 60.0 * (m % 60)), **QUEUE),
        ),
    ),
    Situation(
        "a warm shutdown of 20 minutes",
        (
            *worker("celery@a", goodbye(60), busy=1),
            *worker("celery@b", busy=2),
            *queue(),
            *runs(),
            gauge("celery_task_in_progress", timeline(between(0, 80, 2, 1)), **TASK),
        ),
    ),
    Situation("a quiet night", (*queue(), *queue("mail"), *runs(between(0, 30, 10)))),
    Situation(
        "a shop that never set task_send_sent_event",
        (*worker("celery@a", busy=1), *queue(length=lambda m: m % 3), *runs()[1:]),
    ),
    Situation("half of the tasks send no events", (*queue(), *runs(), *silent())),
    Situation(
        "half of the tasks send no events since a pause of an hour",
        (*queue(), *runs(), *silent(between(10, 80, 0, 10), received=between(0, 10, 10))),
    ),
    Situation(
        "half of the tasks are run by celery-batches",
        (*queue(), *runs(), *(series for series in silent() if series.name != "celery_task_accepted_total")),
    ),
    Situation(
        "half of the tasks wait in RabbitMQ for an ETA of two hours",
        (
            *queue(),
            *runs(lambda minute: 10 if minute < 150 else 20)[1:],
            counter("celery_task_sent_total", timeline(between(30, 240, 20, 10)), **TASK),
            gauge("celery_delayed_tasks", timeline(lambda m: 10 * min(m - 30, 120) if m > 30 else None)),
        ),
    ),
    Situation(
        "the management API fails while tasks wait for their ETA",
        (
            *queue(),
            *runs()[1:],
            counter("celery_task_sent_total", timeline(between(30, 60, 20, 10)), **TASK),
            gauge("celery_delayed_tasks", timeline(lambda m: 10 * (m - 30) if 30 < m < 60 else 0 if m <= 30 else None)),
        ),
    ),
    Situation(
        "a backlog grows by 3,000 messages a minute, and its length is read half a minute late",
        (
            *worker("celery@a", busy=4),
            *queue(length=lambda m: max(0.0, 3000 * (m - 30.5)), free=lambda _: 0),
            *runs(lambda _: 3000)[1:],
            counter("celery_task_sent_total", timeline(between(31, 240, 6000, 3000)), **TASK),
        ),
        {"CeleryQueueBacklog": "warning", "CeleryQueueWillNotDrain": "warning"},
    ),
    Situation(
        "20 workers that are scaled up and down every few minutes",
        (
            *(series for number in range(20) for series in worker(f"celery@{number}", scaled(number), busy=2)),
            *queue(length=lambda m: 10 * (m % 3), age=lambda m: 20.0 * (m % 3)),
            *runs(lambda _: 100),
        ),
    ),
)

INCIDENTS = (
    Situation(
        "beat is frozen",
        (*queue(), *runs(), *schedule(lambda m: m < 60, up=lambda m: 1 if m < 60 else 0)),
        {"CeleryBeatDown": "critical", "CeleryScheduleMissed": "warning"},
    ),
    Situation(
        "beat lives and sends an entry no more",
        (*queue(), *runs(), *schedule(lambda m: m < 60)),
        {"CeleryScheduleMissed": "warning"},
    ),
    Situation(
        "a task that should succeed every hour is not sent any more",
        (
            *queue(),
            *runs(),
            gauge("celery:task_max_age:limit", always(3600), name="reports.hourly", severity="critical"),
            gauge(
                "celery_task_last_success_timestamp_seconds",
                timeline(lambda m: 1800.0 * (min(m, 60) // 30)),
                name="reports.hourly",
            ),
        ),
        {"CeleryTaskOverdue": "critical"},
    ),
    Situation(
        "no worker is left and messages wait",
        (
            *worker("celery@base", killed(30)),
            *queue(
                length=lambda m: max(0, min(5, m - 30)),
                age=lambda m: 60.0 * (m - 31) if m > 31 else None,
                consumers=between(0, 30, 1),
                free=between(0, 30, 4),
            ),
            *runs(between(0, 30, 10)),
        ),
        {
            "CeleryNoWorkers": "critical warning",
            "CeleryWorkerDown": "warning",
            "CeleryQueueNoConsumers": "critical",
            "CeleryQueueHeadOld": "warning",
        },
    ),
    Situation(
        "the result backend is down",
        (
            *queue(),
            *runs(between(30, 90, 30), ended=0),
            counter("celery_task_ended_without_result_total", timeline(between(30, 90, 30)), **TASK),
        ),
        {"CeleryRunsWithoutResult": "critical warning"},
    ),
    Situation(
        "half of the messages are lost between broker and worker",
        (
            *queue(),
            *(
                counter(f"celery_task_{what}_total", always(10), **TASK)
                for what in ("received", "started", "succeeded")
            ),
            counter("celery_task_failed_total", always(0), **TASK),
            counter("celery_task_sent_total", timeline(between(60, 240, 20, 10)), **TASK),
        ),
        {"CeleryMessagesLost": "warning"},
    ),
    Situation(
        "messages are lost where others send no events or wait for their ETA",
        (
            *queue(),
            *runs()[1:],
            *silent(),
            counter("celery_task_sent_total", timeline(between(60, 240, 30, 10)), **TASK),
            gauge("celery_delayed_tasks", timeline(lambda m: 10 * max(0, m - 60))),
        ),
        {"CeleryMessagesLost": "warning"},
    ),
    Situation(
        "a queue that is never empty loses messages",
        (
            *queue(length=lambda m: 5 + m % 3),
            *runs()[1:],
            counter("celery_task_sent_total", timeline(between(60, 240, 11, 10)), **TASK),
        ),
        {"CeleryMessagesLost": "warning"},
    ),
    Situation(
        "messages are lost while a backlog shrinks",
        (
            *queue(length=lambda m: 400 - 1.5 * m),
            *runs(lambda _: 11.5)[1:],
            counter("celery_task_sent_total", timeline(between(60, 240, 11.4, 10)), **TASK),
        ),
        {"CeleryMessagesLost": "warning", "CeleryQueueBacklog": "warning"},
    ),
    Situation(
        "a backlog of tasks that send no events shrinks",
        (*queue(length=lambda m: 400 - 1.5 * m), *runs(), *silent()),
        {"CeleryQueueBacklog": "warning"},
    ),
    Situation(
        "most tasks expire before they start",
        (
            *queue(length=lambda _: 5, age=lambda _: 60.0, free=lambda _: 0),
            *runs(lambda _: 1),
            counter("celery_task_revoked_total", timeline(between(30, 240, 4)), **TASK, reason="expired"),
        ),
        {"CeleryTasksExpired": "warning"},
    ),
    Situation(
        "one worker holds 150 messages while another is idle",
        (
            *worker("celery@greedy", slots=1, busy=1, reserved=149),
            *worker("celery@idle", slots=1),
            *queue(slots=2, free=lambda _: 1, consumers=lambda _: 2),
            gauge("celery_queue_unacked", always(150), **QUEUE),
            gauge("celery_task_in_progress", always(1), **TASK),
            *runs(lambda _: 2),
        ),
        {"CeleryWorkerHoarding": "warning"},
    ),
    Situation(
        "the pool of a worker is dead, and what it holds waits while its queue is empty",
        (
            *worker("celery@dead", reserved=3, processed=0),
            *worker("celery@a", busy=1),
            *queue(slots=8, free=lambda _: 7, consumers=lambda _: 2),
            *runs(),
        ),
        {"CeleryWorkerStuck": "critical"},
    ),
    Situation(
        "a poison message that kills one process after another",
        (
            *queue(),
            *runs(lambda _: 2, ended=0.5),
            counter("celery_task_process_lost_total", timeline(between(30, 60, 1)), **TASK),
        ),
        {"CeleryPoolProcessLost": "warning"},
    ),
    Situation(
        "tasks that run twice",
        (*queue(), *runs(), counter("celery_task_redelivered_total", timeline(between(30, 40, 1)), **TASK)),
        {"CeleryTaskRanTwice": "warning"},
    ),
    Situation(
        "more than half of the slots leave with a goodbye while messages wait",
        (
            *(series for number in range(4) for series in worker(f"celery@{number}", goodbye(60), slots=8)),
            *worker("celery@left", slots=8, busy=8),
            *queue(length=lambda m: 30 if m >= 60 else 0, age=lambda m: 300.0 if m >= 60 else None, free=lambda _: 0),
            *runs(),
        ),
        {"CeleryCapacityLost": "warning"},
    ),
    Situation(
        "a worker keeps 20,000 scheduled tasks in memory",
        (*worker("celery@a", scheduled=20_000), *queue(), *runs()),
        {"CeleryWorkerManyScheduled": "warning"},
    ),
    Situation(
        "events that cannot be read",
        (*queue(), *runs(), counter("celerymeter_events_invalid_total", timeline(between(30, 240, 2)), reason="json")),
        {"CeleryEventsInvalid": "warning"},
    ),
    Situation(
        "the broker fills up until it takes no more messages",
        (
            *queue(),
            *runs(),
            gauge("celery_broker_memory_used_bytes", timeline(lambda m: min(1e9, 4e8 + 6e6 * m))),
            gauge("celery_broker_memory_max_bytes", always(1e9)),
            gauge("celery_broker_blocked", timeline(between(100, 240, 1))),
            counter("celery_broker_evicted_keys_total", always(0)),
        ),
        {"CeleryBrokerMemoryHigh": "warning", "CeleryBrokerBlocked": "critical"},
    ),
    Situation(
        "Redis deletes keys because it is full",
        (
            *queue(),
            *runs(),
            gauge("celery_broker_memory_used_bytes", always(1e9)),
            gauge("celery_broker_memory_max_bytes", always(1e9)),
            gauge("celery_broker_blocked", always(0)),
            counter("celery_broker_evicted_keys_total", timeline(between(30, 60, 5))),
        ),
        {"CeleryBrokerMemoryHigh": "warning", "CeleryBrokerEvictsKeys": "warning"},
    ),
    Situation(
        "lists of 22 MB that no client reads",
        (*queue(), *runs(), gauge("celery_broker_orphaned_bytes", timeline(between(30, 241, 22e6)))),
        {"CeleryOrphanedMessages": "warning"},
    ),
    Situation(
        "more messages arrive than are processed",
        (
            *worker("celery@a", busy=4),
            *queue(
                length=lambda m: 10.0 * max(0, m - 30),
                age=lambda m: 30.0 * (m - 30) if m > 30 else None,
                free=lambda _: 0,
            ),
            *runs(lambda _: 20),
        ),
        {
            "CeleryQueueBacklog": "warning",
            "CeleryQueueHeadOld": "warning",
            "CeleryQueueWillNotDrain": "critical warning",
        },
    ),
    Situation(
        "a chord whose header never ends",
        (
            *queue(),
            *runs(lambda _: 60, ended=0, name="celery.chord_unlock"),
            counter("celery_task_retried_total", always(60), **{**TASK, "name": "celery.chord_unlock"}),
            counter(
                "celery_task_retried_without_exception_total", always(60), **{**TASK, "name": "celery.chord_unlock"}
            ),
        ),
        {"CeleryChordStuck": "warning"},
    ),
    Situation(
        "a run that takes far longer than its task ever did",
        (
            *queue(),
            *runs(),
            *(counter("celery_task_runtime_seconds_bucket", always(10), **TASK, le=le) for le in ("10.0", "+Inf")),
            counter("celery_task_runtime_seconds_count", always(10), **TASK),
            gauge("celery_task_oldest_start_timestamp_seconds", timeline(lambda m: 3600 if m >= 60 else None), **TASK),
        ),
        {"CeleryTaskStuck": "warning"},
    ),
)
