"""Faults of beat: each alert about schedules, and the one that needs neither the hook nor beat."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.apps import beat_app, worker_app
from tests.integration.alerts.monitored import Cluster, Starters
from tests.integration.alerts.timing import AlertTimer, Expected, task
from tests.schedule.beats import DATABASE_SCHEDULER, start_beat
from tests.schedule.database import PostgreSQL, Proxy

from celerymeter.demo.processes import Process, wait_until

OVERRIDES: list[dict[str, object]] = [
    {"record": "celery:schedule_missed:limit", "expr": 5, "labels": {"severity": "warning", "cluster": "clock"}},
    {"record": "celery:schedule_missed:limit", "expr": 5, "labels": {"severity": "warning", "cluster": "database"}},
    {"record": "celery:schedule_missed:limit", "expr": "+Inf", "labels": {"severity": "warning", "cluster": "frozen"}},
    {
        "record": "celery:task_max_age:limit",
        "expr": 15,
        "labels": {"severity": "critical", "cluster": "plain", "name": "tests.add"},
    },
]
"""Limits of seconds instead of minutes or a day. A frozen beat would miss entries before it is down at this pace."""

DOWN = Expected("beat frozen", "frozen", "CeleryBeatDown", "critical")
KILLED = Expected("beat killed", "killed", "CeleryBeatDown", "critical")
DUPLICATE = Expected("two beats", "doubled", "CeleryBeatDuplicate", "warning")
FAILING = Expected("runs of an entry fail", "doubled", "CeleryScheduleFailing", "warning", (("schedule", "failing"),))
MISSED = Expected("beat's clock set back", "clock", "CeleryScheduleMissed", "warning", (("schedule", "sync"),))
HANGING = Expected("beat's database hangs", "database", "CeleryScheduleMissed", "warning", (("schedule", "sync"),))
OVERDUE = Expected("beat frozen, without the hook", "plain", "CeleryTaskOverdue", "critical", task("tests.add"))


def starters() -> Starters:
    """The clusters and their workers; beats are started by the scripts."""
    return {
        name: (lambda cluster: cluster.worker(f"w@{cluster.name}", "celery"),)
        for name in ("frozen", "killed", "doubled", "clock", "database", "plain")
    }


def _beat(
    cluster: Cluster,
    entries: dict[str, float],
    *,
    name: str = "beat",
    options: Sequence[str] = (),
    env: dict[str, str] | None = None,
) -> Process:
    return start_beat(cluster.redis.url, cluster.folder, entries, name=name, options=options, env=env)


def _is_up(cluster: Cluster) -> bool:
    return cluster.exporter.scrape().sum("celery_beat_up") == 1


def beat_is_frozen(timer: AlertTimer) -> None:
    """Then it goes on."""
    cluster = timer.monitored.clusters["frozen"]
    with _beat(cluster, {"sync": 2.0}) as beat:
        wait_until(lambda: timer.monitored.value('celery:beat_up:max{cluster="frozen"}') == 1)
        os.kill(beat.pid, signal.SIGSTOP)
        timer.arrives(DOWN, since=time.monotonic())
        since = time.monotonic()
        os.kill(beat.pid, signal.SIGCONT)
        timer.resolves(DOWN, since=since)
        assert timer.monitored.firings(cluster.name, area="schedules") == [DOWN.alert]


def beat_is_killed(timer: AlertTimer) -> None:
    """The exporter is restarted meanwhile and has never heard of it; then it is started again."""
    cluster = timer.monitored.clusters["killed"]
    with _beat(cluster, {"nightly": 50_000.0}) as beat:
        wait_until(lambda: timer.monitored.value('celery:beat_up:max{cluster="killed"}') == 1)
        since = time.monotonic()
        beat.kill()
    cluster.exporter.stop()
    cluster.exporter.up()
    timer.arrives(KILLED, since=since)
    since = time.monotonic()
    with _beat(cluster, {"nightly": 50_000.0}):
        timer.resolves(KILLED, since=since)
        assert timer.monitored.firings(cluster.name, area="schedules") == [KILLED.alert]


def there_are_two_beats(timer: AlertTimer) -> None:
    """And an entry whose runs fail, until it is removed."""
    cluster = timer.monitored.clusters["doubled"]
    entries = {"sync": 2.0, "failing": 2.0}
    since = time.monotonic()
    with _beat(cluster, entries):
        with _beat(cluster, entries, name="second"):
            timer.arrives(DUPLICATE, FAILING, since=since)
        timer.resolves(DUPLICATE, since=time.monotonic())
    since = time.monotonic()
    with _beat(cluster, {"sync": 2.0}, name="third"):
        timer.resolves(FAILING, since=since)


def a_clock_is_set_back(timer: AlertTimer) -> None:
    """By an hour: Celery sends nothing for that long. It is set right again."""
    cluster = timer.monitored.clusters["clock"]
    clock = Path(cluster.folder, "clock")
    clock.write_text("+0\n")
    with _beat(cluster, {"sync": 2.0}, env=beat_app.faked_clock(clock)):
        wait_until(lambda: _is_up(cluster))
        since = time.monotonic()
        clock.write_text("-3600\n")
        timer.arrives(MISSED, since=since)
        since = time.monotonic()
        clock.write_text("+0\n")
        timer.resolves(MISSED, since=since)
        assert timer.monitored.firings(cluster.name, area="schedules") == [MISSED.alert]


def a_database_hangs(timer: AlertTimer) -> None:
    """That of django-celery-beat, a PostgreSQL behind a proxy. Beat is alive, and goes on when it answers."""
    cluster = timer.monitored.clusters["database"]
    with PostgreSQL(cluster.folder) as server, Proxy(server.up().port) as proxy:
        env = {beat_app.DJANGO: f"postgresql://beat@127.0.0.1:{proxy.port}/postgres"}
        with _beat(cluster, {"sync": 2.0}, options=("--scheduler", DATABASE_SCHEDULER), env=env):
            wait_until(lambda: cluster.exporter.scrape().sum("celery_schedule_sent_total") > 2)
            since = time.monotonic()
            proxy.hang()
            timer.arrives(HANGING, since=since)
            since = time.monotonic()
            proxy.go_on()
            timer.resolves(HANGING, since=since)
            assert timer.monitored.firings(cluster.name, area="schedules") == [HANGING.alert]


def nobody_has_the_hook(timer: AlertTimer) -> None:
    """Beat is frozen, the exporter is restarted; the recorded last success carries on."""
    cluster = timer.monitored.clusters["plain"]
    with _beat(cluster, {"sync": 2.0}, env={worker_app.HOOK: "0"}) as beat:
        last = 'celery:task_success:timestamp{cluster="plain", name="tests.add"}'
        wait_until(lambda: timer.monitored.value(last) is not None)
        since = time.monotonic()
        os.kill(beat.pid, signal.SIGSTOP)
        cluster.exporter.stop()
        cluster.exporter.up()
        timer.arrives(OVERDUE, since=since)
        since = time.monotonic()
        os.kill(beat.pid, signal.SIGCONT)
        timer.resolves(OVERDUE, since=since)
        assert timer.monitored.firings(cluster.name, area="schedules") == [OVERDUE.alert]


SCRIPTS: dict[Callable[[AlertTimer], None], tuple[Expected, ...]] = {
    beat_is_frozen: (DOWN,),
    beat_is_killed: (KILLED,),
    there_are_two_beats: (DUPLICATE, FAILING),
    a_clock_is_set_back: (MISSED,),
    a_database_hangs: (HANGING,),
    nobody_has_the_hook: (OVERDUE,),
}
