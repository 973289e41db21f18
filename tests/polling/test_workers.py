"""Real workers of every pool, asked over Redis."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from tests.apps.worker_app import SETTINGS, make_app
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.errors import BrokerUnavailable
from celerymeter.model import WorkerState
from celerymeter.polling.reply_habits import PollTarget
from celerymeter.polling.workers import WorkerPoller
from celerymeter.settings import BrokerSettings, ExporterSettings

pytestmark = pytest.mark.integration


def poller(url: str) -> WorkerPoller:
    """A poller with the default settings."""
    return WorkerPoller(ExporterSettings(BrokerSettings(url=url)))


@pytest.fixture
def app(shared_redis: Redis) -> Iterator[Celery]:
    """The test application on the module's Redis, which is emptied afterwards."""
    yield make_app(shared_redis.url)
    redis.Redis(port=shared_redis.port).flushall()


@pytest.fixture
def workers(shared_redis: Redis) -> Iterator[WorkerPoller]:
    """A poller on the module's Redis."""
    opened = poller(shared_redis.url)
    yield opened
    opened.close()


def state(workers: WorkerPoller, hostname: str = "w1@test") -> WorkerState:
    """Return what one worker says; on a busy machine its reply to a first poll may come too late."""
    replies: dict[str, WorkerState] = {}

    def replied() -> bool:
        replies.update(workers.poll(now=time.time(), live=[PollTarget("w1@test", 1)]).workers)
        return hostname in replies

    wait_until(replied, what=f"a reply of {hostname}")
    return replies[hostname]


@pytest.mark.parametrize(
    ("pool", "concurrency"), [("prefork", 2), ("threads", 5), ("gevent", 7), ("eventlet", 6), ("solo", 1)]
)
def test_every_pool(
    shared_redis: Redis, app: Celery, workers: WorkerPoller, tmp_path: Path, pool: str, concurrency: int
) -> None:
    """Slots, queues, and the runs begun since the worker started."""
    with start_worker(shared_redis.url, tmp_path, pool=pool, concurrency=concurrency, queues=["b", "a"]) as worker:
        wait_until(
            lambda: workers.poll(now=1.0, live=()).workers, what="it listens, as gevent's does after it is ready"
        )
        app.tasks["tests.add"].apply_async((1, 2), queue="a")
        wait_until(lambda: state(workers).totals == {"tests.add": 1})
        known = state(workers)
        worker.kill()
    assert (known.pool, known.slots, known.queues) == (pool, concurrency, ("a", "b"))
    assert known.pid == worker.pid
    assert (known.active, known.reserved, known.scheduled) == ((), 0, 0)


def test_what_a_worker_runs_holds_and_schedules(
    shared_redis: Redis, app: Celery, workers: WorkerPoller, tmp_path: Path
) -> None:
    """One task runs since a known time, three are prefetched, five wait for their ETA."""
    with start_worker(shared_redis.url, tmp_path, concurrency=1) as worker:
        for _ in range(5):
            app.tasks["tests.add"].apply_async((1, 2), countdown=600)
        sent = time.time()
        running = app.tasks["tests.sleep_late"].delay(30).id
        for _ in range(3):
            app.tasks["tests.sleep_late"].delay(30)
        wait_until(lambda: worker.tail(100).count(" received") == 9)
        wait_until(lambda: len(state(workers).active or ()) == 1)
        known = state(workers)
        worker.kill()
    assert known.active is not None
    [task] = known.active
    assert (task.uuid, task.name, task.queue_name) == (running, "tests.sleep_late", "celery")
    assert task.started_at is not None
    assert sent <= task.started_at <= time.time()
    assert (known.reserved, known.scheduled) == (3, 5)


def test_all_expected_replies_are_awaited_and_no_longer(
    shared_redis: Redis, workers: WorkerPoller, tmp_path: Path
) -> None:
    """Two workers with different queues."""
    with (
        start_worker(shared_redis.url, tmp_path, hostname="w1@test", queues=["a"]) as first,
        start_worker(shared_redis.url, tmp_path, hostname="w2@test", queues=["a", "b"]) as second,
    ):
        workers.poll(now=1.0, live=[PollTarget("w1@test", 1), PollTarget("w2@test", 2)])
        begun = time.monotonic()
        known = workers.poll(now=2.0, live=[PollTarget("w1@test", 1), PollTarget("w2@test", 2)]).workers
        assert time.monotonic() - begun < 0.9  # a second is what waiting in vain takes
        first.kill()
        second.kill()
    assert {name: answer.queues for name, answer in known.items()} == {"w1@test": ("a",), "w2@test": ("a", "b")}


def test_a_busy_solo_worker_is_silent(shared_redis: Redis, app: Celery, workers: WorkerPoller, tmp_path: Path) -> None:
    """It is missing from the snapshot, and nobody waits for it for long."""
    with start_worker(shared_redis.url, tmp_path, pool="solo") as worker:
        app.tasks["tests.sleep"].delay(30)
        wait_until(lambda: "received" in worker.tail())
        begun = time.monotonic()
        assert not workers.poll(now=1.0, live=[PollTarget("w1@test", 1)]).workers
        assert time.monotonic() - begun < 2
        worker.kill()


