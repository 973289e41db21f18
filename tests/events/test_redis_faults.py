"""The reader outlives its broker: every fault here is a real one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis
from tests.events.blackhole import Blackhole
from tests.events.messages import event, message
from tests.events.running import Readers, app_of, emit, emit_until_received
from tests.events.sinks import RecordingSink

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.events.reader import LONGEST_PAUSE
from celerymeter.events.redis import CONNECT_TIMEOUT, TICK, TIMEOUTS, RedisReader, Timeouts
from celerymeter.model import Event
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration


def reading(readers: Readers, url: str, timeouts: Timeouts = TIMEOUTS) -> RecordingSink:
    """A sink that a running reader fills."""
    sink = RecordingSink()
    readers.start(RedisReader(BrokerSettings(url=url), sink, timeouts=timeouts))
    return sink


def test_a_broker_that_comes_late_is_found(tmp_path: Path, readers: Readers) -> None:
    """The reader may be started first."""
    with Redis(tmp_path) as server:
        sink = reading(readers, server.url)
        assert "refused" in sink.await_loss()

        server.up()
        sink.await_connections()

        emit_until_received(app_of(server.url), sink)


@pytest.mark.own_redis
def test_a_restart_of_the_broker_is_survived(redis_server: Redis, readers: Readers) -> None:
    """Killed and started again: the subscription comes back by itself, within the longest pause."""
    sink = reading(readers, redis_server.url)
    sink.await_connections()

    redis_server.kill()
    sink.await_loss()
    redis_server.up()
    up = time.monotonic()
    sink.await_connections(2)

    assert time.monotonic() - up < 4 * LONGEST_PAUSE
    emit_until_received(app_of(redis_server.url), sink)


def test_a_killed_connection_is_renewed_at_once(redis_server: Redis, readers: Readers) -> None:
    """After a subscription that lasted, the first new attempt does not wait."""
    sink = reading(readers, redis_server.url)
    sink.await_connections()
    time.sleep(1.1)  # a subscription that lasted
    client = redis.Redis(port=redis_server.port)

    client.client_kill_filter(_type="pubsub")
    sink.await_connections(2)

    assert sink.connections[1] - sink.losses[0][0] < LONGEST_PAUSE
    assert sink.losses[0][1] == "the server closed the connection"
    emit_until_received(app_of(redis_server.url), sink)
    client.close()


def test_what_is_shipped_notices_within_15_seconds() -> None:
    """Silence, a question and no answer; an attempt to connect may take its whole time too."""
    assert TIMEOUTS.silence + TIMEOUTS.reply + 2 * TICK + CONNECT_TIMEOUT < 15


TIMEOUT_CASES = pytest.mark.parametrize(
    ("timeouts", "within"),
    [(Timeouts(silence=0.5, reply=0.5), 60.0), pytest.param(TIMEOUTS, 15.0, marks=pytest.mark.slow)],
    ids=["quick", "as shipped"],
)


@pytest.mark.own_redis
@TIMEOUT_CASES
def test_a_deaf_subscription_is_noticed_and_renewed(
    redis_server: Redis, readers: Readers, timeouts: Timeouts, within: float
) -> None:
    """A stopped Redis keeps its connections open and says nothing: only asking tells."""
    sink = reading(readers, redis_server.url, timeouts)
    sink.await_connections()

    redis_server.signal(signal.SIGSTOP)
    assert "no reply to PING" in sink.await_loss(timeout=within)
    redis_server.signal(signal.SIGCONT)
    sink.await_connections(2)

    emit_until_received(app_of(redis_server.url), sink)


def test_a_night_without_events_is_survived(redis_server: Redis, readers: Readers) -> None:
    """After four silences another connection looks where the broker is; the tenth of them ended the reader."""
    sink = reading(readers, redis_server.url, Timeouts(silence=0.02, reply=30, silences=1))
    sink.await_connections()
    with redis.Redis(port=redis_server.port) as client:

        def connections() -> int:
            return int(client.info("stats")["total_connections_received"])

        before = connections()
        wait_until(lambda: connections() > before + 30)
    assert sink.losses == []
    emit_until_received(app_of(redis_server.url), sink)


@TIMEOUT_CASES
def test_a_subscription_that_leads_nowhere_is_renewed(
    redis_server: Redis, readers: Readers, timeouts: Timeouts, within: float
) -> None:
    """In the midst of a stream: Redis goes on sending into a connection out of which nothing comes."""
    with Blackhole(redis_server.port) as route:
        sink = reading(readers, redis_server.url.replace(str(redis_server.port), str(route.port)), timeouts)
        sink.await_connections()
        app = app_of(redis_server.url)
        emit_until_received(app, sink)

        route.swallow()
        emit(app, "shop-closed")
        sink.await_connections(2, timeout=within)

        assert "no reply to PING" in sink.losses[0][1]
        assert sink.types()["shop-closed"] == 0
        emit_until_received(app, sink)


def test_a_quiet_subscription_is_left_alone(redis_server: Redis, readers: Readers) -> None:
    """Answers to PING are signs of life, whatever the protocol version."""
    sink = reading(readers, redis_server.url, Timeouts(silence=0.2, reply=30))
    sink.await_connections()
    client = redis.Redis(port=redis_server.port)

    def pings() -> int:
        stats: dict[str, dict[str, int]] = client.info("commandstats")
        return stats.get("cmdstat_ping", {}).get("calls", 0)

    before = pings()
    wait_until(lambda: pings() >= before + 3, what="asked again, which takes an answer")

    assert not sink.losses
    emit_until_received(app_of(redis_server.url), sink)
    client.close()


class Stalling(RecordingSink):
    """A sink that takes no events while it is closed, like a process that gets no CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def events(self, batch: Sequence[Event], at: float) -> None:
        """Wait, then take."""
        self.open.wait(120)
        super().events(batch, at)


def test_a_subscriber_that_was_dropped_says_so_and_subscribes_at_once(redis_server: Redis, readers: Readers) -> None:
    """Over its output limit Redis drops us: what was read before counts, in order, and the reason is reported."""
    client = redis.Redis(port=redis_server.port)
    client.config_set("client-output-buffer-limit", "pubsub 1mb 0 0")
    sink = Stalling()
    readers.start(RedisReader(BrokerSettings(url=redis_server.url), sink))
    sink.await_connections()
    time.sleep(1.1)  # a subscription that lasted

    pipeline = client.pipeline(transaction=False)
    for number in range(20_000):
        pipeline.publish("/0.celeryev/task.multi", message([event(uuid=str(number), args="x" * 1000)]))
    pipeline.execute()
    wait_until(lambda: not client.client_list(_type="pubsub"), what="Redis has dropped the subscriber")
    sink.open.set()
    sink.await_connections(2)

    assert sink.connections[1] - sink.losses[0][0] < LONGEST_PAUSE
    assert "amid a burst" in sink.losses[0][1]
    assert 0 < len(sink.received) < 20_000
    assert [got.uuid for got in sink.received] == [str(number) for number in range(len(sink.received))]
    emit_until_received(app_of(redis_server.url), sink)
    client.close()
