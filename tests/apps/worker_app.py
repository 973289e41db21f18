"""The Celery application that real workers run in tests: one task for each way in which a run can end.

The broker comes from ``CELERYMETER_TEST_BROKER``, transport options and other settings as JSON from
``CELERYMETER_TEST_OPTIONS`` and ``CELERYMETER_TEST_SETTINGS``, a result backend (chords need one) from
``CELERYMETER_TEST_BACKEND``. With ``CELERYMETER_TEST_AGGREGATE`` the workers aggregate; it has the options of
`celerymeter.aggregate.install` as JSON; ``CELERYMETER_TEST_STAMP`` has those of `celerymeter.stamp.install`. JSON
only. Retries come at once unless told otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject
from kombu.common import Broadcast
from kombu.entity import Queue

BROKER, OPTIONS, BACKEND = "CELERYMETER_TEST_BROKER", "CELERYMETER_TEST_OPTIONS", "CELERYMETER_TEST_BACKEND"
SETTINGS, AGGREGATE = "CELERYMETER_TEST_SETTINGS", "CELERYMETER_TEST_AGGREGATE"
STAMP = "CELERYMETER_TEST_STAMP"
BROADCAST = "CELERYMETER_TEST_BROADCAST"
"""The exchange of a broadcast that the workers consume, beside the queue ``celery``."""
HOOK = "CELERYMETER_TEST_HOOK"
"""Of the applications for beat: 0 leaves out the hook."""


def make_app(
    broker_url: str, *, transport_options: Mapping[str, object] | None = None, backend: str | None = None
) -> Celery:
    """The application on a broker, for a worker or for a test that sends to one; not the process' current app."""
    app = Celery("tests", broker=broker_url, backend=backend, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        broker_transport_options=dict(transport_options or {}),
        broker_connection_retry_on_startup=True,
        task_send_sent_event=True,
        task_ignore_result=backend is None,
        worker_hijack_root_logger=False,
    )
    for name, (function, options) in _TASKS.items():
        app.task(name=name, **options)(function)
    return app


def add(x: int, y: int) -> int:
    """Succeed at once."""
    return x + y


def sleep(seconds: float) -> None:
    """Take a while, then succeed."""
    time.sleep(seconds)


def fail(text: str = "on purpose") -> NoReturn:
    """Raise `ValueError`."""
    raise ValueError(text)


def retry(self: Task[Any, Any], times: int, countdown: float = 0) -> int:
    """Retry so often, then succeed; with more than ``max_retries`` (3) it fails in the end."""
    if self.request.retries < times:
        raise self.retry(countdown=countdown, exc=RuntimeError("not yet"))
    return times


def reject(requeue: bool = False) -> NoReturn:
    """Raise `Reject`; acknowledged late, as rejecting needs."""
    raise Reject("on purpose", requeue=requeue)


def reject_once(self: Task[Any, Any]) -> None:
    """Go back to the queue on the first delivery, succeed on the second."""
    if not self.request.delivery_info.get("redelivered"):
        raise Reject("on purpose", requeue=True)


def ignore() -> NoReturn:
    """Raise `Ignore`: the run ends without an event."""
    raise Ignore


def replace(self: Task[Any, Any], kind: str, queue: str, times: int = 1) -> Any:
    """Be replaced by another task, a chain, a group, a chord, or a number of times by itself."""
    add = self.app.signature("tests.add", (1, 2), immutable=True).set(queue=queue)
    slow = self.app.signature("tests.sleep", (1.0,), immutable=True).set(queue=queue)
    fail = self.app.signature("tests.fail", immutable=True).set(queue=queue)
    total = self.app.signature("tests.total").set(queue=queue)
    if kind == "itself":
        again = self.s(kind, queue, times - 1) if times > 1 else add
        raise self.replace(again.set(queue=queue))
    replacements = {
        "task": add,
        "slow": slow,
        "fail": fail,
        "chain": chain(add, slow, add.clone(), app=self.app),
        "group": group([add, add.clone()], app=self.app),
        "chord": chord([add, add.clone()], total, app=self.app),
    }
    raise self.replace(replacements[kind])


def total(numbers: list[int]) -> int:
    """The callback of a chord of `add`."""
    return sum(numbers)


def overrun(seconds: float = 30) -> None:
    """Sleep into the hard time limit of 1 s (prefork)."""
    time.sleep(seconds)


def hold(folder: str, unmoved: bool = False) -> None:
    """Take until ``folder/go`` is there, two minutes at most; ``folder/began`` says that it runs. ``unmoved``: whatever
    SIGTERM says (prefork).
    """
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN) if unmoved else None
    Path(folder, "began").touch()
    end = time.monotonic() + 120
    while not Path(folder, "go").exists() and time.monotonic() < end:
        time.sleep(0.05)
    if unmoved:  # the process goes on with other tasks
        signal.signal(signal.SIGTERM, before)


_TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tests.add": (add, {}),
    "tests.sleep": (sleep, {}),
    "tests.sleep_late": (sleep, {"acks_late": True}),
    "tests.fail": (fail, {}),
    "tests.retry": (retry, {"bind": True, "max_retries": 3}),
    "tests.reject": (reject, {"acks_late": True}),
    "tests.reject_once": (reject_once, {"bind": True, "acks_late": True}),
    "tests.ignore": (ignore, {}),
    "tests.replace": (replace, {"bind": True}),
    "tests.total": (total, {}),
    "tests.overrun": (overrun, {"time_limit": 1}),
    "tests.hold": (hold, {}),
    "tests.limited": (add, {"rate_limit": "1/h"}),
    "tests.silent": (add, {"send_events": False}),
}

if BROKER in os.environ:
    app = make_app(
        os.environ[BROKER],
        transport_options=json.loads(os.environ.get(OPTIONS, "{}")),
        backend=os.environ.get(BACKEND),
    )
    app.conf.update(json.loads(os.environ.get(SETTINGS, "{}")))
    if STAMP in os.environ or AGGREGATE in os.environ:
        from celerymeter import stamp

        stamp.install(**json.loads(os.environ.get(STAMP, "{}")))
    if BROADCAST in os.environ:
        app.conf.task_queues = [Broadcast(os.environ[BROADCAST]), Queue("celery")]
    if AGGREGATE in os.environ:
        from celerymeter import aggregate

        aggregate.install(app, **json.loads(os.environ[AGGREGATE]))
