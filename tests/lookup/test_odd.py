"""Tasks of the less usual kinds: odd ids, canvas, stamps, silent tasks, names of workers that are used again."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from celery import chord, group
from tests.lookup.watching import ON_THE_WAY, Lookups, outcomes
from tests.revocation.cluster import TIMEOUT, Cluster, running_cluster
from tests.revocation.releases import Setting

from celerymeter.control.live_workers import ALIVE
from celerymeter.demo.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]

IDS = (
    "任務-\N{PILE OF POO}",
    "a/b/../c",
    "50%",
    "what?x=1#y",
    '"quoted"',
    "back\\slash",
    "batches",
    "x" * 255,
    "'OR/**/1=1--",
)
SOON = {"visibility_timeout": 3, "unacked_restore_throttle": 1}


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One worker of two slots."""
    with running_cluster(tmp_path_factory.mktemp("odd"), Setting(request.param)) as cluster:
        cluster.worker("two@t", concurrency=2)
        yield cluster


@pytest.fixture
def lookups(cluster: Cluster) -> Lookups:
    """Look-ups on it."""
    return Lookups(cluster.control)


@pytest.mark.parametrize("task_id", IDS)
def test_an_odd_id(cluster: Cluster, lookups: Lookups, task_id: str) -> None:
    """Waiting, and when it has run."""
    cluster.send("tests.add", 1, 2, queue="nobody", task_id=task_id)
    assert lookups.becomes(task_id, "queued")["queue"] == "nobody"
    other = task_id[:-1] + "2"
    cluster.send("tests.add", 1, 2, queue="two", task_id=other)
    assert outcomes(lookups.becomes(other, "succeeded", before=ON_THE_WAY)) == [("two@t", "succeeded")]


