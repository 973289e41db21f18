"""Faults that are rarer: of names, clocks, permissions, caps, and of the control API."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis
import requests
from tests.integration.alerts.drill import Drill, Expected, host, queue, sending, task
from tests.integration.alerts.stage import Cast
from tests.integration.exporter.test_clocks import skewed

from celerymeter.demo.processes import wait_until

QUICK_OVERRIDES: list[dict[str, object]] = [
    {"record": "celery:worker_flapping:limit", "expr": 2, "labels": {"severity": "warning", "cluster": "names"}},
    {"record": "celery:redelivery:limit", "expr": 0.002, "labels": {"severity": "warning", "cluster": "caps"}},
    {"record": "celery:event_silence:limit", "expr": 10, "labels": {"severity": "warning", "cluster": "silent"}},
    {"record": "celery:task_runtime:limit", "expr": 0.5, "labels": {"severity": "warning", "name": "tests.sleep"}},
]
"""What may happen five times in half an hour here may twice, and what may take minutes, or most of an hour, seconds."""

TWINS = Expected("two workers of one name", "names", "CeleryWorkerDuplicate", "warning", host("twin@names"))
FLAPPING = Expected("worker comes and goes", "names", "CeleryWorkerFlapping", "warning", host("shaky@names"))
SKEWED = Expected("clock 30 s ahead", "clocks", "CeleryWorkerClockSkew", "warning", host("ahead@clocks"))
SLOW = Expected("task grows slow", "clocks", "CeleryTaskSlow", "warning", task("tests.sleep"))
CAPPED = Expected("more task names than the cap", "caps", "CelerySeriesCapReached", "warning", (("label", "name"),))
UNACKED = Expected("message unacknowledged too long", "caps", "CeleryRedeliveryRisk", "warning", queue("late"))
POLLS = Expected("polls not permitted", "caps", "CeleryPollsFailing", "warning", (("collector", "queues"),))
SILENT = Expected("no event at all", "silent", "CeleryEventStreamStale", "warning")
CONTROL_DOWN = Expected("control API stopped", "names", "CeleryControlDown", "warning")
CONTROL_ERRORS = Expected("control API answers 503", "names", "CeleryControlErrors", "warning")
CONTROL_CUT_OFF = Expected("control API without Prometheus", "names", "CeleryControlPrometheusFailing", "warning")
REFUSED = Expected("log-ins refused", "names", "CeleryControlAuthFailures", "warning")


def cast() -> Cast:
    """The clusters and their workers."""
    return {
        "names": (
            lambda cluster: cluster.worker("twin@names", "celery"),
            lambda cluster: cluster.worker("shaky@names", "celery"),
            lambda cluster: cluster.serve(),
        ),
        "clocks": (lambda cluster: cluster.worker("ahead@clocks", "celery", env=skewed(30, "UTC")),),
        "caps": (lambda cluster: cluster.worker("l@caps", "celery", "late", concurrency=2),),
        "silent": (lambda cluster: cluster.worker("mute@silent", "celery", options=("--without-heartbeat",)),),
    }


def a_name_is_taken_twice(drill: Drill) -> None:
    """A second worker takes the name of the first, then goes."""
    cluster = drill.stage.clusters["names"]
    since = time.monotonic()
    first = cluster.workers["first"] = cluster.workers["twin@names"]
    cluster.worker("twin@names", "celery")
    drill.arrives(TWINS, since=since)
    since = time.monotonic()
    first.stop()
    drill.ends(TWINS, since=since)


def a_worker_flaps(drill: Drill) -> None:
    """It is stopped and started until that is told, then left alone."""
    cluster = drill.stage.clusters["names"]
    since = time.monotonic()
    for _ in range(2):
        cluster.workers["shaky@names"].stop()
        wait_until(lambda: drill.stage.value('celery:worker_up:max{hostname="shaky@names"}') == 0, timeout=60)
        cluster.worker("shaky@names", "celery")
        wait_until(lambda: drill.stage.value('celery:worker_up:max{hostname="shaky@names"}') == 1, timeout=60)
    drill.arrives(FLAPPING, since=since)
    drill.ends(FLAPPING, since=time.monotonic())


def a_clock_is_wrong(drill: Drill) -> None:
    """From the start; the worker is started again with a right one."""
    cluster = drill.stage.clusters["clocks"]
    drill.arrives(SKEWED, since=drill.stage.since)
    since = time.monotonic()
    cluster.workers["ahead@clocks"].stop()
    cluster.worker("ahead@clocks", "celery")
    drill.ends(SKEWED, since=since)
    _a_task_grows_slow(drill)


def _a_task_grows_slow(drill: Drill) -> None:
    """Each run takes a second, then none."""
    cluster = drill.stage.clusters["clocks"]
    since = time.monotonic()
    with sending(lambda: cluster.send("tests.sleep", 1), every=2):
        drill.arrives(SLOW, since=since)
    since = time.monotonic()
    with sending(lambda: cluster.send("tests.sleep", 0), every=0.5):
        drill.ends(SLOW, since=since)


def too_many_names(drill: Drill) -> None:
    """The exporter keeps one name, and is then started with room for more."""
    cluster = drill.stage.clusters["caps"]
    since = time.monotonic()
    cluster.exporter.kill()
    shipped = cluster.exporter.argv
    cluster.exporter.argv = (*shipped, "--max-task-names", "1")
    cluster.exporter.up()
    with sending(lambda: (cluster.send("tests.add", 1, 2), cluster.send("tests.sleep", 0)), every=1):
        drill.arrives(CAPPED, since=since)
    since = time.monotonic()
    cluster.exporter.kill()
    cluster.exporter.argv = shipped
    cluster.exporter.up()
    drill.ends(CAPPED, since=since)
    _polls_are_not_permitted(drill)


def a_message_stays_unacknowledged(drill: Drill) -> None:
    """It is acknowledged late and runs for long, until it is killed."""
    cluster = drill.stage.clusters["caps"]
    since = time.monotonic()
    ids = cluster.send("tests.sleep_late", 3600, queue="late")
    drill.arrives(UNACKED, since=since)
    since = time.monotonic()
    cluster.app.control.revoke(ids, terminate=True, signal="SIGKILL")
    drill.ends(UNACKED, since=since)


def _polls_are_not_permitted(drill: Drill) -> None:
    """The broker's administrator takes a command away, and gives it back."""
    cluster = drill.stage.clusters["caps"]
    with redis.Redis(port=cluster.redis.port) as broker:
        since = time.monotonic()
        broker.execute_command("ACL", "SETUSER", "default", "-llen")
        drill.arrives(POLLS, since=since)
        since = time.monotonic()
        broker.execute_command("ACL", "SETUSER", "default", "+llen")
    drill.ends(POLLS, since=since)


