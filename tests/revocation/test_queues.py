"""The lists of a Redis broker: where a task waits that no worker and no event has shown."""

from __future__ import annotations

import json

import pytest
import redis

from celerymeter.control.evidence.redis_queues import MAX_MESSAGES, PAGE, RedisQueues
from celerymeter.demo.servers import Redis
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration


def message(task_id: str) -> str:
    """Return a task's message as kombu stores it, as far as it is read."""
    return json.dumps({"body": "", "headers": {"id": task_id}, "properties": {"correlation_id": task_id}})


def test_a_waiting_task_is_found_behind_many_others_and_beside_a_key_that_is_no_list(redis_server: Redis) -> None:
    """In any priority."""
    client = redis.Redis.from_url(redis_server.url)
    client.set("a-string", "no list")
    client.lpush("slow", message("first"), *(message(f"other-{number}") for number in range(2 * PAGE)), message("last"))
    client.lpush("slow\x06\x169", message("low"))
    queues = RedisQueues(BrokerSettings(url=redis_server.url))
    found = queues.find(["first", "last", "low", "nowhere"], ["a-string", "slow", "unused"])
    assert {task_id: waiting.queue for task_id, waiting in found.items()} == dict.fromkeys(found, "slow")
    assert set(found) == {"first", "last", "low"}


def test_a_look_gives_places_and_finds_queues_that_nobody_names(redis_server: Redis) -> None:
    """From the head, over all priorities; what workers hold is among the unacknowledged messages."""
    client = redis.Redis.from_url(redis_server.url)
    client.lpush("busy", *(message(f"urgent-{number}") for number in range(3)))
    client.lpush("busy\x06\x166", *(message(f"slow-{number}") for number in range(3)))
    client.sadd("_kombu.binding.forgotten", "forgotten\x06\x16\x06\x16forgotten")
    client.lpush("forgotten", message("alone"))
    client.hset("unacked", "tag", json.dumps([json.loads(message("held")), "", "busy"]))
    client.zadd("unacked_index", {"tag": 1000.0})
    queues = RedisQueues(BrokerSettings(url=redis_server.url))
    look = queues.look(["urgent-1", "slow-2", "alone", "held", "nowhere"], ["busy"])
    places = {
        task_id: (found.queue, found.position, found.total, found.priority) for task_id, found in look.waiting.items()
    }
    assert places == {"urgent-1": ("busy", 2, 6, 0), "slow-2": ("busy", 6, 6, 6), "alone": ("forgotten", 1, 1, 0)}
    assert look.unacked["held"].delivered_at == 1000.0
    assert look.unacked["held"].redelivered_at == 1000.0 + 3600
    assert (look.lists_read, look.unacked_read, look.lengths) == (True, True, {"busy": 6, "forgotten": 1})


def test_an_id_that_is_a_number_is_found(redis_server: Redis) -> None:
    """Workers do not find it by its text."""
    client = redis.Redis.from_url(redis_server.url)
    client.lpush("odd", json.dumps({"body": "", "headers": {"id": 5}, "properties": {"correlation_id": 5}}))
    look = RedisQueues(BrokerSettings(url=redis_server.url)).look(["5"], ["odd"])
    assert (look.waiting["5"].position, look.waiting["5"].uuid_object) == (1, True)


def test_both_ends_of_a_long_list_are_read_and_no_more(redis_server: Redis) -> None:
    """The head runs next, and the tail was just sent."""
    client = redis.Redis.from_url(redis_server.url)
    client.lpush("long", message("first"), *(message(f"other-{number}") for number in range(MAX_MESSAGES // 2)))
    client.lpush("long", message("middle"), *(message(f"other-{number}") for number in range(MAX_MESSAGES // 2)))
    client.lpush("long", message("last"))
    look = RedisQueues(BrokerSettings(url=redis_server.url)).look(["first", "middle", "last"], ["long"])
    total = MAX_MESSAGES + 3
    assert {task_id: found.position for task_id, found in look.waiting.items()} == {"first": 1, "last": total}
    assert (look.lists_read, look.lengths["long"]) == (False, total)


@pytest.mark.parametrize("key", ['with "quotes"', "\N{PILE OF POO}", "a\\b", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"])
def test_any_id_is_found(redis_server: Redis, key: str) -> None:
    """Also one that JSON escapes, and one that is a UUID object."""
    client = redis.Redis.from_url(redis_server.url)
    tagged = {"__type__": "uuid", "__value__": {"hex": key.replace("-", "")}} if key.startswith("6f96") else key
    content = {"body": "x" * 2000, "headers": {"id": tagged}, "properties": {"correlation_id": tagged}}
    client.lpush("odd", message("other"), json.dumps(content))
    look = RedisQueues(BrokerSettings(url=redis_server.url)).look([key], ["odd"])
    assert (look.waiting[key].position, look.waiting[key].uuid_object) == (2, key.startswith("6f96"))
