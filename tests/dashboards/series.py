"""Samples of each family of the catalogue at a time, so that a dashboard that queries it finds something."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from zlib import crc32

from tests.dashboards.scenario_state import ScenarioState
from tests.dashboards.scenarios import Entry, Queue, Task

from celerymeter import metrics as m
from celerymeter.metrics import Family

HEARTBEAT = 2.0
Labels = tuple[str, ...]
Samples = Callable[[ScenarioState], Iterable[tuple[Labels, float]]]
Distributions = Callable[[ScenarioState], Iterable[tuple[Labels, float, float]]]
"""Labels, number of observations, and their mean in seconds."""


def share_of_runs(share: Callable[[Task], float] | float, *extra: str) -> Samples:
    """A counter of each task that grows with its runs; ``extra`` are values of a third label."""

    def samples(at: ScenarioState) -> Iterator[tuple[Labels, float]]:
        for task in at.scenario.tasks:
            part = share(task) if callable(share) else share
            value = float(math.floor(at.count(task.name, task.rate) * part))
            if not extra:
                yield (task.name, task.queue), value
            for label in extra:
                yield (task.name, task.queue, label), value

    return samples


def by_worker(value: Callable[[ScenarioState, str], float] | float, *, only_live: bool = True) -> Samples:
    """A series of each worker, unknown while the broker is out of reach."""

    def samples(at: ScenarioState) -> Iterator[tuple[Labels, float]]:
        for worker in () if at.broker_down else at.scenario.workers:
            if at.up(worker) or not only_live:
                yield (worker,), value(at, worker) if callable(value) else value

    return samples


def by_queue(value: Callable[[ScenarioState, Queue], float]) -> Samples:
    """A series of each queue, unknown while the broker is out of reach."""
    return lambda at: (((queue.name,), value(at, queue)) for queue in (() if at.broker_down else at.scenario.queues))


def by_value(values: Iterable[str], amount: Callable[[ScenarioState, str], float] | float = 0.0) -> Samples:
    """A series of each value of the only label."""
    names = tuple(values)
    return lambda at: [((name,), amount(at, name) if callable(amount) else amount) for name in names]


def plain(value: Callable[[ScenarioState], float] | float) -> Samples:
    """A family without labels."""
    return lambda at: [((), value(at) if callable(value) else value)]


def timed(mean: Callable[[Task], float]) -> Distributions:
    """A distribution of each task's runs."""
    return lambda at: [
        ((task.name, task.queue), at.count(task.name, task.rate), mean(task)) for task in at.scenario.tasks
    ]


def in_progress(at: ScenarioState) -> Iterator[tuple[Labels, float]]:
    """Runs that have started and not ended."""
    for task in () if at.broker_down else at.scenario.tasks:
        running = min(4.0, at.wobble(task.name, task.rate * task.runtime)) if at.has_live_worker else 0.0
        yield (task.name, task.queue), running


def length(at: ScenarioState, queue: Queue) -> float:
    """Waiting messages."""
    growth = at.scenario.growth + queue.growth
    return at.wobble(queue.name, queue.backlog) + math.floor(growth * at.fault_seconds)


def heads(at: ScenarioState) -> Iterator[tuple[Labels, float]]:
    """Yield the time at which the oldest message of each queue that holds one was sent."""
    queues = {queue.name: queue for queue in at.scenario.queues}
    for (name,), waiting in by_queue(length)(at):
        stood = at.fault_seconds if queues[name].stalled else 0.0
        if waiting:
            yield (name, "stamp"), at.now - (stood or 0.5 * waiting + queues[name].late)


def events(at: ScenarioState) -> Iterator[tuple[Labels, float]]:
    """Events by type."""
    for event in ("task-sent", "task-received", "task-started", "task-succeeded"):
        yield (event,), at.runs()
    yield ("worker-heartbeat",), math.floor(len(at.scenario.workers) / HEARTBEAT * at.working)