def test_an_id_with_a_space_is_refused(cluster: Cluster) -> None:
    """With a reason."""
    response = cluster.control.get(f"/tasks/{quote('a b')}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert "none of them a space" in response.json()["detail"]


def test_a_group_and_a_chord(cluster: Cluster, lookups: Lookups) -> None:
    """A group is no task; a callback is not sent before its turn comes; members are found as any task."""
    add: Any = cluster.app.signature("tests.add", (1, 2), immutable=True).set(queue="two")
    hold = cluster.app.signature("tests.hold", (str(cluster.folder / "chord"),), immutable=True).set(queue="two")
    (cluster.folder / "chord").mkdir()
    sent = group([add, add.clone()], app=cluster.app).apply_async()
    for member in sent.results:
        lookups.becomes(member.id, "succeeded", before=ON_THE_WAY)
    assert lookups.look(sent.id)["verdict"] == "unknown"
    callback = cluster.app.signature("tests.add", (3, 4), immutable=True).set(queue="two")
    done = chord([add.clone(), hold], callback, app=cluster.app).apply_async()
    lookups.becomes(done.parent.results[1].id, "running", before=ON_THE_WAY)
    assert lookups.look(done.id)["verdict"] == "unknown"
    (cluster.folder / "chord" / "go").touch()
    lookups.becomes(done.id, "succeeded", before=ON_THE_WAY)
    del sent, done, member
    gc.collect()  # while the result backend is there, from which each unsubscribes


def test_revoked_by_a_stamp(cluster: Cluster, lookups: Lookups) -> None:
    """The worker discards it as one that is revoked by its id."""
    held = [cluster.hold("two") for _ in range(2)]
    cluster.app.control.revoke_by_stamped_headers({"tenant": "acme"}, reply=True, timeout=2)
    headers = {"stamped_headers": ["tenant"], "stamps": {"tenant": ["acme"]}, "tenant": ["acme"]}
    task_id = cluster.send("tests.add", 1, 2, queue="two", headers=headers)
    lookups.becomes(task_id, "reserved", before=ON_THE_WAY)
    for each in held:
        each.let_go()
    reply = lookups.becomes(task_id, "revoked", before=("reserved", "queued"))
    assert reply["runs"] == []


@pytest.mark.parametrize(
    ("name", "args", "verdicts"),
    [
        ("tests.ignore", (), {"unknown"}),
        ("tests.silent", (1, 2), {"succeeded"}),
        ("tests.overrun", (), {"failed"}),
        ("tests.reject_once", (), {"succeeded"}),
        ("tests.retry", (5,), {"failed"}),
        ("tests.nowhere", (), {"unknown", "failed", "rejected"}),
    ],
)
def test_an_unusual_end(
    cluster: Cluster, lookups: Lookups, name: str, args: tuple[int, ...], verdicts: set[str]
) -> None:
    """Ignored, silent, beyond its time limit, requeued, retried too often, not registered."""
    task_id = cluster.send(name, *args, queue="two")
    allowed = {*verdicts, *ON_THE_WAY, "unknown", "retrying", "rejected"}
    end, reply = time.monotonic() + TIMEOUT, lookups.look(task_id)
    quiet_since = time.monotonic()
    while time.monotonic() < end and not (reply["verdict"] in verdicts and time.monotonic() - quiet_since > 3):
        assert reply["verdict"] in allowed, reply
        time.sleep(0.5)
        reply = lookups.look(task_id)
    assert reply["verdict"] in verdicts, reply
    print(name, reply["verdict"], outcomes(reply), reply["sentence"]["en"])
    if name == "tests.overrun":
        assert reply["runs"][0]["exception"] == "TimeLimitExceeded"


def test_without_a_stored_result(cluster: Cluster, lookups: Lookups) -> None:
    """Its events are enough."""
    task_id = cluster.send("tests.add", 1, 2, queue="two", ignore_result=True)
    reply = lookups.becomes(task_id, "succeeded", before=ON_THE_WAY)
    assert outcomes(reply) == [("two@t", "succeeded")]
    assert cluster.state(task_id) == "PENDING"


def test_an_id_that_is_a_uuid_object_in_other_words(cluster: Cluster, lookups: Lookups) -> None:
    """Its text with capitals is another id; its usual text finds it."""
    if cluster.broker.url.startswith("amqp"):
        pytest.skip("pyamqp cannot send it")
    task_id = UUID(int=uuid4().int | 0xABCDEF)
    cluster.app.send_task("tests.add", (1, 2), queue="two", task_id=task_id)
    lookups.becomes(str(task_id), "succeeded", before=ON_THE_WAY)
    assert lookups.look(str(task_id).upper())["verdict"] == "unknown"


def test_a_worker_that_starts_again_with_the_same_name(cluster: Cluster, lookups: Lookups) -> None:
    """Another process answers: what the first one ran is lost at once, without waiting for its silence."""
    first = cluster.worker("again@t")
    held = cluster.hold("again")
    first.kill()
    cluster.worker("again@t")
    reply = lookups.becomes(held.id, "lost", before=("running",), worker="again@t")
    assert outcomes(reply) == [("again@t", "lost")]
    done = cluster.send("tests.add", 1, 2, queue="again")
    lookups.becomes(done, "succeeded", before=ON_THE_WAY)


def test_two_workers_of_one_name(cluster: Cluster, lookups: Lookups) -> None:
    """Only one of them can be asked at a time, so nothing is said to be lost while it runs."""
    if cluster.broker.url.startswith("amqp"):
        pytest.skip("RabbitMQ refuses the second: the queue of its name is exclusive")
    for _ in range(2):
        cluster.worker("same@t", queues=["same"])
    held = [cluster.hold("same", known="") for _ in range(2)]
    end = time.monotonic() + 15
    while time.monotonic() < end:
        for each in held:
            reply = lookups.look(each.id)
            assert reply["verdict"] in ("running", "unknown"), reply
        time.sleep(0.5)
    for each in held:
        each.let_go()
        lookups.becomes(each.id, "succeeded", before=("running",))


def test_a_visibility_timeout_that_is_too_short(cluster: Cluster, lookups: Lookups) -> None:
    """Redis delivers again what still runs: two runs at once, at two workers."""
    if cluster.broker.url.startswith("amqp"):
        pytest.skip("RabbitMQ has a time-out of 30 minutes instead, and closes the channel")
    for name in ("early@t", "later@t"):
        cluster.worker(name, queues=["short"], transport_options=SOON)
    task_id = cluster.send("tests.sleep_late", 40, queue="short")
    before = ("queued", "reserved", "running")
    reply = lookups.becomes(task_id, "ran_twice", before=before, timeout=2 * TIMEOUT)
    assert {worker for worker, _ in outcomes(reply)} == {"early@t", "later@t"}


def test_a_worker_without_heartbeats(cluster: Cluster, lookups: Lookups) -> None:
    """It answers, so what it runs is not lost however long it is not heard."""
    cluster.worker("mute@t", options=("--without-heartbeat",))
    held = cluster.hold("mute")
    end = time.monotonic() + ALIVE + 10
    while time.monotonic() < end:
        reply = lookups.look(held.id)
        assert (reply["verdict"], reply["worker"]) == ("running", "mute@t"), reply
        time.sleep(1)
    held.let_go()
    wait_until(lambda: lookups.look(held.id)["verdict"] == "succeeded", interval=0.5)
