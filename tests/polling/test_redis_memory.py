"""The memory of a real Redis: limit, evicted keys, a broker that is full, lists that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from celerymeter.demo.servers import Redis
from celerymeter.model import BrokerMemory
from celerymeter.polling.redis_memory import Evictions
from celerymeter.polling.redis_queues import RedisQueuePoller
from celerymeter.settings import BrokerSettings, ExporterSettings

LIMIT = 4 * 2**20


@pytest.fixture
def client(redis_server: Redis) -> Any:
    """A client of this test's Redis, which has no limit yet."""
    return redis.Redis(port=redis_server.port)


@pytest.fixture
def poller(redis_server: Redis) -> Iterator[RedisQueuePoller]:
    """A poller that has not polled yet."""
    poller = RedisQueuePoller(ExporterSettings(BrokerSettings(url=redis_server.url)))
    yield poller
    poller.close()


def memory(poller: RedisQueuePoller) -> BrokerMemory:
    """Return the memory that the next poll reads."""
    return poller.poll([], now=1.0).memory


def fill(client: Any, *, expire: int | None = None) -> int:
    """Write until Redis refuses, 16 MiB at most; return the number of keys that it took."""
    pipe = client.pipeline(transaction=False)
    for number in range(160):
        pipe.set(f"key{number}", b"x" * 100_000, ex=expire)
    replies: list[object] = pipe.execute(raise_on_error=False)
    return replies.count(True)


@pytest.mark.integration
def test_without_a_limit_there_is_none(poller: RedisQueuePoller, client: Any) -> None:
    """Then nothing is full, whatever is used."""
    found = memory(poller)
    assert found.used is not None
    assert abs(found.used - client.info()["used_memory"]) < 2**20
    assert (found.limit, found.blocked, found.evicted, found.orphaned) == (None, False, 0, 0)


@pytest.mark.integration
@pytest.mark.parametrize(("policy", "expire"), [("noeviction", 60), ("volatile-lru", None)])
def test_a_redis_that_may_delete_nothing_is_blocked(
    poller: RedisQueuePoller, client: Any, policy: str, expire: int | None
) -> None:
    """It refuses commands: nothing is to be deleted, or nothing has an expiry."""
    client.config_set("maxmemory", LIMIT)
    client.config_set("maxmemory-policy", policy)
    before = memory(poller)
    assert fill(client, expire=expire) < 160
    client.config_set("maxmemory", client.info()["used_memory"] * 9 // 10)
    after = memory(poller)
    assert (before.limit, before.blocked) == (LIMIT, False)
    assert (after.blocked, after.evicted) == (True, 0)


@pytest.mark.integration
def test_evicted_keys_count_from_the_first_poll(poller: RedisQueuePoller, client: Any) -> None:
    """Redis goes on taking messages, and deletes others."""
    client.config_set("maxmemory", LIMIT)
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert fill(client) == 160
    first = memory(poller)
    assert (first.evicted, first.blocked) == (0, False)
    assert client.info()["evicted_keys"] > 50
    before = client.info()["evicted_keys"]
    assert fill(client) == 160
    assert memory(poller).evicted == client.info()["evicted_keys"] - before > 50


@pytest.mark.integration
def test_lists_that_nobody_reads(poller: RedisQueuePoller, client: Any) -> None:
    """Two of 11 MB; a list that is being read is none, nor is one whose reader has just begun."""
    for key in ("celeryev.0b2e", "5f0d.reply.celery.pidbox"):
        for _ in range(11):
            client.lpush(key, b"x" * 1_000_000)
    client.lpush("9a9a.reply.celery.pidbox", *["reply"] * 10)
    client.lpush("celery", b"x" * 1_000_000)
    assert memory(poller).orphaned == 0, "one poll cannot tell"
    client.rpop("9a9a.reply.celery.pidbox")
    orphaned = memory(poller).orphaned
    assert orphaned is not None
    assert 22_000_000 <= orphaned < 24_000_000
    client.delete("celeryev.0b2e", "5f0d.reply.celery.pidbox")
    assert (memory(poller).orphaned or 0) < 1_000_000


@pytest.mark.integration
def test_what_the_account_may_not_ask_is_unknown(redis_server: Redis, client: Any) -> None:
    """Queues are read all the same."""
    client.acl_setuser(
        "reader", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], categories=["+@all"],
        commands=["-info", "-memory"],
    )  # fmt: skip
    client.lpush("x.reply.celery.pidbox", "reply")
    url = redis_server.url.replace("redis://", "redis://reader:pw@")
    poller = RedisQueuePoller(ExporterSettings(BrokerSettings(url=url)))
    polls = [poller.poll(["celery"], now=1.0) for _ in range(2)]
    poller.close()
    client.acl_deluser("reader")
    assert [state.name for state in polls[1].queues] == ["celery"]
    assert polls[1].memory == BrokerMemory()


def test_evictions_of_another_process_are_no_news() -> None:
    """After a failover the new master reports its own past; after CONFIG RESETSTAT the count begins anew."""
    evictions = Evictions()
    polls = [("a", 1000), ("a", 1007), ("b", 5000), ("b", 5001), ("b", 2), ("b", None)]
    assert [evictions.count(process, evicted) for process, evicted in polls] == [0, 7, 7, 8, 10, 10]


def test_a_server_that_never_reported_evictions_has_no_count() -> None:
    """Absent, not 0."""
    assert Evictions().count("None", None) is None
