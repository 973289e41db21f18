"""Real beats, frozen, killed, doubled, with clocks that are set, seen by a real exporter."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.apps import beat_app
from tests.apps.worker_app import HOOK, SETTINGS
from tests.doctor.examining import examine
from tests.schedule.beats import BEAT, TASK, environment, start_beat, until
from tests.scrape import ExporterProcess, Scrape
from tests.workers import start_worker

from celerymeter.demo.processes import Process
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration

SYNC = {"schedule": "sync", "name": TASK}


@pytest.fixture
def new_beat(redis_server: Redis, tmp_path: Path, stack: ExitStack) -> Callable[..., Process]:
    """Starts a beat with the options of `start_beat`."""

    def start(entries: dict[str, float], **options: Any) -> Process:
        beat = start_beat(redis_server.url, tmp_path, entries, **options)
        stack.callback(beat.kill)
        return beat

    return start


def sent(page: Scrape) -> float:
    """Return how often the entry was sent."""
    return of(page, "sent_total")


def is_up(page: Scrape) -> float | None:
    """The gauge of the one beat."""
    return page.get("celery_beat_up", hostname=BEAT)


def of(page: Scrape, family: str, name: str = "sync") -> float:
    """A number of an entry; 0 where there is none."""
    task = "tests.fail" if name == "failing" else TASK
    return page.get(f"celery_schedule_{family}", schedule=name, name=task) or 0


def test_a_beat_that_is_frozen_and_one_that_is_killed(
    exporter: ExporterProcess, new_beat: Callable[..., Process], redis_server: Redis
) -> None:
    """Down after three heartbeats, its entry overdue; what it slept through counts as due. It is no worker."""
    beat = new_beat({"sync": 2, "nightly": 80000})
    page = until(exporter, lambda page: sent(page) >= 2, "two runs")
    assert (is_up(page), page.get("celery_schedule_entries", hostname=BEAT)) == (1, 2)
    assert of(page, "due_total") == sent(page)
    os.kill(beat.pid, signal.SIGSTOP)
    frozen_at = time.time()
    page = until(exporter, lambda page: is_up(page) == 0, "it is down")
    assert time.time() - frozen_at < 30
    assert of(page, "next_due_timestamp_seconds") < time.time() - 10
    before = sent(page)
    _, found, _ = examine(redis_server.url, exporter_url=exporter.url)
    assert {"beat-down", "beat-unknown"} & found.keys() == {"beat-down"}
    os.kill(beat.pid, signal.SIGCONT)
    page = until(exporter, lambda page: is_up(page) == 1 and sent(page) > before, "it goes on")
    assert of(page, "due_total") >= sent(page) + 5
    assert (page.get("celery_schedule_lateness_seconds_bucket", **SYNC, le="5.0") or 0) < sent(page)
    beat.kill()
    page = until(exporter, lambda page: is_up(page) == 0, "it is down again")
    assert page.by("celery_worker_up", "hostname") == {}
    assert of(page, "next_due_timestamp_seconds", "nightly") > time.time() + 70000


def test_two_beats_send_everything_twice_until_one_says_goodbye(
    exporter: ExporterProcess, new_beat: Callable[..., Process]
) -> None:
    """A beat that ends on SIGTERM says so: nobody waits for three heartbeats."""
    entries = {"sync": 1.0}
    _first, second = new_beat(entries), new_beat(entries, name="second")
    until(exporter, lambda page: page.get("celery_beat_duplicate", hostname=BEAT) == 1, "two are seen")
    began = time.monotonic()
    second.stop()
    until(exporter, lambda page: page.get("celery_beat_duplicate", hostname=BEAT) == 0, "one is left")
    assert time.monotonic() - began < 12


def test_what_became_of_the_runs_of_a_beat_inside_a_worker(
    exporter: ExporterProcess, redis_server: Redis, tmp_path: Path
) -> None:
    """``worker -B``: one entry succeeds, one fails each time; an exporter that restarts goes on from there."""
    entries = {"sync": 1.0, "failing": 1.0}
    options = ["-B", "--schedule-filename", str(tmp_path / "embedded.schedule")]
    env = environment(redis_server.url, entries)
    app = "tests.apps.beat_app"
    with start_worker(redis_server.url, tmp_path, options=options, env=env, app=app) as worker:

        def seen(page: Scrape) -> bool:
            failures = of(page, "consecutive_failures", "failing")
            return failures >= 2 and of(page, "runs_succeeded_total") >= 2

        page = until(exporter, seen, "two runs of each")
        assert of(page, "last_success_timestamp_seconds") > time.time() - 10
        assert not of(page, "last_success_timestamp_seconds", "failing")
        exporter.stop()
        exporter.up()
        page = until(exporter, seen, "two runs of each, again")
        assert sent(page) < 15
        assert is_up(page) == 1
        worker.kill()
    until(exporter, lambda page: is_up(page) == 0, "it died with its worker")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["+3600", "-3600"])
def test_a_clock_that_is_set_by_an_hour(
    exporter: ExporterProcess, new_beat: Callable[..., Process], tmp_path: Path, step: str
) -> None:
    """Ahead: nothing is missed. Back: Celery stops sending for an hour, and the entry is overdue by our clock."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    new_beat({"sync": 3.0}, env=beat_app.faked_clock(clock))
    until(exporter, lambda page: sent(page) >= 2, "two runs")
    clock.write_text(f"{step}\n")
    before = sent(exporter.scrape())
    if step.startswith("+"):
        page = until(exporter, lambda page: sent(page) >= before + 3, "it goes on")
        assert of(page, "due_total") == sent(page)
        assert abs(of(page, "next_due_timestamp_seconds") - time.time()) < 10
    else:
        page = until(exporter, lambda page: of(page, "next_due_timestamp_seconds") < time.time() - 8, "it is overdue")
        assert sent(page) <= before + 1
        assert is_up(page) == 1


def test_a_beat_without_the_hook_that_answers_pings(
    exporter: ExporterProcess, new_beat: Callable[..., Process]
) -> None:
    """Celery 5.7's `beat_enable_remote_control`; frozen, it falls silent."""
    settings = {"beat_enable_remote_control": True}
    beat = new_beat({"sync": 60}, env={HOOK: "0", SETTINGS: json.dumps(settings)})
    page = until(exporter, lambda page: is_up(page) == 1, "it answers")
    assert page.by("celery_worker_up", "hostname") == {}
    os.kill(beat.pid, signal.SIGSTOP)
    until(exporter, lambda page: is_up(page) == 0, "it is silent")
    os.kill(beat.pid, signal.SIGCONT)
