"""Runs whose id is not all on a real cluster: every name and queue is right, nothing is left in progress."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable

import pytest
from celery import Celery
from tests.apps.worker_app import SETTINGS
from tests.integration.exporter.conftest import StartExporter, StartWorker
from tests.integration.exporter.expected import Expected, settle

from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration

INNER = {
    "task": {"tests.add": 1},
    "slow": {"tests.sleep": 1},
    "chain": {"tests.add": 2, "tests.sleep": 1},
    "group": {"tests.add": 2, "celery.accumulate": 1},
    "chord": {"tests.add": 2, "tests.total": 1},
    "itself": {"tests.add": 1},
}
"""The tasks that each kind of replacement runs."""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_replaced_task_and_its_replacement_are_counted_apart(
    pool: str, chord_producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Replaced by a task that succeeds or fails, a chain, a group, a chord, and by itself, on two workers."""
    exporter = new_exporter()
    new_worker("outer@test", concurrency=2, queues=("q1",), pool=pool)
    new_worker("inner@test", concurrency=2, queues=("q2", "celery"), pool=pool)
    expected = Expected()
    for kind, inner in INNER.items():
        for _ in range(4):
            times = 3 if kind == "itself" else 1
            chord_producer.send_task("tests.replace", (kind, "q2", times), queue="q1")
            expected.add("tests.replace", "q1")
            expected.add("tests.replace", "q2", times=times - 1)
            for name, runs in inner.items():
                queue = "celery" if name == "celery.accumulate" else "q2"
                expected.add(name, queue, times=runs, succeeded=1)
    chord_producer.send_task("tests.replace", ("fail", "q2"), queue="q1")
    expected.add("tests.replace", "q1")
    expected.add("tests.fail", "q2", failed=1)
    page = settle(exporter, expected)
    assert page.sum("celery_task_in_progress") == 0
    assert page.sum("celerymeter_tracked_tasks_evicted_total") == 0
    assert page.sum("celerymeter_events_missed_total") == 0
    assert page.sum("celerymeter_events_duplicate_total") == 0
    assert page.sum("celerymeter_tracked_tasks") == 0


@pytest.mark.parametrize("new_id", [uuid.uuid4, itertools.count(1).__next__], ids=["UUID", "number"])
def test_ids_may_be_other_objects_than_text(
    new_id: Callable[[], object], producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """`apply_async(task_id=uuid.uuid4())`, `task_id=order.pk`: counted, also while the worker lists a running one."""
    exporter = new_exporter("--poll-interval", "1")
    no_results = {SETTINGS: json.dumps({"task_ignore_result": True})}  # their keys must be text
    new_worker("w1@test", concurrency=2, queues=("mail",), env=no_results)
    expected = Expected()
    for name, arguments in (("tests.add", (1, 2)), ("tests.sleep", (4,)), ("tests.retry", (2,))):
        producer.send_task(name, arguments, queue="mail", task_id=new_id())
    expected.add("tests.add", "mail", succeeded=1)
    expected.add("tests.sleep", "mail", succeeded=1)
    expected.add("tests.retry", "mail", runs=3, retried=2, succeeded=1)
    page = settle(exporter, expected)
    assert page.sum("celery_task_in_progress") == 0
    assert page.sum("celerymeter_tracked_tasks_evicted_total") == 0
    assert page.sum("celerymeter_events_invalid_total") == 0
    assert page.sum("celerymeter_events_missed_total") == 0
    # on a busy machine a poll of 1 s may be overdue just now, and its gauges are left out until the next
    wait_until(lambda: exporter.value("celery_queue_pool_slots", queue_name="mail") == 2, what="the worker's reply")


def test_task_protocol_1_and_shadow_names(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Messages of the first protocol name no parent; a shadow name shows in what the worker reports, and counts not."""
    exporter = new_exporter()
    expected = Expected()
    for number in range(5):
        producer.send_task("tests.add", (1, 2), queue="mail", shadow=f"adding to {number}")
        producer.send_task("tests.retry", (1,), queue="mail", shadow=f"trying {number}")
    producer.conf.task_protocol = 1
    for _ in range(5):
        producer.send_task("tests.add", (1, 2), queue="mail")
        producer.send_task("tests.retry", (1,), queue="mail")
    # the real names come with `task-sent`, for which a busy machine may take longer than for the worker's events
    wait_until(lambda: exporter.scrape().sum("celery_task_sent_total") == 20, what="task-sent")
    new_worker("w1@test", concurrency=2, queues=("mail",))
    expected.add("tests.add", "mail", times=10, succeeded=1)
    expected.add("tests.retry", "mail", times=10, runs=2, retried=1, succeeded=1)
    page = settle(exporter, expected)
    assert page.sum("celery_task_in_progress") == 0
    assert page.sum("celerymeter_tracked_tasks_evicted_total") == 0
    assert page.sum("celery_task_redelivered_total") == 0
    assert set(page.by("celery_task_started_total", "name")) == {("tests.add",), ("tests.retry",)}


def test_shadow_names_without_sent_events_take_no_names(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Each run may have another; one that `inspect active` has shown counts under the task's own name."""
    exporter = new_exporter("--max-task-names", "5")
    new_worker("w1@test", pool="threads", concurrency=4)
    wait_until(lambda: exporter.value("celerymeter_poll_success", collector="workers") == 1)
    wait_until(lambda: exporter.value("celery_worker_pool_size", hostname="w1@test") == 4)
    producer.conf.task_send_sent_event = False
    producer.send_task("tests.sleep", (4,), shadow="a nap")
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 1, what="it runs")
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 0, what="it was seen by polls, and is over")
    producer.send_task("tests.sleep", (0,), shadow="a nap")
    for number in range(30):
        producer.send_task("tests.add", (1, 2), shadow=f"adding to {number}")
    producer.send_task("tests.add", (1, 2))
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 33)
    page = exporter.scrape()
    succeeded = {name: count for (name,), count in page.by("celery_task_succeeded_total", "name").items() if count}
    assert succeeded == {"tests.sleep": 1, "tests.add": 1, "__other__": 31}
    assert page.get("celerymeter_series_folded_total", label="shadow") == 31
    assert page.get("celerymeter_series_folded_total", label="name") == 0
