"""Aggregating workers on a real broker: the same counters as by events, whatever pool, release and restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from celery import Celery
from tests.integration.exporter.conftest import StartExporter, StartWorker
from tests.integration.exporter.expected import Expected, settle
from tests.integration.exporter.test_counts import QUEUES, mixed_workload, revoke_two
from tests.revocation.releases import INSTALLED, OTHERS, Setting
from tests.scrape import Scrape
from tests.workers import start_worker as start
from tools.soak.proxy import DroppingProxy

from celerymeter import stamp
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

DURATIONS = {0.15: "0.5", 0.6: "1.0", 1.4: "2.5", 2.8: "5.0"}
"""Seconds that a task takes, and the bucket that its run falls in."""


@pytest.fixture(autouse=True)
def _stamped() -> Iterator[None]:
    """Stamp every message that this process sends with the time."""
    stamp.install()
    yield
    stamp.uninstall()


@pytest.fixture(params=["events", "aggregate"])
def start_worker(request: pytest.FixtureRequest, new_worker: StartWorker) -> StartWorker:
    """Starts workers of either mode."""
    if request.param == "events":
        return new_worker
    return aggregating(new_worker)


def aggregating(new_worker: StartWorker) -> StartWorker:
    """The same for aggregating workers only."""
    return lambda hostname, **options: new_worker(hostname, **{"aggregate": {}, **options})


def nothing_is_missed(page: Scrape) -> None:
    """Check what must hold at the end of every workload."""
    assert page.sum("celerymeter_events_missed_total") == 0
    assert page.sum("celerymeter_events_unexplained") == 0
    assert page.sum("celerymeter_events_invalid_total") == 0
    assert page.sum("celery_task_in_progress") == 0
    series = page.text.splitlines()
    assert not [line for line in series if line.startswith("celery_task_") and '="unknown"' in line]


def test_a_mixed_workload_is_counted_the_same_in_both_modes(
    chord_producer: Celery, start_worker: StartWorker, new_exporter: StartExporter
) -> None:
    exporter = new_exporter()
    for hostname in ("w1@test", "w2@test"):
        start_worker(hostname, concurrency=2, queues=QUEUES)
    expected = Expected()
    chord_producer.send_task("tests.add", (0, 0), queue="fast", expires=datetime(2020, 1, 1, tzinfo=timezone.utc))
    expected.add("tests.add", "fast", started=0)
    revoke_two(chord_producer, exporter, expected)
    for seconds in DURATIONS:
        chord_producer.send_task("tests.sleep", (seconds,), queue="bulk")
        expected.add("tests.sleep", "bulk", succeeded=1)
    mixed_workload(chord_producer, expected, rounds=8)
    settle(exporter, expected)
    wait_until(lambda: exporter.scrape().sum("celery_task_revoked_total") == 3)
    page = exporter.scrape()
    nothing_is_missed(page)
    assert page.by("celery_task_revoked_total", "name", "queue_name", "reason") == {
        ("tests.add", "fast", "expired"): 1,
        ("tests.add", "mail", "revoked"): 1,
        ("tests.sleep", "slow", "terminated"): 1,
    }
    assert page.by("celery_task_exceptions_total", "exception") == {
        ("ValueError",): 8,
        ("RuntimeError",): 8,
        ("Reject",): 8,
    }
    for cumulative, le in enumerate(DURATIONS.values(), start=1):
        labels = {"name": "tests.sleep", "queue_name": "bulk", "le": le}
        assert page.get("celery_task_runtime_seconds_bucket", **labels) == cumulative
    assert page.sum("celery_task_runtime_seconds_count") == page.sum("celery_task_succeeded_total")
    waits = page.sum("celery_task_wait_seconds_count") + page.sum("celerymeter_waits_unmeasured_total")
    assert waits == page.sum("celery_task_started_total")
    assert page.sum("celery_task_failed_runtime_seconds_count") == page.sum("celery_task_failed_total")
    assert page.sum("celery_task_redelivered_total") == 0
    busy = page.sum("celery_task_busy_seconds_total", name="tests.sleep", queue_name="bulk")
    assert busy == pytest.approx(sum(DURATIONS), abs=1.0)


POOLS = ("prefork", "solo", "gevent", "eventlet")
RELEASES = [INSTALLED, *(pytest.param(release, marks=pytest.mark.slow) for release in OTHERS)]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("pool", ["threads", *(pytest.param(pool, marks=pytest.mark.slow) for pool in POOLS)])
def test_every_pool_and_release_counts_to_the_task(
    pool: str, release: str, producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    exporter = new_exporter()
    environment = dict(Setting(release=release).environment())
    aggregating(new_worker)("w1@test", pool=pool, concurrency=None if pool == "solo" else 8, env=environment)
    expected = Expected()
    for _ in range(300):
        producer.send_task("tests.add", (1, 2))
        producer.send_task("tests.fail")
        producer.send_task("tests.retry", (1,))
        producer.send_task("tests.silent", (1, 2))
    producer.send_task("tests.ignore")
    expected.add("tests.add", "celery", times=300, succeeded=1)
    expected.add("tests.fail", "celery", times=300, failed=1)
    expected.add("tests.retry", "celery", times=300, runs=2, retried=1, succeeded=1)
    expected.add("tests.silent", "celery", times=300, received=0, started=0)
    expected.add("tests.ignore", "celery")
    settle(exporter, expected)
    wait_until(lambda: exporter.scrape().sum("celery_task_ended_without_result_total") == 1)
    page = exporter.scrape()
    nothing_is_missed(page)
    assert page.by("celery_worker_info", "hostname", "mode") == {("w1@test", "aggregate"): 1}
    assert page.get("celery_worker_task_events_enabled", hostname="w1@test") == 1


def test_counters_are_exact_over_restarts_of_worker_and_exporter(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter, tmp_path: Path
) -> None:
    """The exporter is away while tasks run and while another worker starts; later a worker is stopped and started."""
    state = ("--state-file", str(tmp_path / "state.json"))
    exporter = new_exporter(*state)
    start = aggregating(new_worker)
    worker = start("w1@test", pool="threads", concurrency=4)
    expected = Expected()
    send = counted(producer, expected)
    send(50)
    settle(exporter, expected)
    assert exporter.stop(timeout=60) == 0
    send(50)
    wait_until(lambda: queue_is_empty(producer))
    second = start("w2@test", pool="threads", concurrency=4)
    send(50)
    wait_until(lambda: queue_is_empty(producer))
    exporter = new_exporter(*state, name="second")
    expected.counts["sent"]["tests.add", "celery"] -= 100  # which were sent while no exporter was there
    settle(exporter, expected)
    worker.stop(20)
    send(50)
    settle(exporter, expected)
    start("w1@test", pool="threads", concurrency=4)
    send(50)
    page = settle(exporter, expected)
    nothing_is_missed(page)
    assert page.sum("celery_task_runtime_seconds_count") == 250
    assert page.sum("celery_task_wait_seconds_count") == 250
    second.stop(20)


def test_tasks_that_end_while_a_worker_shuts_down_are_counted(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    exporter = new_exporter()
    worker = aggregating(new_worker)("w1@test", concurrency=2)
    expected = Expected()
    for _ in range(2):
        producer.send_task("tests.sleep", (3,))
        expected.add("tests.sleep", "celery", succeeded=1)
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 2)
    worker.stop(30)
    nothing_is_missed(settle(exporter, expected))


def test_a_killed_worker_loses_at_most_one_interval(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    exporter = new_exporter()
    worker = aggregating(new_worker)("w1@test", pool="threads", concurrency=2)
    sent = 0
    end = time.monotonic() + 6
    while time.monotonic() < end:
        producer.send_task("tests.add", (1, 2))
        sent += 1
        time.sleep(0.02)
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") > sent / 3)
    worker.kill()
    wait_until(lambda: exporter.scrape().sum("celery_worker_up") == 0)
    page = exporter.scrape()
    assert page.sum("celery_task_started_total") >= sent * (6 - 2.6) / 6  # all but the last interval and its message
    assert page.sum("celery_task_in_progress") == 0


@pytest.mark.slow
def test_what_a_killed_worker_had_not_reported_is_missed_exactly(
    redis_server: Redis, producer: Celery, tmp_path: Path, new_exporter: StartExporter
) -> None:
    """Its last totals are dropped on the way; replies to `inspect stats` say how many runs it had begun."""
    exporter = new_exporter()
    with DroppingProxy(redis_server.port) as proxy:
        worker = start(proxy.url, tmp_path, pool="threads", concurrency=2, aggregate={})
        expected = Expected()
        send = counted(producer, expected)
        send(30)
        settle(exporter, expected)
        proxy.share = 1.0
        for _ in range(20):
            producer.send_task("tests.add", (1, 2))
        wait_until(lambda: exporter.scrape().sum("celery_task_accepted_total") == 50)
        worker.kill()
        wait_until(lambda: exporter.scrape().sum("celerymeter_events_missed_total") > 0)  # it may come back
    page = exporter.scrape()
    assert page.sum("celery_task_started_total") == page.sum("celery_task_succeeded_total") == 30
    assert page.get("celerymeter_events_missed_total", hostname="w1@test") == 20
    assert page.sum("celerymeter_events_unexplained") == 0


def counted(producer: Celery, expected: Expected) -> Callable[[int], None]:
    """Sends tasks that succeed, and expects them."""

    def send(tasks: int) -> None:
        for _ in range(tasks):
            producer.send_task("tests.add", (1, 2))
        expected.add("tests.add", "celery", times=tasks, succeeded=1)

    return send


def queue_is_empty(producer: Celery) -> bool:
    """True once workers have taken everything."""
    with producer.connection_for_read() as connection:
        channel = connection.default_channel
        return bool(channel.client.llen("celery") + channel.client.hlen("unacked") == 0)


def test_an_outage_of_the_broker_loses_nothing(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """All clients lose their connection; the worker makes a new dispatcher and goes on counting."""
    exporter = new_exporter()
    aggregating(new_worker)("w1@test", pool="prefork", concurrency=2)
    expected = Expected()
    send = counted(producer, expected)
    send(40)
    settle(exporter, expected)
    for _ in range(2):
        producer.send_task("tests.sleep", (4,))
        expected.add("tests.sleep", "celery", succeeded=1)
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 2)
    with producer.connection_for_read() as connection:
        connection.default_channel.client.client_kill_filter(skipme=True)
    send(40)
    del expected.counts["sent"]  # of which an event may be lost: the exporter has to connect again too
    nothing_is_missed(settle(exporter, expected))
