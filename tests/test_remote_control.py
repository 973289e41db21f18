"""Commands to workers and their replies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from tests.apps.worker_app import make_app
from tests.workers import start_worker

from celerymeter.broker import HeldConnection
from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis
from celerymeter.errors import BrokerUnavailable
from celerymeter.remote_control import Command, RemoteControl
from celerymeter.settings import BrokerSettings

pytestmark = pytest.mark.integration

W1, W2 = "w1@test", "w2@test"


@pytest.fixture
def control(shared_redis: Redis) -> Iterator[RemoteControl]:
    """A client on the module's Redis."""
    opened = RemoteControl(BrokerSettings(url=shared_redis.url))
    yield opened
    opened.close()


def kill_connections(server: Redis) -> None:
    """As a firewall or `CLIENT KILL` does."""
    redis.Redis(port=server.port).client_kill_filter(_type="normal", skipme=True)


def test_several_commands_go_out_together_and_named_workers_alone_reply(
    shared_redis: Redis, control: RemoteControl, tmp_path: Path
) -> None:
    """The call ends with the last reply that is expected; errors are replies."""
    with (
        start_worker(shared_redis.url, tmp_path, hostname=W1) as first,
        start_worker(shared_redis.url, tmp_path, hostname=W2) as second,
    ):
        commands = [Command("stats"), Command("active_queues", destination=[W2]), Command("pool_restart")]
        control.ask(commands, expected=[W1, W2])
        began = time.monotonic()
        replies = control.ask([Command("stats"), Command("pool_restart")], expected=[W1, W2])
        alone = control.ask([Command("stats", destination=[W2])], expected=[W2])
        assert time.monotonic() - began < 0.9, "a second is what waiting in vain takes"
        first.kill()
        second.kill()
    assert replies.answered("stats") == {W1, W2}
    assert replies.errors.keys() == {W1, W2}
    found = alone.stats(W2)
    assert found is not None
    assert alone.hostnames == {W2}
    assert found.pid == second.pid


def test_nobody_is_waited_for_longer_than_the_silence(control: RemoteControl) -> None:
    """With or without a name; kombu's own polling of Redis adds up to a second."""
    began = time.monotonic()
    assert not control.ask([Command("stats")], expected=[W1], silence=0.2).hostnames
    assert not control.ask([Command("stats")], silence=0.2).hostnames
    assert time.monotonic() - began < 5, "two time-outs are 20 s"


def test_a_call_after_one_that_ended_by_silence_hears_its_replies(
    shared_redis: Redis, control: RemoteControl, tmp_path: Path
) -> None:
    """Also from another thread; on Redis the wait for a message of the call before is still under way."""
    with start_worker(shared_redis.url, tmp_path, hostname=W1) as worker, ThreadPoolExecutor(1) as other:
        control.ask([Command("stats")], expected=[W1])
        for _ in range(3):
            assert control.ask([Command("stats")], expected=[W1, W2], silence=0.3).hostnames == {W1}
            asked = other.submit(lambda: control.ask([Command("stats")], expected=[W1], silence=0.4))
            assert asked.result().hostnames == {W1}
        worker.kill()


def test_a_question_survives_the_loss_of_its_connection(
    shared_redis: Redis, control: RemoteControl, tmp_path: Path
) -> None:
    """It is asked again on a new one."""
    with start_worker(shared_redis.url, tmp_path, hostname=W1) as worker:
        assert control.ask([Command("stats")], expected=[W1]).hostnames == {W1}
        kill_connections(shared_redis)
        wait_until(lambda: control.ask([Command("stats")], expected=[W1]).hostnames == {W1})
        worker.kill()


def test_an_action_is_not_repeated() -> None:
    """The lost connection is an error, for its command may have arrived."""
    held = HeldConnection(BrokerSettings(url="memory://"))
    attempts: list[object] = []

    def act(connection: object) -> None:
        attempts.append(connection)
        if len(attempts) > 1:
            raise ConnectionResetError("cut")

    held.use(act)
    with pytest.raises(BrokerUnavailable):
        held.use(act, once=True)
    assert len(attempts) == 2
    assert attempts[0] is not attempts[1], "a held connection may be dead without saying so"
    with pytest.raises(BrokerUnavailable):
        held.use(act)
    held.close()


