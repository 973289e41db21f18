"""A known workload, compared counter by counter: both modes, every pool, three releases of Celery, three brokers.

`test_aggregate.py` has more of a workload for fewer of these, and what goes wrong meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from tests.apps.worker_app import make_app
from tests.integration.exporter.expected import Expected, settle
from tests.revocation.releases import INSTALLED, OTHERS, Setting
from tests.scrape import ExporterProcess, Scrape
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter import stamp
from celerymeter.buckets import RUNTIME_BUCKETS
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]

QUEUES = ("mail", "bulk")
ROUNDS = 20
DURATIONS = (1.1, 2.6)
"""Seconds that tasks take: a busy machine takes longer, and then too they are in the bucket."""
LATER = 1.3
"""Seconds that each may take longer."""


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    broker: str
    release: str
    pool: str
    mode: str

    def __str__(self) -> str:
        return f"{self.broker}-{self.release}-{self.pool}-{self.mode}"


LOSSY = {("5.4", "threads", "events"), ("5.6", "threads", "events")}
"""Celery itself loses events there (celery #10434, mended in 5.7): `EventDispatcher.flush` publishes what it gathered,
then clears it, and with it what other threads added meanwhile. Each run must be counted, or else counted as missed.
"""
SETTLED = 4
"""Heartbeats after a worker's first task event, until the exporter can tell what it misses (`LossMeter`)."""
POOLS = ("prefork", "threads", "solo", "gevent", "eventlet")
RELEASES = (INSTALLED, *OTHERS)
CASES = [
    *(Case(*cell) for cell in product(("redis", "rabbitmq"), RELEASES, POOLS, ("events", "aggregate"))),
    *(Case("filesystem", release, pool, "aggregate") for release, pool in product(RELEASES, POOLS)),
]


@dataclass(frozen=True)
class Broker:
    """The URL by which workers and producers connect, the exporter's, and their transport options."""

    url: str
    exporter_url: str
    transport_options: Mapping[str, Any] = field(default_factory=dict)


@pytest.fixture(autouse=True)
def _stamped() -> Iterator[None]:
    """Stamp every message that this process sends with the time."""
    stamp.install()
    yield
    stamp.uninstall()


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], RabbitMQ]]:
    """Starts it when it is needed first."""
    servers: list[RabbitMQ] = []
    with ExitStack() as stack:

        def start() -> RabbitMQ:
            if not servers:
                servers.append(stack.enter_context(RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))).up())
            return servers[0]

        yield start


@pytest.fixture
def broker(case: Case, rabbitmq: Callable[[], RabbitMQ], redis_server: Redis, tmp_path: Path) -> Broker:
    """The broker of a case; the filesystem carries no events between processes."""
    if case.broker == "redis":
        return Broker(redis_server.url, redis_server.url)
    if case.broker == "rabbitmq":
        server = rabbitmq()
        with make_app(server.url).connection_for_write() as connection:
            for queue in QUEUES:
                connection.default_channel.queue_delete(queue)
        return Broker(server.url, server.url)
    folders = {"data_folder_in": "messages", "data_folder_out": "messages", "processed_folder": "processed"}
    paths = {key: str(tmp_path / name) for key, name in {**folders, "control_folder": "control"}.items()}
    for path in paths.values():
        Path(path).mkdir(exist_ok=True)
    return Broker("filesystem://", "none", paths)


@pytest.fixture
def producer(broker: Broker) -> Iterator[Celery]:
    """The test's own application."""
    app = make_app(broker.url, transport_options=broker.transport_options)
    yield app
    app.close()


@pytest.fixture
def exporter(case: Case, broker: Broker, tmp_path: Path) -> Iterator[ExporterProcess]:
    """On the broker, or with an endpoint for pushes."""
    options = ("--open-push",) if case.broker == "filesystem" else ()
    with ExporterProcess(tmp_path, broker.exporter_url, options=options) as started:
        yield started.up()


