"""Incidents that are put into the series of a shop, and the alerts that each must bring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from tools.production_week.series import Series, Value
from tools.production_week.shop import PERIODIC

Change: TypeAlias = Callable[[Series, range], None]
"""Puts an incident into the series; the range is the minutes in which it lasts."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A fault that is put into a shop, and every alert above info that it must cause, by severity."""

    name: str
    change: Change
    fires: Mapping[str, str]


def _where(series: Series, family: str, /, **labels: str) -> Iterator[list[Value]]:
    for (found, own), values in series.items():
        if found == family and labels.items() <= dict(own).items():
            yield values


def _grow(family: str, by: float, /, **labels: str) -> Change:
    """Let counters grow by so much more in each minute of the incident."""

    def change(series: Series, during: range) -> None:
        for values in _where(series, family, **labels):
            for at, value in enumerate(values):
                values[at] = (value or 0.0) + by * (min(max(0, at - during.start), len(during)))

    return change


def _set(family: str, value: Callable[[int], Value], /, **labels: str) -> Change:
    """Set gauges in each minute of the incident."""

    def change(series: Series, during: range) -> None:
        for values in _where(series, family, **labels):
            for at in during:
                values[at] = value(at - during.start) if values[at] is not None or "oldest" in family else None

    return change


def _stand_still(family: str, /, **labels: str) -> Change:
    """Let counters or times stand still during the incident."""

    def change(series: Series, during: range) -> None:
        for values in _where(series, family, **labels):
            held = values[during.start] or 0.0
            lost = 0.0 if family.endswith("timestamp_seconds") else (values[during.stop - 1] or 0.0) - held
            for at in range(during.start, len(values)):
                values[at] = held if at in during else (values[at] or 0.0) - lost

    return change


def _all(*changes: Change) -> Change:
    def change(series: Series, during: range) -> None:
        for one in changes:
            one(series, during)

    return change


def _leave(share: float, *, killed: bool) -> Change:
    """Let a share of the workers that are there leave for the time of the incident."""

    def change(series: Series, during: range) -> None:
        workers = {
            dict(own)["hostname"]: values for (name, own), values in series.items() if name == "celery_worker_up"
        }
        there = [name for name, values in workers.items() if values[during.start] == 1]
        born_later = {name for name, values in workers.items() if values[during.start] is None}
        for key, values in series.items():
            if dict(key[1]).get("hostname") in born_later and key[0].startswith("celery_worker"):
                values[during.start :] = [None] * len(values[during.start :])
        for name in there[: round(share * len(there))]:
            for family, values in ((key[0], found) for key, found in series.items() if ("hostname", name) in key[1]):
                after: Value = {"celery_worker_up": 0.0, "celery_worker_shutdown": float(not killed)}.get(family)
                for at in during:
                    if family in ("celery_worker_first_seen_timestamp_seconds", "celery_worker_busy_seconds_total"):
                        values[at] = values[during.start]
                    else:
                        values[at] = after
        for family in ("celery_queue_consumers", "celery_queue_pool_slots", "celery_queue_free_slots"):
            for values in _where(series, family):
                for at in during:
                    values[at] = math.floor((values[at] or 0.0) * (1 - share))

    return change


def _wait(length: float, age: Callable[[int], float], queue: str = "q0") -> Change:
    """Let so many messages wait in a queue, the oldest of an age in seconds."""

    def change(series: Series, during: range) -> None:
        for values in _where(series, "celery_queue_length", queue_name=queue):
            for at in during:
                values[at] = length
        for values in _where(series, "celery_queue_oldest_task_timestamp_seconds", queue_name=queue):
            for at in during:
                values[at] = 60.0 * at - age(at - during.start)

    return change


def _growing(series: Series, during: range) -> None:
    """Ten more messages arrive each minute than are processed."""
    for values in _where(series, "celery_queue_length", queue_name="q0"):
        for at in during:
            values[at] = 10.0 * (at - during.start)
    for values in _where(series, "celery_queue_oldest_task_timestamp_seconds", queue_name="q0"):
        for at in during:
            values[at] = 60.0 * at - 45.0 * (at - during.start)


def _hoarding(series: Series, during: range) -> None:
    """One worker holds 150 messages, while others have free slots."""
    _set("celery_worker_tasks_reserved", lambda _: 150.0, hostname=_lasting(series, during))(series, during)
    _set("celery_queue_unacked", lambda _: 160.0, queue_name="q0")(series, during)