def requests(at: ScenarioState) -> Iterator[tuple[Labels, float]]:
    """Requests to the control API."""
    asked = {"/monitoring/metrics/realtime": 0.4, "/monitoring/reports/performance": 0.02, "/system/health": 0.1}
    for route, rate in asked.items():
        yield (route, "GET", "503" if at.broker_down else "200"), math.floor(rate * (at.now - at.started))
    yield ("/tasks/batch", "POST", "403"), math.floor(0.003 * (at.now - at.started))


def by_beat(value: float) -> Samples:
    """A series of the beat of a cluster with a schedule, unknown while the broker is out of reach."""
    return lambda at: [(("celerybeat@app-1",), value)] if at.scenario.entries and not at.broker_down else []


def by_entry(value: Callable[[ScenarioState, Entry], float] | float) -> Samples:
    """A series of each entry of the schedule."""
    return lambda at: [
        ((entry.schedule, entry.name), value(at, entry) if callable(value) else value) for entry in at.scenario.entries
    ]


def _last_due(at: ScenarioState, entry: Entry) -> float:
    """Return the time at which an entry was last sent."""
    now = at.now - at.fault_seconds if entry.stuck or at.broker_down else at.now
    return now - now % entry.every


def _times(at: ScenarioState, entry: Entry) -> float:
    """Return how often an entry was sent."""
    return math.floor((_last_due(at, entry) - at.started) / entry.every) + 1


def _ago(seconds: float) -> Callable[[ScenarioState], float]:
    return lambda at: at.now - (at.fault_seconds if at.broker_down else seconds)


