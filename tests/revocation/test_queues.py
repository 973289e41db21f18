"""The lists of a Redis broker: where a task waits that no worker and no event has shown."""

from __future__ import annotations

import json

import pytest
import redis

from celerymeter.control.evidence.redis_queues import PAGE, RedisQueues
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
    assert found == {"first": "slow", "last": "slow", "low": "slow"}