def _many_scheduled(series: Series, during: range) -> None:
    """One worker keeps 20,000 tasks until their ETA."""
    _set("celery_worker_tasks_scheduled", lambda _: 20_000.0, hostname=_lasting(series, during))(series, during)


def _lasting(series: Series, during: range) -> str:
    """Return a worker that is up all the time."""
    return next(
        dict(own)["hostname"]
        for (name, own), values in series.items()
        if name == "celery_worker_up" and all(values[at] == 1 for at in during)
    )


_NO_RUNS = _all(
    *(
        _stand_still(f"celery_task_{what}")
        for what in ("sent_total", "received_total", "started_total", "succeeded_total", "failed_total")
    ),
    *(
        _stand_still(f"celery_task_{what}_seconds_{part}")
        for what in ("runtime", "wait")
        for part in ("bucket", "count")
    ),
    _stand_still("celery_task_last_success_timestamp_seconds"),
)


INCIDENTS = (
    Incident(
        "the result backend is down",
        _all(
            _stand_still("celery_task_succeeded_total"),
            _stand_still("celery_task_failed_total"),
            _stand_still("celery_task_runtime_seconds_bucket"),
            _stand_still("celery_task_runtime_seconds_count"),
            _stand_still("celery_task_last_success_timestamp_seconds"),
            _grow("celery_task_ended_without_result_total", 20.0),
        ),
        {"CeleryRunsWithoutResult": "critical warning", "CeleryTaskOverdue": "warning"},
    ),
    Incident(
        "beat has stopped",
        _all(
            _stand_still("celery_task_last_success_timestamp_seconds", name=PERIODIC),
            *(_stand_still(f"celery_task_{what}_total", name=PERIODIC) for what in ("sent", "received", "started")),
        ),
        {"CeleryTaskOverdue": "warning"},
    ),
    Incident(
        "messages are lost between broker and worker",
        _grow("celery_task_sent_total", 10.0, queue_name="q0"),
        {"CeleryMessagesLost": "warning"},
    ),
    Incident(
        "tasks expire before they start",
        _grow("celery_task_revoked_total", 4.0, name=PERIODIC),
        {"CeleryTasksExpired": "warning"},
    ),
    Incident("one worker holds 150 messages", _hoarding, {"CeleryWorkerHoarding": "warning"}),
    Incident(
        "a poison message",
        _grow("celery_task_process_lost_total", 1.0, name=PERIODIC),
        {"CeleryPoolProcessLost": "warning"},
    ),
    Incident(
        "tasks run twice",
        _grow("celery_task_redelivered_total", 1.0, name=PERIODIC),
        {"CeleryTaskRanTwice": "warning"},
    ),
    Incident(
        "most slots leave with a goodbye while messages wait",
        _all(_leave(0.7, killed=False), _wait(30, lambda _: 300.0)),
        {"CeleryCapacityLost": "warning"},
    ),
    Incident(
        "20,000 scheduled tasks in one worker",
        _many_scheduled,
        {"CeleryWorkerManyScheduled": "warning"},
    ),
    Incident(
        "the broker is full",
        _all(_set("celery_broker_memory_used_bytes", lambda _: 1e9), _set("celery_broker_blocked", lambda _: 1.0)),
        {"CeleryBrokerMemoryHigh": "warning", "CeleryBrokerBlocked": "critical"},
    ),
    Incident(
        "Redis deletes keys",
        _grow("celery_broker_evicted_keys_total", 5.0),
        {"CeleryBrokerEvictsKeys": "warning"},
    ),
    Incident(
        "lists that nobody reads",
        _set("celery_broker_orphaned_bytes", lambda _: 2.3e7),
        {"CeleryOrphanedMessages": "warning"},
    ),
    Incident(
        "events that cannot be read",
        _grow("celerymeter_events_invalid_total", 2.0),
        {"CeleryEventsInvalid": "warning"},
    ),
    Incident(
        "more messages arrive than are processed",
        _growing,
        {
            "CeleryQueueBacklog": "warning",
            "CeleryQueueHeadOld": "warning",
            "CeleryQueueWillNotDrain": "critical warning",
        },
    ),
    Incident(
        "all workers are killed",
        _all(_leave(1.0, killed=True), _NO_RUNS, _wait(40, lambda minute: 60.0 * minute)),
        {
            "CeleryNoWorkers": "critical warning",
            "CeleryWorkerDown": "warning",
            "CeleryTaskOverdue": "warning",
            "CeleryQueueNoConsumers": "critical",
            "CeleryQueueHeadOld": "warning",
        },
    ),
)