BY_LABELS: dict[Labels, Samples] = {
    m.TASK: share_of_runs(0.01),
    m.HOST: by_worker(1.0),
    m.QUEUE: by_queue(lambda _, queue: 1.0),
    (): plain(1.0),
}
"""For a family that no dashboard needs particular values of."""
SAMPLES: dict[Family, Samples] = {
    m.TASK_SENT: share_of_runs(1.02),
    m.TASK_RECEIVED: share_of_runs(1.01),
    m.TASK_STARTED: share_of_runs(1.0),
    m.TASK_SUCCEEDED: share_of_runs(lambda task: 1 - task.failing - task.retried),
    m.TASK_FAILED: share_of_runs(lambda task: task.failing),
    m.TASK_RETRIED: share_of_runs(lambda task: task.retried),
    m.TASK_REJECTED: share_of_runs(2e-4, "true", "false"),
    m.TASK_REDELIVERED: share_of_runs(0.0),
    m.TASK_PROCESS_LOST: share_of_runs(0.0),
    m.TASK_WITHOUT_RESULT: share_of_runs(1e-4),
    m.TASK_SHUTDOWN_LOST: share_of_runs(1e-4),
    m.TASK_REVOKED: share_of_runs(5e-4, "revoked", "terminated", "expired"),
    m.TASK_ACCEPTED: lambda at: [((task.name,), at.count(task.name, task.rate)) for task in at.scenario.tasks],
    m.TASK_EXCEPTIONS: share_of_runs(lambda task: task.failing / 2, "ConnectionError", "ValueError"),
    m.TASK_IN_PROGRESS: in_progress,
    m.TASK_OLDEST_START: lambda at: [(pair, at.now - at.now % 40 - 1) for pair, runs in in_progress(at) if runs],
    m.TASK_BUSY: lambda at: [
        ((task.name, task.queue), at.count(task.name, task.rate) * task.runtime) for task in at.scenario.tasks
    ],
    m.TASK_LAST_SUCCESS: lambda at: [((task.name,), at.started + at.working - 1) for task in at.scenario.tasks],
    m.TASK_THROUGHPUT: lambda at: [((task.name, task.queue), task.rate) for task in at.scenario.tasks],
    m.TASK_ERROR_RATIO: lambda at: [((task.name, task.queue), task.failing) for task in at.scenario.tasks],
    m.WORKER_UP: by_worker(lambda at, worker: float(at.up(worker)), only_live=False),
    m.WORKER_SHUTDOWN: by_worker(0.0, only_live=False),
    m.WORKER_LAST_HEARTBEAT: by_worker(
        lambda at, worker: at.now - (1.0 if at.up(worker) else at.fault_seconds), only_live=False
    ),
    m.WORKER_ACTIVE: by_worker(lambda at, worker: min(4.0, at.wobble(worker, 2))),
    m.WORKER_PROCESSED: by_worker(lambda at, _: at.runs(1 / len(at.scenario.workers))),
    m.WORKER_BUSY: by_worker(lambda at, _: at.scenario.busy * at.working, only_live=False),
    m.WORKER_RESERVED: by_worker(lambda at, worker: at.wobble(worker, 5)),
    m.WORKER_SCHEDULED: by_worker(lambda at, worker: at.wobble(worker, 1)),
    m.WORKER_POOL_SIZE: by_worker(4.0),
    m.WORKER_LOAD1: by_worker(lambda at, worker: 0.4 + 0.2 * at.wobble(worker, 4)),
    m.WORKER_CLOCK_OFFSET: by_worker(lambda _, worker: crc32(worker.encode()) % 100 / 2000),
    m.WORKER_TASK_EVENTS: by_worker(1.0),
    m.WORKER_INFO: lambda at: [((*worker, "5.4.0", "prefork", "events"), 1.0) for worker, _ in by_worker(1.0)(at)],
    m.WORKER_APPLICATION: lambda at: [((*worker, "2026.11"), 1.0) for worker, _ in by_worker(1.0)(at)],
    m.QUEUE_LENGTH: by_queue(length),
    m.QUEUE_UNACKED: by_queue(lambda at, queue: at.wobble(queue.name, queue.slots)),
    m.QUEUE_OLDEST_TASK: heads,
    m.QUEUE_OLDEST_UNACKED: by_queue(lambda at, queue: at.now - 30 - queue.backlog),
    m.QUEUE_CONSUMERS: by_queue(lambda at, queue: float(at.has_live_worker * math.ceil(queue.slots / 4))),
    m.QUEUE_SLOTS: by_queue(lambda at, queue: float(at.has_live_worker * queue.slots)),
    m.QUEUE_FREE_SLOTS: by_queue(lambda at, queue: float(at.has_live_worker * (queue.slots // 2))),
    m.QUEUE_VISIBILITY: plain(3600.0),
    m.BEAT_UP: by_beat(1.0),
    m.BEAT_LAG: by_beat(0.01),
    m.BEAT_DUPLICATE: by_beat(0.0),
    m.SCHEDULE_ENTRIES: lambda at: [(beat, len(at.scenario.entries)) for beat, _ in by_beat(1.0)(at)],
    m.SCHEDULE_DUE: by_entry(
        lambda at, entry: _times(at, entry) + (at.fault_seconds // entry.every if entry.stuck else 0.0)
    ),
    m.SCHEDULE_SENT: by_entry(_times),
    m.SCHEDULE_FAILED: by_entry(0.0),
    m.SCHEDULE_RUNS_SUCCEEDED: by_entry(_times),
    m.SCHEDULE_RUNS_FAILED: by_entry(0.0),
    m.SCHEDULE_FAILURES: by_entry(0.0),
    m.SCHEDULE_INTERVAL: by_entry(lambda _, entry: entry.every),
    m.SCHEDULE_LAST_SENT: by_entry(_last_due),
    m.SCHEDULE_NEXT_DUE: by_entry(lambda at, entry: _last_due(at, entry) + entry.every),
    m.SCHEDULE_LAST_SUCCESS: by_entry(_last_due),
    m.BROKER_MEMORY_USED: plain(lambda at: at.wobble("memory", 2e8)),
    m.BROKER_MEMORY_MAX: plain(2.0**30),
    m.BROKER_EVICTED: plain(0.0),
    m.BROKER_BLOCKED: plain(0.0),
    m.BROKER_ORPHANED: plain(0.0),
    m.BUILD_INFO: lambda _: [(("0.1.0", "3.12.1", "5.4.0"), 1.0)],
    m.START_TIME: plain(lambda at: at.started),
    m.BROKER_UP: plain(lambda at: float(not at.broker_down)),
    m.WORKER_DUPLICATE: by_worker(0.0),
    m.RECONNECTS: plain(lambda at: math.floor(at.fault_seconds / 30) if at.scenario.broker_down else 0.0),
    m.EVENTS: events,
    m.EVENTS_INVALID: by_value(("json", "fields")),
    m.EVENTS_MISSED: by_worker(lambda at, _: math.floor(at.scenario.missed * at.fault_seconds), only_live=False),
    m.EVENTS_UNEXPLAINED: by_worker(0.0),
    m.EVENTS_DUPLICATE: by_value(("task-failed",), lambda at, _: at.runs(0.001)),
    m.LAST_EVENT: plain(_ago(0.4)),
    m.WAITS_UNMEASURED: by_value(("no-sent", "clock"), lambda at, _: at.runs(0.01)),
    m.TRACKED: plain(lambda at: at.wobble("tracked", 20)),
    m.EVICTED: by_value(("vanished", "limit")),
    m.SERIES: plain(lambda at: 300.0 + 45 * len(at.scenario.tasks) + 15 * len(at.scenario.workers)),
    m.FOLDED: by_value(("name", "queue_name", "hostname", "exception", "pair")),
    m.NAMES_CUT: by_value(("name", "queue_name")),
    m.POLL_SUCCESS: by_value(("queues", "workers"), lambda at, _: float(not at.broker_down)),
    m.POLL_DURATION: by_value(("queues", "workers"), lambda at, name: 0.01 + at.wobble(name, 3) / 500),
    m.POLL_LAST_SUCCESS: by_value(("queues", "workers"), lambda at, _: _ago(7.0)(at)),
    m.CONTROL_REQUESTS: requests,
    m.CONTROL_AUTH_FAILURES: by_value(("expired", "signature"), lambda at, _: math.floor((at.now - at.started) / 300)),
    m.CONTROL_FEED_CLIENTS: plain(3.0),
    m.CONTROL_FEED_DROPPED: plain(0.0),
    m.CONTROL_PROMQL_FAILURES: by_value(("timeout", "refused")),
    m.CONTROL_ALERTS: by_value(("firing", "resolved")),
    m.CONTROL_REVOCATIONS: by_value(("revoked", "terminated")),
    m.CONTROL_HELD: plain(1.0),
    m.CONTROL_HELD_DROPPED: by_value(("limit", "expired")),
    m.CONTROL_EVICTED: by_value(("batches",)),
    m.CONTROL_UNREADABLE: by_value(("alerts",)),
}
DISTRIBUTIONS: dict[Family, Distributions] = {
    m.TASK_RUNTIME: timed(lambda task: task.runtime),
    m.TASK_FAILED_RUNTIME: timed(lambda task: task.runtime / 3),
    m.TASK_WAIT: timed(lambda task: task.wait),
    m.SCHEDULE_LATENESS: lambda at: [
        ((entry.schedule, entry.name), _times(at, entry), 0.2) for entry in at.scenario.entries
    ],
    m.EVENT_LAG: lambda at: [((), at.runs(4), 0.02)],
    m.CONTROL_LATENCY: lambda at: [(("/tasks/batch", "POST"), math.floor(at.now - at.started), 0.15)],
    m.CONTROL_PROMQL_LATENCY: lambda at: [((), math.floor(2 * (at.now - at.started)), 0.02)],
}
