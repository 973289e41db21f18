"""Queue depths on a real Redis, with real workers that hold messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from tests.apps.worker_app import make_app
from tests.workers import start_worker

from celerymeter import stamp
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.errors import BrokerUnavailable
from celerymeter.model import QueuesSnapshot, QueueState
from celerymeter.polling.redis_queues import RedisQueuePoller
from celerymeter.settings import BrokerSettings, ExporterSettings

pytestmark = pytest.mark.integration

NOW = 1_800_000_000.0


def poller(url: str, *, unacked_limit: int = 20_000, **options: object) -> RedisQueuePoller:
    """A poller with these transport options."""
    settings = ExporterSettings(BrokerSettings(url=url, transport_options=options))
    return RedisQueuePoller(settings, unacked_limit=unacked_limit)


def queue(snapshot: QueuesSnapshot, name: str = "celery") -> QueueState:
    """One queue of a snapshot."""
    return next(state for state in snapshot.queues if state.name == name)


def send(app: Celery, count: int, **options: object) -> list[str]:
    """Send so many tasks; returns their ids."""
    return [app.tasks["tests.add"].apply_async((1, 2), **options).id for _ in range(count)]


def client(server: Redis, db: int = 0) -> Any:
    """A plain client, to look behind the scenes (redis-py types some replies vaguely, hence Any)."""
    return redis.Redis(port=server.port, db=db)


@pytest.fixture
def app(redis_server: Redis) -> Celery:
    """The test application on this test's Redis."""
    return make_app(redis_server.url)


def test_ready_messages_of_all_priorities_count(redis_server: Redis, app: Celery) -> None:
    """Each priority step has a list of its own."""
    for priority, count in {0: 1, 3: 2, 5: 3, 6: 4, 9: 5}.items():
        send(app, count, priority=priority)
    assert queue(poller(redis_server.url).poll(["celery"], now=NOW)).length == 15


def test_renamed_lists_in_another_database_count(redis_server: Redis) -> None:
    """Prefix, separator, steps and database are the cluster's choice; what others keep there is not ours."""
    url = redis_server.url.replace("/0", "/5")
    options: dict[str, Any] = {"global_keyprefix": "shop[1]:", "sep": "~", "priority_steps": [0, 2, 4, 8]}
    app = make_app(url, transport_options=options)
    for priority in (0, 2, 5, 9):
        send(app, 2, priority=priority)
    client(redis_server, 5).lpush("celery", "another shop's")

    snapshot = poller(url, **options).poll([], now=NOW)
    assert [(state.name, state.length) for state in snapshot.queues] == [("celery", 8)]


def test_an_empty_queue_is_zero(redis_server: Redis) -> None:
    """A queue without messages has no key in Redis, but it exists."""
    snapshot = poller(redis_server.url).poll(["nightly"], now=NOW)
    assert queue(snapshot, "nightly") == QueueState("nightly", 0, unacked=0)


def test_a_drained_queue_is_known_to_an_exporter_that_starts_later(redis_server: Redis, tmp_path: Path) -> None:
    """Redis has deleted its list and all workers are gone, but it is 0, not missing (celery-exporter 143 and 190)."""
    with start_worker(redis_server.url, tmp_path, pool="solo", queues=["drained"]) as worker:
        worker.stop()
    assert not client(redis_server).exists("drained")
    assert queue(poller(redis_server.url).poll([], now=NOW), "drained").length == 0


def test_a_name_that_holds_something_else_is_no_queue(redis_server: Redis) -> None:
    """It is left out; the others are reported."""
    client(redis_server).set("odd", "a string")
    names = [state.name for state in poller(redis_server.url).poll(["odd", "celery"], now=NOW).queues]
    assert names == ["celery"]


def test_what_workers_hold_is_unacknowledged(redis_server: Redis, app: Celery, tmp_path: Path) -> None:
    """One task runs and three are prefetched; the rest waits. Delivery times tell the oldest."""
    with start_worker(redis_server.url, tmp_path, concurrency=1) as worker:
        before = time.time()
        for _ in range(10):
            app.tasks["tests.sleep_late"].delay(30)
        look = poller(redis_server.url)
        wait_until(lambda: queue(look.poll([], now=NOW)).unacked == 4)
        state = queue(look.poll([], now=NOW))
        worker.kill()
    assert (state.length, state.unacked) == (6, 4)
    assert state.oldest_unacked_at is not None
    assert before <= state.oldest_unacked_at <= time.time()


