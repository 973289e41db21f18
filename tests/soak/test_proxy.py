"""The proxy drops events and nothing else, wherever the bytes are cut."""

from __future__ import annotations

import pytest
import redis
from tools.soak.proxy import DroppingProxy, commands, encoded

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

WORDS = [[b"PING"], [b"SET", b"key", b"*1\r\n$4\r\nPING\r\n"], [b"PUBLISH", b"/0.celeryev/task.multi", b""]]


def test_commands_are_found_however_the_bytes_are_cut() -> None:
    stream = b"".join(map(encoded, WORDS))
    for size in (1, 2, 7, len(stream)):
        found, rest = [], b""
        for start in range(0, len(stream), size):
            more, rest = commands(rest + stream[start : start + size])
            found += more
        assert (found, rest) == (WORDS, b"")


def test_what_is_no_command_is_no_silent_loss() -> None:
    with pytest.raises(ValueError, match="no RESP array"):
        commands(b"PING\r\n")


@pytest.mark.integration
def test_only_events_are_dropped_and_the_client_gets_its_answers(redis_server: Redis) -> None:
    """In a pipeline too, where an answer that is missing would be taken for the next one's."""
    with DroppingProxy(redis_server.port) as proxy, redis.Redis(port=proxy.port) as client:
        listener = client.pubsub(ignore_subscribe_messages=True)
        listener.psubscribe("*")
        listener.get_message(timeout=5)
        proxy.share = 1.0
        pipeline = client.pipeline(transaction=False)
        pipeline.publish("/0.celeryev/worker.heartbeat", "lost").set("key", "value").publish("/0.other", "kept")
        assert pipeline.execute()[1:] == [True, 1]
        proxy.share = 0.0
        assert client.publish("/0.celeryev/worker.heartbeat", "heard") == 1
        heard: list[bytes] = []
        wait_until(lambda: len(heard) == 2 or _hear(listener, heard))
        assert heard == [b"kept", b"heard"]
        assert (proxy.dropped, proxy.passed, client.get("key")) == (1, 1, b"value")


def _hear(listener: redis.client.PubSub, heard: list[bytes]) -> bool:
    message = listener.get_message(timeout=1)
    if message is not None and b"celeryev/" not in message["data"] and b"droppedx" not in message["channel"]:
        heard.append(message["data"])
    return len(heard) == 2
