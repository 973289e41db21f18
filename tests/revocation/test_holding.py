"""Workers that are away, die, come and forget; and an API that is killed in the middle of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from tests.revocation.stage import Stage, only, staged_on_redis, statuses

from celerymeter.control.audit import reading
from celerymeter.control.audit.reading import Filter
from celerymeter.demo.processes import wait_until

pytestmark = pytest.mark.integration

FAR = 20
"""Seconds: longer than a worker takes to start on a busy machine."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The API on a Redis, without a worker yet."""
    with staged_on_redis(tmp_path) as stage:
        yield stage


def outcomes(stage: Stage) -> list[str]:
    """The audit trail's words about revokes, in order."""
    return [
        row.outcome or row.kind
        for row in reading.everything(stage.control.state, Filter(action="tasks.revoke"), last=50)
    ]


def counted(stage: Stage, status: str) -> bool:
    """Whether the counter has seen it."""
    page = requests.get(stage.control.metrics_url, timeout=5).text
    return f'celerymeter_revocations_total{{outcome="{status}"}} 1.0' in page


def test_without_a_worker_nothing_is_claimed(stage: Stage) -> None:
    """A revoke that nobody hears is lost."""
    response = stage.post("x")
    assert (response.status_code, response.json()["code"]) == (503, "no_workers")
    assert "batch_id" not in response.json()
    assert outcomes(stage) == ["intent", "refused"]


def test_a_worker_that_is_stopped_is_named(stage: Stage) -> None:
    """Within the client's patience; when it goes on, it is told."""
    stage.worker("a@t")
    stage.worker("b@t")
    stopped = stage.worker("c@t")
    stage.revoke("before")
    stopped.signal(signal.SIGSTOP, group=True)
    task_id = stage.send("tests.add", 1, 2, queue="a", countdown=60)
    time.sleep(0.3)
    reply = stage.revoke(task_id)
    assert only(reply)["status"] == "partial"
    assert "c@t" in only(reply)["detail"]
    assert (reply["workers"]["missing"], reply["workers"]["acknowledged"]) == (["c@t"], ["a@t", "b@t"])
    stopped.signal(signal.SIGCONT, group=True)
    stage.becomes(reply["batch_id"], "flagged", timeout=40)


@pytest.mark.slow
def test_a_flag_outlives_the_death_of_every_worker(stage: Stage) -> None:
    """A task that waits for its time stays revoked although its worker ended and another came, which knew nothing."""
    first = stage.worker("a@t")
    task_id = stage.send("tests.add", 1, 2, queue="a", countdown=FAR)
    time.sleep(0.3)
    reply = stage.revoke(task_id)
    assert only(reply)["status"] == "flagged"
    first.stop()
    stage.worker("new@t", queues=["a"])
    stage.becomes(reply["batch_id"], "revoked", timeout=FAR + 20)
    assert stage.state(task_id) == "REVOKED"
    wait_until(lambda: "revoked" in outcomes(stage))


def test_a_task_that_ran_although_it_was_flagged_is_shown_everywhere(stage: Stage) -> None:
    """Follow-up, audit trail and counter; it ignored the signal to end."""
    stage.worker("a@t")
    task_id = stage.send("tests.stubborn", 5, queue="a")
    stage.runs(task_id)
    time.sleep(0.5)
    reply = stage.revoke(task_id, terminate=True)
    stage.becomes(reply["batch_id"], "ran_anyway")
    wait_until(lambda: "ran_anyway" in outcomes(stage))
    assert counted(stage, "ran_anyway")


def test_an_api_that_is_killed_goes_on_after_its_restart(stage: Stage) -> None:
    """The audit trail says that the outcome is unknown, and the batch is followed to its end."""
    worker = stage.worker("a@t")
    task_id = stage.send("tests.add", 1, 2, queue="a", countdown=25)
    time.sleep(0.3)
    stage.revoke("warm-up")
    worker.signal(signal.SIGSTOP, group=True)
    response = stage.post(task_id, headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    stage.control.kill()
    worker.signal(signal.SIGCONT, group=True)
    stage.control.up()
    batch_id = response.json()["batch_id"]
    assert statuses(stage.follow(batch_id)) == {task_id: "pending"}
    wait_until(lambda: "unknown" in outcomes(stage))
    stage.becomes(batch_id, "flagged", timeout=30)
    stage.becomes(batch_id, "revoked", timeout=40)
