"""The doctor at real brokers with real workers: each fault is caused, and found."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from celery import Celery
from tests.apps import worker_app
from tests.apps.worker_app import make_app
from tests.revocation.releases import Setting
from tests.scrape import ExporterProcess
from tests.workers import start_worker

from celerymeter.demo.processes import Process, free_port, wait_until
from celerymeter.demo.servers import Prometheus, Redis, find_binary
from celerymeter.errors import UnsupportedTransport
from celerymeter.httpd import MetricsServer

from .examining import examine

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Process]


@pytest.fixture
def producer(redis_server: Redis) -> Iterator[Celery]:
    """Sends tasks and `task-sent` events."""
    app = make_app(redis_server.url)
    yield app
    app.close()


@pytest.fixture
def worker(redis_server: Redis, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers with a heartbeat every second."""
    with ExitStack() as stack:

        def start(**options: Any) -> Process:
            process = start_worker(redis_server.url, tmp_path, options=("--heartbeat-interval", "1"), **options)
            stack.callback(process.kill)
            return process

        yield start


@contextmanager
def sending(producer: Celery, *, queue: str = "celery") -> Iterator[None]:
    """Ten tasks a second, as long as the block lasts."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.1):
            producer.send_task("tests.add", (1, 2), queue=queue)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    over.set()
    thread.join()


def test_a_broker_out_of_reach(tmp_path: Path) -> None:
    """Refused, without a name, and with a wrong password are distinguished; no password is shown."""
    with Redis(tmp_path, options=["--requirepass", "right"]) as redis:
        redis.up()
        host = f"127.0.0.1:{redis.port}"
        urls = {
            f"redis://:hush@127.0.0.1:{free_port()}/0": "broker-refused",
            "redis://:hush@no-such-host.invalid/0": "broker-unknown-host",
            f"redis://:hush@{host}/0": "broker-password",
            f"redis://{host}/0": "broker-password",
            f"redis+socket://{tmp_path}/none.sock": "broker-no-socket",
        }
        for url, code in urls.items():
            status, found, output = examine(url)
            assert (status, list(found)) == (1, [code]), url
            assert "hush" not in output
        assert list(examine(f"redis://:right@{host}/0")[1]) == ["no-workers"]


def test_a_transport_without_events_is_a_wrong_setting() -> None:
    """Nothing is tried."""
    with pytest.raises(UnsupportedTransport):
        examine("sqs://")


def test_a_user_who_may_not_subscribe(redis_server: Redis) -> None:
    """The broker answers, its events are out of reach."""
    with redis.Redis(port=redis_server.port) as client:
        client.acl_setuser(
            "blind",
            enabled=True,
            passwords=["+pw"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
            commands=["-psubscribe"],
        )
    _, found, _ = examine(f"redis://blind:pw@127.0.0.1:{redis_server.port}/0")
    assert "events-unreadable" in found


def test_a_cluster_that_is_well(worker: StartWorker, producer: Celery, redis_server: Redis) -> None:
    """A worker with -E, a producer that says what it sends: no problem found, and exit status 0."""
    worker()
    with sending(producer):
        assert examine(redis_server.url, watch=4.0)[:2] == (0, {})


def test_long_tasks_many_queues_and_two_releases_are_no_fault(
    worker: StartWorker, producer: Celery, redis_server: Redis, tmp_path: Path
) -> None:
    """A worker of Celery 5.4 that runs one long task, one of the installed Celery with 300 queues, and an exporter."""
    queues = tuple(f"q{number:03}" for number in range(300))
    worker(hostname="many@test", queues=queues)
    worker(hostname="old@test", queues=("long",), env=Setting(release="5.4").environment())
    producer.send_task("tests.sleep", (60,), queue="long")
    with ExporterProcess(tmp_path, redis_server.url) as exporter, sending(producer, queue=queues[7]):
        exporter.up()
        wait_until(lambda: exporter.value("celery_worker_up", hostname="old@test") == 1)
        wait_until(lambda: exporter.value("celery_queue_length", queue_name=queues[-1]) is not None)
        status, found, _ = examine(redis_server.url, watch=4.0, exporter_url=exporter.url)
    assert (status, set(found) - {"events-unproven"}) == (0, set())


def test_workers_and_queues_at_fault(worker: StartWorker, producer: Celery, redis_server: Redis) -> None:
    """One works without task events, one is idle, and a queue has nobody."""
    worker(hostname="silent@test", events=False, queues=("a",))
    worker(hostname="idle@test", events=False, queues=("b",))
    producer.send_task("tests.add", (1, 2), queue="lonely")
    with sending(producer, queue="a"):
        status, found, _ = examine(redis_server.url, watch=3.0)
    assert status == 1
    expected = {
        "events-disabled": "no task events from silent@test, although tasks run there",
        "queue-without-consumers": "no worker consumes lonely (1 waiting)",
        "events-unproven": "cannot tell whether idle@test sends task events: no task started or ended there in 3 s",
    }
    assert expected.items() <= found.items()


def test_a_worker_that_runs_one_long_task(worker: StartWorker, producer: Celery, redis_server: Redis) -> None:
    """It has nothing to report meanwhile, which is no fault."""
    worker()
    producer.send_task("tests.sleep", (30,))
    wait_until(lambda: "tests.sleep" in str(producer.control.inspect(timeout=0.5).active()))
    status, found, _ = examine(redis_server.url, watch=4.0)
    assert (status, list(found)) == (0, ["events-unproven"])


@pytest.mark.parametrize("accepts", [["json", "pickle"], ["pickle"]])
def test_workers_that_reply_in_pickle(
    worker: StartWorker, producer: Celery, redis_server: Redis, tmp_path: Path, accepts: list[str]
) -> None:
    """They are named and no reply is unpickled; a worker that accepts no JSON is asked no more than once."""
    settings = {"task_serializer": "pickle", "accept_content": accepts}
    process = worker(env={worker_app.SETTINGS: json.dumps(settings), "C_FORCE_ROOT": "true"})
    producer.conf.update(accept_content=["pickle"])
    for _ in range(3):
        producer.send_task("tests.sleep", (0.5,), serializer="pickle", queue="celery")
    status, found, output = examine(redis_server.url, watch=4.0)
    assert status == 0
    if "json" in accepts:
        assert found["reply-serializer"].startswith("w1@test reply to remote control in application/x-python-serialize")
        assert "no-remote-control" not in found
    else:
        assert found["no-remote-control"] == "no reply to `inspect` from w1@test"
        assert "a worker logs an error for each command" in " ".join(output.split())
        assert process.tail(1000).count("CRITICAL/MainProcess") == 1


def test_workers_that_reply_in_yaml_or_not_at_all(worker: StartWorker, redis_server: Redis) -> None:
    """Any format but JSON is named; remote control that is turned off is a hint with the name of its setting."""
    yaml = {"task_serializer": "yaml", "accept_content": ["json", "yaml"]}
    asked = worker(hostname="yaml@test", env={worker_app.SETTINGS: json.dumps(yaml)})
    worker(hostname="silent@test", env={worker_app.SETTINGS: json.dumps({"worker_enable_remote_control": False})})
    status, found, output = examine(redis_server.url, watch=3.0)
    assert status == 0
    assert found["reply-serializer"].startswith("yaml@test reply to remote control in application/x-yaml")
    assert found["no-remote-control"] == "no reply to `inspect` from silent@test"
    assert "worker_enable_remote_control" in output
    assert "Error" not in asked.tail(1000)


def test_lists_that_clients_left_behind_under_a_key_prefix(redis_server: Redis) -> None:
    """Only those of this cluster; a list that a client empties meanwhile is in use."""
    options = {"global_keyprefix": "shop_"}
    with redis.Redis(port=redis_server.port) as client:
        client.rpush("shop_celeryev.1", "{}")
        client.rpush("other_celeryev.1", "{}")
        client.rpush("shop_1.reply.celery.pidbox", "{}")
        emptied = threading.Timer(0.7, client.unlink, ("shop_1.reply.celery.pidbox",))
        emptied.start()
        found = examine(redis_server.url, watch=3.0, options=options)[1]
        emptied.join()
    assert found["orphaned-lists"].startswith("Redis holds lists that nobody reads: shop_celeryev.1 (1 messages")
    assert "other_" not in found["orphaned-lists"]
    assert "pidbox" not in found["orphaned-lists"]


def test_lists_that_clients_left_behind(worker: StartWorker, producer: Celery, redis_server: Redis) -> None:
    """Those of event receivers and of replies, with their length, size and the command that deletes them."""
    worker()
    lists = (
        "celeryev.7d3a5c9e-0000-4000-8000-000000000000",
        "7d3a5c9e-0000-3000-8000-000000000000.reply.celery.pidbox",
    )
    with redis.Redis(port=redis_server.port) as client:
        for key in lists:
            client.rpush(key, *["{}"] * 10_000)
        with sending(producer):
            status, found, output = examine(redis_server.url, watch=4.0)
        assert (status, list(found)) == (0, ["orphaned-lists"])
        assert all(f"{key} (10,000 messages, " in found["orphaned-lists"] for key in lists)
        assert f"UNLINK {lists[1]} {lists[0]}" in output or f"UNLINK {lists[0]} {lists[1]}" in output
        client.unlink(*lists)
    with sending(producer):
        assert examine(redis_server.url, watch=4.0)[:2] == (0, {})


def test_a_visibility_timeout_that_the_exporter_takes_from_its_workers(
    worker: StartWorker, redis_server: Redis, tmp_path: Path
) -> None:
    """Unless it was given another one: then the doctor compares."""
    worker(transport_options={"visibility_timeout": 86400})
    with ExporterProcess(tmp_path, redis_server.url, name="plain") as exporter:
        exporter.up()
        wait_until(lambda: exporter.value("celery_queue_visibility_timeout_seconds") == 86400)
        assert "visibility-timeout-differs" not in examine(redis_server.url, exporter_url=exporter.url)[1]
    option = ("--transport-option", "visibility_timeout=7200")
    with ExporterProcess(tmp_path, redis_server.url, options=option) as exporter:
        exporter.up()
        wait_until(lambda: exporter.value("celery_queue_visibility_timeout_seconds") is not None)
        found = examine(redis_server.url, exporter_url=exporter.url)[1]
    assert found["visibility-timeout-differs"] == (
        "the exporter computes with a visibility timeout of 7200 s, the workers use 86400 s"
    )
    assert "transport-options-differ" not in found


def test_producers_that_do_not_send_events(worker: StartWorker, producer: Celery, redis_server: Redis) -> None:
    """A hint, so exit status 0."""
    worker()
    producer.conf.task_send_sent_event = False
    with sending(producer):
        found = examine(redis_server.url, watch=4.0)[:2]
    assert found == (0, {"no-sent-events": "no task-sent events for tests.add"})


def test_a_backlog_is_not_taken_for_silent_producers(
    worker: StartWorker, producer: Celery, redis_server: Redis
) -> None:
    """Tasks that were sent before the doctor came say nothing about their producer."""
    for _ in range(20):
        producer.send_task("tests.sleep", (0.3,))
    worker()
    assert examine(redis_server.url, watch=2.0)[:2] == (0, {})


def test_workers_on_another_exchange_and_with_other_options(
    worker: StartWorker, producer: Celery, redis_server: Redis
) -> None:
    """Read from what they say of their configuration."""
    settings = {"event_exchange": "shop", "timezone": "Asia/Taipei", "enable_utc": False}
    env = {worker_app.SETTINGS: json.dumps(settings)}
    worker(env=env, transport_options={"visibility_timeout": 7200, "priority_steps": [0, 5]})
    found = examine(redis_server.url)[1]
    assert found["event-exchange-differs"] == "w1@test sends events to the exchange shop, not celeryev"
    assert found["transport-options-differ"].endswith(": priority_steps")
    assert found["time-zones-differ"].endswith("w1@test local time Asia/Taipei")
    matching = examine(
        redis_server.url,
        options={"priority_steps": [0, 5]},
        celery_settings={"event_exchange": "shop"},
    )[1]
    assert not matching.keys() & {"event-exchange-differs", "transport-options-differ"}


def test_workers_in_another_place_of_the_same_redis(worker: StartWorker, redis_server: Redis) -> None:
    """Another database and a key prefix; and a database that holds nothing but results.

    Other monitors showed the workers of every database (celery 3101), or none and made them log errors (flower 8).
    """
    worker(transport_options={"global_keyprefix": "shop_"})
    with redis.Redis(port=redis_server.port, db=3) as results:
        results.set("celery-task-meta-1", "{}")
    found = examine(redis_server.url.replace("/0", "/3"))[1]
    assert found["queues-elsewhere"].endswith("database 0 with global_keyprefix=shop_")
    assert "result-backend" in found
    found = examine(redis_server.url, options={"global_keyprefix": "shop_"})[1]
    assert not found.keys() & {"no-workers", "queues-elsewhere", "result-backend"}


def test_an_exporter_on_another_broker(worker: StartWorker, redis_server: Redis, tmp_path: Path) -> None:
    """It knows none of the workers; the one on this broker knows them."""
    worker()
    with Redis(tmp_path / "other") as other, ExitStack() as stack:
        exporters = {
            name: stack.enter_context(ExporterProcess(tmp_path, url, name=name)).up()
            for name, url in (("here", redis_server.url), ("elsewhere", other.up().url))
        }
        wait_until(lambda: exporters["here"].value("celery_worker_up", hostname="w1@test") == 1)
        found = {name: examine(redis_server.url, exporter_url=exporters[name].url)[1] for name in exporters}
    assert "exporter-elsewhere" in found["elsewhere"]
    assert "exporter-elsewhere" not in found["here"]


def test_an_exporter_that_prometheus_does_not_scrape(redis_server: Redis, tmp_path: Path) -> None:
    """Not in its configuration, and then in it."""
    find_binary("prometheus")
    page = b"# TYPE celerymeter_build_info gauge\ncelerymeter_build_info 1\n"
    server = MetricsServer("127.0.0.1:0", page=lambda: [page], healthy=lambda: None, ready=lambda: None)
    server.start()
    config = tmp_path / "prometheus.yml"
    config.write_text("{}")
    try:
        with Prometheus(tmp_path / "prometheus", config=config) as prometheus:
            prometheus.up()

            def found() -> dict[str, str]:
                return examine(redis_server.url, exporter_url=server.url, prometheus_url=prometheus.url)[1]

            assert "exporter-not-scraped" in found()
            target = server.url.removeprefix("http://")
            often = "scrape_interval: 200ms, scrape_timeout: 200ms"
            config.write_text(
                f"scrape_configs: [{{job_name: c, {often}, static_configs: [{{targets: ['{target}']}}]}}]"
            )
            requests.post(f"{prometheus.url}/-/reload", timeout=30).raise_for_status()
            wait_until(lambda: "exporter-not-scraped" not in found())
    finally:
        server.stop()
