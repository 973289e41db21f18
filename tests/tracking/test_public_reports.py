"""Faults that users of other monitors reported, as events, with the counts that are right.

Reports of other kinds stand where that code is tested:

- queues of no tasks (celery 2074 and 2387, celery.node 109), delay levels (kombu 2252, celery 10095): ``tests/polling``
- commands that harm (flower 706): ``tests/test_remote_control.py``; replies that JSON cannot write (celery 7601,
  superdesk-core 3204, galaxy 23525): ``tests/test_worker_configuration.py``
- connections that became useless (docker-library-redis 227, redisson 3897): ``tests/events/test_connection_errors.py``
- queues without workers after a restart (danihodovic/celery-exporter 260): ``tests/polling/test_rabbitmq.py``; tasks
  without names and lost counters after one (flower 765 and 481): ``tests/integration/exporter/test_ends.py``
- workers that are busy or late (danihodovic/celery-exporter 172, celery 7647):
  ``tests/integration/exporter/test_mute_workers.py``
- a monitor in another place than its workers (flower 151 and 8, celery 3101): ``tests/doctor``
- draining (celery 10180, 6244 and 9213): ``tests/integration/exporter/test_draining.py``
- ends that Celery does not report: a broker lost meanwhile (celery 8541), terminated greenlets (celery 4019):
  ``tests/integration/exporter/test_ends.py``
- Sentinel (kombu 1987, flower 439): ``tests/integration/exporter/test_sentinel.py``
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.tracking.cluster import WORKER, Cluster, make_settings

from celerymeter.model import OTHER, QueuesSnapshot

SECOND, THIRD = "celery@two", "celery@three"
HOUR = 3600.0


@pytest.fixture
def cluster() -> Cluster:
    """Three workers."""
    cluster = Cluster(make_settings(drain_time=2 * HOUR))
    for hostname in (WORKER, SECOND, THIRD):
        cluster.heartbeat(hostname, kind="worker-online")
    return cluster


def test_a_task_that_waits_is_received_again_every_hour(cluster: Cluster) -> None:
    """Redis delivers again what is not acknowledged; six workers' copies then run (learningequality/studio 3395)."""
    cluster.publish("a", "publish", "q")
    for hostname in (WORKER, SECOND, WORKER, THIRD, SECOND, WORKER):
        cluster.receive("a", "publish", hostname)
        cluster.now += HOUR
        for other in (WORKER, SECOND, THIRD):
            cluster.heartbeat(other)
    series = cluster.series("publish", "q")
    assert (series.sent, series.received, series.started) == (1, 6, 0)
    for hostname in (WORKER, SECOND, THIRD):
        cluster.start("a", hostname)
    assert (series.started, series.in_progress) == (3, 3)
    cluster.pass_time(3, beating=(WORKER, SECOND, THIRD))
    assert series.redelivered == 2
    for hostname in (THIRD, WORKER, SECOND):
        cluster.end("a", hostname=hostname)
    assert (series.succeeded, series.in_progress) == (3, 0)
    assert not cluster.tracker.tasks.counts.duplicates


def test_a_task_runs_at_three_workers_that_went_silent_over_it(cluster: Cluster) -> None:
    """Each seemed offline while it ran the task, and the broker gave it to the next (flower 1007)."""
    cluster.publish("a", "export", "q")
    for hostname in (WORKER, SECOND, THIRD):
        cluster.receive("a", "export", hostname)
        cluster.start("a", hostname)
        cluster.now += 3.0
    series = cluster.series("export", "q")
    assert (series.started, series.in_progress) == (3, 3)
    cluster.pass_time(60, beating=(THIRD,))
    assert series.redelivered == 2
    assert series.in_progress == 1, "of the silent ones it is not known any more"
    for hostname in (WORKER, SECOND, THIRD):
        cluster.end("a", hostname=hostname)
    assert (series.succeeded, series.in_progress) == (3, 0)


def test_a_draining_worker_whose_message_goes_to_another(cluster: Cluster) -> None:
    """In a warm shutdown its AMQP heartbeats stop, so RabbitMQ takes the message back (Zipstack/unstract 1614)."""
    cluster.publish("a", "ocr", "q")
    cluster.receive("a", "ocr")
    cluster.start("a")
    cluster.heartbeat(kind="worker-offline")
    cluster.pass_time(120, beating=(SECOND, THIRD))
    cluster.receive("a", "ocr", SECOND)
    cluster.start("a", SECOND)
    series = cluster.series("ocr", "q")
    assert series.in_progress == 2
    cluster.pass_time(3, beating=(SECOND, THIRD))
    assert series.redelivered == 1
    cluster.end("a")
    assert (series.succeeded, series.in_progress) == (1, 1)
    cluster.end("a", hostname=SECOND)
    assert (series.succeeded, series.in_progress, series.shutdown_lost) == (2, 0, 0)