def start(case: Case, broker: Broker, exporter: ExporterProcess, folder: Path) -> Any:
    """Start the worker."""
    push = {"push_url": f"{exporter.url}/-/push"} if case.broker == "filesystem" else {}
    return start_worker(
        broker.url,
        folder,
        pool=case.pool,
        concurrency=None if case.pool == "solo" else 4,
        queues=QUEUES,
        aggregate=push if case.mode == "aggregate" else None,
        options=["--without-gossip", "--without-heartbeat"] if push else [],
        env=Setting(release=case.release).environment(),
        transport_options=broker.transport_options,
    )


class Workload:
    """Sends tasks, and knows what must be counted of them."""

    def __init__(self, app: Celery, case: Case) -> None:
        self.expected = Expected()
        self.exceptions: Counter[tuple[str, str]] = Counter()
        """By queue and class."""
        self.rejected: Counter[tuple[str, str, str]] = Counter()
        """As the page has them."""
        self._app = app
        self._case = case

    def send(self) -> None:
        """Every way in which a run can end that all pools have."""
        now = datetime.now(timezone.utc)
        for queue in QUEUES:  # first: RabbitMQ itself drops what expires before a worker has it
            late, expires = now + timedelta(seconds=4), now + timedelta(seconds=3)
            self._one("tests.add", (1, 2), queue=queue, started=0, eta=late, expires=expires)
            self._one("tests.add", (1, 2), queue=queue, succeeded=1, eta=now + timedelta(seconds=2))
            self._one("tests.ignore", queue=queue)
        for number in range(ROUNDS):
            queue = QUEUES[number % len(QUEUES)]
            self._one("tests.add", (1, 2), queue=queue, succeeded=1)
            self._one("tests.fail", queue=queue, failed=1, raises="ValueError")
            self._one("tests.retry", (2,), queue=queue, runs=3, retried=2, succeeded=1)
            self._one("tests.retry", (9,), queue=queue, runs=4, retried=3, failed=1, raises="RuntimeError")
            self._reject(queue)
            if self._case.mode == "aggregate":  # events cannot tell such a task from a lost one
                self._one("tests.silent", (1, 2), queue=queue, received=0, started=0)
        for seconds in DURATIONS:
            self._one("tests.sleep", (seconds,), queue="bulk", succeeded=1)

    def send_first(self, exporter: ExporterProcess) -> None:
        """Let the worker do something, and wait until the exporter can account for what it does from then on."""
        self._one("tests.add", (1, 2), queue="mail", succeeded=1)
        wait_until(lambda: counted_or_missed(exporter) == 1, interval=0.5)
        before = heartbeats(exporter)
        wait_until(lambda: heartbeats(exporter) >= before + SETTLED, interval=0.5)

    def _reject(self, queue: str) -> None:
        """Celery 5.7 says that such a run failed, too."""
        if self._case.release == INSTALLED:
            self._one("tests.reject", queue=queue, failed=1, raises="Reject")
        else:
            self._one("tests.reject", queue=queue)
            self.rejected["tests.reject", queue, "false"] += 1

    def _one(
        self,
        name: str,
        arguments: tuple[object, ...] = (),
        *,
        queue: str,
        raises: str | None = None,
        eta: datetime | None = None,
        expires: datetime | None = None,
        **steps: int,
    ) -> None:
        self._app.send_task(name, arguments, queue=queue, eta=eta, expires=expires)
        if self._case.broker == "filesystem":  # producers push nothing
            steps["sent"] = 0
        self.expected.add(name, queue, **steps)
        if raises is not None:
            self.exceptions[queue, raises] += 1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_known_workload_is_counted_exactly(
    case: Case, broker: Broker, producer: Celery, exporter: ExporterProcess, tmp_path: Path
) -> None:
    """Twice over, with the worker stopped in between: every counter and every histogram."""
    workload = Workload(producer, case)
    if (case.release, case.pool, case.mode) in LOSSY:
        with start(case, broker, exporter, tmp_path):
            workload.send_first(exporter)
            workload.send()
            runs = workload.expected.counts["started"].total()
            wait_until(lambda: counted_or_missed(exporter) == runs, interval=0.5)
        return
    for times in (1, 2):
        with start(case, broker, exporter, tmp_path):
            workload.send()
            settle(exporter, workload.expected)
            for family in ("celery_task_ended_without_result_total", "celery_task_revoked_total"):
                wait_for_sum(exporter, family, times * len(QUEUES))
            wait_for_sum(exporter, "celery_task_in_progress", 0)
            if case.broker == "redis":
                wait_until(lambda: acknowledged(producer), interval=0.5, what="every message is acknowledged")
    page = settle(exporter, workload.expected)
    steps_that_are_rare(page, workload)
    histograms(page)
    for family in (
        "celerymeter_events_missed_total",
        "celerymeter_events_unexplained",
        "celery_task_redelivered_total",
    ):
        assert page.sum(family) == 0
    assert page.sum("celerymeter_events_invalid_total") == 0
    assert not {"unknown", "__other__", "None"} & (page.values("name") | page.values("queue_name"))


