"""The series that the exporter of a shop shows, minute by minute."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
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
Single: TypeAlias = tuple[str, dict[str, str], list[Value]]
"""One of them."""


def series_of(shop: Shop, seed: int = 1) -> Series:
    """Return what the exporter of a shop shows, minute by minute."""
    return {(name, tuple(labels.items())): values for name, labels, values in each_series(shop, seed)}


def each_series(shop: Shop, seed: int = 1) -> Iterator[Single]:
    """Yield the same one by one: a week of a large shop does not fit into memory."""
    workers = workers_of(shop, random.Random(f"workers {seed}"))
    restarts = [at for at, minute in enumerate(shop.minutes) if minute % 1440 == RESTART]
    for worker in workers:
        dead = {at for at in restarts if worker.gone <= shop.minutes[at] < worker.gone + LIFE_AFTER}
        for single in _of_worker(worker, shop):
            yield _restarted(single, restarts, forgotten=min(dead, default=None))
    for single in _of_everything_else(shop, workers, random.Random(seed)):
        yield _restarted(single, restarts)


def _of_everything_else(shop: Shop, workers: Sequence[Worker], dice: random.Random) -> Iterator[Single]:
    tasks = tasks_of(shop, dice)
    counts = {task.name: counts_of(task, shop, dice) for task in tasks}
    slots = _slots(workers, shop)
    for task in tasks:
        yield from _of_task(task, counts[task.name], dice)
    for name in [*(f"q{number}" for number in range(shop.queues - 2)), BATCH, BURSTS]:
        yield from _of_queue(name, [counts[task.name] for task in tasks if task.queue == name], slots, dice)
    yield from _of_exporter(shop.minutes)


def _slots(workers: Sequence[Worker], shop: Shop) -> list[float]:
    """Return the slots of each minute."""
    change = [0] * (len(shop.minutes) + 1)
    for worker in workers:
        first, last = (
            min(max(0, minute - shop.minutes[0]), len(shop.minutes)) for minute in (worker.born, worker.gone)
        )
        change[first] += 1
        change[last] -= 1
    return [SLOTS * live for live in accumulate(change[:-1])]


def _of_exporter(minutes: range) -> Iterator[Single]:
    """Yield what an exporter says of itself and of the broker."""

    def level(name: str, value: Callable[[int], Value], /, **labels: str) -> Single:
        return name, labels, [value(minute) for minute in minutes]

    yield level("up", lambda _: 1.0)
    yield level("celerymeter_build_info", lambda _: 1.0)
    yield level("celerymeter_start_time_seconds", lambda _: -7200.0)
    yield level("celerymeter_broker_up", lambda _: 1.0)
    yield level("celerymeter_last_event_timestamp_seconds", lambda minute: 60.0 * (minute - minutes[0]))
    for collector in ("queues", "workers"):
        yield level("celerymeter_poll_success", lambda _: 1.0, collector=collector)
    yield level("celerymeter_events_missed_total", lambda _: 0.0, hostname="celery@pod-1")
    yield level("celerymeter_events_invalid_total", lambda _: 0.0, reason="json")
    yield level("celery_broker_memory_used_bytes", lambda minute: 3e8 + 1e6 * (minute % 90))
    yield level("celery_broker_memory_max_bytes", lambda _: 1e9)
    yield level("celery_broker_blocked", lambda _: 0.0)
    yield level("celery_broker_evicted_keys_total", lambda _: 0.0)
    yield level("celery_broker_orphaned_bytes", lambda minute: float(minute % 7 == 0) * 4096)
    yield level("celery_queue_visibility_timeout_seconds", lambda _: 7200.0)
    yield level("celerymeter_control_feed_clients", lambda _: 1.0)


def _restarted(single: Single, restarts: Sequence[int], forgotten: int | None = None) -> Single:
    """Let the exporter start again: counters begin at 0, a page is missing, and a dead worker is forgotten."""
    name, labels, values = single
    if not restarts or name in ("up", "celerymeter_control_feed_clients"):
        return single
    counts = name.endswith(("_total", "_bucket", "_count"))
    since = name.endswith(("first_seen_timestamp_seconds", "start_time_seconds"))
    shown = list(values)
    for at, until in zip(restarts, [*restarts[1:], len(values)], strict=True):
        before = values[at] or 0.0
        shown[at] = None
        if counts and before:
            shown[at + 1 : until] = [None if value is None else value - before for value in values[at + 1 : until]]
        elif since:
            shown[at + 1 : until] = [
                None if value is None else max(value, 60.0 * at) for value in values[at + 1 : until]
            ]
    if forgotten is not None:
        shown[forgotten:] = [None] * (len(values) - forgotten)
    return name, labels, shown


def total(increments: Iterable[Value], start: float = 0.0) -> list[Value]:
    """Return a counter from what it grows by."""
    values: list[Value] = []
    for step in increments:
        start += step or 0.0
        values.append(start)
    return values


def _of_worker(worker: Worker, shop: Shop) -> Iterator[Single]:
    own, first, last = {"hostname": worker.hostname}, shop.minutes[0], shop.minutes[-1]
    born, gone = max(worker.born, first), min(worker.gone, last + 1)
    forgotten = min(worker.gone + LIFE_AFTER, last + 1)

    def shown(live: Callable[[int], Value], after: Value = None) -> list[Value]:
        before: list[Value] = [None] * (born - first)
        seen = [live(minute) for minute in range(born, gone)]
        return before + seen + [after] * (forgotten - gone) + [None] * (last + 1 - forgotten)

    yield "celery_worker_up", own, shown(lambda _: 1.0, 0.0)
    yield "celery_worker_shutdown", own, shown(lambda _: 0.0, float(not worker.killed))
    start, end = 60.0 * (worker.born - first), 60.0 * (worker.gone - first)
    yield "celery_worker_first_seen_timestamp_seconds", own, shown(lambda _: start, start)
    yield "celery_worker_last_heartbeat_timestamp_seconds", own, shown(lambda minute: 60.0 * (minute - first), end)
    yield "celery_worker_pool_size", own, shown(lambda _: SLOTS)
    yield "celery_worker_tasks_reserved", own, shown(lambda minute: float(minute % 13))
    yield "celery_worker_tasks_scheduled", own, shown(lambda minute: float(minute // 30 % 5))
    yield "celery_worker_clock_offset_seconds", own, shown(lambda _: 0.02)
    yield "celery_worker_task_events_enabled", own, shown(lambda _: 1.0)
    yield "celery_worker_busy_seconds_total", own, shown(lambda minute: 90.0 * (minute - worker.born))


def _of_task(task: Task, counts: Counts, dice: random.Random) -> Iterator[Single]:
    own = {"name": task.name, "queue_name": task.queue}
    took = max(0, round(task.runtime / 60))
    ended = [0.0] * min(took, len(counts.started)) + counts.started[: max(0, len(counts.started) - took)]
    succeeded = [
        max(0.0, done - failed - retried)
        for done, failed, retried in zip(ended, counts.failed, counts.retried, strict=True)
    ]
    started, past, none = total(counts.started), total(succeeded, PAST), [0.0] * len(succeeded)
    yield "celery_task_sent_total", own, total(counts.sent)
    yield "celery_task_received_total", own, started
    yield "celery_task_started_total", own, started
    yield "celery_task_succeeded_total", own, past
    yield "celery_task_failed_total", own, total(counts.failed)
    yield "celery_task_retried_total", own, total(counts.retried)
    for what in ("retried_without_exception", "redelivered", "process_lost", "ended_without_result"):
        yield f"celery_task_{what}_total", own, list(none)
    yield "celery_task_revoked_total", {**own, "reason": "expired"}, list(none)
    for bound in (*BUCKETS, math.inf):
        bucket = {**own, "le": "+Inf" if bound == math.inf else str(bound)}
        yield "celery_task_runtime_seconds_bucket", bucket, list(past if task.runtime * 1.5 <= bound else none)
        yield "celery_task_wait_seconds_bucket", bucket, list(started)
    yield "celery_task_runtime_seconds_count", own, list(past)
    yield "celery_task_wait_seconds_count", own, list(started)
    yield "celery_task_busy_seconds_total", own, total(start * task.runtime for start in counts.started)
    yield from _of_runs(task, counts, took, own)
    latest: Value = -60.0 * dice.randint(1, 20)
    successes: list[Value] = []
    for at, value in enumerate(succeeded):
        latest = 60.0 * at if value else latest
        successes.append(latest)
    yield "celery_task_last_success_timestamp_seconds", {"name": task.name}, successes


def _of_runs(task: Task, counts: Counts, took: int, own: dict[str, str]) -> Iterator[Single]:
    """Yield how many runs have not ended, and when the oldest of them started."""
    before = [0.0, *accumulate(counts.started)]
    running: list[Value] = [before[at] - before[max(0, at - took)] for at in range(len(counts.started))]
    yield "celery_task_in_progress", own, running
    begun = [at for at, started in enumerate(counts.started) if started]
    oldest: list[Value] = []
    for at in range(len(counts.started)):
        first = bisect_right(begun, at - took)
        oldest.append(60.0 * begun[first] if took and first < len(begun) and begun[first] <= at else None)
    yield "celery_task_oldest_start_timestamp_seconds", own, oldest


def _started(counts: Sequence[Counts], at: int) -> float:
    """Return how many tasks of a queue are started in a minute."""
    return sum(one.started[at] for one in counts if at < len(one.started))


def _of_queue(name: str, counts: Sequence[Counts], slots: Sequence[float], dice: random.Random) -> Iterator[Single]:
    own, waiting = {"queue_name": name}, 0.0
    lengths: list[Value] = []
    oldest: list[Value] = []
    since = 0
    for at in range(len(slots)):
        before = waiting
        waiting += sum(one.sent[at] - one.started[at] for one in counts)
        since = at if waiting and not before else since
        # what waits for a moment is started in the next one
        ripple = 0.0 if name in (BATCH, BURSTS) else min(dice.choice((0, 0, 0, 1, 2, 5)), _started(counts, at + 1))
        lengths.append(max(0.0, waiting) + ripple)
        oldest.append(60.0 * since if waiting > 0 else 60.0 * at - dice.randint(0, 20) if ripple else None)
    yield "celery_queue_length", own, lengths
    yield "celery_queue_oldest_task_timestamp_seconds", {**own, "source": "event"}, oldest
    yield "celery_queue_consumers", own, [number / SLOTS for number in slots]
    yield "celery_queue_pool_slots", own, list(slots)
    yield "celery_queue_free_slots", own, [math.floor(number * 0.4) for number in slots]
    yield "celery_queue_unacked", own, [float(dice.randint(0, 9)) for _ in slots]