def nothing_is_heard(drill: Drill) -> None:
    """The only worker sends no heartbeats and has no work, until another comes that does."""
    cluster = drill.stage.clusters["silent"]
    drill.arrives(SILENT, since=drill.stage.since)
    since = time.monotonic()
    cluster.worker("loud@silent", "celery")
    drill.ends(SILENT, since=since)


def the_control_api_fails(drill: Drill) -> None:
    """It has no Prometheus from the start, is asked for figures, and by strangers; it is given one; it is killed."""
    control = drill.stage.clusters["names"].control
    assert control
    drill.arrives(CONTROL_CUT_OFF, since=drill.stage.since)
    since = time.monotonic()

    def ask() -> None:
        control.get("/monitoring/metrics/realtime")
        requests.get(f"{control.url}/system/status", headers={"Authorization": "Bearer stolen"}, timeout=10)

    with sending(ask, every=0.2):
        drill.arrives(CONTROL_ERRORS, REFUSED, since=since)
    drill.ends(CONTROL_ERRORS, REFUSED, since=time.monotonic())
    since = time.monotonic()
    control.kill()
    control.argv = (*control.argv, "--prometheus-url", drill.stage.prometheus.url, "--cluster", "names")
    control.up()
    drill.ends(CONTROL_CUT_OFF, since=since)
    since = time.monotonic()
    control.kill()
    drill.arrives(CONTROL_DOWN, since=since)
    since = time.monotonic()
    control.up()
    drill.ends(CONTROL_DOWN, since=since)


SCRIPTS: dict[Callable[[Drill], None], tuple[Expected, ...]] = {
    a_name_is_taken_twice: (TWINS,),
    a_worker_flaps: (FLAPPING,),
    a_clock_is_wrong: (SKEWED, SLOW),
    too_many_names: (CAPPED, POLLS),
    a_message_stays_unacknowledged: (UNACKED,),
    nothing_is_heard: (SILENT,),
    the_control_api_fails: (CONTROL_ERRORS, CONTROL_CUT_OFF, REFUSED, CONTROL_DOWN),
}
