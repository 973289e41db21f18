"""Workers that are away, die, come and forget; and an API that is killed in the middle of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.control.access import token
from tests.control_live.live_api import feed, until
from tests.revocation.cluster import TIMEOUT, Cluster, only, running_cluster, statuses
from tests.revocation.releases import EVERYWHERE

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
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The API on a broker, without a worker yet."""
    with running_cluster(tmp_path, request.param) as cluster:
        yield cluster


def has_flag(worker: Process, task_id: str) -> Callable[[], bool]:
    """Return a check that a worker's log has a flag for this task."""
    return lambda: any("flagged as revoked" in line and task_id in line for line in worker.tail(10_000).splitlines())


def test_without_a_worker_nothing_is_claimed(cluster: Cluster) -> None:
    """A revoke that nobody hears is lost."""
    response = cluster.post("x")
    assert (response.status_code, response.json()["code"]) == (503, "no_workers")
    assert "batch_id" not in response.json()
    assert (cluster.outcomes("outcome"), len(cluster.outcomes("intent"))) == (["refused"], 1)


def test_a_worker_that_is_stopped_is_named(cluster: Cluster) -> None:
    """Within the time that a client waits; when it goes on, it gets the flag."""
    cluster.worker("a@t")
    cluster.worker("b@t")
    stopped = cluster.worker("c@t")
    cluster.becomes(cluster.revoke("before"), "flagged_unknown")
    stopped.signal(signal.SIGSTOP, group=True)
    task_id = cluster.send("tests.add", 1, 2, queue="nowhere")
    cluster.knows(task_id)
    reply = cluster.revoke(task_id)
    assert cluster.follow(reply["batch_id"])["workers"]["missing"] == ["c@t"]
    assert "c@t" in only(cluster.becomes(reply, "partial"))["detail"]
    stopped.signal(signal.SIGCONT, group=True)
    cluster.becomes(reply, "flagged")


def test_a_task_that_ran_although_it_was_flagged_is_shown_everywhere(cluster: Cluster) -> None:
    """Follow-up, feed, audit trail and counter; it ignored the signal to end."""
    cluster.worker("a@t")
    held = cluster.hold("a", unmoved=True)
    feed_url = cluster.control.url.replace("http", "ws", 1) + "/monitoring/ws"
    with feed(feed_url, bearer=token(Role.VIEWER)) as client:
        reply = cluster.becomes(cluster.revoke(held.id, terminate=True), "terminate_sent")
        held.let_go()
        message = until(client, lambda message: "ran_anyway" in str(message))
    assert (message["message_type"], message["data"]["batch_id"]) == ("revocation", reply["batch_id"])
    assert [change["task_id"] for change in message["data"]["changes"]] == [held.id]
    assert (message["data"]["failed"], message["data"]["settled"]) == (1, True)
    cluster.becomes(reply, "ran_anyway")
    assert cluster.outcomes("event") == ["ran_anyway"]
    assert cluster.sample('celerymeter_revocations_total{outcome="ran_anyway"}') == 1


