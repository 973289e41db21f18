"""Clusters for the dashboards to show: a healthy one, several with a fault each, and a large one."""

from __future__ import annotations

from dataclasses import dataclass, replace

STARTED_AGO = 6 * 3600.0
"""Seconds that each exporter has been running at the reference time."""
ONSET_AGO = 600.0
"""Seconds since the fault began."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task name on one queue. ``rate`` is in runs per second, times are means in seconds."""

    name: str
    queue: str
    rate: float
    failing: float = 0.004
    retried: float = 0.01
    runtime: float = 0.2
    wait: float = 0.1


@dataclass(frozen=True, slots=True)
class Queue:
    """``backlog`` is the usual number of waiting messages; ``slots`` 0 means that nobody consumes the queue."""

    name: str
    backlog: float = 4.0
    slots: int = 8
    late: float = 0.0
    """Seconds that its oldest message waits beyond what its length explains."""
    growth: float = 0.0
    """Messages per second that it grows by, from the onset on."""
    stalled: bool = False
    """From the onset on its oldest message is the same."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of beat's schedule, due every so many seconds; not sent from the onset on if it is ``stuck``."""

    schedule: str
    name: str
    every: float
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """A cluster and what goes wrong in it from the onset on. ``lost`` workers fall silent then."""

    cluster: str
    tasks: tuple[Task, ...] = ()
    queues: tuple[Queue, ...] = ()
    workers: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    lost: frozenset[str] = frozenset()
    broker_down: bool = False
    exporter_gone: bool = False
    missed: float = 0.0
    busy: float = 2.0
    """Slots of each worker, of its four, that always run a task."""
    growth: float = 0.0
    """Messages per second that every queue grows by, from the onset on."""


_TASKS = (
    Task("shop.orders.confirm", "orders", 2.0, runtime=0.12),
    Task("shop.orders.charge_card", "orders", 1.2, failing=0.008, retried=0.05, runtime=0.6),
    Task("shop.mail.send", "mail", 1.5, retried=0.04, runtime=0.3, wait=0.8),
    Task("shop.reports.render", "reports", 0.05, runtime=35.0, wait=12.0),
    Task("shop.search.index", "default", 0.9, runtime=0.05),
    Task("shop.images.resize", "default", 0.4, failing=0.0, runtime=2.2),
)
_QUEUES = (Queue("orders"), Queue("mail", 11.0, 4), Queue("reports", 3.0, 4), Queue("default", 6.0))
_WORKERS = ("orders@app-1", "orders@app-2", "mail@app-2", "reports@batch-1")

_ENTRIES = (
    Entry("clear-carts", "shop.carts.clear", 60.0),
    Entry("sync-stock", "shop.stock.sync", 120.0),
    Entry("hourly-figures", "shop.reports.render", 600.0),
    Entry("nightly-report", "shop.reports.render", 900.0),
)

GOOD = Scenario("good", _TASKS, _QUEUES, _WORKERS, _ENTRIES)
TWIN = replace(GOOD, cluster="twin")
"""The same as `GOOD`, watched by two exporters."""
TROUBLED = Scenario(
    "troubled",
    (*_TASKS[:1], replace(_TASKS[1], failing=0.22), replace(_TASKS[2], wait=90.0), *_TASKS[3:]),
    (
        Queue("orders", 30.0),
        Queue("mail", 400.0, 4, late=2400.0, growth=1.5),
        Queue("reports", 20.0, 4),
        Queue("legacy", 25.0, 0),
        Queue("asleep", 12.0, 4, stalled=True),
    ),
    _WORKERS,
    (_ENTRIES[0], replace(_ENTRIES[1], stuck=True), *_ENTRIES[2:]),
    lost=frozenset({"mail@app-2"}),
    missed=0.4,
)
NO_WORKERS = Scenario("no-workers", _TASKS, _QUEUES, _WORKERS, _ENTRIES, lost=frozenset(_WORKERS), growth=0.6)
FULL = replace(GOOD, cluster="full", busy=4.0)
"""All slots are busy, which is worth knowing, and no trouble."""
NOTHING_RUN = Scenario("nothing-run", queues=(Queue("celery", 0.0),), workers=("celery@only",))
BROKER_DOWN = Scenario("broker-down", _TASKS, _QUEUES, _WORKERS, _ENTRIES, broker_down=True)
EXPORTER_GONE = Scenario("exporter-gone", _TASKS, _QUEUES, _WORKERS, _ENTRIES, exporter_gone=True)


def crowd(tasks: int, workers: int) -> Scenario:
    """Many tasks and workers with long names."""
    names = tuple(f"pool{n % 5}@warehouse-{n:02}.internal.example.net" for n in range(workers))
    return Scenario(
        "crowded",
        tuple(
            Task(
                f"warehouse.{('inbound', 'outbound', 'stock', 'billing')[n % 4]}.step_{n:03}_of_a_long_pipeline",
                f"lane-{n % 12:02}",
                0.02 + (n % 17) * 0.01,
                failing=0.002 * (n % 23),
                runtime=0.05 * (1 + n % 40),
                wait=0.2 * (1 + n % 9),
            )
            for n in range(tasks)
        ),
        tuple(Queue(f"lane-{n:02}", float(n * 7), 12) for n in range(12)),
        names,
        lost=frozenset(names[7:8]),
    )


BIG_CROWD = crowd(200, 50)
ALL = (GOOD, TWIN, TROUBLED, NO_WORKERS, NOTHING_RUN, BROKER_DOWN, EXPORTER_GONE, FULL, crowd(30, 15))
