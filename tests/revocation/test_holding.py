"""Workers that are away, die, come and forget; and an API that is killed in the middle of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.control_live.stage import feed, until
from tests.revocation.releases import EVERYWHERE
from tests.revocation.stage import PATIENCE, Stage, only, staged, statuses

from celerymeter.control.testing import token
from celerymeter.control.tokens import Role
from celerymeter.demo.processes import Process, wait_until

pytestmark = pytest.mark.integration

FAR = 40
"""Seconds: longer than a worker takes to start on a busy machine."""
FORGETS = 5
"""Seconds for which a worker keeps a flag, instead of three hours."""
LATE = 5
SOON = {"visibility_timeout": LATE}
"""After so many seconds a worker that starts gives away what another took from Redis and did not acknowledge."""


@pytest.fixture(params=EVERYWHERE)
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The API on a broker, without a worker yet."""
    with staged(tmp_path, request.param) as stage:
        yield stage


def told(worker: Process, task_id: str) -> Callable[[], bool]:
    """Whether a worker's log has a flag for this task."""
    return lambda: any("flagged as revoked" in line and task_id in line for line in worker.tail(10_000).splitlines())


def test_without_a_worker_nothing_is_claimed(stage: Stage) -> None:
    """A revoke that nobody hears is lost."""
    response = stage.post("x")
    assert (response.status_code, response.json()["code"]) == (503, "no_workers")
    assert "batch_id" not in response.json()
    assert (stage.outcomes("outcome"), len(stage.outcomes("intent"))) == (["refused"], 1)


def test_a_worker_that_is_stopped_is_named(stage: Stage) -> None:
    """Within the client's patience; when it goes on, it is told."""
    stage.worker("a@t")
    stage.worker("b@t")
    stopped = stage.worker("c@t")
    stage.becomes(stage.revoke("before"), "flagged_unknown")
    stopped.signal(signal.SIGSTOP, group=True)
    task_id = stage.send("tests.add", 1, 2, queue="nowhere")
    stage.knows(task_id)
    reply = stage.revoke(task_id)
    assert stage.follow(reply["batch_id"])["workers"]["missing"] == ["c@t"]
    assert "c@t" in only(stage.becomes(reply, "partial"))["detail"]
    stopped.signal(signal.SIGCONT, group=True)
    stage.becomes(reply, "flagged")


def test_a_task_that_ran_although_it_was_flagged_is_shown_everywhere(stage: Stage) -> None:
    """Follow-up, feed, audit trail and counter; it ignored the signal to end."""
    stage.worker("a@t")
    held = stage.hold("a", unmoved=True)
    feed_url = stage.control.url.replace("http", "ws", 1) + "/monitoring/ws"
    with feed(feed_url, bearer=token(Role.VIEWER)) as client:
        reply = stage.becomes(stage.revoke(held.id, terminate=True), "terminate_sent")
        held.let_go()
        message = until(client, lambda message: "ran_anyway" in str(message))
    assert (message["message_type"], message["data"]["batch_id"]) == ("revocation", reply["batch_id"])
    assert [change["task_id"] for change in message["data"]["changes"]] == [held.id]
    assert (message["data"]["failed"], message["data"]["settled"]) == (1, True)
    stage.becomes(reply, "ran_anyway")
    assert stage.outcomes("event") == ["ran_anyway"]
    assert stage.sample('celerymeter_revocations_total{outcome="ran_anyway"}') == 1


