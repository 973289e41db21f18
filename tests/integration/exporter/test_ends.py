"""Every run has one end, however Celery ends it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from celery import Celery
from tests.apps.worker_app import SETTINGS
from tests.integration.exporter.conftest import StartExporter, StartWorker
from tests.revocation.releases import INSTALLED, OTHERS, Setting

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration


def test_odd_ends_are_counted_once_and_leave_nothing_in_progress(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Reject with and without requeue, a hard time limit, Ignore()."""
    exporter = new_exporter()
    new_worker("w1@test", concurrency=2)
    for name in ("tests.reject", "tests.reject_once", "tests.overrun", "tests.ignore"):
        producer.send_task(name)
    wait_until(lambda: exporter.scrape().sum("celery_task_failed_total", name="tests.overrun") == 1)
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total", name="tests.reject_once") == 1)
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 0)
    page = exporter.scrape()
    assert page.by("celery_task_rejected_total", "name", "requeue") == {("tests.reject_once", "true"): 1}
    assert page.by("celery_task_failed_total", "name") == {("tests.reject",): 1, ("tests.overrun",): 1}
    assert page.by("celerymeter_events_duplicate_total", "event") == {("task-rejected",): 1, ("task-failed",): 1}
    assert page.by("celerymeter_tracked_tasks_evicted_total", "reason") == {("vanished",): 1}
    assert page.get(
        "celery_task_exceptions_total", name="tests.overrun", queue_name="celery", exception="TimeLimitExceeded"
    )


def test_runs_whose_worker_was_told_to_send_no_events_are_not_without_a_result(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """An operator sends `disable_events` while they run, and `enable_events` later: nobody knows how they ended.

    Only events that a command has turned on can be turned off (`celery.worker.control.disable_events`).
    """
    exporter = new_exporter("--poll-interval", "1")
    new_worker("w1@test", concurrency=6, events=False)
    control, to = producer.control, {"destination": ["w1@test"], "reply": True}
    control.enable_events(**to)
    for _ in range(6):
        producer.send_task("tests.sleep", (14,))  # more than `SOON` after the last event
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 6)
    control.disable_events(**to)
    wait_until(lambda: exporter.value("celerymeter_tracked_tasks_evicted_total", reason="vanished") == 6)

    def is_off() -> bool:
        producer.send_task("tests.add", (1, 2))
        return exporter.value("celery_worker_task_events_enabled", hostname="w1@test") == 0

    wait_until(is_off, interval=1)
    control.enable_events(**to)
    producer.send_task("tests.fail")
    wait_until(lambda: exporter.scrape().sum("celery_task_failed_total", name="tests.fail") == 1)
    beats = exporter.scrape().sum("celerymeter_events_total", event="worker-heartbeat")
    wait_until(lambda: exporter.scrape().sum("celerymeter_events_total", event="worker-heartbeat") > beats + 1)
    page = exporter.scrape()
    assert page.sum("celery_task_in_progress") == 0
    assert page.sum("celery_task_ended_without_result_total") == 0
    assert page.sum("celery_task_failed_total") == 1


