"""Every counter is exactly right on a real cluster."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery, chord, group
from tests.integration.exporter.conftest import StartExporter, StartWorker
from tests.integration.exporter.expected import Expected, settle
from tests.scrape import ExporterProcess, Scrape

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import find_binary

pytestmark = pytest.mark.integration

QUEUES = ("fast", "slow", "mail", "bulk")


def mixed_workload(app: Celery, expected: Expected, *, rounds: int) -> None:
    """Successes, failures, retries within and past the limit, groups, chords, rejects and ETA, over four queues."""
    for number in range(rounds):
        queue = QUEUES[number % 4]
        app.send_task("tests.add", (1, 2), queue=queue)
        expected.add("tests.add", queue, succeeded=1)
        app.send_task("tests.fail", queue=queue)
        expected.add("tests.fail", queue, failed=1)
        app.send_task("tests.retry", (2,), queue=queue)
        expected.add("tests.retry", queue, runs=3, retried=2, succeeded=1)
        app.send_task("tests.retry", (9,), queue=queue)
        expected.add("tests.retry", queue, runs=4, retried=3, failed=1)
        app.send_task("tests.reject", queue=queue)
        expected.add("tests.reject", queue, failed=1)
        eta = datetime.now(timezone.utc) + timedelta(seconds=1)
        app.send_task("tests.add", (1, 2), queue=queue, eta=eta)
        expected.add("tests.add", queue, succeeded=1)
        members = [app.signature("tests.add", (n, n)).set(queue=queue) for n in range(5)]
        group(members, app=app).apply_async()
        chord(members, app.signature("tests.total").set(queue=queue), app=app).apply_async()
        expected.add("tests.add", queue, times=10, succeeded=1)
        expected.add("tests.total", queue, succeeded=1)


def revoke_two(app: Celery, exporter: ExporterProcess, expected: Expected) -> None:
    """One that waits for its ETA in a worker, one that runs."""
    waiting = app.send_task("tests.add", (0, 0), queue="mail", countdown=3)
    running = app.send_task("tests.sleep", (60,), queue="slow")
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress", name="tests.sleep") == 1)
    wait_until(lambda: exporter.scrape().sum("celery_task_received_total", queue_name="mail") == 1)
    app.control.revoke(waiting.id)
    app.control.revoke(running.id, terminate=True)
    expected.add("tests.add", "mail", started=0)
    expected.add("tests.sleep", "slow")


def complaints(page: Scrape) -> str:
    """Return the complaints of `promtool check metrics` about a page."""
    command = [find_binary("promtool"), "check", "metrics"]
    check = subprocess.run(command, input=page.text, text=True, capture_output=True, check=False)
    return check.stdout + check.stderr


def test_a_mixed_workload_is_counted_to_the_task(
    chord_producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Two prefork workers, four queues: no unknown, no None, nothing missed, nothing left in progress."""
    exporter = new_exporter()
    for hostname in ("w1@test", "w2@test"):
        new_worker(hostname, concurrency=2, queues=QUEUES)
    expected = Expected()
    chord_producer.send_task("tests.add", (0, 0), queue="fast", expires=datetime(2020, 1, 1, tzinfo=timezone.utc))
    expected.add("tests.add", "fast", started=0)
    revoke_two(chord_producer, exporter, expected)
    mixed_workload(chord_producer, expected, rounds=12)
    settle(exporter, expected)
    wait_until(lambda: exporter.scrape().sum("celery_task_revoked_total") == 3)
    page = exporter.scrape()
    assert page.by("celery_task_revoked_total", "name", "queue_name", "reason") == {
        ("tests.add", "fast", "expired"): 1,
        ("tests.add", "mail", "revoked"): 1,
        ("tests.sleep", "slow", "terminated"): 1,
    }
    assert not {"unknown", "None"} & (page.values("name") | page.values("queue_name"))
    assert page.sum("celerymeter_events_missed_total") == 0
    assert page.sum("celerymeter_events_invalid_total") == 0
    assert page.sum("celery_task_in_progress") == 0
    assert page.by("celery_task_exceptions_total", "exception") == {
        ("ValueError",): 12,
        ("RuntimeError",): 12,
        ("Reject",): 12,
    }
    waits = page.sum("celery_task_wait_seconds_count") + page.sum("celerymeter_waits_unmeasured_total")
    assert waits == page.sum("celery_task_started_total")
    assert complaints(page) == ""


def test_without_task_sent_the_queue_is_right_where_it_can_be_known(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """A worker with one queue leaves no doubt; one with two does, but for the tasks that a poll finds with it."""
    exporter = new_exporter()
    for queue in ("mail", "bulk"):
        new_worker(f"{queue}@test", queues=(queue,))
    new_worker("both@test", queues=("a", "b"))
    producer.conf.task_send_sent_event = False
    for queue in ("mail", "bulk", "a", "b"):
        for _ in range(20):
            producer.send_task("tests.add", (1, 2), queue=queue)
        producer.send_task("tests.fail", queue=queue)
    wait_until(lambda: exporter.scrape().sum("celery_task_failed_total") == 4)
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 80)
    page = exporter.scrape()
    succeeded = page.by("celery_task_succeeded_total", "queue_name")
    assert (succeeded.pop(("mail",)), succeeded.pop(("bulk",))) == (20, 20)
    assert succeeded[("unknown",)] > 0
    assert succeeded.keys() <= {("a",), ("b",), ("unknown",)}
    assert max(succeeded.get(("a",), 0), succeeded.get(("b",), 0)) <= 20
    assert page.by("celerymeter_waits_unmeasured_total", "reason") == {("not_sent",): 84}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("tasks", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_long_queue_keeps_names_queues_and_waits(
    tasks: int, producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """All are queued before the first of them runs."""
    exporter = new_exporter()
    with producer.connection_for_write() as connection, producer.amqp.Producer(connection) as channel:
        for number in range(tasks):
            name = "tests.add" if number % 2 else "tests.total"
            arguments = (1, 2) if number % 2 else ([1],)
            producer.send_task(name, arguments, queue=QUEUES[number % 4], producer=channel)
    wait_until(lambda: exporter.scrape().sum("celery_queue_length") == tasks)
    assert exporter.value("celerymeter_tracked_tasks") == tasks
    for number in range(2):
        new_worker(f"w{number}@test", pool="threads", concurrency=4, queues=QUEUES)
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == tasks, timeout=600, interval=0.5)
    page = exporter.scrape()
    names = {("tests.add", "slow"), ("tests.add", "bulk"), ("tests.total", "fast"), ("tests.total", "mail")}
    assert page.by("celery_task_succeeded_total", "name", "queue_name") == dict.fromkeys(names, tasks / 4)
    assert page.sum("celery_task_wait_seconds_count") == tasks
    assert page.sum("celerymeter_waits_unmeasured_total") == 0
    assert page.sum("celerymeter_events_missed_total") == 0