def test_unacknowledged_messages_belong_to_their_queue(redis_server: Redis, app: Celery, tmp_path: Path) -> None:
    """Also when they came by a named exchange; what waits for its ETA in a worker is delivered."""
    with start_worker(redis_server.url, tmp_path, queues=["a", "b"]) as worker:
        send(app, 2, queue="a", countdown=600)
        send(app, 3, exchange="b", routing_key="b", countdown=600)
        look = poller(redis_server.url)
        wait_until(lambda: sum(state.unacked or 0 for state in look.poll([], now=NOW).queues) == 5)
        snapshot = look.poll([], now=NOW)
        worker.kill()
    assert (queue(snapshot, "a").unacked, queue(snapshot, "b").unacked) == (2, 3)
    assert snapshot.visibility_timeout == 3600


def hold(server: Redis, count: int, *, destination: str = '"", "celery"', first: int = 0) -> None:
    """Unacknowledged messages as kombu keeps them, delivered one a second from ``first``."""
    pipe = client(server).pipeline()
    for number in range(first, first + count):
        pipe.hset("unacked", f"tag-{number}", f'[{{"body": "x"}}, {destination}]')
        pipe.zadd("unacked_index", {f"tag-{number}": number})
    pipe.execute()


def test_beyond_the_limit_only_the_total_is_reported(redis_server: Redis) -> None:
    """The oldest are read, for they come close to the visibility timeout first."""
    hold(redis_server, 700, first=100)
    snapshot = poller(redis_server.url, unacked_limit=450).poll([], now=NOW)
    assert (queue(snapshot).unacked, snapshot.unacked_other) == (450, 250)
    assert queue(snapshot).oldest_unacked_at == 100


def test_unacknowledged_messages_are_followed_from_poll_to_poll(redis_server: Redis) -> None:
    """An acknowledged message is gone, a new one is read, one that moved between is still known."""
    look = poller(redis_server.url)
    hold(redis_server, 3)
    assert queue(look.poll([], now=NOW)).unacked == 3
    client(redis_server).zrem("unacked_index", "tag-0")
    client(redis_server).hdel("unacked", "tag-0")
    hold(redis_server, 2, destination='"", "mails"', first=10)
    snapshot = look.poll([], now=NOW)
    assert {state.name: state.unacked for state in snapshot.queues} == {"celery": 2, "mails": 2}
    assert queue(snapshot).oldest_unacked_at == 1


def test_an_unknown_origin_is_counted_as_such(redis_server: Redis) -> None:
    """An exchange without a binding, a message that is none, and an index without its message."""
    hold(redis_server, 1, destination='"nowhere", "key"')
    hold(redis_server, 1, destination="nonsense", first=1)
    client(redis_server).zadd("unacked_index", {"dangling": 5})
    assert poller(redis_server.url).poll([], now=NOW).unacked_unknown == 3


def test_the_visibility_timeout_is_the_clusters(redis_server: Redis) -> None:
    """As the transport option says."""
    snapshot = poller(redis_server.url, visibility_timeout=7200, unacked_key="held").poll([], now=NOW)
    assert snapshot.visibility_timeout == 7200


@pytest.fixture
def stamped() -> Iterator[None]:
    """This process' tasks say when they were sent."""
    stamp.install()
    yield
    stamp.uninstall()


@pytest.mark.usefixtures("stamped")
def test_the_head_is_the_oldest_of_all_priorities(redis_server: Redis, app: Celery) -> None:
    """A starving message of low priority was sent first, however large it is."""
    before = time.time()
    starving = app.tasks["tests.add"].apply_async(("x" * 1_000_000, 2), priority=9).id
    after = time.time()
    send(app, 3, priority=0)
    head = queue(poller(redis_server.url).poll([], now=NOW)).head
    assert head is not None
    assert head.uuid == starving
    assert head.stamped_at is not None
    assert before <= head.stamped_at <= after


def test_without_stamps_a_head_is_as_old_as_it_was_seen(redis_server: Redis, app: Celery) -> None:
    """The observed age starts anew with each message at the head."""
    first, second = send(app, 2)
    look = poller(redis_server.url)
    look.poll([], now=NOW)
    head = queue(look.poll([], now=NOW + 15)).head
    assert head is not None
    assert (head.uuid, head.stamped_at, head.seen_since) == (first, None, NOW)

    client(redis_server).rpop("celery")
    head = queue(look.poll([], now=NOW + 30)).head
    assert head is not None
    assert (head.uuid, head.seen_since) == (second, NOW + 30)


