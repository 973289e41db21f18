"""The broker users that deploy/README.md describes: enough for both services, and for nothing else."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis
import requests
from amqp.exceptions import AccessRefused
from celery import Celery
from kombu import connection as kombu_connection
from tests.events.sinks import RecordingSink
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.control.evidence.result_backend import open_result_backend
from celerymeter.demo.servers import Redis
from celerymeter.doctor.collect import broker as doctor
from celerymeter.doctor.settings import DoctorSettings
from celerymeter.events import open_reader
from celerymeter.events.reader import Reader
from celerymeter.polling import open_queue_poller
from celerymeter.polling.workers import WorkerPoller
from celerymeter.remote_control import Command, RemoteControl
from celerymeter.settings import BrokerSettings, ExporterSettings

pytestmark = pytest.mark.integration

README = Path(__file__).parents[2] / "deploy/README.md"
CONNECTION: Any = kombu_connection.Connection
PASSWORD = "s3cret"
REFUSED = r"(?i)permission|can't (run|access)|not allowed"


def rules(name: str) -> list[str]:
    """Return the words of a block of the README; what is in parentheses is one word."""
    found = re.search(rf"<!-- tried: {name} -->\n```\n(.*?)```", README.read_text(), re.DOTALL)
    assert found, name
    parts = re.findall(r"\([^)]*\)|\S+", found[1].replace("PASSWORD", PASSWORD).replace("QUEUES", "celery|idle"))
    return [" ".join(part.split()) for part in parts]


def use_everything(url: str, producer: Celery, sink: RecordingSink) -> None:
    """Do what exporter, control API and doctor do with a broker: a real worker replies."""
    settings = ExporterSettings(broker=BrokerSettings(url=url))
    sink.await_connections()
    for number in range(3):
        producer.send_task("tests.nothing", queue="idle", task_id=f"waits-{number}")
    sink.await_events(3)
    with closing(open_queue_poller(settings)) as poller:
        queues = poller.poll({"celery", "idle"}, now=time.time())
    assert {queue.name: queue.length for queue in queues.queues}["idle"] == 3
    assert queues.incomplete is None
    with closing(WorkerPoller(settings)) as asker:
        workers = asker.poll(now=time.time())
    assert workers.workers["w1@test"].queues == ("celery",)
    with closing(RemoteControl(settings.broker)) as control:
        replies = control.ask([Command("revoke", {"task_id": ["waits-0"]})], expected=["w1@test"], once=True)
    assert replies.settled("revoke") == {"w1@test"}
    found = doctor.collect(DoctorSettings(settings.broker, watch=0.5), progress=lambda _: None)
    assert "w1@test" in found.workers


@pytest.fixture
def limited(redis_server: Redis) -> Iterator[tuple[Any, str]]:
    """An administrator of a Redis with the two users of the README, and the URL of the first."""
    connected: Any = redis.Redis(port=redis_server.port)
    with connected as admin:
        admin.flushall()
        for name in ("redis broker", "redis results"):
            admin.execute_command(*rules(name))
        admin.execute_command("ACL", "LOG", "RESET")
        yield admin, f"redis://celerymeter:{PASSWORD}@127.0.0.1:{redis_server.port}/0"


def refused_commands(admin: Any) -> set[Any]:
    """Return what Redis has refused since the start, without what a newer client tries and may not need."""
    log: Any = admin.execute_command("ACL", "LOG")
    return {entry.get("object", entry.get(b"object")) for entry in log} - {"client|setinfo", b"client|setinfo"}


def read_events(url: str, sink: RecordingSink) -> tuple[Reader, Any]:
    """Start a reader in a thread."""
    reader = open_reader(BrokerSettings(url=url), sink)
    thread = Thread(target=reader.run, daemon=True)
    thread.start()
    return reader, thread


def test_the_redis_user_is_enough(limited: tuple[Any, str], redis_server: Redis, tmp_path: Path) -> None:
    """Redis has refused nothing."""
    admin, url = limited
    producer = Celery(broker=redis_server.url, set_as_current=False)
    producer.conf.task_send_sent_event = True
    worker = start_worker(redis_server.url, tmp_path)
    sink = RecordingSink()
    reader, thread = read_events(url, sink)
    try:
        use_everything(url, producer, sink)
        assert refused_commands(admin) == set()
    finally:
        reader.stop()
        thread.join(5)
        worker.stop()


FORBIDDEN: dict[str, Callable[[Any], object]] = {
    "take a task": lambda user: user.rpop("celery"),
    "take a task, waiting": lambda user: user.brpop(["celery"], timeout=1),
    "move a task": lambda user: user.lmove("celery", "other"),
    "add a task": lambda user: user.lpush("celery", "{}"),
    "change a task": lambda user: user.lset("celery", 0, "{}"),
    "drop tasks": lambda user: user.ltrim("celery", 1, 0),
    "delete a queue": lambda user: user.delete("celery"),
    "unlink a queue": lambda user: user.unlink("celery"),
    "rename a queue": lambda user: user.rename("celery", "mine"),
    "copy a queue": lambda user: user.copy("celery", "mine"),
    "expire a queue": lambda user: user.expire("celery", 1),
    "dump a queue": lambda user: user.dump("celery"),
    "sort a queue": lambda user: user.sort("celery", store="mine"),
    "acknowledge a task": lambda user: user.hdel("unacked", "a"),
    "restore a task": lambda user: user.hset("unacked", "a", "b"),
    "forget a delivery": lambda user: user.zrem("unacked_index", "a"),
    "read a result": lambda user: user.get("celery-task-meta-a"),
    "write a result": lambda user: user.set("celery-task-meta-a", "x"),
    "read other data": lambda user: user.get("sessions"),
    "read other hashes whole": lambda user: user.hgetall("unacked"),
    "route tasks elsewhere": lambda user: user.sadd("_kombu.binding.celery", "x"),
    "remove a binding": lambda user: user.srem("_kombu.binding.celery", "x"),
    "invent events": lambda user: user.publish("/0.celeryev/task.multi", "{}"),
    "publish elsewhere": lambda user: user.publish("chat", "x"),
    "subscribe elsewhere": lambda user: user.execute_command("PSUBSCRIBE", "*"),
    "listen to commands": lambda user: user.execute_command("PSUBSCRIBE", "/1.celeryev/*"),
    "write by a script": lambda user: user.eval("return redis.call('LPUSH', KEYS[1], 'x')", 1, "celery"),
    "delete by a script": lambda user: user.eval("return redis.call('DEL', KEYS[1])", 1, "celery"),
    "read by a script": lambda user: user.eval("return redis.call('GET', KEYS[1])", 1, "celery-task-meta-a"),
    "set by a script": lambda user: user.eval("return redis.call('SET', KEYS[1], 1)", 1, "celery"),
    "end scripts": lambda user: user.script_kill(),
    "flush scripts": lambda user: user.script_flush(),
    "load functions": lambda user: user.function_load("#!lua name=x\nredis.register_function('x', function() end)"),
    "list all keys": lambda user: user.keys("*"),
    "flush everything": lambda user: user.flushall(),
    "flush the database": lambda user: user.flushdb(),
    "read the configuration": lambda user: user.config_get("*"),
    "change the configuration": lambda user: user.config_set("maxmemory", "1"),
    "write a file": lambda user: user.save(),
    "read users": lambda user: user.acl_list(),
    "make users": lambda user: user.acl_setuser("mallory", enabled=True),
    "end connections": lambda user: user.client_kill_filter(_type="normal"),
    "list connections": lambda user: user.client_list(),
    "pause clients": lambda user: user.client_pause(1),
    "watch commands": lambda user: user.execute_command("MONITOR"),
    "shut it down": lambda user: user.execute_command("SHUTDOWN", "NOSAVE"),
    "replicate elsewhere": lambda user: user.replicaof("10.0.0.1", 6379),
    "debug": lambda user: user.execute_command("DEBUG", "SLEEP", "0"),
    "load modules": lambda user: user.execute_command("MODULE", "LOAD", "/tmp/x.so"),
    "move keys away": lambda user: user.migrate("10.0.0.1", 6379, "celery", 0, 1),
    "swap databases": lambda user: user.swapdb(0, 1),
}


@pytest.mark.parametrize("attempt", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_the_redis_user_can_do_nothing_else(limited: tuple[Any, str], attempt: Callable[[Any], object]) -> None:
    """With what an attacker would do with its password."""
    admin, url = limited
    admin.lpush("celery", "task")
    admin.set("celery-task-meta-a", "result")
    with redis.Redis.from_url(url) as user, pytest.raises(redis.ResponseError, match=REFUSED):
        attempt(user)
    assert admin.lrange("celery", 0, -1) == [b"task"]
    assert admin.get("celery-task-meta-a") == b"result"


def test_the_user_for_results_reads_results_only(limited: tuple[Any, str], redis_server: Redis) -> None:
    """No queues, no other data, no writing."""
    admin, _ = limited
    admin.set("celery-task-meta-a", '{"status": "SUCCESS", "result": null}')
    url = f"redis://celerymeter-results:{PASSWORD}@127.0.0.1:{redis_server.port}/0"
    backend = open_result_backend(url, BrokerSettings(url=redis_server.url))
    assert backend is not None
    assert backend.states(["a", "b"]) == {"a": "SUCCESS"}
    assert refused_commands(admin) == set()
    attempts: list[Callable[[Any], object]] = [
        lambda user: user.get("sessions"),
        lambda user: user.lrange("celery", 0, -1),
        lambda user: user.set("celery-task-meta-a", "x"),
        lambda user: user.delete("celery-task-meta-a"),
        lambda user: user.scan(0),
        lambda user: user.publish("/0.celery.pidbox", "x"),
        lambda user: user.eval("return 1", 0),
    ]
    with redis.Redis.from_url(url) as user:
        for attempt in attempts:
            with pytest.raises(redis.ResponseError, match=REFUSED):
                attempt(user)


def test_the_rabbitmq_user_is_enough_and_reads_no_queue(tmp_path: Path) -> None:
    """The permissions as `rabbitmqctl set_permissions` takes them."""
    configure, write, read = shlex.split(" ".join(rules("rabbitmq")))[-3:]
    with RabbitMQ(tmp_path / "rabbitmq") as server:
        server.up()

        def put(path: str, **body: str) -> None:
            url = f"http://127.0.0.1:{server.management_port}/api/{path}"
            requests.put(url, json=body, auth=("guest", "guest"), timeout=30).raise_for_status()

        put("users/celerymeter", password=PASSWORD, tags="")
        put("permissions/%2F/celerymeter", configure=configure, write=write, read=read)
        url = server.url.replace("guest:guest", f"celerymeter:{PASSWORD}")
        producer = Celery(broker=server.url, set_as_current=False)
        producer.conf.task_send_sent_event = True
        worker = start_worker(server.url, tmp_path)
        sink = RecordingSink()
        reader, thread = read_events(url, sink)
        try:
            use_everything(url, producer, sink)
        finally:
            reader.stop()
            thread.join(5)
            worker.stop()
        for attempt in RABBITMQ_FORBIDDEN:
            with CONNECTION(url) as connection, pytest.raises(AccessRefused):
                attempt(connection.channel())


RABBITMQ_FORBIDDEN: list[Callable[[Any], object]] = [
    lambda channel: channel.basic_get("idle"),
    lambda channel: channel.basic_consume("idle"),
    lambda channel: channel.queue_purge("idle"),
    lambda channel: channel.queue_delete("idle"),
    lambda channel: channel.queue_declare("mine"),
    lambda channel: channel.exchange_declare("mine", "fanout"),
    lambda channel: channel.exchange_delete("celery"),
    lambda channel: channel.queue_bind("idle", "celery", "x"),
    lambda channel: channel.queue_unbind("idle", "idle", "idle"),
]
