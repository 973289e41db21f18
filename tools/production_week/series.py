"""What the exporter of a shop shows, minute by minute."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from tools.production_week.shop import (
    BATCH,
    BURSTS,
    Counts,
    Shop,
    Task,
    Worker,
    counts_of,
    tasks_of,
    workers_of,
)

LIFE_AFTER = 60
"""Minutes for which the exporter still shows a worker that is gone."""
PAST = 2000.0
"""Successes of the week before: what is usual for each task is known."""
BUCKETS = (1.0, 10.0, 60.0, 600.0, 3600.0)
SLOTS = 4.0
RESTART = 10 * 60 + 25
"""The minute of the day in which the exporter is restarted."""

Value: TypeAlias = float | None
"""``None``: there is no such series now."""
Series: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], list[Value]]
"""Values of each minute by name and labels."""


def series_of(shop: Shop, seed: int = 1) -> Series:
    """Return what the exporter of a shop shows, minute by minute."""
    dice = random.Random(seed)
    minutes = shop.minutes
    series: Series = {}

    def add(name: str, values: Sequence[Value], /, **labels: str) -> None:
        series[name, tuple(labels.items())] = list(values)

    def level(name: str, value: Callable[[int], Value], /, **labels: str) -> None:
        add(name, [value(minute) for minute in minutes], **labels)

    tasks = tasks_of(shop, dice)
    counts = {task.name: counts_of(task, shop, dice) for task in tasks}
    workers = workers_of(shop, dice)
    for worker in workers:
        _add_worker(add, worker, shop)
    slots = [SLOTS * sum(one.born <= minute < one.gone for one in workers) for minute in minutes]
    for task in tasks:
        _add_task(add, task, counts[task.name], dice)
    for name in [*(f"q{number}" for number in range(shop.queues - 2)), BATCH, BURSTS]:
        _add_queue(add, name, [counts[task.name] for task in tasks if task.queue == name], slots, dice)
    level("up", lambda _: 1.0)
    level("celerymeter_build_info", lambda _: 1.0)
    level("celerymeter_start_time_seconds", lambda _: -7200.0)
    level("celerymeter_broker_up", lambda _: 1.0)
    level("celerymeter_last_event_timestamp_seconds", lambda minute: 60.0 * (minute - minutes[0]))
    for collector in ("queues", "workers"):
        level("celerymeter_poll_success", lambda _: 1.0, collector=collector)
    level("celerymeter_events_missed_total", lambda _: 0.0, hostname="celery@pod-1")
    level("celerymeter_events_invalid_total", lambda _: 0.0, reason="json")
    level("celery_broker_memory_used_bytes", lambda minute: 3e8 + 1e6 * (minute % 90))
    level("celery_broker_memory_max_bytes", lambda _: 1e9)
    level("celery_broker_blocked", lambda _: 0.0)
    level("celery_broker_evicted_keys_total", lambda _: 0.0)
    level("celery_broker_orphaned_bytes", lambda minute: float(minute % 7 == 0) * 4096)
    level("celery_queue_visibility_timeout_seconds", lambda _: 7200.0)
    level("celerymeter_control_feed_clients", lambda _: 1.0)
    for at, minute in enumerate(minutes):
        if minute % 1440 == RESTART:
            _restart(series, at)
    return series


def _restart(series: Series, at: int) -> None:
    """Let the exporter start again: counters begin at 0, a page is missing, and dead workers are forgotten."""
    up = {own: values[at] for (name, own), values in series.items() if name == "celery_worker_up"}
    for (name, own), values in series.items():
        if name in ("up", "celerymeter_control_feed_clients"):
            continue
        before, born = values[at] or 0.0, next((i for i, value in enumerate(values) if value is not None), 0)
        values[at] = None
        counts = name.endswith(("_total", "_bucket", "_count"))
        forgotten = own in up and up[own] == 0
        for later in range(at + 1, len(values)):
            value = values[later]
            if value is None or forgotten:
                values[later] = None
            elif name.endswith(("first_seen_timestamp_seconds", "start_time_seconds")):
                values[later] = max(value, 60.0 * at)
            elif counts and born <= at:
                values[later] = value - before


def total(increments: Iterable[Value], start: float = 0.0) -> list[Value]:
    """Return a counter from what it grows by."""
    values: list[Value] = []
    for step in increments:
        start += step or 0.0
        values.append(start)
    return values


def _add_worker(add: Callable[..., None], worker: Worker, shop: Shop) -> None:
    own, first = {"hostname": worker.hostname}, shop.minutes[0]

    def shown(live: Callable[[int], Value], gone: Value = None) -> list[Value]:
        return [
            live(minute) if worker.born <= minute < worker.gone
            else gone if worker.gone <= minute < worker.gone + LIFE_AFTER
            else None
            for minute in shop.minutes
        ]  # fmt: skip

    add("celery_worker_up", shown(lambda _: 1.0, 0.0), **own)
    add("celery_worker_shutdown", shown(lambda _: 0.0, float(not worker.killed)), **own)
    born = 60.0 * (worker.born - first)
    add("celery_worker_first_seen_timestamp_seconds", shown(lambda _: born, born), **own)
    last = 60.0 * (worker.gone - first)
    add("celery_worker_last_heartbeat_timestamp_seconds", shown(lambda minute: 60.0 * (minute - first), last), **own)
    add("celery_worker_pool_size", shown(lambda _: SLOTS), **own)
    add("celery_worker_tasks_reserved", shown(lambda minute: float(minute % 13)), **own)
    add("celery_worker_tasks_scheduled", shown(lambda minute: float(minute // 30 % 5)), **own)
    add("celery_worker_clock_offset_seconds", shown(lambda _: 0.02), **own)
    add("celery_worker_task_events_enabled", shown(lambda _: 1.0), **own)
    add("celery_worker_busy_seconds_total", shown(lambda minute: 90.0 * (minute - worker.born)), **own)


def _add_task(add: Callable[..., None], task: Task, counts: Counts, dice: random.Random) -> None:
    own = {"name": task.name, "queue_name": task.queue}
    took = max(0, round(task.runtime / 60))
    ended = [0.0] * min(took, len(counts.started)) + counts.started[: max(0, len(counts.started) - took)]
    succeeded = [
        done - failed - retried for done, failed, retried in zip(ended, counts.failed, counts.retried, strict=True)
    ]
    succeeded = [max(0.0, value) for value in succeeded]
    add("celery_task_sent_total", total(counts.sent), **own)
    for what in ("received", "started"):
        add(f"celery_task_{what}_total", total(counts.started), **own)
    add("celery_task_succeeded_total", total(succeeded, PAST), **own)
    add("celery_task_failed_total", total(counts.failed), **own)
    add("celery_task_retried_total", total(counts.retried), **own)
    for what in ("retried_without_exception", "redelivered", "process_lost", "ended_without_result"):
        add(f"celery_task_{what}_total", [0.0] * len(succeeded), **own)
    add("celery_task_revoked_total", [0.0] * len(succeeded), **own, reason="expired")
    for bound in (*BUCKETS, math.inf):
        inside = task.runtime * 1.5 <= bound
        le = "+Inf" if bound == math.inf else str(bound)
        add(
            "celery_task_runtime_seconds_bucket",
            total(succeeded, PAST) if inside else [0.0] * len(succeeded),
            **own,
            le=le,
        )
        add("celery_task_wait_seconds_bucket", total(counts.started), **own, le=le)
    add("celery_task_runtime_seconds_count", total(succeeded, PAST), **own)
    add("celery_task_wait_seconds_count", total(counts.started), **own)
    add("celery_task_busy_seconds_total", total(start * task.runtime for start in counts.started), **own)
    running = [float(sum(counts.started[max(0, at - took) : at])) if took else 0.0 for at in range(len(succeeded))]
    add("celery_task_in_progress", running, **own)
    oldest: list[Value] = [None] * len(succeeded)
    if took:
        begun = [at for at, started in enumerate(counts.started) if started]
        for at in range(len(oldest)):
            still = [start for start in begun if start <= at < start + took]
            oldest[at] = 60.0 * still[0] if still else None
    add("celery_task_oldest_start_timestamp_seconds", oldest, **own)
    latest: Value = -60.0 * dice.randint(1, 20)
    successes: list[Value] = []
    for at, value in enumerate(succeeded):
        latest = 60.0 * at if value else latest
        successes.append(latest)
    add("celery_task_last_success_timestamp_seconds", successes, name=task.name)


def _add_queue(
    add: Callable[..., None], name: str, counts: Sequence[Counts], slots: Sequence[float], dice: random.Random
) -> None:
    own, waiting = {"queue_name": name}, 0.0
    lengths: list[Value] = []
    oldest: list[Value] = []
    since = 0
    for at in range(len(slots)):
        before = waiting
        waiting += sum(one.sent[at] - one.started[at] for one in counts)
        since = at if waiting and not before else since
        ripple = 0.0 if name in (BATCH, BURSTS) else float(dice.choice((0, 0, 0, 1, 2, 5)))
        lengths.append(max(0.0, waiting) + ripple)
        oldest.append(60.0 * since if waiting > 0 else 60.0 * at - dice.randint(0, 20) if ripple else None)
    add("celery_queue_length", lengths, **own)
    add("celery_queue_oldest_task_timestamp_seconds", oldest, **own, source="event")
    add("celery_queue_consumers", [number / SLOTS for number in slots], **own)
    add("celery_queue_pool_slots", slots, **own)
    add("celery_queue_free_slots", [math.floor(number * 0.4) for number in slots], **own)
    add("celery_queue_unacked", [float(dice.randint(0, 9)) for _ in slots], **own)
