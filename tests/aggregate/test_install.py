"""`celerymeter.aggregate.install` in a worker of this process: what it counts, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import worker_init, worker_ready
from tests.apps.worker_app import make_app

from celerymeter import aggregate, stamp


@pytest.fixture
def app() -> Iterator[Celery]:
    """An application on a broker inside this process."""
    app = make_app("memory://")
    stamp.install()
    yield app
    stamp.uninstall()


@contextmanager
def listening(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """Collect all events."""
    events: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": events.append})
        thread = threading.Thread(target=_receive, args=(receiver,), daemon=True)
        thread.start()
        yield events
        receiver.should_stop = True
        thread.join(10)


def _receive(receiver: Any) -> None:
    for _ in receiver.itercapture(limit=None, timeout=None, wakeup=False):
        pass


def worker(app: Celery) -> Any:
    """A worker in a thread of this process."""
    return start_worker(app, pool="solo", perform_ping_check=False, loglevel="error", shutdown_timeout=20)


class Component:
    """Part of a worker, as a sender of signals."""

    options: Mapping[str, object] = {}

    def __init__(self, app: Celery, hostname: str) -> None:
        self.app, self.hostname = app, hostname


def wait_for(condition: Any, seconds: float = 15) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def rows(events: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The newest totals of each task name."""
    messages = [event["totals"] for event in events if event["type"] == "celerymeter-totals"]
    return {row[0]: row for message in messages for row in message["series"].values()}


def test_a_worker_counts_and_publishes_totals_only(app: Celery) -> None:
    aggregate.install(app)
    with listening(app) as events, worker(app):
        for _ in range(5):
            app.tasks["tests.add"].delay(1, 2)
        app.tasks["tests.fail"].delay()
        wait_for(lambda: {"tests.add", "tests.fail"} <= rows(events).keys())
    assert rows(events)["tests.add"][1:5] == ["celery", 5, 5, 5]
    assert rows(events)["tests.fail"][15]["exceptions"] == {"ValueError": 1}
    assert {event["type"] for event in events if event["type"].startswith("task-")} == {"task-sent"}


def test_what_ended_while_the_worker_shut_down_is_published_at_its_end(app: Celery) -> None:
    """Celery has closed the dispatcher by then."""
    aggregate.install(app)
    controller = SimpleNamespace(app=app, hostname="w1@test", options={}, consumer=None)
    aggregation = app.celerymeter_aggregation
    aggregation.begin(controller)
    [member] = aggregation.members
    with listening(app) as events:

        def heard() -> bool:
            with app.events.default_dispatcher() as dispatcher:
                dispatcher.send("probe")
            return bool(events)

        wait_for(heard)
        for step in ("received", "started", "succeeded"):
            arguments = {"received": ("tests.add", "celery"), "started": (), "succeeded": ({"runtime": 0.1},)}[step]
            getattr(member.totals, step)("a", *arguments, now=time.monotonic())
        aggregation.end(controller)
        wait_for(lambda: rows(events))
    assert rows(events)["tests.add"][1:5] == ["celery", 1, 1, 1]


def test_an_error_of_ours_hurts_no_task_and_brings_the_events_back(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    aggregate.install(app)
    monkeypatch.setattr("celerymeter.aggregate.counting.RunCounter.started", None)  # which cannot be called
    with listening(app) as events, worker(app):
        results = [app.tasks["tests.add"].delay(1, 2) for _ in range(3)]
        wait_for(lambda: sum(event["type"] == "task-succeeded" for event in events) == len(results))
    assert caplog.text.count("celerymeter: counting failed") == 1
    assert [event["totals"]["failed"] for event in events if event["type"] == "celerymeter-totals"][-1]


def test_importing_it_needs_celery_and_the_standard_library_only() -> None:
    code = """
import sys
import celery, celery.worker.control
before = set(sys.modules)
import celerymeter.aggregate, celerymeter.aggregate.commands
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"celery", "kombu", "billiard", "vine", "amqp"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['celerymeter']\n"


def test_a_worker_that_installs_it_too_late_says_so(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """As in a handler of `worker_init`; the worker is up, and would be without any metrics of its tasks."""
    aggregate.install(app)
    in_time, late = (Component(app, f"{name}@test") for name in ("in-time", "late"))
    worker_init.send(sender=in_time)
    for one in (in_time, late):
        worker_ready.send(sender=one)
    assert caplog.text.count("call install earlier, where the app is defined") == 1


def test_installing_twice_counts_once(app: Celery) -> None:
    aggregate.install(app)
    aggregate.install(app)
    assert [base.__name__ for base in app.events.Dispatcher.__mro__].count("AggregatingDispatcher") == 1


def test_dispatchers_of_producers_are_celerys_own(app: Celery) -> None:
    aggregate.install(app)
    with app.events.default_dispatcher() as dispatcher:
        assert dispatcher.member is None