def counted_or_missed(exporter: ExporterProcess) -> float:
    """Runs of which the exporter knows."""
    page = exporter.scrape()
    return page.sum("celery_task_started_total") + page.sum("celerymeter_events_missed_total")


def acknowledged(producer: Celery) -> bool:
    """True if a worker that stops has nothing to give back: Celery 5.4 with gevent may, and the task runs again."""
    with producer.connection_for_read() as connection:
        return bool(connection.default_channel.client.hlen("unacked") == 0)


def heartbeats(exporter: ExporterProcess) -> float:
    """Heartbeats that it has received."""
    return exporter.value("celerymeter_events_total", event="worker-heartbeat") or 0.0


def wait_for_sum(exporter: ExporterProcess, family: str, value: int) -> None:
    """Of all its series."""
    wait_until(lambda: exporter.scrape().sum(family) == value, interval=0.5, what=f"{family} is {value}")


def steps_that_are_rare(page: Scrape, workload: Workload) -> None:
    """Exceptions, revokes and runs without a result."""
    by_class = page.by("celery_task_exceptions_total", "queue_name", "exception")
    assert by_class == {key: float(count) for key, count in workload.exceptions.items()}
    assert page.by("celery_task_revoked_total", "name", "queue_name", "reason") == {
        ("tests.add", queue, "expired"): 2 for queue in QUEUES
    }
    assert page.by("celery_task_ended_without_result_total", "name", "queue_name") == {
        ("tests.ignore", queue): 2 for queue in QUEUES
    }
    assert page.by("celery_task_rejected_total", "name", "queue_name", "requeue") == workload.rejected
    assert page.sum("celery_task_process_lost_total") == 0


def histograms(page: Scrape) -> None:
    """Each has every run, in the bucket of its duration; sums and busy time are those of the tasks."""
    for histogram, counter in (
        ("celery_task_runtime_seconds", "celery_task_succeeded_total"),
        ("celery_task_wait_seconds", "celery_task_started_total"),
    ):
        counts = page.by(f"{histogram}_count", "name", "queue_name")
        if histogram == "celery_task_wait_seconds":  # before its first heartbeat the clock of a worker is not known
            unmeasured = page.sum("celerymeter_waits_unmeasured_total", reason="clock_offset")
            assert sum(counts.values()) + unmeasured == page.sum(counter)
        else:
            assert counts == page.by(counter, "name", "queue_name")
        buckets = page.by(f"{histogram}_bucket", "name", "queue_name", "le")
        assert {key[:2]: count for key, count in buckets.items() if key[2] == "+Inf"} == counts
    failed = page.by("celery_task_failed_total", "name", "queue_name")
    assert page.by("celery_task_failed_runtime_seconds_count", "name", "queue_name") == failed
    sleeps = {"name": "tests.sleep", "queue_name": "bulk"}
    for seconds in DURATIONS:
        bound = next(bound for bound in RUNTIME_BUCKETS if bound > seconds)
        shorter = sum(2 for other in DURATIONS if other < bound)
        assert page.get("celery_task_runtime_seconds_bucket", le=str(float(bound)), **sleeps) == shorter
    whole = 2 * sum(DURATIONS)
    assert whole <= (page.get("celery_task_runtime_seconds_sum", **sleeps) or 0) < whole + 4 * LATER
    assert whole - LATER < (page.get("celery_task_busy_seconds_total", **sleeps) or 0) < whole + 6 * LATER
