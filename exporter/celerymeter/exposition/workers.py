"""Worker families."""

from __future__ import annotations

from celerymeter import metrics as m
from celerymeter.exposition.text import Text
from celerymeter.model import OTHER, WorkerState
from celerymeter.tracking.tracker import Tracker
from celerymeter.tracking.workers import Worker


def fresh(tracker: Tracker, now: float, collector: str) -> bool:
    """Whether a poll's gauges may be shown: its last success is young, and the broker is there."""
    last = tracker.poll_successes.get(collector)
    return tracker.connected_at is not None and last is not None and now - last <= 2 * tracker.settings.poll_interval


def render(text: Text, tracker: Tracker, now: float) -> None:
    """All worker families; liveness is unknown, hence absent, while our own subscription is down."""
    workers = list(tracker.workers)
    if tracker.connected_at is not None:
        up: dict[str, float | None] = {worker.hostname: int(worker.up) for worker in workers}
        if tracker.workers.other_seen is not None:
            up[OTHER] = 1
        text.values(m.WORKER_UP, up)
        text.values(m.WORKER_SHUTDOWN, {worker.hostname: int(_said_goodbye(worker)) for worker in workers})
    text.values(m.WORKER_LAST_HEARTBEAT, {worker.hostname: worker.last_heartbeat for worker in workers})
    text.values(m.WORKER_ACTIVE, {worker.hostname: worker.active for worker in workers if worker.up})
    text.values(m.WORKER_PROCESSED, {worker.hostname: worker.processed_total for worker in workers})
    _inspected(text, tracker, now)
    text.values(m.WORKER_LOAD1, {worker.hostname: worker.load1 for worker in workers if worker.up})
    text.values(m.WORKER_CLOCK_OFFSET, {worker.hostname: worker.offset for worker in workers})
    text.values(m.WORKER_TASK_EVENTS, {worker.hostname: int(not worker.loss.off) for worker in workers if worker.up})
    text.rows(m.WORKER_INFO, [((worker.hostname, worker.version, worker.pool), 1) for worker in workers])


def _said_goodbye(worker: Worker) -> bool:
    return worker.offline_at is not None and not worker.up


def _inspected(text: Text, tracker: Tracker, now: float) -> None:
    states: list[WorkerState] = []
    if fresh(tracker, now, "workers"):
        states = [worker.state for worker in tracker.workers if worker.up and worker.state is not None]
    text.values(m.WORKER_RESERVED, {state.hostname: state.reserved for state in states})
    text.values(m.WORKER_SCHEDULED, {state.hostname: state.scheduled for state in states})
    text.values(m.WORKER_POOL_SIZE, {state.hostname: state.slots for state in states})