def test_a_worker_whose_tasks_json_cannot_express_is_not_asked_for_them_again(
    shared_redis: Redis, app: Celery, tmp_path: Path
) -> None:
    """`reserved` makes its control loop fail; everything else is known as before."""
    settings = ExporterSettings(BrokerSettings(url=shared_redis.url), inspect_interval=0.0)
    env = {SETTINGS: json.dumps({"accept_content": ["json", "pickle"]}), "C_FORCE_ROOT": "1"}
    workers = WorkerPoller(settings)
    with start_worker(shared_redis.url, tmp_path, pool="threads", concurrency=1, env=env) as worker:
        app.send_task("tests.sleep", (60,))
        app.conf.accept_content = ["json", "pickle"]
        app.send_task("tests.add", ({1, 2}, 3), serializer="pickle", countdown=600)
        wait_until(lambda: worker.tail(100).count(" received") == 2)
        states = [
            workers.poll(now=time.time(), live=[PollTarget("w1@test", 1)], heard_since=lambda _: ["w1@test"]).workers
            for _ in range(6)
        ]
        errors = worker.tail(1000).count("Control command error")
        worker.kill()
    workers.close()
    assert errors == 1
    assert all(found["w1@test"].slots == 1 for found in states)
    assert states[-1]["w1@test"].scheduled is None


def test_polling_leaves_nothing_behind(shared_redis: Redis, workers: WorkerPoller, tmp_path: Path) -> None:
    """No reply queue, no binding, no connection more after many polls, also where nobody answered."""
    admin = redis.Redis(port=shared_redis.port)

    def traces() -> tuple[set[bytes], int]:
        keys = {key for key in admin.scan_iter("*") if b"reply" in key}
        return keys, len([one for one in admin.client_list() if one["cmd"] != "client|list"])

    with start_worker(shared_redis.url, tmp_path) as worker:
        workers.poll(now=1.0, live=[PollTarget("w1@test", 1)])
        _, connections = traces()
        for _ in range(20):
            workers.poll(now=1.0, live=[PollTarget("w1@test", 1)])
        assert traces() == (set(), connections)
        worker.kill()
    workers.poll(now=1.0, live=())
    assert traces()[0] == set()


def test_task_events_are_turned_on(shared_redis: Redis, workers: WorkerPoller, tmp_path: Path) -> None:
    """At the workers that are named and that can reply."""
    with start_worker(shared_redis.url, tmp_path, events=False) as worker:
        workers.poll(now=1.0, live=[PollTarget("w1@test", 1)])
        workers.enable_events(["w2@test"])
        workers.enable_events(["w1@test"])
        wait_until(lambda: "Events of group {task} enabled by remote" in worker.tail())
        assert worker.tail().count("enabled by remote") == 1
        worker.kill()


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Impostor:
    """Answers every command with a pickle and with JSON that makes no sense."""

    def __init__(self, app: Celery, trap: Path) -> None:
        self._app, self._trap = app, trap
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._app.connection_for_read() as connection, connection.channel() as channel:
            node = self._app.control.mailbox(connection).Node("evil@test", channel=channel)
            node.listen(callback=lambda body, _: self._answer(connection, body))
            while not self._stop.is_set():
                self._ready.set()
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.1)

    def _answer(self, connection: Any, body: dict[str, Any]) -> None:
        pickled = pickle.dumps({"evil@test": Trap(self._trap)})
        headers = {"ticket": body["ticket"]}
        for content_type, payload in (
            ("application/x-python-serialize", pickled),
            ("application/json", b'{"odd@test": 5}'),
            ("application/json", b"\xff"),
        ):
            connection.Producer(auto_declare=False).publish(
                payload, content_type=content_type, content_encoding="binary", headers=headers, **body["reply_to"]
            )

    def __enter__(self) -> Impostor:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)


def test_a_worker_that_answers_nonsense_spoils_nothing(
    shared_redis: Redis, app: Celery, workers: WorkerPoller, tmp_path: Path
) -> None:
    """Others are heard, and what is pickled stays so."""
    trap = tmp_path / "sprung"
    with start_worker(shared_redis.url, tmp_path) as worker, Impostor(app, trap):
        known = workers.poll(now=1.0, live=()).workers
        worker.kill()
    assert set(known) == {"w1@test"}
    assert known["w1@test"].slots == 1
    assert not trap.exists()


def test_connections_that_were_cut_are_replaced(shared_redis: Redis, workers: WorkerPoller, tmp_path: Path) -> None:
    """A firewall that drops idle connections costs no poll."""
    with start_worker(shared_redis.url, tmp_path) as worker:
        workers.poll(now=1.0, live=[PollTarget("w1@test", 1)])
        admin = redis.Redis(port=shared_redis.port)
        before = {one["id"] for one in admin.client_list()}
        other = poller(shared_redis.url)
        other.poll(now=1.0, live=[PollTarget("w1@test", 1)])
        for one in admin.client_list():
            if one["id"] not in before:
                admin.client_kill_filter(_id=one["id"])
        assert set(other.poll(now=1.0, live=[PollTarget("w1@test", 1)]).workers) == {"w1@test"}
        other.close()
        worker.kill()


@pytest.mark.own_redis
def test_a_broker_that_went_away_is_found_again(redis_server: Redis) -> None:
    """The poll says so while it is away."""
    workers = poller(redis_server.url)
    assert workers.poll(now=1.0, live=()).workers == {}
    redis_server.kill()
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            workers.poll(now=1.0, live=[PollTarget("w1@test", 1)])
    redis_server.up()
    assert workers.poll(now=1.0, live=()).workers == {}
    workers.close()
