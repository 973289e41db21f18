"""Real workers that cannot reply: they are unknown, not gone, and are left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest
from tests.apps.worker_app import SETTINGS, make_app
from tests.scrape import ExporterProcess
from tests.servers import RabbitMQ
from tests.workers import start_worker

from celerymeter.demo.processes import wait_until
from celerymeter.demo.servers import Redis

pytestmark = pytest.mark.integration

PICKLED_REPLIES = {"task_serializer": "pickle", "accept_content": ["json", "pickle"]}
PICKLE_ONLY = {"task_serializer": "pickle", "accept_content": ["pickle"]}
NO_REMOTE_CONTROL = {"worker_enable_remote_control": False}

Broker = Redis | RabbitMQ


@pytest.fixture(params=[Redis, pytest.param(RabbitMQ, marks=pytest.mark.slow)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A server of this test."""
    with ExitStack() as stack:
        server: Broker = stack.enter_context(request.param(tmp_path / "broker"))
        yield server.up()


@pytest.mark.parametrize("settings", [PICKLED_REPLIES, PICKLE_ONLY, NO_REMOTE_CONTROL])
def test_a_worker_that_cannot_reply_is_unknown_and_left_alone(
    broker: Broker, tmp_path: Path, settings: dict[str, object]
) -> None:
    """Its consumers are never said to be 0, it logs few errors, and polls of everybody else succeed."""
    app = make_app(broker.url)
    env = {SETTINGS: json.dumps(settings), "C_FORCE_ROOT": "1"}
    with (
        start_worker(broker.url, tmp_path, pool="threads", env=env) as worker,
        ExporterProcess(tmp_path, broker.url) as exporter,
    ):
        exporter.up()
        for _ in range(4):
            app.send_task("tests.add", (1, 2), queue="other")
        consumers: set[float | None] = set()
        polls: set[float | None] = set()

        def watched() -> bool:
            page = exporter.scrape()
            consumers.add(page.get("celery_queue_consumers", queue_name="celery"))
            consumers.discard(None)
            polls.add(page.get("celerymeter_poll_last_success_timestamp_seconds", collector="workers"))
            return len(polls) >= 8

        wait_until(watched, interval=0.3)
        page = exporter.scrape()
        assert consumers <= ({1.0} if isinstance(broker, RabbitMQ) else set())
        assert page.get("celery_worker_up", hostname="w1@test") == 1
        assert page.get("celerymeter_poll_success", collector="workers") == 1
        assert page.get("celerymeter_poll_success", collector="queues") == 1
        assert page.get("celery_queue_length", queue_name="other") == 4
        assert "celery_queue_pool_slots{" not in page.text
        assert worker.tail(1000).count("CRITICAL") <= 2
        worker.kill()


def consumers_while(exporter: ExporterProcess, *, polls: int) -> set[tuple[float | None, float | None]]:
    """Every pair of "the worker is up" and its queue's consumers, during so many polls of the workers."""
    pairs: set[tuple[float | None, float | None]] = set()
    durations: set[float | None] = set()

    def watched() -> bool:
        page = exporter.scrape()
        up = page.get("celery_worker_up", hostname="w1@test")
        pairs.add((up, page.get("celery_queue_consumers", queue_name="celery")))
        durations.add(page.get("celerymeter_poll_duration_seconds", collector="workers"))
        return len(durations) > polls

    wait_until(watched, interval=0.1)
    return pairs


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_a_worker_that_is_busy_or_late_has_not_left_its_queue(redis_server: Redis, tmp_path: Path, pool: str) -> None:
    """A solo worker replies to nobody while a task runs: another exporter showed 0 (danihodovic/celery-exporter 172).

    `active_queues` comes back without the workers that are late (celery 7647): theirs are not known then, not 0.
    """
    with (
        start_worker(redis_server.url, tmp_path, pool=pool) as worker,
        start_worker(redis_server.url, tmp_path, hostname="w2@test", queues=("mail",)),
        ExporterProcess(tmp_path, redis_server.url) as exporter,
    ):
        exporter.up()
        wait_until(lambda: exporter.value("celery_queue_consumers", queue_name="celery") == 1)
        make_app(redis_server.url).send_task("tests.hold", (str(tmp_path),))
        wait_until((tmp_path / "began").exists)
        if pool == "prefork":
            worker.signal(SIGSTOP)
        pairs = consumers_while(exporter, polls=6)
        assert (1, 0) not in pairs
        assert (1, None) in pairs
        assert ((0, 0) in pairs) == (pool == "prefork")
        worker.signal(SIGCONT)
        (tmp_path / "go").touch()
        wait_until(lambda: exporter.value("celery_queue_consumers", queue_name="celery") == 1)
        done = {"name": "tests.hold", "queue_name": "celery"}
        wait_until(lambda: exporter.value("celery_task_succeeded_total", **done) == 1)