def test_an_api_that_is_killed_goes_on_after_its_restart(stage: Stage) -> None:
    """The audit trail says that the outcome is unknown, and the batch is followed to its end."""
    worker = stage.worker("a@t")
    task_id = stage.send("tests.add", 1, 2, queue="late")
    stage.becomes(stage.revoke("warm-up"), "flagged_unknown")
    stage.knows(task_id)
    worker.signal(signal.SIGSTOP, group=True)
    response = stage.post(task_id, headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    stage.control.kill()
    stage.control.up()
    assert statuses(stage.follow(response.json()["batch_id"])) == {task_id: "pending"}
    wait_until(lambda: "unknown" in stage.outcomes("outcome"), timeout=PATIENCE)
    worker.signal(signal.SIGCONT, group=True)
    stage.becomes(response.json(), "flagged")
    stage.app.control.add_consumer("late", destination=["a@t"])
    stage.becomes(response.json(), "revoked")
    assert stage.outcomes("event")[-2:] == ["flagged", "revoked"]


def test_a_flag_reaches_a_worker_that_joins(stage: Stage) -> None:
    """It is told as it comes, again and again until it listens; then it takes the task, for an ETA that never comes."""
    stage.worker("a@t")
    task_id = stage.send("tests.add", 1, 2, queue="late", countdown=3600)
    stage.knows(task_id)
    reply = stage.becomes(stage.revoke(task_id), "flagged")
    other = stage.worker("b@t")
    wait_until(told(other, task_id), timeout=PATIENCE, what="the flag is sent again")
    stage.app.control.add_consumer("late", destination=["b@t"])
    stage.becomes(reply, "revoked")


def far(stage: Stage, *, wanted: int) -> list[str]:
    """Tasks that a worker keeps until their time."""
    task_ids = [stage.send("tests.add", 1, 2, queue="a", countdown=FAR) for _ in range(wanted)]
    for task_id in task_ids:
        stage.knows(task_id, "it waits (sch")  # scheduled at a worker: that is where its flag matters
    return task_ids


def pass_by(seconds: float) -> None:
    """So much time."""
    since = time.monotonic()
    wait_until(lambda: time.monotonic() > since + seconds, timeout=PATIENCE)


def runs(stage: Stage, task_id: str) -> None:
    """Wait until a task has succeeded, although some releases store REVOKED first."""
    wait_until(lambda: stage.state(task_id) == "SUCCESS", timeout=2 * PATIENCE, what="Celery's own revoke is forgotten")


def revoke_beside(stage: Stage, task_id: str, witness: str) -> dict[str, object]:
    """Revoke one through the API, and another as Celery alone would; every worker has heard of both."""
    reply = stage.becomes(stage.revoke(task_id), "flagged")
    stage.app.control.revoke(witness, reply=True, timeout=2)
    return reply


@pytest.mark.slow
def test_a_flag_outlives_the_restart_of_every_worker(stage: Stage) -> None:
    """The workers that come know nothing, and run what was revoked by Celery alone."""
    first = [stage.worker(name, queues=["a"]) for name in ("a@t", "b@t")]
    task_id, witness = far(stage, wanted=2)
    reply = revoke_beside(stage, task_id, witness)
    for worker in first:
        worker.stop()
    for name in ("a@t", "b@t"):
        stage.worker(name, queues=["a"])
    stage.becomes(reply, "revoked")
    runs(stage, witness)


@pytest.mark.slow
def test_a_flag_outlives_a_worker_that_is_killed(stage: Stage) -> None:
    """The broker gives its tasks to one that comes later."""
    first = stage.worker("a@t", transport_options=SOON)
    (task_id,) = far(stage, wanted=1)
    reply = stage.becomes(stage.revoke(task_id), "flagged")
    first.kill()
    pass_by(LATE)
    second = stage.worker("a@t", transport_options=SOON)
    wait_until(told(second, task_id), timeout=PATIENCE)
    stage.becomes(reply, "revoked")
    assert stage.state(task_id) == "REVOKED"


@pytest.mark.slow
def test_a_flag_outlives_the_time_for_which_workers_keep_it(stage: Stage) -> None:
    """Those that are there forget what is old when another joins: what Celery alone revoked runs."""
    stage.worker("a@t", mingle=True, env={"CELERY_WORKER_REVOKE_EXPIRES": str(FORGETS)})
    task_id, witness = far(stage, wanted=2)
    reply = revoke_beside(stage, task_id, witness)
    pass_by(FORGETS)
    stage.worker("b@t", mingle=True)
    runs(stage, witness)
    stage.becomes(reply, "revoked")


@pytest.mark.slow
def test_a_flag_outlives_the_broker_and_all_who_knew_of_it(stage: Stage) -> None:
    """A broker that comes back with its messages, and a worker that knows of none."""
    first = stage.worker("a@t")
    task_id = stage.send("tests.add", 1, 2, queue="late", delivery_mode="persistent")
    stage.knows(task_id)
    reply = stage.becomes(stage.revoke(task_id), "flagged")
    stage.broker.stop()
    first.kill()
    stage.broker.up()
    second = stage.worker("b@t")
    wait_until(told(second, task_id), timeout=PATIENCE)
    stage.send("tests.add", 1, 2, queue="b")  # a connection that was lost is found out by using it
    stage.app.control.add_consumer("late", destination=["b@t"])
    stage.becomes(reply, "revoked")


@pytest.mark.slow
def test_a_replica_goes_on_when_another_is_killed(stage: Stage) -> None:
    """Once the lease of 10 s is over; what was heard until then is not lost."""
    stage.worker("a@t")
    seen, waits = (stage.send("tests.add", 1, 2, queue=queue) for queue in ("soon", "late"))
    replica = stage.replica()
    for task_id in (seen, waits):
        stage.knows(task_id)
    reply = stage.becomes(stage.revoke(seen, waits), "flagged")
    stage.control.kill()
    stage.control = replica
    assert statuses(stage.follow(reply["batch_id"])) == {seen: "flagged", waits: "flagged"}
    stage.app.control.add_consumer("soon", destination=["a@t"])
    stage.becomes(reply, {seen: "revoked", waits: "flagged"})
    assert any("going on with a batch revoke" in line["message"] for line in replica.lines)
    other = stage.worker("b@t")
    wait_until(told(other, waits), timeout=PATIENCE)
    stage.app.control.add_consumer("late", destination=["b@t"])
    stage.becomes(reply, "revoked")