@pytest.mark.parametrize("release", [INSTALLED, pytest.param("5.6", marks=pytest.mark.slow)])
def test_runs_whose_worker_loses_the_broker_are_not_without_a_result(
    release: str, redis_server: Redis, producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Before 5.7 the worker says nothing of how they ended (celery 8541), although each has its result."""
    exporter = new_exporter("--poll-interval", "1")
    with redis.Redis(port=redis_server.port) as client:
        ours = {str(one["id"]) for one in client.client_list()}
        new_worker("w1@test", concurrency=6, env=dict(Setting(release=release).environment()))
        for _ in range(6):
            producer.send_task("tests.sleep", (6,))
        wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 6)
        for one in {str(one["id"]) for one in client.client_list()} - ours - {str(client.client_id())}:
            client.client_kill_filter(_id=one)
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 0)
    producer.send_task("tests.add", (1, 2))  # task events are on
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total", name="tests.add") == 1)
    page = exporter.scrape()
    known = page.sum("celery_task_succeeded_total", name="tests.sleep")
    assert known == (6 if release == INSTALLED else 0)
    assert page.sum("celerymeter_tracked_tasks_evicted_total", reason="vanished") == 6 - known
    assert page.sum("celery_task_ended_without_result_total") == 0


def test_a_task_that_no_worker_knows_has_its_name(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Its client sends no events, and the worker one: that it failed."""
    producer.conf.task_send_sent_event = False
    exporter = new_exporter()
    new_worker("w1@test", queues=("mail",))
    producer.send_task("shop.pay", queue="mail")
    task = {"name": "shop.pay", "queue_name": "mail"}
    wait_until(lambda: exporter.value("celery_task_failed_total", **task) == 1)
    assert exporter.value("celery_task_exceptions_total", exception="NotRegistered", **task) == 1


def test_a_failure_that_quotes_a_file_name_is_counted(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """A name that is not UTF-8 has lone surrogates in Python (`os.fsdecode`), and so has the traceback in the event."""
    exporter = new_exporter()
    new_worker("w1@test")
    producer.send_task("tests.fail", ("no such file: caf\udce9.pdf",))
    task = {"name": "tests.fail", "queue_name": "celery"}
    wait_until(lambda: exporter.value("celery_task_failed_total", **task) == 1)
    page = exporter.scrape()
    assert page.get("celery_task_exceptions_total", exception="ValueError", **task) == 1
    assert page.sum("celerymeter_events_invalid_total") == 0


@pytest.mark.parametrize("release", [INSTALLED, *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)])
@pytest.mark.parametrize("pool", ["gevent", pytest.param("eventlet", marks=pytest.mark.slow)])
def test_a_terminated_greenlet_is_no_success(
    pool: str, release: str, producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Celery sends `task-succeeded` for it too. Before 5.5 it cannot terminate greenlets of gevent."""
    if (pool, release) == ("gevent", "5.4"):
        pytest.skip("Celery before 5.5 cannot terminate them (celery 9083)")
    exporter = new_exporter("--poll-interval", "1")
    new_worker("w1@test", pool=pool, concurrency=2, env=dict(Setting(release=release).environment()))
    wait_until(lambda: exporter.value("celery_worker_pool_size", hostname="w1@test") == 2)
    task_id = producer.send_task("tests.sleep", (60,)).id
    task = {"name": "tests.sleep", "queue_name": "celery"}
    wait_until(lambda: exporter.value("celery_task_in_progress", **task) == 1)
    producer.control.revoke(task_id, terminate=True)
    wait_until(lambda: exporter.value("celery_task_revoked_total", reason="terminated", **task) == 1)
    wait_until(lambda: exporter.scrape().sum("celerymeter_events_total", event="task-succeeded") == 1)
    page = exporter.scrape()
    assert page.get("celery_task_succeeded_total", **task) == 0
    assert page.get("celery_task_in_progress", **task) == 0


def test_ids_that_are_uuid_objects_are_ids(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Every event is counted, and the worker's own list of what runs is read while such a task runs."""
    exporter = new_exporter()
    new_worker("w1@test", concurrency=1)
    for _ in range(3):
        producer.send_task("tests.add", (1, 2), task_id=uuid4())
    producer.send_task("tests.sleep", (4,), task_id=uuid4())
    wait_until(lambda: exporter.value("celery_task_in_progress", name="tests.sleep", queue_name="celery") == 1)
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 4)
    page = exporter.scrape()
    assert page.by("celery_task_started_total", "name") == {("tests.add",): 3, ("tests.sleep",): 1}
    assert page.by("celerymeter_events_invalid_total", "reason") == {}
    assert page.sum("celery_task_in_progress") == 0
    assert page.by("celerymeter_tracked_tasks_evicted_total", "reason") == {}


def test_heartbeats_end_what_a_worker_without_remote_control_does_not_tell(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """It never answers `inspect`; `Ignore()` sends no end, and heartbeats without any active task say that it came."""
    exporter = new_exporter()
    new_worker("w1@test", env={SETTINGS: json.dumps({"worker_enable_remote_control": False})})
    producer.send_task("tests.ignore")
    wait_until(lambda: exporter.value("celerymeter_tracked_tasks_evicted_total", reason="vanished") == 1)
    page = exporter.scrape()
    assert page.sum("celery_task_started_total", name="tests.ignore") == 1
    assert page.sum("celery_task_in_progress") == 0
    assert page.get("celery_worker_up", hostname="w1@test") == 1
    assert page.get("celerymeter_tracked_tasks") == 0


def test_a_task_whose_worker_is_killed_is_no_longer_in_progress(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """And is counted under its queue when it is delivered again and ends elsewhere."""
    exporter = new_exporter()
    options = {"visibility_timeout": 3}
    worker = new_worker("w1@test", transport_options=options)
    producer.send_task("tests.sleep_late", (4,))
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress", name="tests.sleep_late") == 1)
    worker.kill()
    wait_until(lambda: exporter.scrape().sum("celery_task_in_progress") == 0, timeout=12)
    new_worker("w2@test", transport_options=options)
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total", queue_name="celery") >= 1)
    assert exporter.scrape().values("queue_name") == {"celery"}


def test_an_exporter_that_comes_late_adopts_what_runs(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Name, queue and start of a long task survive a restart of the exporter; nothing is counted twice."""
    new_worker("w1@test", queues=("mail", "bulk"))
    running = producer.send_task("tests.sleep", (15,), queue="mail")
    wait_until(lambda: producer.control.inspect(timeout=0.5).query_task(running.id))
    exporter = new_exporter()
    wait_until(lambda: exporter.value("celery_task_in_progress", name="tests.sleep", queue_name="mail") == 1)
    wait_until(lambda: exporter.value("celery_task_succeeded_total", name="tests.sleep", queue_name="mail") == 1)
    assert exporter.scrape().sum("celery_task_in_progress") == 0
    assert exporter.scrape().sum("celery_worker_tasks_processed_total") == 0


def test_an_exporter_that_comes_late_learns_what_waits_at_a_worker(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter
) -> None:
    """Prefetched tasks were received before it came, and their other events name no task (flower 765)."""
    new_worker("w1@test", queues=("mail", "bulk"))
    running = producer.send_task("tests.sleep", (15,), queue="mail")
    waiting = [producer.send_task("tests.add", (1, 2), queue=queue) for queue in ("mail", "bulk", "bulk")]
    inspect = producer.control.inspect(timeout=0.5)
    wait_until(lambda: len(_ids(inspect.query_task([running.id, *(one.id for one in waiting)]))) == 4)
    exporter = new_exporter()
    wait_until(lambda: exporter.scrape().sum("celery_task_succeeded_total") == 4)
    page = exporter.scrape()
    assert page.by("celery_task_succeeded_total", "name", "queue_name") == {
        ("tests.sleep", "mail"): 1,
        ("tests.add", "mail"): 1,
        ("tests.add", "bulk"): 2,
    }
    assert page.sum("celery_task_in_progress") == 0
    assert page.get("celerymeter_tracked_tasks") == 0


def _ids(replies: dict[str, dict[str, object]] | None) -> set[str]:
    return {task_id for tasks in (replies or {}).values() for task_id in tasks}


def test_counters_continue_after_the_exporter_was_killed(
    producer: Celery, new_worker: StartWorker, new_exporter: StartExporter, tmp_path: Path
) -> None:
    """The state file is replaced every 10 s, not at the end only (as flower 481 asks of its own)."""
    (tmp_path / "state").mkdir(mode=0o700)
    file = tmp_path / "state" / "state.json"
    exporter = new_exporter("--state-file", str(file))
    new_worker("w1@test", queues=("mail",))
    task = {"name": "tests.add", "queue_name": "mail"}
    for _ in range(5):
        producer.send_task("tests.add", (1, 2), queue="mail")
    wait_until(lambda: exporter.value("celery_task_succeeded_total", **task) == 5)
    before = file.stat().st_mtime_ns if file.exists() else 0
    wait_until(lambda: file.exists() and file.stat().st_mtime_ns > before, what="the state is saved")
    exporter.kill()
    second = new_exporter("--state-file", str(file), name="second")
    assert second.value("celery_task_succeeded_total", **task) == 5
    producer.send_task("tests.add", (1, 2), queue="mail")
    wait_until(lambda: second.value("celery_task_succeeded_total", **task) == 6)
    # the worker's own count comes with its next heartbeat
    wait_until(lambda: second.value("celery_worker_tasks_processed_total", hostname="w1@test") == 6)
    page = second.scrape()
    for step in ("sent", "received", "started"):
        assert page.get(f"celery_task_{step}_total", **task) == 6
    assert page.sum("celerymeter_events_missed_total") == 0


@pytest.mark.parametrize(
    ("setting", "outcome"),
    [
        ({}, {"celery_task_failed_total": 1}),
        ({"task_reject_on_worker_lost": True}, {"celery_task_rejected_total": 1}),
        ({"task_retry_on_worker_lost": True}, {"celery_task_retried_total": 1}),
    ],
    ids=["fails", "goes back", "is retried"],
)
def test_a_killed_pool_process_is_counted_whatever_becomes_of_its_task(
    setting: dict[str, bool],
    outcome: dict[str, float],
    producer: Celery,
    new_worker: StartWorker,
    new_exporter: StartExporter,
) -> None:
    """As the kernel kills it when memory runs out. Only in the first setting an event says so in words."""
    exporter = new_exporter()
    new_worker("w1@test", queues=("mail",), env={SETTINGS: json.dumps(setting)})
    task_id = producer.send_task("tests.sleep_late", (3,), queue="mail").id
    task = {"name": "tests.sleep_late", "queue_name": "mail"}
    wait_until(lambda: exporter.value("celery_task_in_progress", **task) == 1)
    running = producer.control.inspect(timeout=1).active() or {}
    os.kill(next(one["worker_pid"] for one in running["w1@test"] if one["id"] == task_id), signal.SIGKILL)
    wait_until(lambda: exporter.value("celery_task_process_lost_total", **task) == 1)
    if "task_reject_on_worker_lost" in setting:  # a retry comes after three minutes
        wait_until(lambda: exporter.value("celery_task_succeeded_total", **task) == 1)
    page = exporter.scrape()
    assert {name: page.sum(name, **task) for name in outcome} == outcome
    assert page.get("celery_task_in_progress", **task) == 0
    assert page.sum("celerymeter_tracked_tasks_evicted_total") == 0
