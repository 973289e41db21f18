"""Faults that are rarer: of names, clocks, permissions, caps, and of the control API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import redis
import requests
from tests.apps.worker_app import OPTIONS
from tests.integration.alerts.monitored import Starters
from tests.integration.alerts.timing import AlertTimer, Expected, host, queue, sending, task
from tests.integration.exporter.test_clocks import skewed

from celerymeter.demo.processes import wait_until

QUICK_OVERRIDES: list[dict[str, object]] = [
    {"record": "celery:worker_flapping:limit", "expr": 2, "labels": {"severity": "warning", "cluster": "names"}},
    {"record": "celery:redelivery:limit", "expr": 0.002, "labels": {"severity": "warning", "cluster": "caps"}},
    {"record": "celery:redelivery:limit", "expr": 0.002, "labels": {"severity": "warning", "cluster": "patient"}},
    {"record": "celery:event_silence:limit", "expr": 10, "labels": {"severity": "warning", "cluster": "silent"}},
    {"record": "celery:task_runtime:limit", "expr": 0.5, "labels": {"severity": "warning", "name": "tests.sleep"}},
]
"""Twice fires here what by default takes five times in half an hour; minutes and hours are seconds."""

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


PATIENT = {OPTIONS: json.dumps({"visibility_timeout": 86400})}
"""Workers from which Redis takes a message back after a day; exporter and producers do not know."""


def starters() -> Starters:
    """The clusters and their workers."""
    return {
        "names": (
            lambda cluster: cluster.worker("twin@names", "celery"),
            lambda cluster: cluster.worker("shaky@names", "celery"),
            lambda cluster: cluster.serve(),
        ),
        "clocks": (lambda cluster: cluster.worker("ahead@clocks", "celery", env=skewed(30, "UTC")),),
        "caps": (lambda cluster: cluster.worker("l@caps", "celery", "late", concurrency=2),),
        "patient": (lambda cluster: cluster.worker("p@patient", "late", env=PATIENT),),
        "silent": (lambda cluster: cluster.worker("mute@silent", "celery", options=("--without-heartbeat",)),),
    }


def a_name_is_taken_twice(timer: AlertTimer) -> None:
    """A second worker takes the name of the first, then goes."""
    cluster = timer.monitored.clusters["names"]
    since = time.monotonic()
    first = cluster.workers["first"] = cluster.workers["twin@names"]
    cluster.worker("twin@names", "celery")
    timer.arrives(TWINS, since=since)
    since = time.monotonic()
    first.stop()
    timer.resolves(TWINS, since=since)


def a_worker_flaps(timer: AlertTimer) -> None:
    """It is stopped and started until that is sent, then left alone."""
    cluster = timer.monitored.clusters["names"]
    since = time.monotonic()
    for _ in range(2):
        cluster.workers["shaky@names"].stop()
        wait_until(lambda: timer.monitored.value('celery:worker_up:max{hostname="shaky@names"}') == 0)
        cluster.worker("shaky@names", "celery")
        wait_until(lambda: timer.monitored.value('celery:worker_up:max{hostname="shaky@names"}') == 1)
    timer.arrives(FLAPPING, since=since)
    timer.resolves(FLAPPING, since=time.monotonic())


def a_clock_is_wrong(timer: AlertTimer) -> None:
    """From the start; the worker is started again with a right one."""
    cluster = timer.monitored.clusters["clocks"]
    timer.arrives(SKEWED, since=timer.monitored.since)
    since = time.monotonic()
    cluster.workers["ahead@clocks"].stop()
    cluster.worker("ahead@clocks", "celery")
    timer.resolves(SKEWED, since=since)
    _a_task_grows_slow(timer)


def _a_task_grows_slow(timer: AlertTimer) -> None:
    """Each run takes a second, then none."""
    cluster = timer.monitored.clusters["clocks"]
    since = time.monotonic()
    with sending(lambda: cluster.send("tests.sleep", 1), every=2):
        timer.arrives(SLOW, since=since)
    since = time.monotonic()
    with sending(lambda: cluster.send("tests.sleep", 0), every=0.5):
        timer.resolves(SLOW, since=since)


def too_many_names(timer: AlertTimer) -> None:
    """The exporter keeps one name, and is then started with room for more."""
    cluster = timer.monitored.clusters["caps"]
    since = time.monotonic()
    cluster.exporter.kill()
    shipped = cluster.exporter.argv
    cluster.exporter.argv = (*shipped, "--max-task-names", "1")
    cluster.exporter.up()
    with sending(lambda: (cluster.send("tests.add", 1, 2), cluster.send("tests.sleep", 0)), every=1):
        timer.arrives(CAPPED, since=since)
    since = time.monotonic()
    cluster.exporter.kill()
    cluster.exporter.argv = shipped
    cluster.exporter.up()
    timer.resolves(CAPPED, since=since)
    _polls_are_not_permitted(timer)


def a_message_stays_unacknowledged(timer: AlertTimer) -> None:
    """It is acknowledged late and runs for long, until it is killed."""
    cluster = timer.monitored.clusters["caps"]
    since = time.monotonic()
    ids = cluster.send("tests.sleep_late", 3600, queue="late")
    timer.arrives(UNACKED, since=since)
    since = time.monotonic()
    cluster.app.control.revoke(ids, terminate=True, signal="SIGKILL")
    timer.resolves(UNACKED, since=since)


def a_message_may_stay_unacknowledged(timer: AlertTimer) -> None:
    """For three times as long as would be too long after an hour, which is what the exporter believes unless asked."""
    watched = timer.monitored
    cluster = watched.clusters["patient"]
    ids = cluster.send("tests.sleep_late", 3600, queue="late")
    age = 'celery:queue_unacked_age:seconds{cluster="patient"}'
    wait_until(lambda: (watched.value(age) or 0) > 3 * 0.002 * 3600, interval=1)
    cluster.app.control.revoke(ids, terminate=True, signal="SIGKILL")
    assert not [alert for name, alert in watched.notified() if name == "patient"]


def _polls_are_not_permitted(timer: AlertTimer) -> None:
    """The broker's administrator takes a command away, and gives it back."""
    cluster = timer.monitored.clusters["caps"]
    with redis.Redis(port=cluster.redis.port) as broker:
        since = time.monotonic()
        broker.execute_command("ACL", "SETUSER", "default", "-llen")
        timer.arrives(POLLS, since=since)
        since = time.monotonic()
        broker.execute_command("ACL", "SETUSER", "default", "+llen")
    timer.resolves(POLLS, since=since)


