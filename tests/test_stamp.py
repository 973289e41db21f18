"""The producer's hook: one header with the send time on every published message."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from celery import Celery, chain, chord, group
from celery.beat import ScheduleEntry, Scheduler
from tests.apps.worker_app import make_app

from celerymeter import stamp


@pytest.fixture
def app() -> Iterator[Celery]:
    """An application on a broker inside this process, with the hook installed."""
    app = make_app("memory://", backend="cache+memory://")
    stamp.install()
    yield app
    stamp.uninstall()
    with app.connection_for_write() as connection, connection.channel() as channel:
        channel.queue_delete("celery")


def published(app: Celery) -> list[float]:
    """The stamps of the messages in the queue, which is emptied."""
    stamps = []
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        while queue.qsize():
            message = queue.get_nowait()
            stamps.append(message.headers[stamp.HEADER])
            message.ack()
    return stamps


def by_beat(app: Celery) -> None:
    """Send a task as beat does when an entry is due."""
    entry = ScheduleEntry(name="x", task="tests.add", args=(1, 2), schedule=timedelta(seconds=1), app=app)
    Scheduler(app=app).apply_async(entry)


@pytest.mark.parametrize(
    ("publish", "messages"),
    [
        (lambda app: app.tasks["tests.add"].delay(1, 2), 1),
        (lambda app: app.send_task("tests.elsewhere", countdown=60), 1),
        (lambda app: group(app.tasks["tests.add"].s(i, i) for i in range(3)).apply_async(), 3),
        (lambda app: chord([app.tasks["tests.add"].s(1, 1)] * 2)(app.tasks["tests.total"].s()), 2),
        (lambda app: chain(app.tasks["tests.add"].s(1, 1), app.tasks["tests.add"].s(2)).apply_async(), 1),
        (by_beat, 1),
    ],
    ids=["task", "by name with countdown", "group", "chord", "chain", "beat"],
)
def test_everything_published_is_stamped(app: Celery, publish: Callable[[Celery], object], messages: int) -> None:
    """However a task is sent, its message says when."""
    before = time.time()
    publish(app)
    stamps = published(app)
    assert len(stamps) == messages
    assert all(before <= sent_at <= time.time() for sent_at in stamps)


def test_a_retry_is_stamped_anew(app: Celery) -> None:
    """A retry carries the headers of the message that it repeats, but not its send time."""
    app.tasks["tests.add"].apply_async((1, 2), headers={stamp.HEADER: 1.0})
    assert published(app) != [1.0]


def test_installing_twice_and_removing_once() -> None:
    """Two modules of one application may both install the hook."""
    app = make_app("memory://")
    stamp.install()
    stamp.install()
    stamp.uninstall()
    app.tasks["tests.add"].delay(1, 2)
    with pytest.raises(KeyError, match=stamp.HEADER):
        published(app)


def test_a_producer_needs_celery_alone() -> None:
    """The hook drags none of the exporter's libraries into an application."""
    code = (
        "import sys; import celery, celery.signals; before = set(sys.modules); import celerymeter.stamp;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["celerymeter", "celerymeter.stamp"]