def test_a_worker_that_never_got_its_sigterm(cluster: Cluster) -> None:
    """A shell was its container's first process: no goodbye, so it does not drain (apache/superset 33513)."""
    cluster.publish("a", "report", "q")
    cluster.receive("a", "report")
    cluster.start("a")
    cluster.pass_time(20, beating=(SECOND, THIRD))
    worker = cluster.tracker.workers.get(WORKER)
    assert worker is not None
    assert (worker.up, worker.shut_down) == (False, False)
    assert (cluster.series("report", "q").in_progress, cluster.series("report", "q").shutdown_lost) == (0, 0)


def test_first_heartbeats_that_count_nothing(cluster: Cluster) -> None:
    """Celery 4.4 sent some without ``active`` and ``processed`` (flower 1104)."""
    cluster.heartbeat("celery@old", active=None, processed=None, pid=0)
    worker = cluster.tracker.workers.get("celery@old")
    assert worker is not None
    assert (worker.up, worker.active, worker.processed_total) == (True, None, 0)
    cluster.heartbeat("celery@old", active=1, processed=3)
    assert (worker.active, worker.loss.missed) == (1, 0)


def test_events_of_an_application_on_the_event_exchange(cluster: Cluster) -> None:
    """``task-custom`` of an id that runs, and thousands of types (flower 626 and 810): no run changes."""
    cluster.publish("a", "import", "q")
    cluster.receive("a", "import")
    cluster.start("a")
    cluster.send("task-custom", uuid="a", name="other", queue="elsewhere")
    for number in range(1000):
        cluster.send(f"shop-opened-{number}", "web@one")
    assert cluster.tracker.event_counts["task-custom"] == 1
    assert cluster.tracker.event_counts[OTHER] > 900
    assert len(cluster.tracker.event_counts) < 60
    assert {series.labels: series.in_progress for series in cluster.tracker.task_series} == {("import", "q"): 1}
    assert cluster.tracker.workers.get("web@one") is None


@pytest.mark.parametrize(("ours", "shown"), [({}, 18000), ({"visibility_timeout": 60}, 60)])
def test_the_visibility_timeout_is_that_of_the_workers(ours: dict[str, object], shown: float) -> None:
    """Set in Django's settings alone, with another value at one worker (celery 5306 and 5935); an option overrides."""
    settings = make_settings()
    cluster = Cluster(replace(settings, broker=replace(settings.broker, transport_options=ours)))
    cluster.tracker.queues_seen(QueuesSnapshot(at=cluster.now, visibility_timeout=60 if ours else 3600))
    for hostname, timeout in ((WORKER, 604800), (SECOND, 18000), (THIRD, None)):
        cluster.heartbeat(hostname)
        cluster.answer(hostname, visibility_timeout=timeout)
    assert cluster.tracker.visibility_timeout() == shown


def test_a_success_without_a_runtime(cluster: Cluster) -> None:
    """It ended another exporter's stream (danihodovic/celery-exporter 377): it counts, and has no duration."""
    cluster.publish("a", "report", "q")
    cluster.receive("a", "report")
    cluster.start("a")
    cluster.send("task-succeeded", uuid="a", runtime=None)
    series = cluster.series("report", "q")
    assert (series.succeeded, series.runtime.sum, series.in_progress) == (1, 0, 0)


def test_a_retry_whose_client_names_no_queue(cluster: Cluster) -> None:
    """Another monitor lost its run by a KeyError (kodless/leek 87): the retry stays in the queue of its task."""
    cluster.publish("a", "fetch", "q")
    cluster.receive("a", "fetch")
    cluster.start("a")
    cluster.publish("a", "fetch", queue=None, retries=1, parent_id="a")
    cluster.send("task-retried", uuid="a", exception="Timeout()")
    cluster.receive("a", "fetch", retries=1, parent_id="a")
    cluster.start("a")
    cluster.end("a")
    series = cluster.series("fetch", "q")
    assert (series.sent, series.started, series.retried, series.succeeded) == (2, 2, 1, 1)


def test_an_event_of_neither_a_task_nor_a_worker(cluster: Cluster) -> None:
    """It broke Celery's own consumer of events (celery 2079): it is counted by its type."""
    cluster.send("deploy-finished")
    assert cluster.tracker.event_counts["deploy-finished"] == 1
    assert not cluster.tracker.rejections