def nothing_is_heard(timer: AlertTimer) -> None:
    """The only worker sends no heartbeats and has no work, until another comes that does."""
    cluster = timer.monitored.clusters["silent"]
    timer.arrives(SILENT, since=timer.monitored.since)
    since = time.monotonic()
    cluster.worker("loud@silent", "celery")
    timer.resolves(SILENT, since=since)


def the_control_api_fails(timer: AlertTimer) -> None:
    """It has no Prometheus from the start, is asked for metrics, and by strangers; it is given one; it is killed."""
    control = timer.monitored.clusters["names"].control
    assert control
    timer.arrives(CONTROL_CUT_OFF, since=timer.monitored.since)
    since = time.monotonic()

    def ask() -> None:
        control.get("/monitoring/metrics/realtime")
        requests.get(f"{control.url}/system/status", headers={"Authorization": "Bearer stolen"}, timeout=30)

    with sending(ask, every=0.2):
        timer.arrives(CONTROL_ERRORS, REFUSED, since=since)
    timer.resolves(CONTROL_ERRORS, REFUSED, since=time.monotonic())
    since = time.monotonic()
    control.kill()
    control.argv = (*control.argv, "--prometheus-url", timer.monitored.prometheus.url, "--cluster", "names")
    control.up()
    timer.resolves(CONTROL_CUT_OFF, since=since)
    since = time.monotonic()
    control.kill()
    timer.arrives(CONTROL_DOWN, since=since)
    since = time.monotonic()
    control.up()
    timer.resolves(CONTROL_DOWN, since=since)


SCRIPTS: dict[Callable[[AlertTimer], None], tuple[Expected, ...]] = {
    a_name_is_taken_twice: (TWINS,),
    a_worker_flaps: (FLAPPING,),
    a_clock_is_wrong: (SKEWED, SLOW),
    too_many_names: (CAPPED, POLLS),
    a_message_stays_unacknowledged: (UNACKED,),
    a_message_may_stay_unacknowledged: (),
    nothing_is_heard: (SILENT,),
    the_control_api_fails: (CONTROL_ERRORS, CONTROL_CUT_OFF, REFUSED, CONTROL_DOWN),
}