def test_an_api_that_is_killed_goes_on_after_its_restart(cluster: Cluster) -> None:
    """The audit trail says that the outcome is unknown, and the batch is followed to its end."""
    worker = cluster.worker("a@t")
    task_id = cluster.send("tests.add", 1, 2, queue="late")
    cluster.becomes(cluster.revoke("warm-up"), "flagged_unknown")
    cluster.knows(task_id)
    worker.signal(signal.SIGSTOP, group=True)
    response = cluster.post(task_id, headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    cluster.control.kill()
    cluster.control.up()
    assert statuses(cluster.follow(response.json()["batch_id"])) == {task_id: "pending"}
    wait_until(lambda: "unknown" in cluster.outcomes("outcome"))
    worker.signal(signal.SIGCONT, group=True)
    cluster.becomes(response.json(), "flagged")
    cluster.app.control.add_consumer("late", destination=["a@t"])
    cluster.becomes(response.json(), "revoked")
    assert cluster.outcomes("event")[-2:] == ["flagged", "revoked"]


def test_a_flag_reaches_a_worker_that_joins(cluster: Cluster) -> None:
    """It is sent again and again until the worker listens, which then takes the task (its ETA is an hour away)."""
    cluster.worker("a@t")
    task_id = cluster.send("tests.add", 1, 2, queue="late", countdown=3600)
    cluster.knows(task_id)
    reply = cluster.becomes(cluster.revoke(task_id), "flagged")
    other = cluster.worker("b@t")
    wait_until(has_flag(other, task_id), what="the flag is sent again")
    cluster.app.control.add_consumer("late", destination=["b@t"])
    cluster.becomes(reply, "revoked")


def far(cluster: Cluster, *, wanted: int) -> list[str]:
    """Tasks that a worker keeps until their time."""
    task_ids = [cluster.send("tests.add", 1, 2, queue="a", countdown=FAR) for _ in range(wanted)]
    for task_id in task_ids:
        cluster.knows(task_id, "waiting (sch")  # scheduled at a worker: that is where its flag matters
    return task_ids


def pass_by(seconds: float) -> None:
    """So much time."""
    since = time.monotonic()
    wait_until(lambda: time.monotonic() > since + seconds)


def runs(cluster: Cluster, task_id: str) -> None:
    """Wait until a task has succeeded, although some releases store REVOKED first."""
    wait_until(
        lambda: cluster.state(task_id) == "SUCCESS", timeout=2 * TIMEOUT, what="Celery's own revoke is forgotten"
    )


def revoke_beside(cluster: Cluster, task_id: str, witness: str) -> dict[str, object]:
    """Revoke one through the API, and another as Celery alone would; every worker has both flags."""
    reply = cluster.becomes(cluster.revoke(task_id), "flagged")
    cluster.app.control.revoke(witness, reply=True, timeout=2)
    return reply


@pytest.mark.slow
def test_a_flag_outlives_the_restart_of_every_worker(cluster: Cluster) -> None:
    """The workers that come know nothing, and run what was revoked by Celery alone."""
    first = [cluster.worker(name, queues=["a"]) for name in ("a@t", "b@t")]
    task_id, witness = far(cluster, wanted=2)
    reply = revoke_beside(cluster, task_id, witness)
    for worker in first:
        worker.stop()
    for name in ("a@t", "b@t"):
        cluster.worker(name, queues=["a"])
    cluster.becomes(reply, "revoked")
    runs(cluster, witness)


@pytest.mark.slow
def test_a_flag_outlives_a_worker_that_is_killed(cluster: Cluster) -> None:
    """The broker gives its tasks to one that comes later."""
    first = cluster.worker("a@t", transport_options=SOON)
    (task_id,) = far(cluster, wanted=1)
    reply = cluster.becomes(cluster.revoke(task_id), "flagged")
    first.kill()
    pass_by(LATE)
    second = cluster.worker("a@t", transport_options=SOON)
    wait_until(has_flag(second, task_id))
    cluster.becomes(reply, "revoked")
    assert cluster.state(task_id) == "REVOKED"


@pytest.mark.slow
def test_a_flag_outlives_the_time_for_which_workers_keep_it(cluster: Cluster) -> None:
    """Those that are there forget what is old when another joins: what Celery alone revoked runs."""
    cluster.worker("a@t", mingle=True, env={"CELERY_WORKER_REVOKE_EXPIRES": str(FORGETS)})
    task_id, witness = far(cluster, wanted=2)
    reply = revoke_beside(cluster, task_id, witness)
    pass_by(FORGETS)
    cluster.worker("b@t", mingle=True)
    runs(cluster, witness)
    cluster.becomes(reply, "revoked")


@pytest.mark.slow
def test_a_flag_outlives_the_broker_and_all_who_knew_of_it(cluster: Cluster) -> None:
    """A broker that comes back with its messages, and a worker that knows of none."""
    first = cluster.worker("a@t")
    task_id = cluster.send("tests.add", 1, 2, queue="late", delivery_mode="persistent")
    cluster.knows(task_id)
    reply = cluster.becomes(cluster.revoke(task_id), "flagged")
    cluster.broker.stop()
    first.kill()
    cluster.broker.up()
    second = cluster.worker("b@t")
    wait_until(has_flag(second, task_id))
    cluster.send("tests.add", 1, 2, queue="b")  # a connection that was lost is found out by using it
    cluster.app.control.add_consumer("late", destination=["b@t"])
    cluster.becomes(reply, "revoked")