def test_an_action_after_all_connections_were_cut_is_done_once(
    shared_redis: Redis, control: RemoteControl, tmp_path: Path
) -> None:
    """The worker runs it exactly once, although the held connection was dead."""
    with start_worker(shared_redis.url, tmp_path, hostname=W1, pool="prefork", concurrency=1) as worker:
        control.ask([Command("stats")], expected=[W1])
        kill_connections(shared_redis)
        app = make_app(shared_redis.url)
        wait_until(lambda: app.control.ping(timeout=0.5))
        replies = control.ask([Command("pool_grow", {"n": 1})], expected=[W1], once=True)
        assert replies.answered("pool_grow") == {W1}
        stats = control.ask([Command("stats")], expected=[W1]).stats(W1)
        worker.kill()
    assert stats is not None
    assert stats.prefetch_count == 8, "4 for each process"


def test_a_command_without_replies(shared_redis: Redis, control: RemoteControl, tmp_path: Path) -> None:
    """At the workers that are named."""
    with start_worker(shared_redis.url, tmp_path, hostname=W1, events=False) as worker:
        # it subscribes only after it has said that it is ready
        wait_until(lambda: control.ask([Command("ping")], expected=[W1]).hostnames)
        control.send(Command("enable_events", destination=[W2]))
        control.send(Command("enable_events", destination=[W1]))
        wait_until(lambda: "Events of group {task} enabled by remote" in worker.tail())
        assert worker.tail().count("enabled by remote") == 1
        worker.kill()


def test_a_broker_that_is_away_is_said_without_its_password() -> None:
    """Whatever was to be sent."""
    away = RemoteControl(BrokerSettings(url="redis://:hush@127.0.0.1:1/0"))
    for once in (False, True):
        with pytest.raises(BrokerUnavailable) as caught:
            away.ask([Command("stats")], once=once)
        assert "hush" not in str(caught.value)


def test_a_user_without_permissions_gets_a_reason(shared_redis: Redis) -> None:
    """The Redis ACL forbids the commands of kombu's reply queue; the error names the refusal and no password."""
    admin = redis.Redis(port=shared_redis.port)
    admin.acl_setuser(
        "limited", enabled=True, passwords=["+hush"], keys=["*"], channels=["*"], categories=["+@connection"]
    )
    limited = RemoteControl(BrokerSettings(url=shared_redis.url.replace("127.0.0.1", "limited:hush@127.0.0.1")))
    for once in (False, True):
        with pytest.raises(BrokerUnavailable, match="Redis refuses a command") as caught:
            limited.ask([Command("stats")], once=once)
        assert "hush" not in str(caught.value)
    limited.close()
    admin.acl_deluser("limited")


def test_messages_that_workers_hold_are_never_delivered_again(shared_redis: Redis) -> None:
    """kombu sweeps on any connection that waits, by that one's visibility timeout; the workers' may be longer."""
    server = redis.Redis(port=shared_redis.port)
    held = '[{"body": "e30=", "headers": {}, "properties": {"delivery_info": {}}}, "celery", "celery"]'
    server.hset("unacked", "tag", held)
    server.zadd("unacked_index", {"tag": time.time() - 1_000_000})
    connection = HeldConnection(BrokerSettings(url=shared_redis.url, transport_options={"visibility_timeout": 60}))
    connection.use(lambda opened: opened.default_channel.qos.restore_visible())
    connection.close()
    assert server.hget("unacked", "tag") == held.encode()
    assert server.llen("celery") == 0


def test_replies_that_come_too_late_leave_nothing_behind(
    shared_redis: Redis, control: RemoteControl, tmp_path: Path
) -> None:
    """A monitor that left its reply lists filled a Redis with 20 GB of them (flower 706)."""
    with start_worker(shared_redis.url, tmp_path, hostname=W1, pool="solo") as worker:
        app = make_app(shared_redis.url)
        for _ in range(3):
            app.send_task("tests.sleep", (0.5,))
            control.ask([Command("stats")], silence=0.01, timeout=0.01)
        wait_until(lambda: control.ask([Command("stats")], expected=[W1]).hostnames == {W1})
        with redis.Redis(port=shared_redis.port) as client:
            left = [key for key in client.keys("*reply.celery.pidbox*") if client.type(key) == b"list"]
            assert left == []
            assert client.exists("_kombu.binding.reply.celery.pidbox") == 0
        app.close()
        worker.kill()
