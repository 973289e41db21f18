"""Clients that write to Redis decide about names, their lengths and their number: a poll stays small and quick."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis
from tests.security.process import peak_of

from celerymeter.control.evidence.redis_queues import RedisQueues
from celerymeter.demo.servers import Redis
from celerymeter.errors import BrokerUnavailable
from celerymeter.model import QueuesSnapshot
from celerymeter.polling.redis_queues import MAX_ALL_BINDINGS, RedisQueuePoller
from celerymeter.settings import BrokerSettings, ExporterSettings

pytestmark = pytest.mark.integration

SEPARATOR = "\x06\x16"
LONG = 300_000


def binding(queue: str, key: str = "k", pattern: str = "") -> str:
    """A member of a set of bindings."""
    return SEPARATOR.join((key, pattern, queue))


def _many(client: redis.Redis) -> None:
    for exchange in range(30):
        client.sadd(f"_kombu.binding.a{exchange}", *(binding(f"q{exchange}-{number}") for number in range(1500)))


def _long_queues(client: redis.Redis) -> None:
    for number in range(120):
        client.sadd("_kombu.binding.a", binding(f"{number}{'q' * LONG}"))


def _long_keys(client: redis.Redis) -> None:
    for number in range(120):
        client.sadd("_kombu.binding.a", binding("q", key=f"{number}{'k' * LONG}"))


def _long_patterns(client: redis.Redis) -> None:
    for number in range(120):
        client.sadd("_kombu.binding.a", binding("q", pattern=f"^{number}{'(a+)+' * (LONG // 5)}$"))


def _long_exchanges(client: redis.Redis) -> None:
    for number in range(120):
        client.sadd(f"_kombu.binding.{number}{'x' * LONG}", binding("q"))


def _long_tags(client: redis.Redis) -> None:
    client.zadd("unacked_index", {f"{number}{'t' * LONG}": 1.0 for number in range(120)})


def _long_lists(client: redis.Redis) -> None:
    for number in range(120):
        client.lpush(f"{number}{'r' * LONG}.reply.celery.pidbox", "x")


def _no_sets(client: redis.Redis) -> None:
    client.set("_kombu.binding.text", "x" * LONG)
    client.hset("_kombu.binding.hash", "a", "b")
    client.lpush("_kombu.binding.list", binding("q"))


def _no_bindings(client: redis.Redis) -> None:
    client.sadd("_kombu.binding.odd", "", SEPARATOR, SEPARATOR * 2, SEPARATOR * 50, b"\xff\xfe", "q" * 900)


ATTACKS: dict[str, Callable[[redis.Redis], None]] = {
    "very many bindings": _many,
    "long queues": _long_queues,
    "long routing keys": _long_keys,
    "long patterns": _long_patterns,
    "long exchanges": _long_exchanges,
    "long tags": _long_tags,
    "long names of lists": _long_lists,
    "keys that are no sets": _no_sets,
    "members that are no bindings": _no_bindings,
}


@pytest.fixture(scope="module", params=ATTACKS)
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A Redis with one queue of a real worker and one task in it, which another one holds too; and an attack."""
    with Redis(tmp_path_factory.mktemp("redis")) as started:
        started.up()
        client = redis.Redis(port=started.port)
        client.sadd("_kombu.binding.celery", binding("celery", "celery"))
        client.lpush("celery", '{"properties": {"correlation_id": "a", "delivery_tag": "t"}}')
        client.zadd("unacked_index", {"tag": time.time()})
        client.hset("unacked", "tag", '[{"properties": {"correlation_id": "b", "delivery_tag": "t"}}, "", "celery"]')
        ATTACKS[request.param](client)
        yield client
        client.close()


def test_a_poll_takes_little_whatever_is_in_redis(server: redis.Redis) -> None:
    """200 MB there were 765 MB here, and 1.5 million bindings took more than 100 s; the real queue is known."""
    poller = RedisQueuePoller(ExporterSettings(broker=BrokerSettings(url=_url(server))))

    def poll() -> QueuesSnapshot:
        return [poller.poll((), now=time.time()) for _ in range(2)][-1]

    began = time.thread_time()
    snapshot, megabytes = peak_of(poll)
    assert time.thread_time() - began < 5.0
    assert megabytes < 30
    queues = {queue.name: queue for queue in snapshot.queues}
    assert (queues["celery"].length, queues["celery"].unacked) == (1, 1)
    assert len(queues) <= MAX_ALL_BINDINGS + 1
    poller.close()


def test_a_search_for_tasks_takes_little_whatever_is_in_redis(server: redis.Redis) -> None:
    """And finds them, or says that it did not look at everything: its time is short, too, on a busy machine."""
    look, megabytes = peak_of(lambda: RedisQueues(BrokerSettings(url=_url(server))).look(["a", "b"], ["celery"]))
    assert set(look.waiting) == {"a"}
    assert set(look.unacked) == {"b"} or not look.unacked_read
    assert megabytes < 30


def test_an_account_without_scripts_reads_little_too(server: redis.Redis) -> None:
    """It knows the lengths of queues, and nothing of single messages."""
    server.acl_setuser(
        "meter", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=["+@all", "-eval"]
    )
    broker = BrokerSettings(url=_url(server, "meter:pw@"))
    poller = RedisQueuePoller(ExporterSettings(broker=broker))
    snapshot, megabytes = peak_of(lambda: [poller.poll((), now=time.time()) for _ in range(2)][-1])
    poller.close()
    assert {queue.name: queue.length for queue in snapshot.queues}["celery"] == 1
    assert len(snapshot.queues) <= MAX_ALL_BINDINGS + 1
    assert megabytes < 30
    with pytest.raises(BrokerUnavailable):
        RedisQueues(broker).look(["a"], ["celery"])


def _url(client: redis.Redis, user: str = "") -> str:
    return f"redis://{user}127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"
