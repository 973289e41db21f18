"""The same on RabbitMQ, which shows nobody what waits in its queues."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.revocation.stage import Stage, only, staged, statuses

from celerymeter.demo.processes import wait_until
from celerymeter.demo.rabbitmq import RabbitMQ
from celerymeter.demo.servers import Redis

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two prefork workers; results in a Redis."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    with (
        RabbitMQ(folder / "rabbit") as broker,
        Redis(folder / "redis") as redis,
        staged(folder, broker.up().url, redis.up().url) as stage,
    ):
        stage.worker("fork@t", concurrency=2)
        stage.worker("one@t")
        yield stage


def test_what_ended_and_what_never_was(stage: Stage) -> None:
    """The one is left alone, the other is not called revoked."""
    task_id = stage.send("tests.fail", queue="fork")
    stage.app.AsyncResult(task_id).get(timeout=10, propagate=False)
    reply = stage.revoke(task_id, "never-existed")
    assert statuses(reply) == {task_id: "already_finished", "never-existed": "flagged_unknown"}
    assert stage.state(task_id) == "FAILURE"


def test_only_the_death_of_its_process_terminates_a_task(stage: Stage) -> None:
    """One dies, one ignores SIGTERM and succeeds."""
    mortal = stage.send("tests.sleep", 60, queue="fork")
    stubborn = stage.send("tests.stubborn", 6, queue="fork")
    stage.runs(mortal)
    stage.runs(stubborn)
    time.sleep(0.5)  # the handler is set by the task itself
    reply = stage.revoke(mortal, stubborn, terminate=True)
    assert statuses(reply)[stubborn] == "terminate_sent"
    wanted = {mortal: "terminated", stubborn: "ran_anyway"}
    wait_until(lambda: statuses(stage.follow(reply["batch_id"])) == wanted, interval=0.2)


def test_tasks_that_wait(stage: Stage) -> None:
    """What a worker holds is seen there, what is queued by its event."""
    busy = stage.send("tests.sleep", 4, queue="one")
    stage.runs(busy)
    reserved = stage.send("tests.add", 1, 2, queue="one")
    queued = stage.send("tests.add", 1, 2, queue="one.nowhere")
    time.sleep(0.3)
    reply = stage.revoke(reserved, queued, busy)
    assert statuses(reply) == {reserved: "flagged", queued: "flagged", busy: "running_not_terminated"}
    wait_until(lambda: statuses(stage.follow(reply["batch_id"]))[reserved] == "revoked", interval=0.2)


def test_a_thousand_ids_within_four_seconds(stage: Stage) -> None:
    """As on Redis."""
    begun = time.monotonic()
    reply = stage.revoke(*(f"id-{number}" for number in range(1000)))
    assert time.monotonic() - begun < 4
    assert (reply["total"], reply["workers"]["missing"]) == (1000, [])


def test_a_flag_reaches_a_worker_that_joins(stage: Stage) -> None:
    """It is told as it comes, again and again until it listens."""
    task_id = stage.send("tests.add", 1, 2, queue="late")
    time.sleep(0.3)
    reply = stage.revoke(task_id)
    assert only(reply)["status"] == "flagged"
    other = stage.worker("other@t")
    wait_until(lambda: task_id in other.tail(1000), what="the flag is sent again")
    stage.app.control.add_consumer("late", destination=["other@t"])
    stage.becomes(reply["batch_id"], "revoked")