def test_polling_changes_nothing_and_fetches_little(redis_server: Redis, app: Celery) -> None:
    """Ten megabytes at the head of a queue stay in Redis, as does everything else."""
    app.tasks["tests.add"].delay("x" * 10_000_000, 2)
    hold(redis_server, 100)
    admin, look = client(redis_server), poller(redis_server.url)
    look.poll([], now=NOW)
    sent = admin.info("stats")["total_net_output_bytes"]
    look.poll([], now=NOW)
    assert admin.info("stats")["total_net_output_bytes"] - sent < 100_000
    assert (admin.llen("celery"), admin.hlen("unacked"), admin.zcard("unacked_index")) == (1, 100, 100)


def test_a_thousand_queues_take_well_under_a_second(redis_server: Redis, app: Celery) -> None:
    """Measured in CPU of both sides, for the machine may be busy with other things."""
    names = [f"queue-{number}" for number in range(1000)]
    pipe = client(redis_server).pipeline()
    for name in names:
        pipe.lpush(name, "{}")
    pipe.execute()
    look = poller(redis_server.url)
    look.poll(names, now=NOW)

    def spent() -> float:
        info = client(redis_server).info("cpu")
        return time.process_time() + float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    before = spent()
    snapshot = look.poll(names, now=NOW)
    assert spent() - before < 0.5
    assert sum(state.length for state in snapshot.queues) == 1000


def test_a_database_full_of_results_is_walked_in_steps(redis_server: Redis, app: Celery) -> None:
    """Every declared queue is found in the end, and one poll reads a bounded number of keys."""
    admin, look = client(redis_server), poller(redis_server.url)
    admin.eval("for i = 1, 100000 do redis.call('SET', 'celery-task-meta-' .. i, 'x') end", 0)
    send(app, 1)
    found = []
    for _ in range(4):
        before = admin.info("commandstats").get("cmdstat_scan", {"calls": 0})["calls"]
        found.append([state.name for state in look.poll([], now=NOW).queues])
        assert admin.info("commandstats")["cmdstat_scan"]["calls"] - before <= 30
    assert found[-1] == ["celery"]


def test_an_account_without_scripts_still_tells_lengths(
    redis_server: Redis, app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    """Heads are absent, held messages have no queue; that is said once."""
    send(app, 3)
    hold(redis_server, 5)
    client(redis_server).execute_command(*["ACL", "SETUSER", "meter", "on", ">pw", "~*", "&*", "+@all", "-eval"])
    look = poller(redis_server.url.replace("127.0.0.1", "meter:pw@127.0.0.1"))
    for _ in range(3):
        snapshot = look.poll([], now=NOW)
    assert queue(snapshot) == QueueState("celery", 3)
    assert snapshot.unacked_other == 5
    assert [record.message for record in caplog.records] == [
        "Redis refuses EVAL to this user: ages of queues and unacknowledged messages are unknown; allow +eval"
    ]


def test_an_account_without_any_right_is_an_error(redis_server: Redis) -> None:
    """Nothing is known then, and nothing is made up."""
    client(redis_server).execute_command(*["ACL", "SETUSER", "meter", "on", ">pw", "~*", "&*", "+ping", "+info"])
    with pytest.raises(BrokerUnavailable, match="permission"):
        poller(redis_server.url.replace("127.0.0.1", "meter:pw@127.0.0.1")).poll(["celery"], now=NOW)


@pytest.mark.own_redis
def test_a_redis_that_went_away_is_found_again(redis_server: Redis, app: Celery, tmp_path: Path) -> None:
    """The poll says so while it is away, and the next one after its return works."""
    send(app, 1)
    look = poller(redis_server.url)
    look.poll([], now=NOW)
    redis_server.kill()
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            look.poll([], now=NOW)
    redis_server.up()
    assert queue(look.poll(["celery"], now=NOW)).length == 0


def test_only_configured_queues_are_reported(redis_server: Redis, app: Celery) -> None:
    """Whatever else there is."""
    send(app, 2, queue="a")
    send(app, 3, queue="b")
    settings = replace(ExporterSettings(BrokerSettings(url=redis_server.url)), queues=("a",))
    snapshot = RedisQueuePoller(settings).poll(["b", "c"], now=NOW)
    assert [(state.name, state.length) for state in snapshot.queues] == [("a", 2)]
